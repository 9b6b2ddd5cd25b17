"""Whether what is given to the loss fits together, before anything is computed."""

from typing import get_args

import jax
import jax.numpy as jnp

from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import (
    HiddenTarget,
    Mixture,
    MixtureTarget,
    SampledTarget,
    TapeTarget,
    Target,
)
from arkjax.errors import ConfigError


def check_tokens(
    hidden: jax.Array, head: jax.Array, labels: jax.Array, *factors: jax.Array | None
) -> None:
    """Raises ConfigError unless all describe the same tokens; factors are mask, label weights."""
    shapes = [factor.shape for factor in factors if factor is not None]
    if any(shape != labels.shape for shape in (hidden.shape[:-1], *shapes)):
        raise ConfigError(
            f"hidden {hidden.shape}, labels {labels.shape} and mask or weights "
            f"{', '.join(map(str, shapes))} do not describe the same tokens; "
            "expected [..., D], [...] and [...]"
        )
    if head.ndim != 2 or head.shape[0] != hidden.shape[-1]:
        raise ConfigError(
            f"head is {head.shape}; expected [{hidden.shape[-1]}, V] as hidden is {hidden.shape} "
            "(transpose a tied embedding)"
        )


def check_target(objective: Objective, target: Target, tokens: tuple[int, ...]) -> None:
    """Raises ConfigError unless the target is of these tokens `[...]` and serves the objective."""
    if target is None:
        if objective.needs_teacher:
            raise ConfigError(
                f"objective.divergence is {objective.divergence!r}, but no teacher is given; "
                "give a target, or set objective.divergence to 'none'"
            )
        return
    if target.gate is not None and target.gate.shape != tokens:
        raise ConfigError(f"target gate {target.gate.shape} does not match tokens {tokens}")
    match target:
        case TapeTarget():
            width = target.top_ids.shape
            shapes = {"top_ids": (*tokens, width[-1]), "top_logprobs": width, "log_tail": tokens}
            _check_shapes("tape", target, shapes, tokens)
        case SampledTarget():
            shapes = {"ids": (*tokens, target.ids.shape[-1]), "weights": target.ids.shape}
            _check_shapes("sampled", target, shapes, tokens)
            others = [term.name for term in objective.terms if term.name != "forward_kl"]
            if objective.needs_teacher and others:
                raise ConfigError(
                    f"objective.divergence is {objective.divergence!r}, but sampled targets have "
                    f"an unbiased gradient for forward_kl alone, not for {', '.join(others)}; "
                    "use forward_kl, or a tape of the most probable tokens"
                )
        case HiddenTarget() | MixtureTarget():
            leading = tokens
            if isinstance(target, MixtureTarget):
                leading = (*tokens, target.hidden.shape[-2]) if target.hidden.ndim > 1 else ()
                if target.weights.shape != leading or target.mixture not in get_args(Mixture):
                    raise ConfigError(
                        f"mixture target of hidden {target.hidden.shape}, weights "
                        f"{target.weights.shape}, mixture {target.mixture!r} does not match tokens "
                        f"{tokens}; expected [..., K, Dt], [..., K], 'geometric' or 'arithmetic'"
                    )
            if target.hidden.shape[:-1] != leading or target.hidden.shape[-1] != len(target.head):
                raise ConfigError(
                    f"teacher hidden {target.hidden.shape} and head {target.head.shape} do not "
                    f"match tokens {tokens}; expected [..., Dt] and [Dt, V]"
                )
    fixed = getattr(target, "kd_temperature", objective.kd_temperature)
    if objective.needs_teacher and fixed != objective.kd_temperature:
        raise ConfigError(
            f"objective.kd_temperature is {objective.kd_temperature:g}, but the tape was "
            f"written at {fixed:g} and cannot be reheated; "
            "write it again at that temperature, or use the tape's"
        )


def common_vocabulary(
    heads: list[jax.Array], vocab_size: int | None, shards: int = 1
) -> tuple[int, int]:
    """(columns to keep of each head, real tokens) of heads that may be padded differently.

    With `shards` each head is a device's share of its columns, all of one width.
    """
    widths = [head.shape[1] for head in heads]
    if len(set(widths)) > 1 and (vocab_size is None or shards > 1):
        remedy = (
            "pad both to the same number before they are split"
            if shards > 1
            else "if both are padded, say how many tokens are real with vocab_size"
        )
        raise ConfigError(
            f"student and teacher heads have {widths[0]} and {widths[1]} columns; {remedy}"
        )
    width = min(widths)
    vocab_size = width * shards if vocab_size is None else vocab_size
    if not 0 < vocab_size <= width * shards:
        raise ConfigError(
            f"vocab_size is {vocab_size}; expected 1 to {width * shards}, the head's columns"
        )
    return width, vocab_size


def _check_shapes(kind: str, target: Target, shapes: dict, tokens: tuple[int, ...]) -> None:
    if any(getattr(target, name).shape != shape for name, shape in shapes.items()):
        raise ConfigError(
            f"{kind} target {jax.tree.map(jnp.shape, target)} does not match tokens {tokens}"
        )
