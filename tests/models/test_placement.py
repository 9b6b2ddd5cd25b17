"""Models on disk: whole or absent, and the same on any mesh."""

import json
import shutil

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.models.placement import init_model, load_model, model_info, save_model
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

ONE = MeshConfig(data=8, fsdp=1, tensor=1)
CUT = MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model"
    save_model(path, model, {"tokenizer": "abc"})
    return path


def _same(a, b) -> bool:
    a, b = a.arrays(), b.arrays()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("mesh", [ONE, CUT])
def test_round_trip_is_bit_identical_on_any_mesh(model, saved, mesh):
    loaded = load_model(saved, make_mesh(mesh), ShardingRules())
    assert loaded.config == model.config
    assert _same(loaded, model)
    assert model_info(saved)["tokenizer"] == "abc"


def test_a_model_made_on_one_mesh_loads_onto_another(model, tmp_path):
    rules = ShardingRules()
    cut = init_model(model.config, 5, make_mesh(CUT), rules)
    assert _same(cut, init_model(model.config, 5, make_mesh(ONE), rules))
    save_model(tmp_path / "model", cut, {})
    other = make_mesh(MeshConfig(data=1, fsdp=1, tensor=8))
    assert _same(load_model(tmp_path / "model", other, rules), cut)


def test_saving_again_replaces_and_leaves_nothing_else(model, make_model, tmp_path):
    path = tmp_path / "model"
    save_model(path, model, {})
    other = make_model(seed=3)
    save_model(path, other, {})
    assert _same(load_model(path, make_mesh(), ShardingRules()), other)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_keeps_the_old_model_and_leaves_nothing_half_written(
    model, tmp_path, monkeypatch
):
    path = tmp_path / "model"
    save_model(path, model, {})
    with pytest.raises(TypeError):
        save_model(path, model, {"not json": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert _same(load_model(path, make_mesh(), ShardingRules()), model)


def test_a_missing_model_says_so(tmp_path):
    with pytest.raises(DataError, match="no ArkJAX model") as error:
        load_model(tmp_path / "nothing", make_mesh(), ShardingRules())
    assert str(tmp_path / "nothing") in _one_line(error)


def _copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def test_a_damaged_description_says_so(saved, tmp_path):
    path = _copy(saved, tmp_path)
    (path / "model.json").write_text('{"config": {"vocab')
    with pytest.raises(DataError) as error:
        load_model(path, make_mesh(), ShardingRules())
    _one_line(error)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"config": {"layers": 3}}', '{"config": 4}'])
def test_a_description_of_something_else_says_so(saved, tmp_path, content):
    path = _copy(saved, tmp_path)
    (path / "model.json").write_text(content)
    with pytest.raises(DataError) as error:
        load_model(path, make_mesh(), ShardingRules())
    assert "model.json" in _one_line(error)


def _files(path):
    return sorted(
        (p for p in (path / "weights").rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size
    )


def test_a_truncated_weight_file_says_so(saved, tmp_path):
    path = _copy(saved, tmp_path)
    largest = _files(path)[0]
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read") as error:
        load_model(path, make_mesh(), ShardingRules())
    assert str(path) in _one_line(error)


def test_a_flipped_byte_never_becomes_a_weight(model, saved, tmp_path):
    path = _copy(saved, tmp_path)
    largest = _files(path)[0]
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0x40
    largest.write_bytes(content)
    with pytest.raises(DataError) as error:
        load_model(path, make_mesh(), ShardingRules())
    _one_line(error)


def test_missing_weights_say_so(saved, tmp_path):
    path = _copy(saved, tmp_path)
    shutil.rmtree(path / "weights")
    with pytest.raises(DataError) as error:
        load_model(path, make_mesh(), ShardingRules())
    _one_line(error)


# Orbax drops the reads that it has not begun when one of them is refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "field, value", [("d_ff", 96), ("d_ff", 32), ("qk_norm", False), ("tie_embeddings", False)]
)
def test_weights_of_another_config_are_refused(saved, tmp_path, field, value):
    path = _copy(saved, tmp_path)
    info = json.loads((path / "model.json").read_text())
    info["config"][field] = value
    (path / "model.json").write_text(json.dumps(info))
    with pytest.raises(DataError) as error:
        load_model(path, make_mesh(), ShardingRules())
    _one_line(error)


def test_weights_lie_where_the_rules_say(saved):
    loaded = load_model(saved, make_mesh(CUT), ShardingRules())
    w = loaded.arrays()["layers_gate"]
    L, D, F = w.shape
    assert w.addressable_shards[0].data.shape == (L, D // 2, F // 2)
