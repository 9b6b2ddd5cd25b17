"""`arkjax import` and `arkjax export`: published checkpoints in, published checkpoints out."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import Dtype
from arkjax.models.huggingface.opening import Opened, find, open_model
from arkjax.models.huggingface.peft import CONFIG as PEFT_CONFIG
from arkjax.models.huggingface.peft import WEIGHTS as PEFT_WEIGHTS
from arkjax.models.huggingface.peft import export_peft
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.lora import merge_lora
from arkjax.models.placement import model_info, save_model
from arkjax.models.weights import num_parameters
from arkjax.progress import Progress
from arkjax.reporting.markdown import model_card
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh
from arkjax.storage import write_atomic, write_directory_atomic
from arkjax.text.tokenizer import Tokenizer

# Every device holds a part: a large model need not fit into any one of them.
_SPREAD = MeshConfig(data=1, fsdp=-1, tensor=1)


def import_checkpoint(
    source: str | Path,
    out: Path,
    dtype: Dtype | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Turn a published checkpoint into a model directory of ours, its tokenizer included.

    Args:
      source: a folder, or `hf:owner/name[@revision]`.
      out: the directory to be made.
      dtype: of the computation; None takes bfloat16 for checkpoints of 16 bits.
      overwrite: replace a model of ours that stands there.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if the checkpoint is damaged, incomplete or of another kind, or its tokenizer has
        ids that the model has no row for.
      ConfigError: if something stands at `out` that may not be replaced.
      StorageError: if `out` cannot be written.
    """
    progress = progress or Progress(enabled=False)
    out = Path(out).resolve()  # What a link leads to is replaced, not the link.
    _check_replaceable(out, overwrite)
    found = find(source)
    if not found.published:
        raise DataError(f"{source} is a model of ArkJAX already: there is nothing to import")
    opened = open_model(found, make_mesh(_SPREAD), ShardingRules(), dtype=dtype, progress=progress)
    info = dict(opened.info)
    if opened.files:
        tokenizer = Tokenizer(found.folder)
        tokenizer.check_fits(opened.model.config.vocab_size, found.folder)
        info["tokenizer"] = tokenizer.hash
    else:
        progress.say("no tokenizer comes with it: it can be trained, but not talked to")
    save_model(out, opened.model, info, opened.files)
    for note in opened.notes:
        progress.say(note)
    progress.say(f"{out}: {num_parameters(opened.model.config):,} parameters")


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        model_info(out)
    except DataError:
        raise ConfigError(
            f"{out} is there already and no model of ArkJAX: choose another --out"
        ) from None
    if not overwrite:
        raise ConfigError(
            f"{out} holds a model already: choose another --out, or replace it with --overwrite"
        )


def export_checkpoint(
    checkpoint: str | Path,
    out: Path,
    *,
    base: str | None = None,
    adapter: bool = False,
    max_shard_bytes: int = 5 * 2**30,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a model of ours as a published checkpoint; adapters are merged, or written alone.

    A model that lies in a run directory gets a card with the figures of the run's report.

    Args:
      checkpoint: the model's directory.
      out: the folder to be made.
      base: the name under which the base model is published, for the card and the adapter.
      adapter: write a folder of PEFT with the adapters; those of a student in a run lie beside it.
      max_shard_bytes: largest file of weights.
      overwrite: replace whatever stands at `out`, not only what an export left.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if there is no model, or no published family can express it.
      ConfigError: if something else stands at `out`.
      StorageError: if `out` cannot be written.
    """
    progress = progress or Progress(enabled=False)
    path, out = Path(checkpoint), Path(out).resolve()
    if out == path.resolve() or out in path.resolve().parents:
        raise ConfigError(f"--out {out} holds the model that is exported: choose another folder")
    if adapter:
        _export_adapter(path, out, base, overwrite)
        progress.say(f"{out}: the adapters, for peft")
        return
    opened = open_model(find(path), make_mesh(_SPREAD), ShardingRules(), progress=progress)
    model = opened.model
    if model.config.lora is not None or model.config.base_quantization != "none":
        model = merge_lora(model)
    card = _card(path, base)
    with tempfile.TemporaryDirectory() as scratch:
        info, files = _with_tokenizer(opened, Path(scratch))
        written = export_hf(
            model,
            out,
            info=info,
            tokenizer_files=files,
            card=card,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
            progress=progress,
        )
    if card is None:
        progress.say("no model card: the model lies in no run that has a report")
    progress.say(
        f"{out}: {written.architecture}, {written.size / 1e9:.2f} GB in {len(written.files)} "
        f"file{'s' if len(written.files) > 1 else ''}"
    )


def _export_adapter(path: Path, out: Path, base: str | None, overwrite: bool) -> None:
    """Write the adapters that a model has, or that a run kept when it merged them."""
    if os.path.lexists(out) and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already: choose another folder, or say --overwrite")
    beside = path.absolute().parent / "adapter"
    source = find(path)
    # Asked of the description: weights without adapters need not be read.
    if (source.info.get("config") or {}).get("lora"):
        model = open_model(source, make_mesh(_SPREAD), ShardingRules()).model
        export_peft(model, out, base or "base")
        return
    if not (beside / PEFT_CONFIG).is_file():
        raise DataError(
            f"{path} has no adapters, and none lie in {beside}: leave out --adapter to export the "
            "whole model"
        )
    about = json.loads((beside / PEFT_CONFIG).read_text(encoding="utf-8"))
    about["base_model_name_or_path"] = base or about.get("base_model_name_or_path")
    with write_directory_atomic(out) as aside:
        shutil.copyfile(beside / PEFT_WEIGHTS, aside / PEFT_WEIGHTS)
        write_atomic(aside / PEFT_CONFIG, json.dumps(about, indent=2, sort_keys=True) + "\n")


def _with_tokenizer(opened: Opened, scratch: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """What an export needs to know, and the files to put beside the weights.

    A bare SentencePiece model gets the settings that make others read it as it is read here.
    """
    info, files = dict(opened.info), dict(opened.files)
    if set(files) != {"tokenizer.model"}:
        return info, files
    tokenizer = Tokenizer(files["tokenizer.model"])
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": False,
        # Left out, it would be made up, with an id that the model has no row for.
        "bos_token": None,
        **tokenizer.named_tokens,
    }
    (scratch / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    files["tokenizer_config.json"] = scratch / "tokenizer_config.json"
    hf = dict(info.get("hf") or {})
    ids = {"eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    hf["config"] = ids | dict(hf.get("config") or {})
    return info | {"hf": hf}, files


def _card(path: Path, base: str | None) -> str | None:
    """The card of a model in a run directory: RUN/seed-N/base/model, or distill/NAME/model."""
    parts = path.absolute().parts
    if parts[-2:] == ("base", "model"):
        run, system = path.absolute().parents[2], "base"
    elif parts[-1] == "model" and parts[-3:-2] == ("distill",):
        run, system = path.absolute().parents[3], parts[-2]
    else:
        return None
    report = run / "report" / "report.json"
    if not report.is_file():
        return None
    try:
        return model_card(json.loads(report.read_text(encoding="utf-8")), system, base)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{report}: not a report ({error!r}); make it again with `arkjax report`"
        ) from error
