"""One mesh, and rules that say which logical axis of an array lies on which of its axes."""

import dataclasses
from collections.abc import Mapping

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from arkjax.errors import ConfigError

MESH_AXES = ("data", "fsdp", "tensor")
# Axes over which the rows of a batch, and so its tokens, are spread.
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one of them may be -1 and takes what is left.

    Attributes:
      data: replicas of the parameters; each reads its own rows.
      fsdp: shards of the parameters; each reads its own rows as well.
      tensor: shards of heads, hidden units and vocabulary within a row.
    """

    data: int
    fsdp: int
    tensor: int


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """From the logical axes of weights to mesh axes; None keeps an axis whole.

    Raises:
      ConfigError: if a rule names an axis that the mesh does not have.
    """

    layers: str | None = None
    embed: str | None = "fsdp"
    heads: str | None = "tensor"
    kv_heads: str | None = "tensor"
    mlp: str | None = "tensor"
    experts: str | None = None
    vocab: str | None = "tensor"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            axis = getattr(self, field.name)
            if axis is not None and axis not in MESH_AXES:
                raise ConfigError(
                    f"sharding.{field.name} is {axis!r}: "
                    f"the mesh has the axes {', '.join(MESH_AXES)}"
                )

    def spec(
        self, mesh: Mesh, shape: tuple[int, ...], axes: tuple[str | None, ...]
    ) -> PartitionSpec:
        """Partition of an array with these logical axes on this mesh.

        An axis that its mesh axis does not divide stays whole: two key heads on eight devices are
        kept by all of them.

        Raises:
          ConfigError: if two axes of the array are mapped to one mesh axis.
        """
        names: list[str | None] = []
        for size, axis in zip(shape, axes, strict=True):
            name = None if axis is None else getattr(self, axis)
            fits = name is not None and mesh.shape[name] > 1 and size % mesh.shape[name] == 0
            names.append(name if fits else None)
        used = [name for name in names if name is not None]
        if len(used) != len(set(used)):
            raise ConfigError(
                f"sharding rules put two axes of an array with axes {axes} "
                f"on one mesh axis: {names}"
            )
        return PartitionSpec(*names)


def make_mesh(config: MeshConfig | None = None) -> Mesh:
    """The mesh of all devices; without a config, every device is a data replica.

    Raises:
      ConfigError: if the sizes do not multiply to the number of devices.
    """
    config = config or MeshConfig(data=-1, fsdp=1, tensor=1)
    sizes = [config.data, config.fsdp, config.tensor]
    devices = jax.device_count()
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ConfigError(f"mesh {sizes}: sizes are positive, and at most one is -1")
    known = 1
    for size in sizes:
        known *= 1 if size == -1 else size
    if -1 in sizes and devices % known == 0:
        sizes[sizes.index(-1)] = devices // known
        known = devices
    if known != devices:
        raise ConfigError(
            f"mesh data={config.data}, fsdp={config.fsdp}, tensor={config.tensor} does not fit "
            f"{devices} devices: the sizes must multiply to {devices}"
        )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def weight_shardings(
    mesh: Mesh,
    rules: ShardingRules,
    shapes: Mapping[str, tuple[int, ...]],
    axes: Mapping[str, tuple[str | None, ...]],
) -> dict[str, NamedSharding]:
    """Where each named weight lies."""
    return {
        name: NamedSharding(mesh, rules.spec(mesh, shape, axes[name]))
        for name, shape in shapes.items()
    }


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Where a batch lies: its rows spread over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))
