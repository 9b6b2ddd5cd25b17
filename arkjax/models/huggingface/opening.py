"""Models wherever they come from: a directory of ours, a published checkpoint, or its name."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from arkjax.errors import DataError
from arkjax.models.config import Dtype
from arkjax.models.huggingface.hub import PREFIX, checkpoint_folder
from arkjax.models.huggingface.reading import load_checkpoint, read_checkpoint
from arkjax.models.placement import INFO as MODEL_JSON
from arkjax.models.placement import TOKENIZER, load_model, model_info
from arkjax.models.transformer import Transformer
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.storage import content_hash
from arkjax.text.files import SENTENCEPIECE, TOKENIZER_JSON, tokenizer_files

_PUBLISHED = "config.json"
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model comes from, before its weights are read.

    Attributes:
      folder: where it lies.
      published: whether it is a checkpoint in safetensors, not a directory of ours.
      info: what is kept beside the weights of a directory of ours.
    """

    folder: Path
    published: bool
    info: Mapping[str, Any]

    @property
    def tokenizer(self) -> Path | None:
        """The folder of the tokenizer that comes with the model, if one does."""
        folder = self.folder if self.published else self.folder / TOKENIZER
        known = (folder / name for name in (TOKENIZER_JSON, SENTENCEPIECE))
        return folder if any(file.is_file() for file in known) else None

    @property
    def identity(self) -> str:
        """A hash that other weights or another config change; it is fast for weights of any size.

        A directory of ours records the hashes of its files. Of a published checkpoint's weights it
        takes sizes, headers and ends.
        """
        if not self.published:
            return content_hash(self.info)
        files = [*self.folder.glob("*.json"), *self.folder.glob("*.safetensors")]
        return content_hash([[file.name, *_glimpse(file)] for file in sorted(files)])


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model on a mesh, and what came with it.

    Attributes:
      model: the model.
      info: further facts, to be kept when it is saved; "hf" is for exports.
      files: of its tokenizer, by the names under which copies are kept.
      notes: what was left out, for people.
    """

    model: Transformer
    info: dict[str, Any]
    files: dict[str, Path]
    notes: tuple[str, ...] = ()


def _glimpse(file: Path) -> tuple[int, str]:
    """A file's size, and the hash of its first and last MiB."""
    size = file.stat().st_size
    with open(file, "rb") as handle:
        digest = hashlib.sha256(handle.read(_MIB))
        handle.seek(max(size - _MIB, 0))
        digest.update(handle.read(_MIB))
    return size, digest.hexdigest()


def find(source: str | Path) -> Source:
    """Find a model by its directory, or as `hf:owner/name[@revision]`; fetches the latter.

    Raises:
      DataError: if there is none, or it cannot be fetched.
    """
    folder = checkpoint_folder(source)
    if (folder / _PUBLISHED).is_file():
        return Source(folder, True, {})
    if not (folder / MODEL_JSON).is_file():
        if not folder.exists():
            name = str(source)
            hub = f"; of the Hugging Face Hub it would be {PREFIX}{name}" if _is_name(name) else ""
            raise DataError(f"there is no model at {source}: no such folder{hub}")
        raise DataError(
            f"there is no model at {source}: expected a folder with config.json and safetensors "
            f"files, or one of ArkJAX with {MODEL_JSON} (in a run, seed-N/base/model)"
        )
    return Source(folder, False, model_info(folder))


def _is_name(text: str) -> bool:
    """Whether a path that does not exist may be the name of a repository."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def open_model(
    source: Source,
    mesh: Mesh,
    rules: ShardingRules,
    *,
    dtype: Dtype | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Read a model straight onto a mesh.

    Args:
      source: what `find` returned.
      mesh: where the model shall lie.
      rules: how its weights are sharded.
      dtype: of the computation; None takes what a model of ours was made with, and for published
        ones bfloat16 if they have 16 bits.
      progress: shows bytes, rate and remaining time.

    Raises:
      DataError: if it is damaged or incomplete, or not of a supported kind.
    """
    folder = source.tokenizer
    files = {}
    if folder is not None:
        files = {path.relative_to(folder).as_posix(): path for path in tokenizer_files(folder)}
    if source.published:
        checkpoint = read_checkpoint(source.folder, dtype)
        model = load_checkpoint(checkpoint, mesh, rules, progress)
        return Opened(model, {"hf": dict(checkpoint.hf)}, files, checkpoint.notes)
    model = load_model(source.folder, mesh, rules)
    if dtype is not None:
        model = Transformer(dataclasses.replace(model.config, dtype=dtype), model.arrays(), mesh)
    kept = {k: v for k, v in source.info.items() if k not in ("config", "dtypes", "files")}
    return Opened(model, kept, files)
