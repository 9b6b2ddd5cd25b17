"""Adapters in the files of the `peft` library, beside models of `transformers`.

A folder holds adapter_config.json and adapter_model.safetensors; the factors of a matrix are named
after its module, ".lora_A.weight" [r, in] and ".lora_B.weight" [out, r]. That is how adapters are
stacked here too, so that reading and writing reshapes and transposes nothing.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import PROJECTIONS, Lora, ModelConfig
from arkjax.models.huggingface.safetensors_files import (
    DTYPES,
    StoredTensor,
    read_header,
    read_into,
    write_file,
)
from arkjax.models.huggingface.tensors import tensors
from arkjax.models.lora import adapter_places
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS, LORA_A, LORA_B, weight_specs
from arkjax.sharding import ShardingRules
from arkjax.storage import write_atomic, write_directory_atomic
from arkjax.text.files import read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# What `peft` puts before the name of a module in the base model.
_PREFIX = "base_model.model."
# Fields that must have one of these values: others are adapters of other kinds, or start from
# another base than the published one.
_EXPECTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}
# Fields that change nothing in what a finished adapter computes, or are read. All others must be
# off, for what an unknown one would do is unknown.
_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_rslora",
}


@dataclasses.dataclass(frozen=True)
class _Factor:
    """Which part of an adapter a tensor is: layer `layer` of `weight`, as a matrix `shape`."""

    weight: str
    layer: int
    shape: tuple[int, int]


def export_peft(model: Transformer, path: Path, base_name: str) -> None:
    """Write the adapters of a model as a folder that `peft.PeftModel.from_pretrained` reads.

    They fit the base as it was before it was quantised, up to the error of that.

    Args:
      model: with adapters.
      path: folder to be made; what stands there is replaced.
      base_name: path or hub name of the base model in the layout of `transformers`.

    Raises:
      ConfigError: if the model has no adapters.
      StorageError: if the folder cannot be written.
    """
    lora = model.config.lora
    if lora is None:
        raise ConfigError("the model has no adapters: add them with `add_lora`, and train them")
    factors = dict(_factors(model.config))
    arrays = {
        name: np.asarray(array)
        for name, array in model.arrays().items()
        if name.endswith((LORA_A, LORA_B))
    }
    modules = {name.split(".lora_")[0].rpartition(".")[2] for name in factors}
    about = {
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted(modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": False,
    }
    with write_directory_atomic(path) as aside:
        described = {name: (arrays[f.weight].dtype, f.shape) for name, f in factors.items()}
        write_file(
            aside / WEIGHTS,
            described,
            lambda name: arrays[factors[name].weight][factors[name].layer],
        )
        write_atomic(aside / CONFIG, json.dumps(about, indent=2, sort_keys=True) + "\n")


def import_peft(model: Transformer, path: Path, rules: ShardingRules | None = None) -> Transformer:
    """A base model with the adapters that lie in a folder of `peft`.

    Args:
      model: the base, without adapters; it is left as it is.
      path: folder with adapter_config.json and adapter_model.safetensors.
      rules: how weights are sharded, where the model lies on a mesh; None takes the default.

    Raises:
      ConfigError: if the model has adapters.
      DataError: if the files are missing or damaged, do not fit the model, or hold an adapter of a
        kind that is not LoRA of whole matrices in every layer.
    """
    if model.config.lora is not None:
        raise ConfigError("the model has adapters: merge them with `merge_lora` first")
    about, stored = read_json(path / CONFIG), read_header(path / WEIGHTS)
    try:
        lora = _read_lora(path, about, stored)
        config = dataclasses.replace(model.config, lora=lora)
    except ConfigError as error:
        raise DataError(f"{path / CONFIG} does not fit the model: {error}") from error
    factors = dict(_factors(config))
    _check_tensors(path, stored, factors)
    specs, places = weight_specs(config), adapter_places(model, lora, rules)
    arrays = {name: np.empty(specs[name].shape, np.float32) for name in places}
    for name, factor in factors.items():
        matrix = arrays[factor.weight][factor.layer].reshape(factor.shape)
        whole = tuple((0, size) for size in factor.shape)
        read_into(stored[name], factor.shape, [(whole, matrix)])
    adapters = jax.device_put(arrays, places)
    return Transformer(config, model.arrays() | adapters, model.mesh)


def _factors(config: ModelConfig) -> Iterator[tuple[str, _Factor]]:
    """Every tensor of the adapters of a model, by its name in `peft`."""
    rank = config.lora.rank
    wanted = {LAYERS + target for target in config.lora.targets}
    base = dataclasses.replace(config, lora=None, base_quantization="none")
    for name, place in tensors(base):
        if place.weight in wanted:
            outputs, inputs = place.shape
            module, (layer,) = _PREFIX + name.removesuffix(".weight"), place.index
            yield f"{module}.lora_A.weight", _Factor(place.weight + LORA_A, layer, (rank, inputs))
            yield f"{module}.lora_B.weight", _Factor(place.weight + LORA_B, layer, (outputs, rank))


def _read_lora(path: Path, about: dict[str, Any], stored: dict[str, StoredTensor]) -> Lora:
    for field, value in {"peft_type": None, **about}.items():
        expected = _EXPECTED.get(field, (None, False, [], {}))
        if field not in _HARMLESS and value not in expected:
            raise DataError(
                f"{path / CONFIG}: {field[:100]} is {str(value)[:100]}, expected {expected[0]}: "
                "merge this adapter into its base with peft, and import the model that results"
            )
    rank, alpha = about.get("r"), about.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise DataError(
            f"{path / CONFIG}: r is {str(rank)[:100]} and lora_alpha {str(alpha)[:100]}, expected "
            "a positive integer and a number; copy the file again"
        )
    # rsLoRA scales by alpha / sqrt(r) (arXiv 2312.03732, eq. 6).
    alpha = alpha * math.sqrt(rank) if about.get("use_rslora") else float(alpha)
    found = {name.split(".lora_")[0].rpartition(".")[2] for name in stored}
    targets = tuple(target for target in PROJECTIONS if f"{target}_proj" in found)
    return Lora(rank, alpha, targets)


def _check_tensors(
    path: Path, stored: dict[str, StoredTensor], factors: dict[str, _Factor]
) -> None:
    if wrong := sorted(stored.keys() ^ factors.keys()):
        where = "is missing" if wrong[0] in factors else "belongs to no matrix of the model"
        raise DataError(
            f"{path / WEIGHTS}: tensor {wrong[0][:100]} {where} ({len(wrong)} such); take the "
            "adapter's own base model, and an adapter of the same matrices in all layers"
        )
    for name, factor in factors.items():
        tensor = stored[name]
        if tensor.shape != factor.shape or tensor.dtype not in DTYPES:
            raise DataError(
                f"{path / WEIGHTS}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, expected "
                f"floating-point {list(factor.shape)}: take the adapter's own base model"
            )
