"""`arkjax doctor`: what is installed, what the machine has, and how to mend what is broken."""

import contextlib
import dataclasses
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

from arkjax import __version__
from arkjax.errors import ArkJAXError
from arkjax.extras import REASONS, install
from arkjax.progress import colours
from arkjax.shipped import shipped_path

_CORE = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "ml-collections",
    "absl-py",
    "numpy",
    "sentencepiece",
    "tokenizers",
    "huggingface-hub",
    "jinja2",
    "pyarrow",
    "rich",
    "matplotlib",
)
_OPTIONAL = {
    "qwix": "lora",
    "seqio": "tasks",
    "tensorflow-datasets": "tasks",
    "tensorflow": "tasks",
    "tensorflow-text": "tasks",
    "aiohttp": "serve",
    "apache-beam": "beam",
}
_LOW_DISK_GIB = 2.0
_LOW_MEMORY_GIB = 4.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the diagnosis; `remedy` is empty where there is nothing to mend."""

    level: Literal["ok", "warning", "broken"]
    what: str
    remedy: str = ""


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "0.10.2.dev1" -> (0, 10, 2)."""
    return tuple(int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_pair(python: tuple[int, ...], jax: str, flax: str) -> Finding:
    """Whether Python, JAX and Flax go together: two sets of versions are supported and tested."""
    name = f"python {'.'.join(map(str, python[:2]))} with jax {jax} and flax {flax}"
    mend = "pip install --upgrade arkjax installs versions that go together"
    if python < (3, 11):
        return Finding("broken", name, "ArkJAX needs Python 3.11 or newer")
    if version_tuple(jax) >= (0, 11, 1) and version_tuple(flax) <= (0, 12, 8):
        return Finding("broken", f"{name}: flax <= 0.12.8 breaks on jax >= 0.11.1", mend)
    if python < (3, 12):
        supported = version_tuple(jax) == (0, 10, 2) and version_tuple(flax) == (0, 12, 8)
        tested = "jax 0.10.2 with flax 0.12.8"
    else:
        supported = version_tuple(jax) >= (0, 11, 1) and version_tuple(flax) >= (0, 12, 9)
        tested = "jax >= 0.11.1 with flax >= 0.12.9"
    if supported:
        return Finding("ok", f"{name}: a tested combination")
    return Finding("warning", f"{name}: not tested; on this Python {tested} is", mend)


def _packages() -> Iterator[Finding]:
    yield Finding("ok", f"arkjax {__version__}, {platform.platform()}")
    versions = {package: _version(package) for package in _CORE}
    found = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    yield Finding("ok", found or "no packages")
    for package, version in versions.items():
        if version is None:
            yield Finding("broken", f"{package} is not installed", f"pip install {package}")
    if versions["jax"] and versions["flax"]:
        yield check_pair(sys.version_info[:3], versions["jax"], versions["flax"])
    for package, extra in _OPTIONAL.items():
        version = _version(package)
        if version is not None:
            yield Finding("ok", f"{package} {version} (optional)")
        else:
            remedy = f"{install(extra)} if you use {REASONS[extra]}"
            yield Finding("ok", f"{package} is not installed (optional)", remedy)


def _shipped() -> Iterator[Finding]:
    for name in ("configs", "data"):
        yield Finding("ok", f"{name}/ at {shipped_path(name)}")


def _devices() -> Iterator[Finding]:
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    yield Finding("ok", f"{len(devices)} {jax.default_backend()} device(s): {', '.join(kinds)}")
    for device in devices:
        with contextlib.suppress(Exception):
            stats = device.memory_stats()
            if stats and "bytes_limit" in stats:
                free = (stats["bytes_limit"] - stats.get("bytes_in_use", 0)) / 2**30
                yield Finding("ok", f"{device}: {free:.1f} GiB of memory free for JAX")
    unused = {
        "NVIDIA GPU": (Path("/dev/nvidia0"), "gpu"),
        "TPU": (Path("/dev/accel0"), "tpu"),
    }
    for name, (path, extra) in unused.items():
        if path.exists() and jax.default_backend() == "cpu":
            chosen = os.environ.get("JAX_PLATFORMS")
            remedy = install(extra)
            if chosen:
                remedy = f"unset JAX_PLATFORMS (it is {chosen!r}), then {remedy} if need be"
            yield Finding("warning", f"this machine has a {name} that JAX does not use", remedy)


def _memory() -> Iterator[Finding]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    total = available = pages * size / 2**30
    with contextlib.suppress(OSError, TypeError):
        text = Path("/proc/meminfo").read_text()
        available = int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) / 2**20
    what = f"host memory: {available:.1f} of {total:.1f} GiB available, {os.cpu_count()} CPU cores"
    if available < _LOW_MEMORY_GIB:
        yield Finding("warning", what, "close other programs, or lower the batch sizes")
    else:
        yield Finding("ok", what)


def _disk(workdir: Path) -> Iterator[Finding]:
    place = workdir.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        yield Finding("broken", f"{place} is a file", "choose another --workdir")
        return
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".arkjax-doctor-") as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as error:
        remedy = "choose another --workdir, change its permissions or free some space"
        yield Finding("broken", f"cannot write to {place}: {error.strerror}", remedy)
        return
    free = shutil.disk_usage(place).free / 2**30
    what = f"{place} is writable, {free:.1f} GiB free"
    if free < _LOW_DISK_GIB:
        yield Finding("warning", what, "free some space or choose another --workdir")
    else:
        yield Finding("ok", what)


def _computation() -> Iterator[Finding]:
    import jax
    import numpy as np

    # Small integers: every product and sum is exact in float32 on any device and precision.
    a = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 8
    expected = a @ a.T
    started = time.perf_counter()
    got = np.asarray(jax.jit(lambda x: x @ x.T)(a))
    seconds = time.perf_counter() - started
    if np.array_equal(got, expected):
        yield Finding("ok", f"a jitted matrix product is right ({seconds:.2f} s with compilation)")
    else:
        remedy = "check the accelerator and its driver; try JAX_PLATFORMS=cpu to compare"
        yield Finding("broken", "a jitted matrix product came out wrong", remedy)


def diagnose(workdir: Path) -> Iterator[Finding]:
    """Check everything, one finding at a time; a check that fails is a finding too."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "packages": _packages,
        "shipped files": _shipped,
        "devices": _devices,
        "memory": _memory,
        "disk": lambda: _disk(workdir),
        "computation": _computation,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except ArkJAXError as error:
            yield Finding("broken", str(error), "reinstall ArkJAX")
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            what = f"checking the {name} failed: {type(error).__name__}: {reason}"
            yield Finding("broken", what, "repair the package named above, or reinstall ArkJAX")


def main(workdir: Path) -> int:
    """Print the diagnosis. Returns 0 if nothing is broken, else 1."""
    marks = {"ok": "ok     ", "warning": "warning", "broken": "BROKEN "}
    codes = {"ok": "32", "warning": "33", "broken": "1;31"}
    broken = 0
    for finding in diagnose(workdir):
        mark = marks[finding.level]
        if colours(sys.stdout):
            mark = f"\033[{codes[finding.level]}m{mark}\033[0m"
        print(f"{mark}  {finding.what}" + (f" -> {finding.remedy}" if finding.remedy else ""))
        broken += finding.level == "broken"
    print("healthy" if not broken else f"{broken} thing(s) broken")
    return int(broken > 0)
