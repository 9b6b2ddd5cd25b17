"""The replicas of a sharded model: the weights of each, whole, on devices of its own."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arkjax.errors import ConfigError
from arkjax.models.transformer import Transformer
from arkjax.sharding import BATCH_AXES, MESH_AXES


def model_mesh(model: Transformer) -> Mesh | None:
    """The mesh that a model lies on; None if it lies on one device without a mesh."""
    place = model.arrays()["embedding"].sharding
    return place.mesh if isinstance(place, NamedSharding) else None


def replica_meshes(mesh: Mesh) -> list[Mesh]:
    """The parts of a mesh that hold all weights between them: data=1, fsdp=1, tensor as it was.

    Returns:
      data x fsdp meshes, the same in every process.

    Raises:
      ConfigError: if one of them has devices of several processes.
    """
    tensor = mesh.shape["tensor"]
    meshes = []
    for devices in mesh.devices.reshape(-1, tensor):
        processes = sorted({device.process_index for device in devices})
        if len(processes) > 1:
            hosts = ", ".join(map(str, processes))
            raise ConfigError(
                f"mesh.tensor is {tensor}, and a replica of the model would lie on devices of "
                f"processes {hosts}: a replica must lie on the devices of one process, so choose a "
                "mesh.tensor that divides the devices of a host"
            )
        grid = np.asarray(devices).reshape(1, 1, tensor)
        meshes.append(Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)))
    return meshes


def owner(mesh: Mesh) -> int:
    """The process whose devices a replica lies on."""
    return mesh.devices.flat[0].process_index


def replicate(model: Transformer, meshes: Sequence[Mesh]) -> list[Transformer]:
    """The model once on each of these parts of its mesh, all of which are devices of this process.

    Weights that lie whole in every part are shared with the model, not copied. Those that "data"
    or "fsdp" divide are gathered, one after the other; every process of the mesh then has to call
    this.

    Args:
      model: lies on a mesh.
      meshes: of `replica_meshes`.
    """
    made: list[dict[str, jax.Array]] = [{} for _ in meshes]
    mesh = model_mesh(model)
    for name, weight in model.arrays().items():
        spec = _whole(weight.sharding)
        if not weight.sharding.is_equivalent_to(NamedSharding(mesh, spec), weight.ndim):
            weight = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, spec))(weight)
        shards = {shard.device: shard.data for shard in weight.addressable_shards}
        for weights, part in zip(made, meshes, strict=True):
            weights[name] = jax.make_array_from_single_device_arrays(
                weight.shape,
                NamedSharding(part, spec),
                [shards[device] for device in part.devices.flat],
            )
    return [
        Transformer(model.config, weights, part) for weights, part in zip(made, meshes, strict=True)
    ]


def _whole(place: jax.sharding.Sharding) -> PartitionSpec:
    """How a weight lies within a replica: as it did, but for the axes of the batch."""
    if not isinstance(place, NamedSharding):
        return PartitionSpec()
    axes = []
    for entry in place.spec:
        names = entry if isinstance(entry, tuple) else (entry,)
        kept = tuple(name for name in names if name is not None and name not in BATCH_AXES)
        axes.append(kept if len(kept) > 1 else (kept[0] if kept else None))
    return PartitionSpec(*axes)
