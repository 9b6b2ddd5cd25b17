"""How config.json describes rotary embeddings, in its old and its new words."""

import math
from collections.abc import Mapping
from typing import Any

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import RopeScaling
from arkjax.models.huggingface.fields import GLOBAL, LOCAL, Fields


def rope_from_hf(fields: Fields) -> tuple[float, RopeScaling | None, float]:
    """Base, stretch, and base of windowed layers (0: the same)."""
    by_kind = "rope_local_base_freq" in fields.family.defaults
    parameters = _object(fields, "rope_parameters", fields.values)
    scaling = _object(fields, "rope_scaling", fields.values)
    local: Mapping[str, Any] = {}
    if LOCAL in parameters or GLOBAL in parameters:
        if not by_kind:
            raise fields.wrong("rope_parameters", "the same for all layers")
        local, parameters = (_object(fields, kind, parameters) for kind in (LOCAL, GLOBAL))
    given = {**parameters, **scaling}
    full = Fields(fields.source, {**fields.values, **given}, fields.family)
    theta, stretch = full.number("rope_theta"), _scaling(full, given)
    if not by_kind:
        return theta, stretch, 0.0
    windowed = Fields(fields.source, {**fields.values, **local}, fields.family)
    if _scaling(windowed, local) is not None:
        raise fields.wrong("rope_parameters", "without a stretch in windowed layers")
    base = "rope_theta" if "rope_theta" in local else "rope_local_base_freq"
    return theta, stretch, windowed.number(base)


def _object(fields: Fields, name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    value = values.get(name) or {}
    if not isinstance(value, dict):
        raise fields.wrong(name, "an object")
    return value


def _scaling(fields: Fields, given: Mapping[str, Any]) -> RopeScaling | None:
    """The stretch that `given`, rope_scaling or rope_parameters, asks for."""
    kind = given.get("rope_type", given.get("type")) or "default"
    if fields.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise fields.wrong("partial_rotary_factor", "1: heads are rotated whole")
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise DataError(
            f"{fields.source}: rope type {str(kind)[:100]!r} is not supported; supported are "
            "default, linear, llama3, yarn"
        )
    if given.get("truncate", True) is not True:
        raise fields.wrong("truncate", "true")
    values: dict[str, Any] = {"kind": kind, "factor": fields.number("factor")}
    if kind != "linear":
        original = "original_max_position_embeddings"
        if fields.get(original) is None:
            original = "max_position_embeddings"
        values["original_context"] = fields.integer(original)
    if kind == "llama3":
        for name in ("low_freq_factor", "high_freq_factor"):
            values[name] = fields.number(name)
    if kind == "yarn":
        for name in ("beta_fast", "beta_slow", "attention_factor"):
            if given.get(name) is not None:
                values[name] = fields.number(name)
        if given.get("mscale") and given.get("mscale_all_dim") and "attention_factor" not in values:
            log = 0.1 * math.log(values["factor"])
            share = (fields.number(name) * log + 1.0 for name in ("mscale", "mscale_all_dim"))
            values["attention_factor"] = next(share) / next(share)
    try:
        return RopeScaling(**values)
    except ConfigError as error:
        raise DataError(f"{fields.source}: {error}") from error


def rope_scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """The field rope_scaling of config.json, in its old words, which all versions read."""
    if scaling is None:
        return None
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        fields["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        fields["low_freq_factor"] = scaling.low_freq_factor
        fields["high_freq_factor"] = scaling.high_freq_factor
    if scaling.kind == "yarn":
        fields |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor:
            fields["attention_factor"] = scaling.attention_factor
    return fields
