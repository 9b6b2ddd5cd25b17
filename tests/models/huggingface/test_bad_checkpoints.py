"""Checkpoints that are damaged, incomplete or of another kind: each gets one line that says so.

All of it is found before any tensor is read: `read_checkpoint` reads headers only.
"""

import json
import os
import shutil

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.models.huggingface.reading import load_hf, read_checkpoint
from arkjax.models.huggingface.safetensors_files import read_header
from arkjax.sharding import ShardingRules, make_mesh

from .checkpoints import GOLDEN, read_folder, write_file

pytestmark = pytest.mark.fast

SOURCE = GOLDEN / "qwen3" / "checkpoint"
INDEX = "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint in two files and an index."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.copyfile(SOURCE / "config.json", folder / "config.json")
    tensors = read_folder(SOURCE)
    names, weight_map = sorted(tensors), {}
    for i, part in enumerate((names[:9], names[9:]), start=1):
        file = f"model-{i:05d}-of-00002.safetensors"
        write_file(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture
def single(tmp_path):
    """A function that writes a checkpoint of one file, from changed tensors."""

    def write(tensors, change=None):
        folder = tmp_path / "single"
        folder.mkdir()
        shutil.copyfile(SOURCE / "config.json", folder / "config.json")
        write_file(folder / "model.safetensors", tensors, change)
        return folder

    return write


def _refused(folder, *words: str) -> str:
    before = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else None
    with pytest.raises(DataError) as error:
        read_checkpoint(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 1200
    for word in (str(folder), *words):
        assert word in message, message
    if before is not None:
        assert sorted(path.name for path in folder.iterdir()) == before
    return message


def _shards(folder):
    return sorted(folder.glob("*.safetensors"))


# --- tensors -------------------------------------------------------------------------------------


def test_a_missing_tensor_is_named_with_the_nearest(single):
    tensors = read_folder(SOURCE)
    tensors["model.layers.1.mlp.up_projection.weight"] = tensors.pop(UP)
    message = _refused(single(tensors), f"missing {UP}", f"nearest to {UP}")
    assert "unexpected model.layers.1.mlp.up_projection.weight" in message


def test_many_missing_tensors_are_counted(single):
    tensors = {n: t for n, t in read_folder(SOURCE).items() if ".layers.1." not in n}
    assert "and 8 more" in _refused(single(tensors), "missing model.layers.1.input_layernorm")


def test_an_extra_tensor_is_named_with_the_nearest(single):
    extra = {"model.layers.0.self_attn.q_proj.bias": np.zeros(4, np.float32)}
    nearest = "nearest to model.layers.0.self_attn.q_proj.bias: model.layers.0.self_attn.q_proj"
    _refused(single(read_folder(SOURCE) | extra), "unexpected", nearest)


def test_layers_beyond_the_config_are_extra(folder):
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 1}
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    _refused(folder, "unexpected model.layers.1.input_layernorm.weight", "and 8 more")


def test_an_absurd_number_of_layers_is_no_work(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 4096, "architectures": ["Qwen3MoeForCausalLM"]}
    config |= {"num_experts": 100_000, "num_experts_per_tok": 1, "moe_intermediate_size": 4}
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    _refused(folder, "missing model.layers.0.mlp.gate.weight", "more")


def test_a_wrong_shape_is_named_with_the_right_one(single):
    tensors = read_folder(SOURCE)
    tensors[UP] = np.ascontiguousarray(tensors[UP].T)
    F, D = read_folder(SOURCE)[UP].shape
    _refused(single(tensors), UP, "model.safetensors", f"has shape [{D}, {F}], expected [{F}, {D}]")


@pytest.mark.parametrize(
    ("code", "width"), [("F64", 8), ("I32", 4), ("F8_E4M3", 1), ("I8", 1), ("BOOL", 1), ("X9", 1)]
)
def test_other_dtypes_are_refused(single, code, width):
    tensors = read_folder(SOURCE)
    shape = tensors[UP].shape
    tensors[UP] = np.zeros(np.prod(shape) * width // 4, np.float32)
    folder = single(tensors, lambda header: header[UP].update(dtype=code, shape=list(shape)))
    _refused(folder, UP, f"is {code}", "F32, BF16, F16", "not quantized")


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1, -100])
def test_a_truncated_file_is_refused(folder, keep):
    file = _shards(folder)[0]
    file.write_bytes(file.read_bytes()[:keep])
    _refused(folder, file.name, "whole safetensors file", "download it again")


def test_a_file_that_goes_on_is_refused(folder):
    file = _shards(folder)[1]
    file.write_bytes(file.read_bytes() + b"more")
    _refused(folder, file.name, "4 bytes follow")


def _with_header(file, text: bytes, length: int | None = None) -> None:
    file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (b"\xff" * 100, None),
        (b"[1, 2]", None),
        (b"{}", 2**63),
        (b"{}", 99_000_000),
        (b'{"a": ', None),
        (b'{"a": 1}', None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, -4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}abcd', 62),
        (b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 4]}}', None),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, %s]}}' % (b"9" * 5000), None),
        (b'{"a":' * 3000, None),
    ],
)
def test_a_corrupt_header_is_refused(folder, text, length):
    file = _shards(folder)[0]
    _with_header(file, text, length)
    _refused(folder, file.name, "safetensors")


def test_random_bytes_are_refused(folder):
    file = _shards(folder)[0]
    for seed in range(20):
        file.write_bytes(np.random.default_rng(seed).bytes(3000))
        _refused(folder, file.name)


@pytest.mark.parametrize("shift", [-4, 4])
def test_tensors_that_overlap_or_leave_gaps_are_refused(single, shift):
    def change(header):
        for entry in header.values():
            if entry["data_offsets"][0] > 0:
                entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]

    folder = single(read_folder(SOURCE), change)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes() + bytes(shift) if shift > 0 else file.read_bytes()[:shift])
    _refused(folder, "overlaps" if shift < 0 else "gap")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "pickle"),
    ],
)
def test_files_of_another_kind_are_told_apart(folder, content, said):
    file = _shards(folder)[0]
    file.write_bytes(content)
    _refused(folder, file.name, said)


def test_a_file_that_is_a_folder_says_so(folder):
    file = _shards(folder)[0]
    file.unlink()
    file.mkdir()
    _refused(folder, file.name, "cannot read")


# --- the index -----------------------------------------------------------------------------------


def _change_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_a_shard_that_is_not_there_is_named(folder):
    file = _shards(folder)[1]
    file.unlink()
    _refused(folder, INDEX, file.name, "not there")


def test_a_tensor_in_two_shards_is_named(folder):
    first, second = _shards(folder)
    tensors = read_folder(folder)
    write_file(second, {"model.norm.weight": tensors["model.norm.weight"]})
    write_file(first, tensors)
    _refused(folder, "model.norm.weight", first.name, second.name)


def test_an_index_that_names_another_shard_is_refused(folder):
    first, second = (file.name for file in _shards(folder))
    where = json.loads((folder / INDEX).read_text())["weight_map"][UP]
    other = {first: second, second: first}[where]
    _change_index(folder, lambda weight_map: weight_map.update({UP: other}))
    _refused(folder, INDEX, UP, f"in {other}, but it is in {where}")


def test_a_tensor_that_only_the_index_knows_is_refused(folder):
    file = _shards(folder)[0].name
    _change_index(folder, lambda weight_map: weight_map.update({"ghost": file}))
    _refused(folder, INDEX, "ghost", "in no shard")


def test_a_tensor_that_the_index_does_not_know_is_refused(folder):
    _change_index(folder, lambda weight_map: weight_map.pop(UP))
    _refused(folder, INDEX, UP, "in no shard")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a.bin", 7])
def test_an_index_names_files_beside_it_only(folder, shard):
    _change_index(folder, lambda weight_map: weight_map.update({UP: shard}))
    _refused(folder, INDEX, "expected a file beside it")


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": [1]}', '{"weight_map": {}}', '{"a": 1'])
def test_a_damaged_index_is_refused(folder, text):
    (folder / INDEX).write_text(text)
    _refused(folder, INDEX)


# --- the folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[1]", '"x"', '{"architectures": ["Qwen3', "\udcff", "nul"])
def test_a_damaged_config_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    _refused(folder, "config.json")


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    _refused(folder, "config.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_never_loaded(tmp_path, name):
    marker = tmp_path / "ran"
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copyfile(SOURCE / "config.json", folder / "config.json")
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(marker))
    _refused(folder, name, "safe_serialization=True")
    assert not marker.exists()


def test_an_adapter_alone_is_told_apart(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    _refused(tmp_path, "PEFT adapter")


def test_an_empty_folder_and_none_are_told_apart(tmp_path):
    _refused(tmp_path, "no weights")
    (tmp_path / "other.gguf").touch()
    _refused(tmp_path, "other.gguf")
    _refused(tmp_path / "nothing", "no checkpoint")


def test_checking_reads_no_tensor(folder, monkeypatch):
    """Reading one would fail here; a checkpoint that does not fit is refused before that."""
    monkeypatch.delattr(os, "preadv")
    checkpoint = read_checkpoint(folder)
    with pytest.raises(AttributeError, match="preadv"):
        load_hf(folder, make_mesh(), ShardingRules())
    assert checkpoint.config.num_layers == 2
    _change_index(folder, lambda weight_map: weight_map.pop(UP))
    with pytest.raises(DataError, match=UP):
        load_hf(folder, make_mesh(), ShardingRules())


def test_a_header_says_how_large_a_tensor_is_and_nothing_more_is_read(folder):
    file = _shards(folder)[0]
    entry = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    text = json.dumps({"a": entry}).encode()
    _with_header(file, text)
    _refused(folder, file.name, "cut off")
    with file.open("r+b") as handle:
        try:
            handle.truncate(8 + len(text) + 2**42)  # a hole, which takes no disk
        except OSError:
            pytest.skip("the file system holds no file of 4 TiB")
    assert read_header(file)["a"].size == 2**42
