"""How fast a published checkpoint comes onto the local mesh, and in how much memory.

    python launch/bench/bench_import.py [--layers 26] [--repeats 5] [--devices 1] [--folder DIR]

Writes a sharded bfloat16 checkpoint of Qwen3 1.7B's width (random numbers; 26 layers are 3.0 GiB),
then, in turn and each in a process of its own:

- raw_read: reads every byte of the same files into memory that holds it, with plain `readinto`;
- arkjax: `load_hf` onto all devices, weights sharded over them (fsdp).

Before its clock starts, each touches as much memory as it will need and gives it back: otherwise
the host of a virtual machine is measured, which has to find that memory. Raw reads into one small
buffer, over and over, are timed too: they need no fresh memory, which a load does. The page cache
is warm throughout: for a slow disk both would wait alike. The bound on memory is what a process has
before it loads, plus the shards, plus twice the largest tensor. The last line is one JSON object;
`ratios.raw_read` is raw seconds / import seconds, at least 0.60 is wanted.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SHARD_BYTES = 2**30
_SMALL = 2**23


def write_checkpoint(folder: Path, layers: int) -> None:
    """A checkpoint whose values are random, finite, and the same in tensors of one shape."""
    import ml_dtypes
    import numpy as np

    from arkjax.models.huggingface.config_json import config_to_hf
    from arkjax.models.huggingface.safetensors_files import INDEX, write_file
    from arkjax.models.huggingface.tensors import tensors
    from arkjax.models.presets import PRESETS

    config = dataclasses.replace(PRESETS["qwen3_1_7b"](), num_layers=layers)
    shapes = {name: place.shape for name, place in tensors(config)}
    bfloat16 = np.dtype(ml_dtypes.bfloat16)
    files: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes.items():
        if 2 * sum(map(math.prod, (*files[-1].values(), shape))) > _SHARD_BYTES and files[-1]:
            files.append({})
        files[-1][name] = shape
    made: dict[tuple[int, ...], np.ndarray] = {}

    def values(name: str) -> np.ndarray:
        shape = shapes[name]
        if shape not in made:
            bits = np.random.default_rng(len(made)).integers(0, 2**16, shape, np.uint16)
            made[shape] = (bits & 0xBFFF).view(bfloat16)  # a clear bit of the exponent: finite
        return made[shape]

    weight_map = {}
    for i, of_file in enumerate(files, start=1):
        file = f"model-{i:05d}-of-{len(files):05d}.safetensors"
        described = {name: (bfloat16, shape) for name, shape in of_file.items()}
        write_file(folder / file, described, values)
        weight_map |= dict.fromkeys(of_file, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def touch_memory(folder: Path) -> None:
    """Write to as much memory as the files take, free it, and forget that it was ever held."""
    import numpy as np

    held = [np.ones(file.stat().st_size, np.uint8) for file in files(folder)]
    del held
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; see proc(5)


def raw_read(folder: Path) -> dict[str, float]:
    """Read each file whole into memory of its own, and then through one small buffer."""
    import numpy as np

    touch_memory(folder)
    started = time.perf_counter()
    held = []
    for file in files(folder):
        held.append(np.empty(file.stat().st_size, np.uint8))
        view, done = memoryview(held[-1]), 0
        with file.open("rb", buffering=0) as handle:
            while done < len(view):
                done += handle.readinto(view[done:])
    kept = time.perf_counter()
    small = memoryview(bytearray(_SMALL))
    for file in files(folder):
        with file.open("rb", buffering=0) as handle:
            while handle.readinto(small):
                pass
    return {"seconds": kept - started, "small_buffer_seconds": time.perf_counter() - kept}


def import_checkpoint(folder: Path) -> dict[str, float]:
    """Load the checkpoint; seconds, and memory before and at most."""
    import jax

    from arkjax.models.huggingface.reading import load_hf
    from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

    mesh = make_mesh(MeshConfig(data=1, fsdp=-1, tensor=1))
    jax.block_until_ready(jax.numpy.zeros(8))
    touch_memory(folder)
    base = _memory("VmRSS")
    started = time.perf_counter()
    model = load_hf(folder, mesh, ShardingRules())
    jax.block_until_ready(model.arrays())
    seconds = time.perf_counter() - started
    arrays = model.arrays().values()
    shards = {
        shard.data.unsafe_buffer_pointer(): shard.data.nbytes
        for array in arrays
        for shard in array.addressable_shards
    }
    return {
        "seconds": seconds,
        "base_bytes": base,
        "peak_bytes": _memory("VmHWM"),
        "shard_bytes": sum(shards.values()),
    }


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}")


def measure(part: str, folder: Path, devices: int) -> dict[str, float]:
    """Run one part in a process of its own."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    environment = os.environ | {"XLA_FLAGS": flags.strip()}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--devices", type=int, default=1, help="pretend CPU devices")
    parser.add_argument("--folder", type=Path, help="where to put the checkpoint for a while")
    parser.add_argument("--part", choices=("raw_read", "import"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        part = {"raw_read": raw_read, "import": import_checkpoint}[arguments.part]
        print(json.dumps(part(arguments.folder)))
        return
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="bench-import-"))
    try:
        write_checkpoint(folder, arguments.layers)
        report(folder, arguments)
    finally:
        shutil.rmtree(folder)


def report(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure, print medians, and the JSON line."""
    import jax

    from arkjax.models.huggingface.safetensors_files import read_headers
    from arkjax.versions import versions

    size = sum(file.stat().st_size for file in files(folder))
    largest = max(tensor.size for tensor in read_headers(folder).values())
    measure("raw_read", folder, arguments.devices)  # warms the cache
    raw, ours = [], []
    for repeat in range(arguments.repeats):
        for part, results in (("raw_read", raw), ("import", ours))[:: 1 if repeat % 2 else -1]:
            results.append(measure(part, folder, arguments.devices))

    def median(results: list[dict[str, float]], field: str = "seconds") -> float:
        return statistics.median(result[field] for result in results)

    worst = max(ours, key=lambda result: result["peak_bytes"] - result["base_bytes"])
    bound = worst["base_bytes"] + worst["shard_bytes"] + 2 * largest
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(raw, ours, strict=True)]
    ratio = median(raw) / median(ours)
    print(f"{size / 2**30:.2f} GiB in {len(files(folder))} files, {arguments.devices} device(s)")
    print(f"raw read   {median(raw):.2f} s, {size / median(raw) / 1e9:.2f} GB/s")
    small = median(raw, "small_buffer_seconds")
    print(f"  through a small buffer   {small:.2f} s, {size / small / 1e9:.2f} GB/s")
    print(f"load_hf    {median(ours):.2f} s, {size / median(ours) / 1e9:.2f} GB/s")
    print(f"raw / load_hf {ratio:.2f} (of single pairs {min(ratios):.2f} to {max(ratios):.2f})")
    print(
        f"peak {worst['peak_bytes'] / 2**20:,.0f} MiB; bound {bound / 2**20:,.0f} MiB = before "
        f"{worst['base_bytes'] / 2**20:,.0f} + shards {worst['shard_bytes'] / 2**20:,.0f} + 2 x "
        f"largest tensor {largest / 2**20:,.0f}"
    )
    result = {
        "bench": "import",
        "config": {
            "layers": arguments.layers,
            "repeats": arguments.repeats,
            "devices": arguments.devices,
            "bytes": size,
            "cache": "warm",
        },
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {
            "seconds": round(median(ours), 3),
            "gigabytes_per_second": round(size / median(ours) / 1e9, 2),
            "peak_bytes": worst["peak_bytes"],
            "bound_bytes": bound,
            "within_bound": worst["peak_bytes"] <= bound,
        },
        "peers": {
            "raw_read": {
                "seconds": round(median(raw), 3),
                "gigabytes_per_second": round(size / median(raw) / 1e9, 2),
                "small_buffer_seconds": round(small, 3),
            }
        },
        "ratios": {"raw_read": round(ratio, 3)},
        "spread": {"raw_read": [round(min(ratios), 3), round(max(ratios), 3)]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
