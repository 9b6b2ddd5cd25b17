"""Published checkpoints, written: what was read comes back bit by bit, and others can load it."""

import dataclasses
import io
import json
import logging
import os
import resource
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

from arkjax.errors import ConfigError, DataError, StorageError
from arkjax.models.config import Lora
from arkjax.models.huggingface.reading import load_checkpoint, load_hf, read_checkpoint
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.placement import load_model, model_files, model_info, save_model
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

from .checkpoints import FAMILIES, GOLDEN, assert_same, read_file, read_folder, write_file

CUT = MeshConfig(data=2, fsdp=2, tensor=2)
INDEX = "model.safetensors.index.json"


def _config(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


def _load(folder):
    checkpoint = read_checkpoint(folder)
    return checkpoint, load_checkpoint(checkpoint, make_mesh(CUT), ShardingRules())


@pytest.mark.parametrize("name", FAMILIES)
def test_import_and_export_give_every_bit_back(name, tmp_path):
    source = GOLDEN / name / "checkpoint"
    checkpoint, model = _load(source)
    written = export_hf(model, tmp_path / "out", info={"hf": checkpoint.hf}, max_shard_bytes=15_000)
    assert_same(read_folder(tmp_path / "out"), read_folder(source))
    assert written.architecture == _config(source)["architectures"][0]
    again = read_checkpoint(tmp_path / "out")
    assert (again.config, again.hf) == (checkpoint.config, checkpoint.hf)


@pytest.mark.parametrize("name", ["gemma3", "qwen3_moe"])
def test_a_model_of_ours_in_between_changes_no_bit(name, tmp_path):
    source = GOLDEN / name / "checkpoint"
    checkpoint, model = _load(source)
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    files = {"tokenizer.json": tokenizer, "additional_chat_templates/tools.jinja": tokenizer}
    save_model(tmp_path / "model", model, {"hf": checkpoint.hf, "tokenizer": "abc"}, files)
    opened = load_model(tmp_path / "model", make_mesh(), ShardingRules())
    assert opened.config == model.config
    info, kept = model_info(tmp_path / "model"), model_files(tmp_path / "model")
    assert info["tokenizer"] == "abc"
    export_hf(opened, tmp_path / "out", info=info, tokenizer_files=kept)
    assert_same(read_folder(tmp_path / "out"), read_folder(source))
    assert read_checkpoint(tmp_path / "out").hf == checkpoint.hf
    assert (tmp_path / "out" / "additional_chat_templates" / "tools.jinja").read_text() == "{}"
    (tmp_path / "model" / "tokenizer" / "tokenizer.json").write_text("{ }")
    with pytest.raises(DataError, match="tokenizer/tokenizer.json is damaged"):
        load_model(tmp_path / "model", make_mesh(), ShardingRules())


def test_dtypes_that_differ_come_back(tmp_path):
    """Between weights, between the layers of one weight, and a tied head that was stored."""
    tensors = read_folder(GOLDEN / "qwen3" / "checkpoint")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float32)
    mixed = "model.layers.1.mlp.up_proj.weight"
    tensors[mixed] = (tensors[mixed].astype(np.float32) * 0.1).astype(np.float16)
    source = tmp_path / "source"
    source.mkdir()
    write_file(source / "model.safetensors", tensors)
    (source / "config.json").write_text(json.dumps(_config(GOLDEN / "qwen3" / "checkpoint")))
    checkpoint, model = _load(source)
    save_model(tmp_path / "model", model, {"hf": checkpoint.hf})
    opened = load_model(tmp_path / "model", make_mesh(CUT), ShardingRules())
    info = model_info(tmp_path / "model")
    export_hf(opened, tmp_path / "out", info=info)
    assert_same(read_folder(tmp_path / "out"), tensors)
    # Values that have changed since are written as they are.
    weights = opened.arrays()
    weights["layers_up"] = weights["layers_up"] + 1e-6
    export_hf(Transformer(opened.config, weights), tmp_path / "out", info=info)
    trained = read_folder(tmp_path / "out")
    assert trained[mixed].dtype == np.float32
    np.testing.assert_array_equal(trained[mixed], np.asarray(weights["layers_up"])[1])


def test_a_damaged_dtype_is_refused(model, tmp_path):
    save_model(tmp_path / "model", model, {})
    path = tmp_path / "model" / "model.json"
    info = json.loads(path.read_text())
    info["dtypes"]["layers_q"] = "int8"
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match="layers_q is said to be int8"):
        load_model(tmp_path / "model", make_mesh(), ShardingRules())


# --- models that were made here ------------------------------------------------------------------


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_scaled_embeddings_are_folded_and_the_logits_stay(
    make_model, tokens, read, tmp_path, qk_norm, tie_embeddings
):
    model = make_model(qk_norm=qk_norm, tie_embeddings=tie_embeddings)
    written = export_hf(model, tmp_path / "out")
    assert written.architecture == f"{'Qwen3' if qk_norm else 'Llama'}ForCausalLM"
    loaded = load_hf(tmp_path / "out", make_mesh(MeshConfig(8, 1, 1)), ShardingRules())
    assert not loaded.config.scale_embeddings and not loaded.config.tie_embeddings
    # The same products in the same order: not one bit differs.
    expected = model.logits(read(model, tokens))
    np.testing.assert_array_equal(loaded.logits(read(loaded, tokens)), expected)


def test_a_model_with_adapters_is_refused(make_model, tmp_path):
    model = make_model(lora=Lora(rank=2, alpha=4.0))
    with pytest.raises(ConfigError, match="merge_lora"):
        export_hf(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_no_family_can_express_is_refused(make_model, tmp_path):
    with pytest.raises(DataError, match="qkv_bias"):
        export_hf(make_model(qkv_bias=True), tmp_path / "out")
    assert not list(tmp_path.iterdir())


# --- files ---------------------------------------------------------------------------------------


def test_one_file_or_several_with_an_index(model, tmp_path):
    assert export_hf(model, tmp_path / "out").files == ("model.safetensors",)
    whole = read_file(tmp_path / "out" / "model.safetensors")
    assert not (tmp_path / "out" / INDEX).exists()
    largest = max(values.nbytes for values in whole.values())
    most = 2 * largest
    written = export_hf(model, tmp_path / "out", max_shard_bytes=most)
    count = len(written.files)
    assert count > 2
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(values.nbytes for values in whole.values())
    for i, file in enumerate(written.files, start=1):
        assert file == f"model-{i:05d}-of-{count:05d}.safetensors"
        found = read_file(tmp_path / "out" / file)
        assert sum(values.nbytes for values in found.values()) <= most
        assert all(index["weight_map"][name] == file for name in found)
    assert_same(read_folder(tmp_path / "out"), whole)
    assert len(export_hf(model, tmp_path / "out", max_shard_bytes=1).files) == len(whole)


def test_data_begins_where_any_reader_can_map_it(make_model, tmp_path):
    model = make_model(param_dtype="bfloat16")
    weights = model.arrays()
    weights["final_norm"] = weights["final_norm"].astype("float32")
    export_hf(Transformer(model.config, weights), tmp_path / "out")
    content = (tmp_path / "out" / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert (8 + length) % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt"}
    width = {"F32": 4, "BF16": 2}
    assert all(e["data_offsets"][0] % width[e["dtype"]] == 0 for e in header.values())
    assert header["model.norm.weight"]["dtype"] == "F32"
    assert _config(tmp_path / "out")["torch_dtype"] == "bfloat16"


def test_token_ids_go_where_generation_looks_for_them(model, tmp_path):
    info = {"hf": {"config": {"eos_token_id": [2, 7], "bos_token_id": 1}}}
    export_hf(model, tmp_path / "out", info=info, card="# A model\n")
    assert _config(tmp_path / "out")["eos_token_id"] == [2, 7]
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 7] and generation["bos_token_id"] == 1
    assert (tmp_path / "out" / "README.md").read_text() == "# A model\n"
    own = tmp_path / "generation_config.json"
    own.write_text('{"temperature": 0.6}')
    export_hf(model, tmp_path / "out", info=info, tokenizer_files={own.name: own})
    assert (tmp_path / "out" / own.name).read_text() == '{"temperature": 0.6}'
    assert not (tmp_path / "out" / "README.md").exists()


def test_progress_counts_megabytes(model, tmp_path):
    stream = io.StringIO()
    export_hf(model, tmp_path / "out", progress=Progress(stream=stream))
    assert stream.getvalue().startswith("write out: 1/1 MB")


def test_only_exports_are_replaced_unasked(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_hf(model, out)
    export_hf(model, out)
    (out / "arkjax.json").unlink()
    (out / "mine.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="overwrite it with --overwrite") as error:
        export_hf(model, out)
    assert str(out) in str(error.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_hf(model, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError):
        export_hf(model, file)


def test_a_full_disk_leaves_what_was_there(model, make_model, tmp_path):
    export_hf(model, tmp_path / "out")
    before = read_folder(tmp_path / "out")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="larger than"):
            export_hf(make_model(seed=1), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_same(read_folder(tmp_path / "out"), before)


# --- several processes, and other libraries ------------------------------------------------------

_PROCESS = """
import os, sys
import jax
jax.distributed.initialize(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
from arkjax.models.huggingface.reading import load_checkpoint, read_checkpoint
from arkjax.models.huggingface.writing import export_hf
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
checkpoint = read_checkpoint(sys.argv[3])
rules = ShardingRules(embed=None, heads="fsdp", kv_heads="fsdp", mlp="fsdp", vocab="fsdp")
read, preadv = 0, os.preadv
def counted(*arguments):
    global read
    got = preadv(*arguments)
    read += got
    return got
os.preadv = counted
model = load_checkpoint(checkpoint, make_mesh(MeshConfig(1, 2, 2)), rules)
export_hf(model, sys.argv[4], info={"hf": checkpoint.hf}, max_shard_bytes=15_000)
print(read)
"""


@pytest.mark.slow
def test_two_processes_read_their_parts_and_write_one_checkpoint(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    source = GOLDEN / "llama3" / "checkpoint"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(port), str(i), str(source), str(tmp_path / "out")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        results = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
    tensors = read_folder(source)
    assert_same(read_folder(tmp_path / "out"), tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    size = sum(values.nbytes for values in tensors.values())
    for out, _ in results:
        # Half of what is divided, the columns of two weights and the norms whole.
        assert int(out.split()[-1]) < 0.85 * size


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_loads_what_is_written_without_a_word(name, transformers, tmp_path):
    source = GOLDEN / name / "checkpoint"
    checkpoint, model = _load(source)
    export_hf(model, tmp_path / "out", info={"hf": checkpoint.hf}, max_shard_bytes=15_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source)
    heard = _Heard()
    logger = logging.getLogger("transformers")
    logger.addHandler(heard)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours, loading = transformers.AutoModelForCausalLM.from_pretrained(
                tmp_path / "out", output_loading_info=True
            )
    finally:
        logger.removeHandler(heard)
    assert not heard.messages
    assert not any(loading.values())
    # Equal parameters, and a config that says the same in every field.
    expected = theirs.state_dict()
    assert expected.keys() == ours.state_dict().keys()
    for key, values in ours.state_dict().items():
        assert values.dtype == expected[key].dtype and bool((values == expected[key]).all())
    said = ours.config.to_dict()
    for field, value in theirs.config.to_dict().items():
        assert field == "_name_or_path" or said[field] == value, field


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def test_transformers_computes_what_a_model_made_here_does(
    transformers, make_model, tokens, read, tmp_path
):
    import torch

    model = make_model()
    export_hf(model, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    # fp32, in another order of sums.
    np.testing.assert_allclose(model.logits(read(model, tokens)), logits, atol=2e-4)


def test_computing_dtype_is_not_part_of_a_checkpoint(model, tmp_path):
    half = Transformer(dataclasses.replace(model.config, dtype="bfloat16"), model.arrays())
    export_hf(half, tmp_path / "out")
    assert _config(tmp_path / "out")["torch_dtype"] == "float32"
    assert jax.numpy.dtype("float32") == read_folder(tmp_path / "out")["model.norm.weight"].dtype
