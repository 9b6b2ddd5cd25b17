"""A decoder small enough to be compiled many times, and one tiny model of each family."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from arkjax.models.config import ModelConfig
from arkjax.models.huggingface.reading import load_hf
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sharding import MESH_AXES, ShardingRules

TINY = ModelConfig(
    vocab_size=48,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    qk_norm=True,
)


@pytest.fixture(scope="session")
def make_model():
    """A function that makes a tiny model, with some fields of its config replaced."""

    def make(seed: int = 0, **changes) -> Transformer:
        config = dataclasses.replace(TINY, **changes)
        rng = np.random.default_rng(seed)
        # As `init_weights`, but drawn by NumPy: that compiles nothing.
        weights = {
            name: jax.numpy.asarray(
                rng.normal(0, spec.fan_in**-0.5, spec.shape)
                if spec.fan_in
                else np.full(spec.shape, spec.constant),
                config.param_dtype,
            )
            for name, spec in weight_specs(config).items()
        }
        return Transformer(config, weights)

    return make


@pytest.fixture(scope="session")
def model(make_model) -> Transformer:
    return make_model()


@pytest.fixture
def tokens() -> np.ndarray:
    """[3, 12] int32."""
    return np.random.default_rng(0).integers(1, TINY.vocab_size, (3, 12), dtype=np.int32)


@pytest.fixture(scope="session")
def read():
    """A function that reads whole sequences: hidden states [B, T, D] of tokens [B, T]."""

    def hidden(model: Transformer, tokens: np.ndarray, segments=None) -> np.ndarray:
        tokens = np.asarray(tokens, np.int32)
        if segments is None:
            segments = np.ones_like(tokens)
        # Counted anew where another segment begins.
        starts = np.concatenate([segments[:, :1] * 0 + 1, np.diff(segments, axis=1) != 0], axis=1)
        index = np.arange(tokens.shape[1], dtype=np.int32)[None]
        positions = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
        return np.asarray(_hidden(model.config, model.arrays(), tokens, positions, segments))

    return hidden


@functools.partial(jax.jit, static_argnums=0)
def _hidden(config, weights, tokens, positions, segments):
    return Transformer(config, weights)(tokens, positions, segments)


# --- the families ---------------------------------------------------------------------------------

_GOLDEN = Path(__file__).parents[1] / "golden"
_FAMILIES = sorted(folder.name for folder in (_GOLDEN / "models").iterdir())
# Added to the names of the golden files' cases to seed other weights and texts.
_LIVE_SEED = 1_000_003


class Reading(NamedTuple):
    """What our model makes of the texts: logits [rows, T, V], numbers, gradients by name."""

    loss: np.ndarray
    balance_loss: np.ndarray
    logits: np.ndarray
    gradients: dict[str, np.ndarray]


class Family(NamedTuple):
    """One model in both implementations.

    Attributes:
      folder: written by `tests/golden/write_models.py`.
      golden: texts, and what transformers made of them.
      gradients: those of transformers, by our names.
      model: ours, with the same weights.
      reading: of the same texts.
    """

    folder: Path
    golden: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    model: Transformer
    reading: Reading

    def kinds(self) -> dict[str, np.ndarray]:
        """Masks [rows, T] of the tokens in whole, padded and packed rows."""
        used = self.golden["segments"] > 0
        packed = (self.golden["segments"] > 1).any(axis=1)
        plain = used.all(axis=1)
        rows = {"plain": plain, "padded": ~plain & ~packed, "packed": packed}
        return {kind: used & chosen[:, None] for kind, chosen in rows.items()}


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """The reference implementation. With ARKJAX_PARITY=1 its absence is a failure."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        if os.environ.get("ARKJAX_PARITY") == "1":
            pytest.fail(f"ARKJAX_PARITY=1 and {error.name} cannot be imported: {error}")
        pytest.skip(f"{error.name} is not installed (extra: parity)")
    return transformers


@pytest.fixture(scope="session")
def write_models(transformers) -> ModuleType:
    """The script that writes the golden files."""
    spec = importlib.util.spec_from_file_location("write_models", _GOLDEN / "write_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(_FAMILIES) == set(module.CASES)
    return module


@pytest.fixture(scope="session")
def load_float32() -> Callable[[Path, Mesh], Transformer]:
    """A function that loads a checkpoint onto a mesh, to compute and to be trained in float32."""

    def load(folder: Path, mesh: Mesh) -> Transformer:
        model = load_hf(folder, mesh, ShardingRules())
        config = dataclasses.replace(model.config, dtype="float32", param_dtype="float32")
        weights = {name: w.astype(jnp.float32) for name, w in model.arrays().items()}
        return Transformer(config, weights, mesh)

    return load


@pytest.fixture(scope="session")
def read_texts() -> Callable[..., Reading]:
    """A function that reads the texts of a golden file with a model, on the mesh it lies on."""

    def read(model: Transformer, tokens: np.ndarray, segments: np.ndarray) -> Reading:
        reading = _read_texts(model.config, model.mesh, model.arrays(), tokens, segments)
        return jax.tree.map(np.asarray, reading)

    return read


# LLVM takes longer to make this fast than it then runs.
@functools.partial(
    jax.jit, static_argnums=(0, 1), compiler_options={"xla_backend_optimization_level": 0}
)
def _read_texts(config, mesh, weights, tokens, segments) -> Reading:
    T = tokens.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    # Tokens of the same segment before each.
    positions = (same & jnp.tri(T, k=-1, dtype=bool)[None]).sum(axis=2, dtype=jnp.int32)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)

    def loss(weights):
        model = Transformer(config, weights, mesh)
        hidden, balance = model.forward(tokens, positions, segments)
        logits = model.logits(hidden)
        logprobs = jax.nn.log_softmax(logits[:, :-1])
        nll = -jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=2)[:, :, 0]
        return (nll * follows).sum() / follows.sum() + balance, (balance, logits)

    (value, (balance, logits)), gradients = jax.value_and_grad(loss, has_aux=True)(weights)
    return Reading(value, balance, logits, gradients)


@pytest.fixture(scope="session")
def open_family(
    request, tmp_path_factory, load_float32, read_texts
) -> Callable[[str, str], Family]:
    """A function that opens a family by its source, "golden" or "live", and its name."""
    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES)

    @functools.cache
    def open_(source: str, name: str) -> Family:
        folder = _GOLDEN / "models" / name
        if source == "live":
            script = request.getfixturevalue("write_models")
            folder = tmp_path_factory.mktemp(name)
            script.write(script.CASES[name], folder, _LIVE_SEED + _FAMILIES.index(name))
        with np.load(folder / "golden.npz") as file:
            golden = dict(file)
        model = load_float32(folder / "checkpoint", one)
        gradients = load_float32(folder / "gradients", one)
        reading = read_texts(model, golden["tokens"], golden["segments"])
        theirs = {name: np.asarray(array) for name, array in gradients.arrays().items()}
        return Family(folder, golden, theirs, model, reading)

    return open_


@pytest.fixture(scope="session", params=_FAMILIES)
def family_name(request) -> str:
    return request.param


@pytest.fixture(scope="session", params=["golden", "live"])
def family(request, family_name, open_family) -> Family:
    """Every family: from the golden files, then live with other weights and texts."""
    return open_family(request.param, family_name)


@pytest.fixture(scope="session")
def golden_family(family_name, open_family) -> Family:
    """Every family, as the golden files hold it."""
    return open_family("golden", family_name)
