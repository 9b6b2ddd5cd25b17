"""A process that records, killed by the kernel or met by a full disk, in earnest."""

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import arkjax
from arkjax.errors import StorageError
from arkjax.trajectories.consistency import verify
from arkjax.trajectories.schema import content_hash
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast

KILLS = 20
# Records the calls of a finished store in another one, and says when it begins and ends; forked for
# every attempt, since starting Python takes longer than what it does here.
RECORDER = """
    import os, sys
    from arkjax.trajectories.store import CallStore

    calls = CallStore(sys.argv[1]).load()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            print("began", os.getpid(), flush=True)
            with CallStore(sys.argv[2], shard_calls=7) as store:
                for call in calls:
                    store.append(call)
            print("ended", flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("gone", flush=True)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(arkjax.__file__).parents[1])}


def test_twenty_kills_at_random_moments_cost_nothing_that_was_recorded(debate, store_of, tmp_path):
    calls = [c for n in range(50) for c in debate(n)]
    source, target = store_of(calls, name="source"), tmp_path / "killed"
    command = [sys.executable, "-c", textwrap.dedent(RECORDER), str(source), str(target)]
    rng = random.Random(7)
    kills, recorded = 0, 0
    with subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        ended = False
        while not ended:
            process.stdin.write("go\n")
            process.stdin.flush()
            began, pid = process.stdout.readline().split()
            assert began == "began"
            if kills < KILLS:
                # Ever later, so that every attempt gets some way and some moments are those of the
                # sweep and of the first shards.
                time.sleep(rng.uniform(0, 0.004 * (1 + kills)))
                os.kill(int(pid), signal.SIGKILL)
                kills += 1
            said = process.stdout.readline().strip()
            ended = said == "ended" and kills >= KILLS
            if said == "ended":
                assert process.stdout.readline().strip() == "gone"
            # At every moment the record can be read, is in order, and has lost nothing.
            now = CallStore(target)
            assert len(now) >= recorded
            recorded = len(now)
            shards = {path.name for path in target.glob("*.parquet")} if target.exists() else set()
            assert all((target / f"{name}.sha256").exists() for name in shards)
        process.stdin.close()
    assert kills == KILLS
    assert CallStore(target).content_hash() == content_hash(calls)
    assert list(verify(target)) == []
    kept = {path.name.removesuffix(".sha256") for path in target.iterdir()}
    assert kept == {path.name for path in target.glob("*.parquet")}


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(debate, tmp_path):
    calls = [c for n in range(30) for c in debate(n)]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = CallStore(tmp_path / "calls", shard_calls=30)
    store.append(calls[:60])
    whole = sorted(path.name for path in (tmp_path / "calls").iterdir())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # No file may be larger than this from now on: the checksum fits, the shard does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(StorageError, match=r"calls-00002\.parquet.*GiB free"):
            store.append(calls[60:])
        assert len(CallStore(tmp_path / "calls")) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    left = {path.name for path in (tmp_path / "calls").iterdir()}
    assert left - set(whole) == {"calls-00002.parquet.sha256"}
    # The same process: what is buffered was not lost.
    store.append(calls)
    store.close()
    assert CallStore(tmp_path / "calls").content_hash() == content_hash(calls)
    assert list(verify(tmp_path / "calls")) == []


# A file system of 96 KiB in a mount namespace of its own: its errors are a full disk's.
FULL = """
    import sys
    from pathlib import Path
    from arkjax.errors import StorageError
    from arkjax.trajectories.store import CallStore

    source, place, other = map(Path, sys.argv[1:])
    calls = CallStore(source).load()
    try:
        with CallStore(place, shard_calls=20) as store:
            store.append(calls)
    except StorageError as error:
        print(error)
    store = CallStore(place)
    assert 0 < len(store) < len(calls), len(store)
    with CallStore(other) as rest:
        rest.append(store)
        rest.append(calls)
"""


def test_a_file_system_without_space(debate, store_of, tmp_path):
    calls = [c for n in range(120) for c in debate(n)]
    source, disk = store_of(calls, name="source"), tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "full.py").write_text(textwrap.dedent(FULL))
    inside = (
        f"mount -t tmpfs -o size=96k none {disk} && "
        f"exec {sys.executable} {tmp_path / 'full.py'} {source} {disk} {tmp_path / 'other'}"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inside],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout and "free some space" in done.stdout
    assert CallStore(tmp_path / "other").content_hash() == content_hash(calls)
