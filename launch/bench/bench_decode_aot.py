"""What a decode step costs on a TPU slice, by XLA's own TPU compiler, without a TPU.

    python launch/bench/bench_decode_aot.py [--preset qwen3_8b] [--topology v6e:2x2] \\
        [--mesh 1,1,4] [--slots 128] [--context 2048] [--layers 36] [--cache int8] \\
        [--weights int8]

The engine's decode block is compiled ahead of time for the slice, with weights in bf16 or as the
engine has them in int8, and without their values, so any size can be tried anywhere that
`pip install libtpu` works. Printed are the seconds of compiling, the memory of a chip by XLA's
analysis, and the bytes of its memory (HBM) that one step moves beside those that it must: every
weight and the keys and values of every slot once. Counted by `hbm_bytes` is the whole body of the
loop, with the entry of one waiting call, and the step's share of what happens once a block. The
ratio `bytes` is needed over moved: 1 is ideal. XLA's own sum stands beside it; it counts what moves
in the memory of the core as well.
"""

import os

# Before jax is imported: libtpu would ask a cloud machine's metadata server where it runs.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")

import argparse
import dataclasses
import json
import time
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from hbm_bytes import step_bytes
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from arkjax.models.cache import Precision
from arkjax.models.placement import shardings
from arkjax.models.presets import PRESETS
from arkjax.models.quantized import SCALE
from arkjax.models.transformer import unstacked
from arkjax.models.weights import WeightSpec, weight_specs
from arkjax.sampling import decode
from arkjax.sharding import BATCH_AXES, MESH_AXES, ShardingRules
from arkjax.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="qwen3_8b", choices=sorted(PRESETS))
    parser.add_argument("--topology", default="v6e:2x2")
    parser.add_argument("--mesh", default="1,1,4", help="data,fsdp,tensor")
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--waiting", type=int, default=8)
    parser.add_argument("--layers", type=int, help="instead of as many as the model has")
    parser.add_argument("--cache", choices=get_args(Precision), default="model")
    parser.add_argument("--weights", choices=get_args(Precision), default="model")
    parser.add_argument("--hlo", help="file for the compiled program")
    args = parser.parse_args()

    devices = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices
    mesh = Mesh(np.array(devices).reshape([int(n) for n in args.mesh.split(",")]), MESH_AXES)
    config = PRESETS[args.preset]()
    if args.layers:
        config = dataclasses.replace(config, num_layers=args.layers)
    if args.weights == "int8":
        config = dataclasses.replace(config, base_quantization="int8")
    places = shardings(config, mesh, ShardingRules())

    def layer_place(name: str) -> NamedSharding:
        place = places[name]
        stacked = name.startswith("layers_")
        return NamedSharding(mesh, PartitionSpec(*place.spec[1:])) if stacked else place

    def kept(name: str, spec: WeightSpec) -> jax.ShapeDtypeStruct:
        # Int8 values and their scales in fp32; all else in bf16.
        quantised = name.endswith(SCALE) or spec.dtype == "int8"
        return jax.ShapeDtypeStruct(spec.shape, spec.dtype if quantised else jnp.bfloat16)

    stacked = {name: kept(name, spec) for name, spec in weight_specs(config).items()}
    weights = {
        name: jax.tree.map(
            lambda s, name=name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=layer_place(name)),
            shape,
        )
        for name, shape in jax.eval_shape(unstacked, stacked).items()
    }

    def rows(count: int) -> decode.Rows:
        made = jax.eval_shape(
            lambda: decode.empty_rows(config, count, args.context, 4, cache=args.cache)
        )

        def laid(s: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            spec = PartitionSpec(BATCH_AXES, "tensor") if s.ndim >= 3 else PartitionSpec(BATCH_AXES)
            return jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=NamedSharding(mesh, spec))

        return jax.tree.map(laid, made)

    everywhere = NamedSharding(mesh, PartitionSpec())

    def numbers(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=everywhere)

    slots, waiting = rows(args.slots), rows(args.waiting)
    started = time.perf_counter()
    lowered = decode.decode_block.lower(
        decode.Spec(config, mesh),
        weights,
        slots,
        waiting,
        numbers(args.waiting),
        numbers(args.slots + args.waiting),
        args.steps,
        0,
        numbers(),
    )
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    text = compiled.as_text()
    if args.hlo:
        with open(args.hlo, "w") as file:
            file.write(text)

    def size(tree) -> int:
        """Bytes of a chip's share."""
        return sum(
            int(np.prod(s.sharding.shard_shape(s.shape))) * s.dtype.itemsize
            for s in jax.tree.leaves(tree)
        )

    read = {name: weight for name, weight in weights.items()}
    if not config.tie_embeddings:
        # Of the embedding a step reads a row a slot.
        del read["embedding"]
    needed = size(read) + size(slots.cache)
    step, once = step_bytes(text)
    moved = step + once / args.steps
    analysed = compiled.cost_analysis()["bytes accessed"]
    memory = compiled.memory_analysis()
    chip = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    print(f"compiled in {seconds:.0f} s for {args.topology}, mesh {args.mesh}")
    print(
        f"a chip holds {chip / 2**30:.2f} GiB, of which "
        f"{memory.temp_size_in_bytes / 2**30:.2f} are temporary"
    )
    print(f"a step moves {moved / 2**30:.2f} GiB a chip; it needs {needed / 2**30:.2f}")
    print(f"XLA's sum with the memory of the core is {analysed / 2**30:.2f} GiB")
    result = {
        "bench": "decode_aot",
        "config": vars(args),
        "device": {"compiled_for": args.topology, "device_kind": devices[0].device_kind},
        "versions": versions(),
        "arkjax": {
            "compile_seconds": round(seconds, 1),
            "argument_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "bytes_moved": round(moved),
            "bytes_in_step": step,
            "bytes_once_a_block": once,
            "bytes_by_xla": analysed,
            "bytes_needed": needed,
        },
        "ratios": {"bytes": round(needed / moved, 3)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
