"""Models on a mesh: made there, loaded there, written from there."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import jax
from jax.sharding import Mesh, NamedSharding

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import Dtype, ModelConfig, config_from_json
from arkjax.models.transformer import Transformer
from arkjax.models.weights import WeightSpec, init_weights, weight_specs
from arkjax.sharding import ShardingRules, weight_shardings
from arkjax.storage import (
    sha256_file,
    storage_errors,
    write_atomic,
    write_directory_atomic,
)

INFO = "model.json"
_WEIGHTS = "weights"
TOKENIZER = "tokenizer"


def shardings(config: ModelConfig, mesh: Mesh, rules: ShardingRules) -> dict[str, NamedSharding]:
    """Where each weight of the model lies."""
    specs = weight_specs(config)
    return weight_shardings(
        mesh,
        rules,
        {name: spec.shape for name, spec in specs.items()},
        {name: spec.axes for name, spec in specs.items()},
    )


def init_model(config: ModelConfig, seed: int, mesh: Mesh, rules: ShardingRules) -> Transformer:
    """A fresh model, each weight made where it will lie: no device ever holds all of them."""
    placed = jax.jit(init_weights, static_argnums=0, out_shardings=shardings(config, mesh, rules))
    return Transformer(config, placed(config, seed), mesh)


def save_model(
    path: Path,
    model: Transformer,
    info: Mapping[str, Any],
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a model's config and weights (Orbax), aside first, then renamed.

    Args:
      path: directory to be made; what stands there is replaced.
      model: the model.
      info: further facts to keep beside it, such as the tokenizer's hash.
      files: to be copied into its folder "tokenizer", by the names that they get there.

    Raises:
      StorageError: if the directory cannot be written.
    """
    import orbax.checkpoint as ocp

    arrays = model.arrays()
    with write_directory_atomic(path) as aside, storage_errors(path):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((aside / _WEIGHTS).absolute(), arrays)
        for name, source in (files or {}).items():
            (aside / TOKENIZER / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside / TOKENIZER / name)
        about = {
            **info,
            "config": dataclasses.asdict(model.config),
            "dtypes": {name: array.dtype.name for name, array in arrays.items()},
            "files": {f.relative_to(aside).as_posix(): sha256_file(f) for f in _files(aside)},
        }
        write_atomic(aside / INFO, json.dumps(about, indent=1, sort_keys=True) + "\n")


def model_info(path: Path) -> dict[str, Any]:
    """What `save_model` kept beside the weights.

    Raises:
      DataError: if there is no model, or its description is damaged.
    """
    try:
        info = json.loads((path / INFO).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"expected a JSON object, found {type(info).__name__}")
        return info
    except (OSError, ValueError) as error:
        raise DataError(
            f"no ArkJAX model at {path}: {INFO} is missing or damaged ({error}). "
            "Run `arkjax base` to make one, or give the directory of another (in a run, "
            "seed-N/base/model)"
        ) from error


def model_files(path: Path) -> dict[str, Path]:
    """The files that `save_model` copied, by their names."""
    folder = path / TOKENIZER
    return {file.relative_to(folder).as_posix(): file for file in _files(folder)}


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _check_files(path: Path, files: dict[str, str]) -> None:
    # Orbax reads a file with a flipped bit without complaint: hashes are the only witness.
    for name, recorded in files.items():
        file = path / name
        state = "missing" if not file.is_file() else "damaged"
        if state == "missing" or sha256_file(file) != recorded:
            raise DataError(f"the model in {path} cannot be read: {name} is {state}; remake it")


def _dtypes(recorded: Mapping[str, str], specs: Mapping[str, WeightSpec]) -> dict[str, str]:
    """In which each weight was kept; those of a published checkpoint can differ from one another.

    Raises:
      TypeError: if one of them cannot have been kept so.
    """
    dtypes = {name: recorded.get(name, spec.dtype) for name, spec in specs.items()}
    for name, spec in specs.items():
        # Orbax would convert to whatever it is told.
        allowed = get_args(Dtype) if spec.dtype in get_args(Dtype) else (spec.dtype,)
        if dtypes[name] not in allowed:
            raise TypeError(f"{name} is said to be {dtypes[name]}, expected {' or '.join(allowed)}")
    return dtypes


def load_model(path: Path, mesh: Mesh, rules: ShardingRules) -> Transformer:
    """Read a model straight onto a mesh, whatever mesh it was written from.

    Raises:
      DataError: if there is no model, or it is damaged, or its weights do not fit its config.
    """
    import orbax.checkpoint as ocp

    info = model_info(path)
    try:
        config = config_from_json(info["config"])
        _check_files(path, info["files"])
        specs = weight_specs(config)
        dtypes = _dtypes(info.get("dtypes", {}), specs)
    except (AttributeError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{path / INFO} does not describe a model: {error}") from error
    places = shardings(config, mesh, rules)
    abstract = {
        name: jax.ShapeDtypeStruct(spec.shape, dtypes[name], sharding=places[name])
        for name, spec in specs.items()
    }
    # Orbax would hold a second copy of all weights while it reads; it needs room for the largest.
    largest = max(a.size * a.dtype.itemsize for a in abstract.values())
    handler = ocp.StandardCheckpointHandler(restore_concurrent_gb=1 + largest // 10**9)
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            wanted = ocp.args.StandardRestore(abstract)
            weights = checkpointer.restore((path / _WEIGHTS).absolute(), args=wanted)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"the weights in {path / _WEIGHTS} cannot be read: {first}") from error
    return Transformer(config, weights, mesh)
