"""Models written as published checkpoints, in the files that transformers, vLLM and SGLang read."""

import collections
import dataclasses
import errno
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from arkjax import __version__
from arkjax.errors import ConfigError
from arkjax.models.config import ModelConfig
from arkjax.models.huggingface.config_json import config_to_hf
from arkjax.models.huggingface.families import unscaled
from arkjax.models.huggingface.safetensors_files import (
    DTYPES,
    INDEX,
    SINGLE,
    numpy_dtype,
    write_file,
)
from arkjax.models.huggingface.tensors import EMBEDDING, HEAD, Place, tensors
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.storage import write_atomic, write_directory_atomic

# Tells a folder that `export_hf` wrote, and may replace, from any other.
MARK = "arkjax.json"
_GENERATION = "generation_config.json"
_CARD = "README.md"
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclasses.dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
      architecture: the class of transformers that the files are for.
      files: names of the weight files.
      size: of all tensors, in bytes.
    """

    architecture: str
    files: tuple[str, ...]
    size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor to be written: part of a weight, in some dtype, after a multiplication."""

    place: Place
    dtype: np.dtype
    factor: float = 1.0


def export_hf(
    model: Transformer,
    path: str | Path,
    *,
    info: Mapping[str, Any] | None = None,
    tokenizer_files: Mapping[str, Path] | None = None,
    card: str | None = None,
    max_shard_bytes: int = 5 * 2**30,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write a model as a published checkpoint: aside first, then renamed.

    Import and export give every tensor back bit by bit, and the fields of config.json that say
    nothing about the shape, such as token ids. A model whose embeddings are multiplied by sqrt(D)
    as they are read, which outside Gemma none is, gets embeddings that are already multiplied and
    a head of its own: its logits are the same. One tensor at a time is in host memory. Of several
    processes all must call this; the first writes.

    Args:
      model: without adapters, and not quantised.
      path: the folder to be made.
      info: of `model_info`; its "hf" says what a published checkpoint had beside its tensors.
      tokenizer_files: to be copied, by their names; see `placement.model_files`.
      card: text of the README.md; None writes none.
      max_shard_bytes: files are filled up to this size; a larger tensor has a file of its own.
      overwrite: replace whatever stands at `path`, not only what an export left.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if no family of transformers can express the model.
      ConfigError: if something else stands at `path`, or the model has adapters.
      StorageError: if the disk is full or refuses.
    """
    path = Path(path)
    hf = dict((info or {}).get("hf") or {})
    _check_whole(model.config)
    _check_free(path, overwrite)
    arrays = model.arrays()
    wanted = _tensors(model.config, arrays, hf)
    shards = _shards(wanted, max_shard_bytes)
    size = sum(_size(tensor) for tensor in wanted.values())
    config = config_to_hf(model.config, hf.get("architecture", ""), hf.get("config"))
    config["torch_dtype"] = _main_dtype(wanted)
    mark = {"arkjax": __version__, "config": dataclasses.asdict(model.config)}
    texts: dict[str, Any] = {"config.json": config, MARK: mark}
    if len(shards) > 1:
        weight_map = {name: file for file, names in shards.items() for name in names}
        texts[INDEX] = {"metadata": {"total_size": size}, "weight_map": weight_map}
    ids = {name: config[name] for name in _TOKEN_IDS if config.get(name) is not None}
    if _GENERATION not in (tokenizer_files or {}) and "eos_token_id" in ids:
        texts[_GENERATION] = {"_from_model_config": True, **ids}
    written = Export(config["architectures"][0], tuple(shards), size)
    if jax.process_index() != 0:
        for names in shards.values():
            for name in names:
                _read(arrays, wanted[name])
        return written
    shown = progress or Progress(enabled=False)
    with (
        shown.task(f"write {path.name}", -(-size // 10**6), "MB") as task,
        write_directory_atomic(path) as aside,
    ):
        if shutil.disk_usage(aside).free < size:
            raise OSError(errno.ENOSPC, f"{size:,} bytes are needed")
        done = 0

        def read(name: str) -> np.ndarray:
            nonlocal done
            done += _size(wanted[name])
            task.advance(-(-done // 10**6) - task.done)
            return _read(arrays, wanted[name])

        for file, names in shards.items():
            described = {name: (wanted[name].dtype, wanted[name].place.shape) for name in names}
            write_file(aside / file, described, read)
        for name, source in (tokenizer_files or {}).items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside / name)
        for name, value in texts.items():
            write_atomic(aside / name, json.dumps(value, indent=2) + "\n")
        if card is not None:
            write_atomic(aside / _CARD, card)
    return written


def _check_whole(config: ModelConfig) -> None:
    if config.lora is not None or config.base_quantization != "none":
        raise ConfigError(
            "the model has adapters or is quantised: merge it with `arkjax.models.lora.merge_lora` "
            "first"
        )


def _check_free(path: Path, overwrite: bool) -> None:
    if overwrite or not os.path.lexists(path):
        return
    if not path.is_dir() or (any(path.iterdir()) and not (path / MARK).is_file()):
        raise ConfigError(
            f"{path} is there already and no export of ArkJAX: choose another folder, or overwrite "
            "it with --overwrite (overwrite=True)"
        )


def _tensors(
    config: ModelConfig, arrays: Mapping[str, jax.Array], hf: Mapping[str, Any]
) -> dict[str, _Tensor]:
    """Every tensor to be written, by name, in the order of the layers."""
    plain = unscaled(config)
    found = {}
    for name, place in tensors(plain):
        if place.weight not in arrays:
            place = dataclasses.replace(place, weight="embedding")
        found[name] = _Tensor(place, arrays[place.weight].dtype)
    if plain != config:
        found[EMBEDDING] = dataclasses.replace(found[EMBEDDING], factor=config.d_model**0.5)
    elif config.tie_embeddings and hf.get("tied_head"):
        found[HEAD] = found[EMBEDDING]
    for name, dtype in (hf.get("dtypes") or {}).items():
        # Layers of one weight that had different dtypes were widened; if they still hold no more
        # than they did, they are written as they were.
        if name in found and dtype in DTYPES.values():
            value = _read(arrays, found[name])
            narrow = value.astype(numpy_dtype(dtype))
            if np.array_equal(narrow.astype(value.dtype), value, equal_nan=True):
                found[name] = dataclasses.replace(found[name], dtype=narrow.dtype)
    return found


def _size(tensor: _Tensor) -> int:
    return math.prod(tensor.place.shape) * tensor.dtype.itemsize


def _main_dtype(wanted: Mapping[str, _Tensor]) -> str:
    """The dtype that most bytes are in."""
    total: collections.Counter[str] = collections.Counter()
    for tensor in wanted.values():
        total[tensor.dtype.name] += _size(tensor)
    return total.most_common(1)[0][0]


def _shards(wanted: Mapping[str, _Tensor], most: int) -> dict[str, list[str]]:
    """The files, and the names of the tensors in each, in the order in which they are written."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, tensor in wanted.items():
        if groups[-1] and held + _size(tensor) > most:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += _size(tensor)
    for group in groups:
        # Wide elements first, so that each tensor begins at a multiple of its element's width.
        group.sort(key=lambda name: -wanted[name].dtype.itemsize)
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    return {
        f"model-{i:05d}-of-{len(groups):05d}.safetensors": group
        for i, group in enumerate(groups, start=1)
    }


def _read(arrays: Mapping[str, jax.Array], tensor: _Tensor) -> np.ndarray:
    """A tensor in host memory; of several processes all must ask for it."""
    weight = arrays[tensor.place.weight]
    index = np.array(tensor.place.index, np.int32)
    if jax.process_count() > 1:
        whole = NamedSharding(weight.sharding.mesh, PartitionSpec())
        part = jax.jit(_part, out_shardings=whole)(weight, index)
        value = np.asarray(part.addressable_data(0))
    else:
        value = np.asarray(jax.jit(_part)(weight, index))
    if tensor.factor != 1.0:
        value = value.astype(np.float32) * np.float32(tensor.factor)
    return value.astype(tensor.dtype, copy=False)


def _part(weight: jax.Array, index: jax.Array) -> jax.Array:
    for i in range(index.shape[0]):
        weight = jax.lax.dynamic_index_in_dim(weight, index[i], keepdims=False)
    # JAX would keep the host's copy of a weight for as long as the weight; of this it does not.
    return jnp.copy(weight)
