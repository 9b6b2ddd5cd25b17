"""Models on a mesh: made there, loaded there, written from there."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer, init_weights, weight_specs
from arkjax.sharding import ShardingRules, weight_shardings
from arkjax.storage import (
    sha256_file,
    storage_errors,
    write_atomic,
    write_directory_atomic,
)

_INFO = "model.json"
_WEIGHTS = "weights"


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
    return Transformer(config, placed(config, seed))


def save_model(path: Path, model: Transformer, info: dict[str, Any]) -> None:
    """Write a model's config and weights (Orbax), aside first, then renamed.

    Args:
      path: directory to be made; what stands there is replaced.
      model: the model.
      info: further facts to keep beside it, such as the tokenizer's hash.

    Raises:
      StorageError: if the directory cannot be written.
    """
    import orbax.checkpoint as ocp

    with write_directory_atomic(path) as aside, storage_errors(path):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((aside / _WEIGHTS).absolute(), model.arrays())
        files = {f.relative_to(aside).as_posix(): sha256_file(f) for f in _files(aside / _WEIGHTS)}
        about = {"config": dataclasses.asdict(model.config), "files": files, **info}
        write_atomic(aside / _INFO, json.dumps(about, indent=1, sort_keys=True) + "\n")


def model_info(path: Path) -> dict[str, Any]:
    """What `save_model` kept beside the weights.

    Raises:
      DataError: if there is no model, or its description is damaged.
    """
    try:
        info = json.loads((path / _INFO).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"expected a JSON object, found {type(info).__name__}")
        return info
    except (OSError, ValueError) as error:
        raise DataError(
            f"no ArkJAX model at {path}: {_INFO} is missing or damaged ({error}). "
            "Run `arkjax base` to make one, or give the directory of another (in a run, "
            "seed-N/base/model)"
        ) from error


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _check_files(path: Path, files: dict[str, str]) -> None:
    # Orbax reads a file with a flipped bit without complaint: hashes are the only witness.
    for name, recorded in files.items():
        file = path / name
        state = "missing" if not file.is_file() else "damaged"
        if state == "missing" or sha256_file(file) != recorded:
            raise DataError(f"the weights in {path} cannot be read: {name} is {state}; remake them")


def load_model(path: Path, mesh: Mesh, rules: ShardingRules) -> Transformer:
    """Read a model straight onto a mesh, whatever mesh it was written from.

    Raises:
      DataError: if there is no model, or it is damaged, or its weights do not fit its config.
    """
    import orbax.checkpoint as ocp

    info = model_info(path)
    try:
        config = ModelConfig(**info["config"])
        _check_files(path, info["files"])
    except (AttributeError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{path / _INFO} does not describe a model: {error}") from error
    places = shardings(config, mesh, rules)
    abstract = {
        name: jax.ShapeDtypeStruct(spec.shape, config.param_dtype, sharding=places[name])
        for name, spec in weight_specs(config).items()
    }
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            weights = checkpointer.restore((path / _WEIGHTS).absolute(), abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"the weights in {path / _WEIGHTS} cannot be read: {first}") from error
    return Transformer(config, weights)
