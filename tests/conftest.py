"""What all tests share: eight pretend devices, no silent broadcasting, and one whole small run."""

import fcntl
import gc
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# JAX reads these when it is first imported, so they are set before any test module is.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tests compile far more than they compute: LLVM need not try hard, nor split small programs.
_FLAGS = {
    "--xla_force_host_platform_device_count": 8,
    "--xla_backend_optimization_level": 0,
    "--xla_cpu_parallel_codegen_split_count": 1,
}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA's older emitters, which later versions have no more, compile twice as fast.
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
_given = os.environ.get("XLA_FLAGS", "")
_added = [f"{flag}={value}" for flag, value in _FLAGS.items() if flag not in _given]
os.environ["XLA_FLAGS"] = " ".join([_given, *_added]).strip()

import jax  # noqa: E402


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job, and so would be the processes in which tests press Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "fast: quick; also run on the newest supported Python")
    config.addinivalue_line("markers", "slow: takes more than a few seconds")


def pytest_collection_modifyitems(items):
    # Whole runs first: one of several processes makes them while the others, which begin elsewhere
    # in this list, test the rest and need not wait for them.
    items.sort(key=lambda item: "arkjax_command" not in item.fixturenames)


def pytest_runtest_setup(item):
    # What is there by now, programs and thousands of tests, no collection need look at again: the
    # commands under test collect garbage, and would take seconds for it.
    if gc.get_freeze_count():  # else a command has just collected everything
        gc.collect()
    gc.freeze()


# Most Linux machines let a process have 65,530 memory mappings; a compiled program takes about 17.
_MOST_MAPPINGS = 12_000


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Let go of what earlier tests compiled: a process that holds it all in the end dies of it."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()
        gc.collect()


# --- whole runs -----------------------------------------------------------------------------------

_ROOT = Path(__file__).resolve().parents[1]
# No stage may need these: in a process of `CommandLine` they are not installed.
_HIDDEN = ("tensorflow", "tensorflow_datasets", "seqio", "torch")
_SITE = f"""
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {_HIDDEN}:
            return self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


class CommandLine:
    """Runs `arkjax` as a user does, in a process of its own with one device.

    Processes share what XLA compiled, and find no heavy framework.
    """

    def __init__(self, scratch: Path):
        site = scratch / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(_SITE)
        ours = {"XLA_FLAGS", "JAX_NUMPY_RANK_PROMOTION"}
        self.environment = {k: v for k, v in os.environ.items() if k not in ours} | {
            "PYTHONPATH": os.pathsep.join([str(site), str(_ROOT)]),
            "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, *arguments: object, **settings) -> subprocess.Popen:
        """Start `python` with these arguments."""
        command = [sys.executable, *map(str, arguments)]
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
        return subprocess.Popen(command, env=self.environment, **settings)

    def python(self, *arguments: object, **settings) -> subprocess.CompletedProcess:
        """Run `python` with these arguments to its end."""
        process = self.start(*arguments, **settings)
        try:
            out, err = process.communicate(timeout=600)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def __call__(self, *arguments: object, **settings) -> subprocess.CompletedProcess:
        """Run `arkjax` with these arguments to its end."""
        return self.python("-m", "arkjax", *arguments, **settings)


@pytest.fixture(scope="session")
def beam():
    """Apache Beam. With ARKJAX_BEAM=1 its absence is a failure."""
    try:
        import apache_beam
    except ImportError as error:
        if os.environ.get("ARKJAX_BEAM") == "1":
            pytest.fail(f"ARKJAX_BEAM=1 and Apache Beam cannot be imported: {error}")
        pytest.skip("Apache Beam is not installed: the extra beam, in an environment without SeqIO")
    return apache_beam


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """One folder for all processes that run these tests side by side."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def arkjax_command(shared_folder) -> CommandLine:
    """The command line in a process of its own."""
    return CommandLine(shared_folder)


@pytest.fixture(scope="session")
def made_once(shared_folder):
    """A function that makes a folder of that name, unless another of these processes has."""

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder, finished = shared_folder / name, shared_folder / f"{name}.finished"
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                make(folder)
                finished.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def tiny_run(arkjax_command, made_once) -> Path:
    """A finished run of configs/tiny.py: to be read or copied, never to be changed."""

    def make(workdir: Path) -> None:
        done = arkjax_command("run", "--config", "tiny", "--workdir", workdir)
        assert done.returncode == 0, done.stderr

    return made_once("tiny-run", make)
