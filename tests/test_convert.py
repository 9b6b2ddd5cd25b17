"""`arkjax import` and `arkjax export`, from a published checkpoint to one and back."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import arkjax
from arkjax import convert
from arkjax.cli import main
from arkjax.models.config import Experts
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.placement import init_model, model_info
from arkjax.models.presets import tiny
from arkjax.progress import Progress
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
from arkjax.text.tokenizer import Tokenizer

from .models.huggingface.checkpoints import assert_same, read_folder

GOLDEN = Path(__file__).parent / "golden" / "chat"
TOKENIZER = GOLDEN / "qwen"
TEMPLATE = GOLDEN / "templates" / "qwen3.jinja"
CONFIG = dataclasses.replace(tiny(), vocab_size=Tokenizer(TOKENIZER).id_limit + 7)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A checkpoint in bf16 with a tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("published") / "Tiny-Qwen3"
    config = dataclasses.replace(CONFIG, dtype="bfloat16", param_dtype="bfloat16")
    model = init_model(config, 0, make_mesh(), ShardingRules())
    files = {path.name: path for path in TOKENIZER.iterdir()} | {"chat_template.jinja": TEMPLATE}
    export_hf(model, folder, tokenizer_files=files, max_shard_bytes=2**16)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--quiet"])


def test_import_then_export_returns_every_tensor_and_file(published, tmp_path, capsys):
    model, back = tmp_path / "model", tmp_path / "back"
    assert run("import", published, "--out", model) == 0, capsys.readouterr().err
    assert model_info(model)["config"]["dtype"] == "bfloat16"
    assert run("export", model, "--out", back) == 0, capsys.readouterr().err
    assert_same(read_folder(published), read_folder(back))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (back / name).read_bytes() == (published / name).read_bytes()
    assert json.loads((back / "config.json").read_text()) == json.loads(
        (published / "config.json").read_text()
    )
    # An export may be written over, a folder of somebody else's not.
    assert run("export", model, "--out", back) == 0
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    assert run("export", model, "--out", foreign) == 2
    assert run("import", published, "--out", foreign) == 2
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]
    assert run("export", model, "--out", foreign, "--overwrite") == 0
    # A model is replaced on request only, and never by its own export.
    capsys.readouterr()
    assert run("import", published, "--out", model) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("import", published, "--out", model, "--overwrite") == 0
    for out in (model, model.parent):
        assert run("export", model, "--out", out, "--overwrite") == 2
    assert "holds the model that is exported" in capsys.readouterr().err
    # What a link leads to is written, not the link.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert run("export", model, "--out", tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere/config.json").is_file()
    assert run("export", model, "--out", "/dev/null/x") == 5
    assert run("export", model, "--out", tmp_path / "x", "--max-shard-gib=0") == 2


def test_load_reads_a_published_checkpoint_onto_a_mesh(published, tmp_path):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    model, tokenizer = arkjax.load(published, mesh=mesh)
    assert tokenizer.hash == Tokenizer(published).hash
    assert model.arrays()["layers_q"].sharding.spec == jax.P(None, "tensor", None, "fsdp")
    convert.import_checkpoint(published, tmp_path / "model", progress=Progress(enabled=False))
    ours, same = arkjax.load(tmp_path / "model")
    assert same.hash == tokenizer.hash
    for name, weight in ours.arrays().items():
        assert np.array_equal(weight, model.arrays()[name]), name
    full, _ = arkjax.load(tmp_path / "model", dtype="float32")
    assert full.config.dtype == "float32" and full.config.param_dtype == "bfloat16"


def test_a_tokenizer_with_more_ids_than_rows_is_refused(published, tmp_path, capsys):
    folder = shutil.copytree(published, tmp_path / "small")
    config = dataclasses.replace(CONFIG, vocab_size=100)
    export_hf(init_model(config, 0, make_mesh(), ShardingRules()), tmp_path / "weights")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "weights" / name, folder / name)
    for shard in folder.glob("model*-of-*.safetensors"):
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    assert run("import", folder, "--out", tmp_path / "model") == 3
    message = capsys.readouterr().err
    assert "100 rows" in message and "small" in message and message.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_what_is_already_ours_or_nothing_is_said_so(published, tmp_path, capsys):
    assert run("import", tmp_path / "nothing", "--out", tmp_path / "x") == 3
    assert "nothing: no such folder" in capsys.readouterr().err
    assert run("import", "Qwen/Qwen3-0.6B", "--out", tmp_path / "x") == 3
    assert "hf:Qwen/Qwen3-0.6B" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("import", tmp_path / "empty", "--out", tmp_path / "x") == 3
    assert "expected a folder with config.json" in capsys.readouterr().err
    assert run("import", published, "--out", tmp_path / "model") == 0
    assert run("import", tmp_path / "model", "--out", tmp_path / "x") == 3
    assert "already" in capsys.readouterr().err
    assert run("export", published, "--out", tmp_path / "x") == 0
    assert not list(tmp_path.glob(".*"))


def test_experts_and_adapters_export(tmp_path, capsys):
    """Adapters are merged on the way out; routed experts keep their names."""
    from arkjax.models.config import Lora
    from arkjax.models.huggingface.peft import import_peft
    from arkjax.models.lora import add_lora, merge_lora
    from arkjax.models.placement import save_model

    base = init_model(CONFIG, 0, make_mesh(), ShardingRules())
    student = add_lora(base, Lora(rank=2, alpha=4.0), "none", 0)
    weights = student.arrays()
    for name in weights:
        if name.endswith("lora_b"):
            weights[name] = weights[name] + 0.05
    student = type(base)(student.config, weights, base.mesh)
    save_model(tmp_path / "student", student, {})
    convert.export_checkpoint(tmp_path / "student", tmp_path / "out")
    loaded, merged = arkjax_model(tmp_path / "out"), merge_lora(student)
    for name, weight in merged.arrays().items():
        # Merged on another mesh: fp32 sums in another order.
        np.testing.assert_allclose(weight, loaded.arrays()[name], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(loaded.arrays()["layers_q"], base.arrays()["layers_q"])

    assert run("export", tmp_path / "student", "--out", tmp_path / "peft", "--adapter") == 0
    again = import_peft(base, tmp_path / "peft")
    for name, weight in student.arrays().items():
        assert np.array_equal(weight, again.arrays()[name]), name
    assert run("export", tmp_path / "student", "--out", tmp_path / "peft", "--adapter") == 2
    # One that a run merged lies beside the model.
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run" / "model", merged, {})
    assert run("export", tmp_path / "run" / "model", "--out", tmp_path / "p", "--adapter") == 3
    assert "no adapters" in capsys.readouterr().err
    shutil.copytree(tmp_path / "peft", tmp_path / "run" / "adapter")
    named = ("--adapter", "--base", "me/base")
    assert run("export", tmp_path / "run" / "model", "--out", tmp_path / "p", *named) == 0
    about = json.loads((tmp_path / "p" / "adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == "me/base"
    weights_file = "adapter_model.safetensors"
    assert (tmp_path / "p" / weights_file).read_bytes() == (
        tmp_path / "peft" / weights_file
    ).read_bytes()

    routed = dataclasses.replace(CONFIG, experts=Experts(4, 2), d_ff=24)
    save_model(tmp_path / "moe", init_model(routed, 0, make_mesh(), ShardingRules()), {})
    convert.export_checkpoint(tmp_path / "moe", tmp_path / "moe-out")
    names = read_folder(tmp_path / "moe-out")
    assert names["model.layers.1.mlp.experts.3.gate_proj.weight"].shape == (24, 64)


def arkjax_model(folder: Path):
    from arkjax.models.huggingface.opening import find, open_model

    return open_model(find(folder), make_mesh(), ShardingRules()).model


@pytest.mark.slow
def test_a_student_of_a_run_gets_a_card_with_every_control(tiny_run, tmp_path, capsys):
    student = tiny_run / "seed-0" / "distill" / "student_da" / "model"
    assert run("export", student, "--out", tmp_path / "out", "--base", "me/base") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    report = json.loads((tiny_run / "report" / "report.json").read_text())
    assert card.startswith("---\n") and 'base_model: "me/base"' in card
    for system in report["splits"]["test"]["systems"]:
        from arkjax.reporting.systems import label

        assert f"| {label(system)} |" in card
    assert report["config_hash"] in card
    # What others read is what is read here.
    assert Tokenizer(tmp_path / "out").encode("so 7") == Tokenizer(
        student / "tokenizer" / "tokenizer.model"
    ).encode("so 7")
    model, _ = arkjax.load(student)
    loaded = arkjax_model(tmp_path / "out")
    tokens = np.arange(24, dtype=np.int32)[None] + 5
    positions = np.arange(24, dtype=np.int32)[None]
    segments = np.ones_like(tokens)
    ours, theirs = (m.logits(m(tokens, positions, segments)) for m in (model, loaded))
    # sqrt(D) is folded into the embeddings: one more rounding in fp32.
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
