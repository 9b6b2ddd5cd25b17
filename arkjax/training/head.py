"""How losses over a model's head are told where its tokens and its weights lie."""

from typing import Any

import jax
from jax.sharding import Mesh

from arkjax.models.transformer import Transformer
from arkjax.sharding import BATCH_AXES


def over(mesh: Mesh | None) -> dict[str, Any]:
    """How `linear_divergence` is told that tokens are spread over a mesh."""
    return {"mesh": mesh, "token_axes": BATCH_AXES} if mesh is not None and mesh.size > 1 else {}


def head_for(model: Transformer, hidden: jax.Array) -> jax.Array:
    """The model's head [D, V] as a loss over `hidden` takes it.

    On one device, and wherever no device has to gather it, as it is trained: products are made in
    the dtype of `hidden`, and the gradient comes straight from its fp32 accumulator. Where its rows
    are spread over devices it is gathered in the dtype of `hidden`, which is half of the bytes.
    """
    mesh = model.mesh
    gathered = mesh is not None and mesh.shape["fsdp"] > 1
    return model.head.astype(hidden.dtype) if gathered else model.head
