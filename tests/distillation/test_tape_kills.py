"""Processes that write a tape: killed by the kernel, side by side, or met by a full disk."""

import contextlib
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
from arkjax.distillation.tape import Tape
from arkjax.errors import DataError, StorageError

from .tapes import FORMATS, Teacher, arrays_of, make_rows, write

pytestmark = pytest.mark.fast

KILLS = 8
# Forked for every attempt, since starting Python takes longer than what it does here. A line is one
# write, so that two processes do not mix theirs.
WRITER = """
    import os, sys
    from tapes import FORMATS, make_rows, write

    rows = make_rows(200, 16)
    for line in sys.stdin:
        place, kind, host, hosts = line.split()
        child = os.fork()
        if not child:
            os.write(1, f"began {os.getpid()}\\n".encode())
            write(
                __import__("pathlib").Path(place), rows, tape_format=FORMATS[kind], shard_rows=4,
                process_index=int(host), process_count=int(hosts),
            )
            os.write(1, b"ended\\n")
            os._exit(0)
        if hosts == "1":
            os.waitpid(child, 0)
            os.write(1, b"gone\\n")
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
"""


@pytest.fixture
def writer():
    """A process that writes a tape for each line it gets."""
    places = [str(Path(arkjax.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WRITER)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def ask(process, *words):
    process.stdin.write(" ".join(map(str, words)) + "\n")
    process.stdin.flush()


@pytest.mark.parametrize("kind", FORMATS)
def test_kills_at_random_moments_cost_no_shard_and_change_no_bit(tmp_path, writer, kind):
    place, rng = tmp_path / "killed", random.Random(3)
    whole: dict[str, bytes] = {}
    kills = 0
    while True:
        ask(writer, place, kind, 0, 1)
        began, pid = writer.stdout.readline().split()
        assert began == "began"
        if kills < KILLS:
            time.sleep(rng.uniform(0, 0.02 * (1 + kills)))
            with contextlib.suppress(ProcessLookupError):  # It may have ended before.
                os.kill(int(pid), signal.SIGKILL)
            kills += 1
        said = writer.stdout.readline().strip()
        now = arrays_of(place) if place.exists() else {}
        finished = {name: x for name, x in now.items() if name.startswith("shard-")}
        assert whole.items() <= finished.items(), "a finished shard is gone or another"
        whole = finished
        if said == "ended":
            assert writer.stdout.readline().strip() == "gone"
            if kills == KILLS:
                break
    write(tmp_path / "whole", make_rows(200, 16), tape_format=FORMATS[kind], shard_rows=4)
    assert whole == arrays_of(tmp_path / "whole")
    assert not list(place.glob(".*")), "what killed processes left aside is swept"
    Tape.open(place, make_rows(200, 16))


@pytest.mark.parametrize("kind", FORMATS)
def test_two_processes_write_shards_side_by_side(tmp_path, writer, kind):
    for host in (0, 1):
        ask(writer, tmp_path / "both", kind, host, 2)
    said = [writer.stdout.readline().split()[0] for _ in range(4)]
    assert sorted(said) == ["began", "began", "ended", "ended"]
    write(tmp_path / "whole", make_rows(200, 16), tape_format=FORMATS[kind], shard_rows=4)
    assert arrays_of(tmp_path / "both") == arrays_of(tmp_path / "whole")
    Tape.open(tmp_path / "both", make_rows(200, 16))


def test_a_host_that_failed_is_missed_and_its_shards_alone_are_written(tmp_path):
    rows = make_rows()
    write(tmp_path, rows, process_index=1, process_count=2)
    with pytest.raises(DataError, match="shard-00000"):
        Tape.open(tmp_path, rows)
    # What another host is writing at this moment stays.
    busy = tmp_path / ".shard-00001.aside-0123456789ab"
    busy.mkdir()
    own = tmp_path / ".shard-00000.aside-0123456789ab"
    own.mkdir()
    teacher = Teacher(rows)
    write(tmp_path, rows, teacher, process_index=0, process_count=2)
    assert busy.exists() and not own.exists()
    assert {row // 5 % 2 for call in teacher.calls for row in call} == {0}
    Tape.open(tmp_path, rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_one_clear_error_and_the_same_call_goes_on(tmp_path, kind):
    rows = make_rows(60, 32)
    write(tmp_path / "whole", rows, tape_format=FORMATS[kind])
    largest = max(len(x) for x in arrays_of(tmp_path / "whole").values())
    write_one = {"tape_format": FORMATS[kind], "progress": lambda done: None}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # No file may be larger from now on; the largest column of a shard is.
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limit[1]))
    try:
        with pytest.raises(StorageError, match=r"shard-0000\d.*larger than.*GiB free"):
            write(tmp_path / "tape", rows, **write_one)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list((tmp_path / "tape").glob(".*"))
    write(tmp_path / "tape", rows, **write_one)
    assert arrays_of(tmp_path / "tape") == arrays_of(tmp_path / "whole")


# A file system of its own in a mount namespace: its errors are a full disk's.
FULL = """
    import sys
    from pathlib import Path
    from arkjax.distillation.tape import Tape
    from arkjax.errors import StorageError
    from tapes import FORMATS, Teacher, arrays_of, make_rows, write

    place, whole, rows = Path(sys.argv[1]) / "tape", Path(sys.argv[2]), make_rows(200, 16)
    ballast = place.parent / "ballast"
    ballast.write_bytes(bytes(560 * 1024))
    for kind, kept in FORMATS.items():
        try:
            write(place / kind, rows, tape_format=kept, shard_rows=40)
        except StorageError as error:
            print(error)
            ballast.write_bytes(b"")
            teacher = Teacher(rows, kind)
            write(place / kind, rows, teacher, kept, shard_rows=40)
        write(whole / kind, rows, tape_format=kept, shard_rows=40)
        assert arrays_of(place / kind) == arrays_of(whole / kind)
        Tape.open(place / kind, rows)
"""


def test_a_file_system_without_space(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "full.py").write_text(textwrap.dedent(FULL))
    places = [str(Path(arkjax.__file__).parents[1]), str(Path(__file__).parent)]
    inside = (
        f"mount -t tmpfs -o size=600k none {disk} && "
        f"exec {sys.executable} {tmp_path / 'full.py'} {disk} {tmp_path / 'whole'}"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", inside],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "the disk is full" in done.stdout and "free some space" in done.stdout
