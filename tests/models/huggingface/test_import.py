"""Published checkpoints, read onto meshes: every bit, once, into the memory where it stays."""

import io
import itertools
import json
import shutil
import sys

import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from arkjax.errors import DataError
from arkjax.models.huggingface import filling, safetensors_files
from arkjax.models.huggingface.filling import DeviceArray, HostArray, fill
from arkjax.models.huggingface.hub import checkpoint_folder
from arkjax.models.huggingface.reading import load_checkpoint, load_hf, read_checkpoint
from arkjax.models.huggingface.safetensors_files import read_header, read_into
from arkjax.progress import Progress
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

from .checkpoints import FAMILIES, GOLDEN, assert_same, read_folder, write_file

ONE = MeshConfig(data=8, fsdp=1, tensor=1)
CUT = MeshConfig(data=2, fsdp=2, tensor=2)
WIDE = MeshConfig(data=1, fsdp=8, tensor=1)
# Puts the axes that are whole by default on the mesh as well.
STACKS = ShardingRules(layers="data", experts="tensor", mlp=None, heads=None, kv_heads=None)


def _tensors(checkpoint, model) -> dict[str, np.ndarray]:
    """The model's weights as the checkpoint's tensors."""
    weights = {name: np.asarray(array) for name, array in model.arrays().items()}
    return {
        name: weights[place.weight][place.index].reshape(place.shape)
        for name, place in checkpoint.places.items()
    }


@pytest.fixture
def small_pieces(monkeypatch):
    """Tensors of tests are read in several pieces, as large ones are."""
    monkeypatch.setattr(filling, "_PIECE_BYTES", 700)
    monkeypatch.setattr(safetensors_files, "_BLOCK", 300)


@pytest.mark.parametrize(
    ("mesh", "rules"),
    [(ONE, ShardingRules()), (CUT, ShardingRules()), (CUT, STACKS), (WIDE, ShardingRules())],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_bit_arrives_on_any_mesh(name, mesh, rules, small_pieces):
    folder = GOLDEN / name / "checkpoint"
    checkpoint = read_checkpoint(folder)
    model = load_checkpoint(checkpoint, make_mesh(mesh), rules)
    assert_same(_tensors(checkpoint, model), read_folder(folder))
    assert model.config.param_dtype == model.config.dtype == "bfloat16"


def test_weights_lie_where_the_rules_say():
    model = load_hf(GOLDEN / "qwen3_moe" / "checkpoint", make_mesh(CUT), STACKS)
    w = model.arrays()["layers_gate"]
    L, E, F, D = w.shape
    assert w.addressable_shards[0].data.shape == (L // 2, E // 2, F, D // 2)
    assert model.mesh is not None


@pytest.mark.parametrize(
    ("dtype", "expected"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float32", "float32")]
)
def test_computation_follows_the_files_unless_told(dtype, expected):
    model = load_hf(GOLDEN / "qwen3" / "gradients", make_mesh(), ShardingRules(), dtype=dtype)
    assert (model.config.param_dtype, model.config.dtype) == ("float32", expected)


# --- how arrays are filled -----------------------------------------------------------------------


@pytest.fixture(params=[(), (3,), (2, 3)], ids=["whole", "layers", "experts"])
def stored(request, tmp_path):
    """An array [*lead, 8, 6, 4], the file that holds its parts, and their indices."""
    lead = request.param
    rng = np.random.default_rng(0)
    array = rng.normal(size=(*lead, 8, 6, 4)).astype(np.float32)
    indices = list(itertools.product(*map(range, lead)))
    write_file(tmp_path / "t.safetensors", {str(i): array[i].reshape(8, 24) for i in indices})
    return array, read_header(tmp_path / "t.safetensors"), indices


@pytest.mark.parametrize("kind", [HostArray, DeviceArray])
@pytest.mark.parametrize(
    "axes", [(), ("fsdp",), (None, "tensor"), (None, None, "fsdp"), ("data", "tensor", "fsdp")]
)
def test_arrays_for_any_devices_fill_alike(stored, kind, axes, small_pieces):
    array, tensors, indices = stored
    spec = PartitionSpec(*(None,) * (array.ndim - 3), *axes)
    filled = kind(array.shape, array.dtype, NamedSharding(make_mesh(CUT), spec))
    pieces = [piece for i in indices for piece in filled.pieces(i, tensors[str(i)])]
    sizes = []
    fill(pieces, room=1000, advance=sizes.append)
    made = filled.array()
    np.testing.assert_array_equal(np.asarray(made), array)
    assert made.sharding.spec == spec
    assert sum(sizes) == array.nbytes  # each byte once, on however many devices it lies


def test_cpu_devices_keep_the_memory_that_was_read_into(stored):
    """A copy would double what a model needs while it is loaded."""
    array, tensors, indices = stored
    mesh = make_mesh(MeshConfig(data=2, fsdp=4, tensor=1))
    spec = PartitionSpec(*(None,) * (array.ndim - 3), "fsdp")
    filled = HostArray(array.shape, array.dtype, NamedSharding(mesh, spec))
    fill([p for i in indices for p in filled.pieces(i, tensors[str(i)])], 1000, lambda size: None)
    memory = {values.ctypes.data for values in filled._memory.values()}
    made = filled.array()
    assert {s.data.unsafe_buffer_pointer() for s in made.addressable_shards} == memory
    assert len(memory) == 4  # replicas share theirs


@pytest.mark.fast
def test_any_box_of_a_tensor_can_be_read(tmp_path, monkeypatch):
    array = np.arange(7 * 5 * 6, dtype=np.float32).reshape(7, 5, 6)
    write_file(tmp_path / "t.safetensors", {"skipped": array, "t": array.reshape(7, 30)})
    tensor = read_header(tmp_path / "t.safetensors")["t"]
    rng = np.random.default_rng(1)
    for block in (1, 250, 10**6):
        monkeypatch.setattr(safetensors_files, "_BLOCK", block)
        for _ in range(40):
            targets = []
            for _ in range(3):
                spans = [sorted(rng.choice(n + 1, 2, replace=False)) for n in array.shape]
                box = tuple((int(a), int(b)) for a, b in spans)
                shape = tuple(b - a for a, b in box)
                dtype = rng.choice([np.float32, np.float64])  # also into a wider one
                targets.append((box, np.empty(shape, dtype)))
            read_into(tensor, array.shape, targets)
            for box, target in targets:
                np.testing.assert_array_equal(target, array[tuple(slice(*s) for s in box)])


@pytest.mark.fast
def test_a_failed_read_ends_the_filling():
    def fails():
        raise DataError("gone")

    pieces = [filling.Piece(1, fails, fails)] + [filling.Piece(1, lambda: None, fails)] * 99
    with pytest.raises(DataError, match="gone"):
        fill(pieces, 10, lambda size: None)


# --- what checkpoints look like ------------------------------------------------------------------


def _copy(tmp_path, name, tensors=None, **fields):
    """A golden checkpoint with other tensors, in one file, and other fields of its config."""
    folder = tmp_path / name
    shutil.copytree(GOLDEN / name / "checkpoint", folder)
    if tensors is not None:
        for file in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
            file.unlink(missing_ok=True)
        write_file(folder / "model.safetensors", tensors)
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _load(folder):
    checkpoint = read_checkpoint(folder)
    return checkpoint, load_checkpoint(checkpoint, make_mesh(CUT), ShardingRules())


def test_each_weight_keeps_the_dtype_of_its_file(tmp_path):
    tensors = read_folder(GOLDEN / "qwen3_moe" / "checkpoint")
    for name in tensors:
        if name.endswith("mlp.gate.weight"):
            tensors[name] = tensors[name].astype(np.float32) + 1e-4
        elif "norm" in name:
            tensors[name] = tensors[name].astype(np.float16)
    checkpoint, model = _load(_copy(tmp_path, "qwen3_moe", tensors))
    weights = model.arrays()
    assert weights["layers_router"].dtype == "float32"
    assert weights["layers_attn_norm"].dtype == weights["final_norm"].dtype == "float16"
    assert weights["layers_q"].dtype == model.config.param_dtype == "bfloat16"
    assert_same(_tensors(checkpoint, model), tensors)
    assert checkpoint.hf["dtypes"] == {}


def test_layers_of_several_dtypes_are_widened_exactly(tmp_path, small_pieces):
    tensors = read_folder(GOLDEN / "qwen3" / "checkpoint")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = (tensors[name].astype(np.float32) * 0.1).astype(np.float16)
    checkpoint, model = _load(_copy(tmp_path, "qwen3", tensors))
    up = np.asarray(model.arrays()["layers_up"])
    assert up.dtype == np.float32
    for layer in range(2):
        own = tensors[f"model.layers.{layer}.mlp.up_proj.weight"]
        np.testing.assert_array_equal(up[layer], own.astype(np.float32))
    assert checkpoint.hf["dtypes"] == {
        "model.layers.0.mlp.up_proj.weight": "bfloat16",
        "model.layers.1.mlp.up_proj.weight": "float16",
    }


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path):
    tensors = read_folder(GOLDEN / "qwen3" / "checkpoint")
    head = tensors["model.embed_tokens.weight"].copy()
    checkpoint, model = _load(_copy(tmp_path, "qwen3", tensors | {"lm_head.weight": head}))
    assert checkpoint.hf["tied_head"] and "head" not in model.arrays()
    head[3, 1] += 1
    other = _copy(tmp_path / "other", "qwen3", tensors | {"lm_head.weight": head})
    with pytest.raises(DataError, match="tie_word_embeddings to false") as error:
        read_checkpoint(other)
    assert "lm_head.weight" in str(error.value)
    untied = _copy(
        tmp_path / "untied", "qwen3", tensors | {"lm_head.weight": head}, tie_word_embeddings=False
    )
    np.testing.assert_array_equal(np.asarray(_load(untied)[1].arrays()["head"]), head)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_of_a_model_that_sees_the_language_model_is_read(tmp_path, prefix):
    raw = json.loads((GOLDEN / "gemma3" / "checkpoint" / "config.json").read_text())
    tensors = read_folder(GOLDEN / "gemma3" / "checkpoint")
    seeing = {name.replace("model.", prefix, 1): values for name, values in tensors.items()}
    outer = "" if prefix.startswith("language") else "model."
    seeing[f"{outer}vision_tower.embeddings.patch_embedding.bias"] = np.zeros(3, np.float32)
    seeing[f"{outer}multi_modal_projector.mm_soft_emb_norm.weight"] = np.zeros(3, np.float32)
    folder = _copy(tmp_path, "gemma3", seeing)
    fields = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3"}
    fields |= {"text_config": raw, "vision_config": {"hidden_size": 3}, "eos_token_id": [1, 106]}
    (folder / "config.json").write_text(json.dumps(fields))
    checkpoint, model = _load(folder)
    assert_same(_tensors(checkpoint, model), tensors)
    assert "2 tensors of the vision tower" in checkpoint.notes[0]
    assert model.config == read_checkpoint(GOLDEN / "gemma3" / "checkpoint").config
    assert checkpoint.hf["config"]["eos_token_id"] == [1, 106]
    assert not {"vision_config", "text_config"} & checkpoint.hf["config"].keys()


def test_stored_rotary_frequencies_are_left_out(tmp_path):
    tensors = read_folder(GOLDEN / "llama2" / "checkpoint")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = _copy(tmp_path, "llama2", tensors | {name: np.ones(6, np.float32)})
    assert "1 stored rotary frequencies" in _load(folder)[0].notes[0]


def test_progress_counts_megabytes(tmp_path):
    stream = io.StringIO()
    load_hf(
        GOLDEN / "qwen3" / "checkpoint",
        make_mesh(),
        ShardingRules(),
        progress=Progress(stream=stream),
    )
    assert stream.getvalue().startswith("read checkpoint: 1/1 MB")


def test_a_file_that_is_cut_off_meanwhile_is_noticed(tmp_path):
    folder = _copy(tmp_path, "qwen3")
    checkpoint = read_checkpoint(folder)
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DataError, match="shorter") as error:
        load_checkpoint(checkpoint, make_mesh(), ShardingRules())
    assert file.name in str(error.value)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.fast
def test_paths_name_themselves(tmp_path):
    assert checkpoint_folder(tmp_path) == checkpoint_folder(str(tmp_path)) == tmp_path


@pytest.mark.fast
@pytest.mark.parametrize(
    "name", ["hf:", "hf:llama", "hf:a/b/c", "hf:a/b@", "hf:../x y", "hf:a/b\n"]
)
def test_names_of_another_form_are_refused(name):
    with pytest.raises(DataError, match="owner/name"):
        checkpoint_folder(f"hf:{name}")


@pytest.mark.fast
def test_without_the_package_the_way_round_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match="hf download a/b --revision main --local-dir") as error:
        checkpoint_folder("hf:a/b@main")
    assert "pip install huggingface_hub" in str(error.value)


def test_without_a_network_the_way_round_is_named(arkjax_command, tmp_path):
    pytest.importorskip("huggingface_hub")
    code = (
        "from arkjax.models.huggingface.hub import checkpoint_folder\n"
        "checkpoint_folder('hf:owner/name')"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    arkjax_command.environment |= offline
    try:
        done = arkjax_command.python("-c", code)
    finally:
        for name in offline:
            del arkjax_command.environment[name]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("arkjax.errors.DataError: cannot fetch owner/name")
    assert "hf download owner/name" in last


def test_loading_needs_no_library_but_the_core_ones(arkjax_command):
    code = f"""
import sys
from arkjax.models.huggingface.reading import load_hf
from arkjax.sharding import ShardingRules, make_mesh
load_hf({str(GOLDEN / "qwen3" / "checkpoint")!r}, make_mesh(), ShardingRules())
print(sorted({{"safetensors", "transformers", "torch", "huggingface_hub"}} & set(sys.modules)))
"""
    done = arkjax_command.python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
