"""Published checkpoints, read from their safetensors files straight onto a mesh."""

import collections
import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from arkjax.errors import DataError
from arkjax.models.config import Dtype, ModelConfig
from arkjax.models.huggingface.config_json import architecture_of, config_from_hf, kept_fields
from arkjax.models.huggingface.families import VISION
from arkjax.models.huggingface.filling import empty, fill
from arkjax.models.huggingface.safetensors_files import (
    DTYPES,
    StoredTensor,
    blocks,
    numpy_dtype,
    read_headers,
)
from arkjax.models.huggingface.tensors import EMBEDDING, HEAD, Place, tensors
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.text.files import read_json

_CONFIG = "config.json"
_SHOWN = 3  # of a kind, in messages


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint whose headers have been read and found to be whole.

    Attributes:
      folder: where it lies.
      config: of the model.
      places: which part of which weight each of its tensors is, by name.
      stored: where each of these tensors lies, by name.
      dtypes: in which each weight is kept, by its name.
      hf: for `export_hf`, to give back what a `ModelConfig` does not say.
      notes: what was left out, for people.
    """

    folder: Path
    config: ModelConfig
    places: Mapping[str, Place]
    stored: Mapping[str, StoredTensor]
    dtypes: Mapping[str, Dtype]
    hf: Mapping[str, Any]
    notes: tuple[str, ...]


def read_checkpoint(path: str | Path, dtype: Dtype | None = None) -> Checkpoint:
    """Read and check all but the tensors themselves; a head that should be tied is compared.

    Args:
      path: a folder with config.json and safetensors files.
      dtype: of activations; None takes bfloat16 for checkpoints of 16 bits, else float32.

    Raises:
      DataError: if the checkpoint is damaged or incomplete, or not of a supported kind.
    """
    folder = Path(path)
    source = folder / _CONFIG
    stored = read_headers(folder)
    raw = read_json(source)
    config = config_from_hf(raw, source)
    architecture = architecture_of(raw, source)
    stored, notes = _language_model(stored, architecture)
    tied = stored.pop(HEAD, None) if config.tie_embeddings else None
    places = _fit(folder, config, stored)
    dtypes, main = _dtypes(places, stored)
    if tied is not None:
        _check_tied(source, tied, stored[EMBEDDING])
    config = dataclasses.replace(
        config, param_dtype=main, dtype=dtype or ("float32" if main == "float32" else "bfloat16")
    )
    named = {name: DTYPES[tensor.dtype] for name, tensor in stored.items()}
    hf = {
        "architecture": architecture,
        "config": kept_fields(raw, source),
        "tied_head": tied is not None,
        "dtypes": {n: own for n, own in named.items() if own != dtypes[places[n].weight]},
    }
    return Checkpoint(folder, config, places, stored, dtypes, hf, notes)


def _dtypes(
    places: Mapping[str, Place], stored: Mapping[str, StoredTensor]
) -> tuple[dict[str, Dtype], Dtype]:
    """In which to keep each weight, and the dtype that most of the checkpoint is in.

    Raises:
      DataError: if a tensor is in one that is not supported.
    """
    kinds: dict[str, set[Dtype]] = collections.defaultdict(set)
    sizes: collections.Counter[Dtype] = collections.Counter()
    for name, place in places.items():
        tensor = stored[name]
        if tensor.dtype not in DTYPES:
            raise DataError(
                f"{tensor.path}: tensor {name} is {tensor.dtype}, expected one of "
                f"{', '.join(DTYPES)}; take the checkpoint that is not quantized or converted"
            )
        kinds[place.weight].add(DTYPES[tensor.dtype])
        sizes[DTYPES[tensor.dtype]] += tensor.size
    # Layers of one weight share an array; fp32 holds any mixture of the three exactly.
    dtypes = {w: next(iter(of)) if len(of) == 1 else "float32" for w, of in kinds.items()}
    return dtypes, sizes.most_common(1)[0][0]


def _language_model(
    stored: dict[str, StoredTensor], architecture: str
) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """The tensors of the language model under their plain names, and notes on the others."""
    kept, vision, frequencies = {}, 0, 0
    for name, tensor in stored.items():
        if architecture == VISION:
            # The order of the two words changed between versions of transformers.
            name = name.replace("model.language_model.", "model.", 1)
            name = name.removeprefix("language_model.")
            if any(part in name for part in ("vision_tower.", "multi_modal_projector.")):
                vision += 1
                continue
        if name.endswith(".rotary_emb.inv_freq"):
            frequencies += 1
            continue
        kept[name] = tensor
    notes = []
    if vision:
        notes.append(
            f"left out {vision} tensors of the vision tower: only text is read and written"
        )
    if frequencies:
        notes.append(f"left out {frequencies} stored rotary frequencies: config.json gives them")
    return kept, tuple(notes)


def _fit(folder: Path, config: ModelConfig, stored: Mapping[str, StoredTensor]) -> dict[str, Place]:
    """The places of all tensors.

    Raises:
      DataError: if one is missing, or too many, or has another shape than the config says.
    """
    places: dict[str, Place] = {}
    missing: list[str] = []
    for name, place in tensors(config):
        if name in stored:
            places[name] = place
            continue
        missing.append(name)
        # An absurd number of layers would name tensors for ever.
        if len(missing) > len(stored) + _SHOWN:
            break
    extra = sorted(stored.keys() - places.keys())
    wrong = [name for name, place in places.items() if stored[name].shape != place.shape]
    if not missing and not extra and not wrong:
        return places
    parts = []
    if missing:
        parts.append(f"missing {_few(missing)}")
        near = difflib.get_close_matches(missing[0], extra or sorted(stored), 1, 0.0)
        if near:
            parts[-1] += f" (nearest to {missing[0]}: {near[0]})"
    if extra:
        parts.append(f"unexpected {_few(extra)}")
        if not missing and places:
            near = difflib.get_close_matches(extra[0], list(places)[:1000], 1, 0.0)
            parts[-1] += f" (nearest to {extra[0]}: {near[0]})"
    if wrong:
        shapes = [
            f"{name} in {stored[name].path.name} has shape {list(stored[name].shape)}, expected "
            f"{list(places[name].shape)}"
            for name in wrong[:_SHOWN]
        ]
        parts.append("; ".join(shapes) + _more(wrong))
    raise DataError(
        f"the tensors of {folder} do not fit its {_CONFIG}: {'; '.join(parts)}. Both must be of "
        "one checkpoint, downloaded whole"
    )


def _few(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:_SHOWN]) + _more(names)


def _more(names: list[str]) -> str:
    return f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""


def _check_tied(source: Path, head: StoredTensor, embedding: StoredTensor) -> None:
    same = (head.dtype, head.shape) == (embedding.dtype, embedding.shape)
    if not same or any(a != b for a, b in zip(blocks(head), blocks(embedding), strict=True)):
        raise DataError(
            f"{source} says tie_word_embeddings, but {HEAD} in {head.path.name} differs from "
            f"{EMBEDDING}: set tie_word_embeddings to false there to use both"
        )


def load_hf(
    path: str | Path,
    mesh: Mesh,
    rules: ShardingRules,
    *,
    dtype: Dtype | None = None,
    progress: Progress | None = None,
) -> Transformer:
    """Read a published checkpoint straight onto a mesh; see `load_checkpoint`.

    Args:
      path: a folder with config.json and safetensors files.
      mesh: where the model is to lie.
      rules: how its weights are sharded.
      dtype: of activations; None takes bfloat16 for checkpoints of 16 bits, else float32.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if the checkpoint is damaged or incomplete, or not of a supported kind.
    """
    return load_checkpoint(read_checkpoint(path, dtype), mesh, rules, progress)


def load_checkpoint(
    checkpoint: Checkpoint, mesh: Mesh, rules: ShardingRules, progress: Progress | None = None
) -> Transformer:
    """Read the tensors of a checkpoint onto a mesh, each weight in the dtype of its file.

    A process reads what its own devices hold; a part that several of them hold is read once.
    Tensors are read in the order of the files. Beside the arrays there is host memory for a few
    pieces of tensors, less than twice the largest tensor.

    Raises:
      DataError: if a file has been cut off meanwhile.
    """
    sharded = shardings(checkpoint.config, mesh, rules)
    arrays = {
        name: empty(spec.shape, numpy_dtype(checkpoint.dtypes[name]), sharded[name])
        for name, spec in weight_specs(checkpoint.config).items()
    }
    stored = checkpoint.stored
    pieces = [
        piece
        for name in sorted(stored, key=lambda name: (stored[name].path, stored[name].start))
        for piece in arrays[checkpoint.places[name].weight].pieces(
            checkpoint.places[name].index, stored[name]
        )
    ]
    room = 2 * max(piece.size for piece in pieces)
    total = sum(piece.size for piece in pieces)
    shown = progress or Progress(enabled=False)
    with shown.task(f"read {checkpoint.folder.name}", -(-total // 10**6), "MB") as task:
        done = 0

        def advance(size: int) -> None:
            nonlocal done
            done += size
            task.advance(-(-done // 10**6) - task.done)

        fill(pieces, room, advance)
    weights = {name: array.array() for name, array in arrays.items()}
    return Transformer(checkpoint.config, weights, mesh)
