"""Which implementation of self-attention runs where, and why."""

import dataclasses
from typing import NamedTuple

from arkjax.errors import ConfigError

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "splash")


@dataclasses.dataclass(frozen=True)
class Situation:
    """All that the choice depends on.

    Attributes:
      platform: of the devices: "cpu", "gpu" or "tpu".
      capability: of a GPU, as CUDA counts it: "9.0"; empty elsewhere.
      dtype: of queries, keys and values.
      batch: B, rows over all devices.
      heads: H.
      kv_heads: K.
      head_dim: h.
      soft_cap: of the scores; 0 has none.
      batch_shards: devices that a batch is spread over.
      head_shards: devices that the heads of a row are spread over.
      shared_prefixes: whether segments of a row go on from others.
    """

    platform: str
    dtype: str
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    capability: str = ""
    soft_cap: float = 0.0
    batch_shards: int = 1
    head_shards: int = 1
    shared_prefixes: bool = False


class Choice(NamedTuple):
    """What runs, and the reason for it in words."""

    implementation: str
    reason: str


def choose(implementation: str, situation: Situation) -> Choice:
    """The implementation that runs: "xla", "cudnn" or "splash".

    Args:
      implementation: "auto" takes the platform's own kernel if it can do what is asked, else "xla";
        any other is taken at its word.
      situation: where it would run and on what.

    Raises:
      ConfigError: if the implementation is unknown, or asked for by name where it cannot run.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ConfigError(
            f"model.attention is {implementation!r}: it must be one of {', '.join(IMPLEMENTATIONS)}"
        )
    if implementation == "xla":
        return Choice("xla", "asked for by name")
    if implementation == "auto":
        kernel = {"tpu": "splash", "gpu": "cudnn"}.get(situation.platform)
        if kernel is None:
            return Choice("xla", f"no attention kernel is made for {situation.platform}")
        obstacle = _OBSTACLES[kernel](situation)
        if obstacle is None:
            return Choice(kernel, f"the kernel made for {situation.platform}")
        return Choice("xla", f"{kernel} cannot run: {obstacle[0]}")
    obstacle = _OBSTACLES[implementation](situation)
    if obstacle is not None:
        why, remedy = obstacle
        raise ConfigError(
            f'model.attention is "{implementation}", which cannot run: {why}; {remedy}, or set '
            'model.attention to "auto"'
        )
    return Choice(implementation, "asked for by name")


# What is in the way, and what to change.
_Obstacle = tuple[str, str] | None
_NO_TREES = (
    "segments of a row share prefixes, which no kernel has a mask for",
    "pack every sequence whole",
)


def _splash_obstacle(s: Situation) -> _Obstacle:
    if s.shared_prefixes:
        return _NO_TREES
    if s.platform not in ("tpu", "cpu"):
        return f"it is made for TPUs, and the devices are {s.platform}", "run on a TPU"
    if s.dtype not in ("bfloat16", "float32"):
        return (
            f"TPUs have no {s.dtype}, which model.dtype asks for",
            'set model.dtype to "bfloat16" or "float32"',
        )
    return _sharding_obstacle(s)


def _cudnn_obstacle(s: Situation) -> _Obstacle:
    if s.shared_prefixes:
        return _NO_TREES
    if s.platform != "gpu":
        return f"it is made for NVIDIA GPUs, and the devices are {s.platform}", "run on one"
    version = tuple(int(x) for x in s.capability.split(".") if x.isdigit())
    if version < (8, 0):
        return (
            f"it needs an NVIDIA GPU of compute capability 8.0, and this is {s.capability or '?'}",
            "run on a newer one",
        )
    if s.dtype not in ("bfloat16", "float16"):
        return (
            f"it computes in 16 bits, and model.dtype is {s.dtype}",
            'set model.dtype to "bfloat16"',
        )
    if s.soft_cap:
        return (
            f"it has no soft cap, and model.attention_soft_cap is {s.soft_cap}",
            'set model.attention to "xla"',
        )
    widest = 256 if version >= (9, 0) else 128
    if s.head_dim % 8 or s.head_dim > widest:
        return (
            f"heads must be a multiple of 8 and at most {widest} wide on compute capability "
            f"{s.capability}, and model.head_dim is {s.head_dim}",
            'set model.attention to "xla"',
        )
    return _sharding_obstacle(s)


def _sharding_obstacle(s: Situation) -> _Obstacle:
    """A kernel runs on each device by itself, with whole rows and whole heads."""
    if s.batch % s.batch_shards:
        return (
            f"a batch of {s.batch} rows does not spread evenly over the {s.batch_shards} devices "
            "of mesh.data x mesh.fsdp",
            "make the batch a multiple of them",
        )
    for heads, name in ((s.kv_heads, "num_kv_heads"), (s.heads, "num_heads")):
        if heads % s.head_shards:
            return (
                f"model.{name} is {heads}, which the {s.head_shards} devices of mesh.tensor do "
                "not divide",
                "choose a mesh.tensor that divides it",
            )
    return None


_OBSTACLES = {"splash": _splash_obstacle, "cudnn": _cudnn_obstacle}
