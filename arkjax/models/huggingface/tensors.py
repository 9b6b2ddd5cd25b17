"""What published checkpoints call their tensors, and which part of a weight each is."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from arkjax.models.config import ModelConfig
from arkjax.models.weights import LAYERS, weight_specs


@dataclasses.dataclass(frozen=True)
class Place:
    """Which part of a weight a tensor of a checkpoint is.

    Attributes:
      weight: its name in `weight_specs`.
      index: along the first axes of the weight: (), (layer,) or (layer, expert).
      shape: of the tensor in the checkpoint; the weight may have more axes.
    """

    weight: str
    index: tuple[int, ...]
    shape: tuple[int, ...]


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_WHOLE = {"embedding": EMBEDDING, "final_norm": "model.norm.weight", "head": HEAD}
_OF_LAYER = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_bias": "self_attn.q_proj.bias",
    "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "router": "mlp.gate.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}
_WITH_POST_NORMS = {
    "attn_post_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "mlp_post_norm": "post_feedforward_layernorm.weight",
}
# Axes that a checkpoint has as one: heads and their widths.
_JOINED = {"q": (0, 2), "k": (0, 2), "v": (0, 2), "o": (1, 3)} | {
    f"{name}_bias": (0, 2) for name in "qkv"
}


def tensors(config: ModelConfig) -> Iterator[tuple[str, Place]]:
    """Name and place of every tensor that a checkpoint of the model has, layer after layer."""
    specs = weight_specs(config)
    of_layer = _OF_LAYER | (_WITH_POST_NORMS if config.post_norms else {})
    yield _WHOLE["embedding"], Place("embedding", (), specs["embedding"].shape)
    for layer in range(config.num_layers):
        for name, suffix in of_layer.items():
            if LAYERS + name not in specs:
                continue
            shape = specs[LAYERS + name].shape[1:]
            prefix = f"model.layers.{layer}."
            if config.experts is not None and name in ("gate", "up", "down"):
                for expert in range(config.experts.number):
                    own = suffix.replace("mlp.", f"mlp.experts.{expert}.")
                    yield prefix + own, Place(LAYERS + name, (layer, expert), shape[1:])
                continue
            if name in _JOINED:
                first, last = _JOINED[name]
                shape = (*shape[:first], math.prod(shape[first:last]), *shape[last:])
            yield prefix + suffix, Place(LAYERS + name, (layer,), shape)
    for name in itertools.islice(_WHOLE, 1, None):
        if name in specs:
            yield _WHOLE[name], Place(name, (), specs[name].shape)
