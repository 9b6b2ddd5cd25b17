"""Adapters in files: what `peft` makes of ours, and what we make of its."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import Lora
from arkjax.models.huggingface.peft import export_peft, import_peft
from arkjax.models.huggingface.reading import load_hf
from arkjax.models.lora import trainable
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sharding import MESH_AXES, ShardingRules

GOLDEN = Path(__file__).parents[2] / "golden" / "models"
ALL = Lora(rank=3, alpha=5.0)
ATTENTION = Lora(rank=2, alpha=1.5, targets=("q", "k", "v", "o"))
# Plain; with biases; with experts and norms of heads; with norms behind, windows and scales.
CASES = {"llama3": ALL, "qwen2": ALL, "qwen3_moe": ATTENTION, "gemma3": ALL}


def learned(model: Transformer, lora: Lora) -> Transformer:
    """With adapters that have learned something; drawn by NumPy, which compiles nothing."""
    config = dataclasses.replace(model.config, lora=lora)
    rng, specs = np.random.default_rng(1), weight_specs(config)
    adapters = {
        name: jnp.asarray(rng.normal(0, 0.15, specs[name].shape), jnp.float32)
        for name in sorted(trainable(config))
    }
    return Transformer(config, model.arrays() | adapters)


@pytest.fixture(scope="module")
def peft(transformers):
    """With ARKJAX_PARITY=1 its absence is a failure."""
    if os.environ.get("ARKJAX_PARITY") == "1":
        import peft

        return peft
    return pytest.importorskip("peft")


@pytest.fixture
def exported(make_model, tmp_path):
    """A model with adapters of two matrices, and its folder."""
    model = learned(make_model(), Lora(2, 3.0, ("q", "down")))
    export_peft(model, tmp_path / "adapter", "somebody/base")
    return model, tmp_path / "adapter"


def bare(model: Transformer) -> Transformer:
    weights = {n: a for n, a in model.arrays().items() if "_lora_" not in n}
    return Transformer(dataclasses.replace(model.config, lora=None), weights)


def assert_same(ours: Transformer, theirs: Transformer) -> None:
    assert ours.config == theirs.config
    for name, array in ours.arrays().items():
        np.testing.assert_array_equal(array, theirs.arrays()[name], err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_peft_reads_our_adapters_and_gives_our_logits(peft, transformers, name, tmp_path):
    import torch

    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES)
    base = load_hf(GOLDEN / name / "checkpoint", one, ShardingRules(), dtype="float32")
    model = learned(base, CASES[name])
    export_peft(model, tmp_path / "adapter", str(GOLDEN / name / "checkpoint"))
    tokens = np.random.default_rng(0).integers(3, base.config.vocab_size, (2, 40), np.int32)

    @jax.jit
    def read(weights):
        reader = Transformer(model.config, weights)
        positions = jnp.broadcast_to(jnp.arange(40)[None], tokens.shape)
        return reader.logits(reader(tokens, positions, jnp.ones_like(tokens)))

    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        GOLDEN / name / "checkpoint", dtype=torch.float32, experts_implementation="eager"
    )
    ids = torch.tensor(tokens, dtype=torch.long)
    with torch.no_grad():
        before = theirs.eval()(ids).logits.numpy()
        adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
        after = adapted(ids).logits.numpy()
    assert np.abs(after - before).max() > 0.1
    # Both sides compute in fp32, in other orders.
    np.testing.assert_allclose(np.asarray(read(model.arrays())), after, rtol=0, atol=2e-4)
    # And back again from what peft itself writes.
    adapted.save_pretrained(tmp_path / "again")
    assert_same(import_peft(base, tmp_path / "again"), model)


def test_adapters_come_back_from_their_folder_onto_any_mesh(exported):
    model, folder = exported
    base = bare(model)
    assert_same(import_peft(base, folder), model)
    devices = np.array(jax.devices()[:8]).reshape(2, 2, 2)
    mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    places = shardings(base.config, mesh, ShardingRules())
    placed = Transformer(base.config, jax.device_put(base.arrays(), places), mesh)
    loaded = import_peft(placed, folder)
    assert_same(loaded, model)
    assert loaded.arrays()["layers_q_lora_b"].sharding.spec[1] == "tensor"


def test_a_folder_says_what_peft_must_know(exported):
    model, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    about = json.loads((folder / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == "somebody/base"
    assert (about["r"], about["lora_alpha"]) == (2, 3)
    assert about["target_modules"] == ["down_proj", "q_proj"]


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_their_rank(exported):
    model, folder = exported
    _edit(folder, use_rslora=True)
    # alpha / sqrt(r), arXiv 2312.03732.
    assert import_peft(bare(model), folder).config.lora.scale == pytest.approx(3.0 / 2**0.5)


def _edit(folder: Path, **fields) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"init_lora_weights": "pissa"},
        {"invented_tomorrow": {"x": 1}},
        {"r": "2"},
        {"r": -1},
        {"r": 4},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
    ],
)
def test_adapters_of_another_kind_are_refused(exported, fields):
    model, folder = exported
    _edit(folder, **fields)
    with pytest.raises(DataError) as error:
        import_peft(bare(model), folder)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message


def test_adapters_of_another_base_are_refused(exported, make_model, tmp_path):
    _, folder = exported
    with pytest.raises(DataError, match=r"lora_A.weight is F32 \[2, 32\], expected .*\[2, 24\]"):
        import_peft(make_model(d_model=24), folder)
    with pytest.raises(DataError, match=r"layers.2.* is missing \(4 such\)"):
        import_peft(make_model(num_layers=3), folder)
    with pytest.raises(DataError, match=r"layers.1.* belongs to no matrix of the model \(4 such\)"):
        import_peft(make_model(num_layers=1), folder)


def test_damaged_and_missing_files_are_named(exported):
    model, folder = exported
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(DataError, match="adapter_model.safetensors"):
        import_peft(bare(model), folder)
    weights.unlink()
    with pytest.raises(DataError, match="adapter_model.safetensors"):
        import_peft(bare(model), folder)
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(DataError, match="adapter_config.json"):
        import_peft(bare(model), folder)


def test_only_models_with_adapters_are_written_and_without_are_given_some(exported, tmp_path):
    model, folder = exported
    with pytest.raises(ConfigError, match="no adapters: add them with `add_lora`"):
        export_peft(bare(model), tmp_path / "none", "base")
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="merge_lora"):
        import_peft(model, folder)
