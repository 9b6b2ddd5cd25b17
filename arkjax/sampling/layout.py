"""Where the arrays of the engine lie on a mesh: rows over data axes, key heads over tensor."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.models.cache import cache_spec
from arkjax.sharding import BATCH_AXES


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Lay rows over the data axes of a mesh, and key heads over tensor.

    The compiled steps leave all rows where they lie. Axes that do not divide stay whole.

    Args:
      tree: arrays with rows in front; those of a cache, which alone have three axes or more, have
        key heads behind them.
      mesh: None leaves the arrays as they are, and so does a mesh of one device: steps are given
        them beside weights that lie there.
    """
    if mesh is None or mesh.size == 1:
        return tree
    return jax.tree.map(lambda x: jax.device_put(x, _place_of(x, mesh)), tree)


def make(build: Callable[[], Any], mesh: Mesh | None) -> Any:
    """The arrays that `build` makes, laid as `place` does: no device ever holds all of them."""
    if mesh is None:
        return build()
    places = jax.tree.map(lambda x: _place_of(x, mesh), jax.eval_shape(build))
    return jax.jit(build, out_shardings=places)()


def kept_in_place(tree: Any, mesh: Mesh | None) -> Any:
    """What a step returns, laid as `place` does: else the next step is compiled anew for it."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, _place_of(x, mesh)), tree)


def _place_of(x: jax.Array, mesh: Mesh) -> NamedSharding:
    if x.ndim >= 3:
        return NamedSharding(mesh, cache_spec(x.shape, mesh))
    spread = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES if x.shape[0] % spread == 0 else None))


def whole_rows(logits: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Logits [N, V] with every row on one device, spread over all of them if they divide N.

    What draws a token reads its row many times: it then needs nothing of other devices.
    """
    N, V = logits.shape
    if mesh is None or N % mesh.size:
        return logits

    def lay(x: jax.Array, *axes: tuple[str, ...] | str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))

    if V % mesh.shape["tensor"] == 0:
        # As the head lies, and then moved: else the head is, to where the rows shall be.
        logits = lay(logits, BATCH_AXES, "tensor")
    return lay(logits, mesh.axis_names)
