"""A model, rows and a training loop small enough to be run a dozen times."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import pack
from arkjax.models.config import ModelConfig
from arkjax.models.placement import init_model
from arkjax.progress import Progress
from arkjax.sharding import MESH_AXES, ShardingRules
from arkjax.synthesis.examples import Example
from arkjax.training.loop import TrainConfig
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.supervised import train

MODEL = ModelConfig(
    vocab_size=32,
    d_model=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    d_ff=32,
    qk_norm=True,
)
CONFIG = TrainConfig(
    steps=6,
    batch_rows=8,
    chunk_tokens=64,
    log_every=1,
    checkpoint_every=2,
    optimizer=OptimizerConfig(2e-3, 2, 0.1, 0.9, 0.98, 0.1, 1.0),
)


class Interrupted(BaseException):
    """Stands in for Ctrl-C: nothing but the test expects it."""


class StopsAt(Progress):
    """A progress line under which the work is interrupted after some steps."""

    def __init__(self, step: int):
        super().__init__(enabled=False)
        self.left = step

    @contextlib.contextmanager
    def task(self, *_, **__):
        yield self

    def advance(self, n: int, note: str = "") -> None:
        self.left -= n
        if self.left == 0:
            raise Interrupted


def make_mesh(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of the first devices."""
    devices = jax.devices()[: data * fsdp * tensor]
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh((data, fsdp, tensor), MESH_AXES, axis_types=axis_types, devices=devices)


@pytest.fixture(scope="session")
def compiled_directory(tmp_path_factory) -> Path:
    """Where compiled functions are kept, so that the many runs here compile each only once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(compiled_directory):
    """Every call of `train` makes new functions: without a cache on disk each is compiled anew."""
    settings = {
        "jax_compilation_cache_dir": str(compiled_directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Of all lengths and weights; some hold words in mid-target that are not to be learned."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(40):
        prompt, target = rng.integers(1, 6), rng.integers(2, 12)
        shares = None
        if i % 3 == 0:
            shares = tuple(float(x) for x in rng.choice([0.0, 0.5, 1.0], target - 1)) + (1.0,)
        made.append(
            Example(
                tuple(rng.integers(1, 32, prompt).tolist()),
                tuple(rng.integers(1, 32, target).tolist()),
                float(rng.choice([0.25, 1.0, 3.0])),
                {"problem_id": f"p{i}"},
                shares,
            )
        )
    return made


@pytest.fixture(scope="session")
def rows(examples):
    """Packed so that devices get very different sums of weights."""
    packed = pack(examples, 24)
    assert packed.num_rows > CONFIG.batch_rows
    return packed


@pytest.fixture(scope="session")
def mesh_of():
    """A function that makes a mesh (data, fsdp, tensor)."""
    return make_mesh


@pytest.fixture(scope="session")
def model():
    """On the first device."""
    return init_model(MODEL, 0, make_mesh(), ShardingRules())


@pytest.fixture(scope="session")
def fit(rows, model):
    """A function that trains the model and returns its weights as NumPy arrays."""

    def fit(directory: Path, **changes) -> dict[str, np.ndarray]:
        config = {
            f.name: changes.pop(f.name) for f in dataclasses.fields(CONFIG) if f.name in changes
        }
        settings = {
            "model": model,
            "rows": rows,
            "objective": Objective(),
            "seed": 3,
            "mesh": make_mesh(),
            "rules": ShardingRules(),
            "progress": Progress(enabled=False),
            "name": "pupil",
            **changes,
        }
        rows_, objective = settings.pop("rows"), settings.pop("objective")
        config = dataclasses.replace(CONFIG, **config)
        trained = train(settings.pop("model"), rows_, objective, config, directory, **settings)
        return {name: np.asarray(array) for name, array in trained.arrays().items()}

    return fit


@pytest.fixture(scope="session")
def undisturbed(fit, tmp_path_factory):
    """(weights, directory) of a run that nothing interrupts."""
    directory = tmp_path_factory.mktemp("undisturbed")
    return fit(directory), directory


@pytest.fixture(scope="session")
def stops_at():
    """A progress line that raises `stops_at.error` after so many steps."""

    def make(step: int) -> StopsAt:
        return StopsAt(step)

    make.error = Interrupted
    return make


@pytest.fixture(scope="session")
def training_config() -> TrainConfig:
    """How `fit` trains."""
    return CONFIG
