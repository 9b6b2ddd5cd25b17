"""Agents' programs: what they can do, and what hostile ones try and cannot."""

import os
import re
import socket
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from arkjax.tools import jail, python_runner
from arkjax.tools.python_runner import IsolationError, Limits, can_isolate, run_python

pytestmark = pytest.mark.skipif(
    bool(can_isolate()) and "ARKJAX_PARITY" not in os.environ, reason=can_isolate()
)


def run(source: str, stdin: str = "", **limits):
    return run_python(textwrap.dedent(source), stdin, Limits(**limits))


def refused(source: str, **limits) -> str:
    """Run a program that must meet the kernel's refusal; gives what it wrote to standard error."""
    outcome = run(source, **limits)
    assert outcome.status == "error" and "LEAKED" not in outcome.stdout, outcome
    return outcome.stderr


def test_a_program_computes_reads_its_input_and_uses_its_folder():
    outcome = run(
        """
        import collections, decimal, json, math, os, random, re, statistics, string, sys
        numbers = [int(x) for x in sys.stdin.read().split()]
        with open("notes.txt", "w") as file:
            file.write(str(sum(numbers)))
        os.rename("notes.txt", "sum.txt")
        os.mkdir("more")
        print(open("sum.txt").read(), os.listdir("."), math.sqrt(16))
        """,
        "1 2 3",
    )
    assert outcome.status == "ok", outcome
    assert outcome.stdout == "6 ['more', 'sum.txt'] 4.0\n" or "sum.txt" in outcome.stdout
    assert outcome.code == 0 and outcome.stderr == ""


def test_an_exception_and_an_exit_code_are_told():
    outcome = run("print('before')\nraise ValueError('no such item')")
    assert (outcome.status, outcome.stdout, outcome.code) == ("error", "before\n", 1)
    assert outcome.stderr == (
        'Traceback (most recent call last):\n  File "program.py", line 2, in <module>\n'
        "    raise ValueError('no such item')\nValueError: no such item\n"
    )
    assert run("import sys; sys.exit(3)").code == 3
    assert "SyntaxError" in run("def f(:").stderr
    # Half a surrogate pair is no text.
    assert "SyntaxError" in run("x = '\ud800'").stderr


def test_it_ends_by_the_clock_and_by_processor_time():
    start = time.monotonic()
    assert run("import time; time.sleep(60)", seconds=0.5).status == "time"
    assert run("while True: pass", seconds=1).status == "time"
    assert run("while True: pass", seconds=30, cpu_seconds=1).status == "time"
    assert run("import os; os.close(1); os.close(2)\nwhile True: pass", seconds=1).status == "time"
    assert time.monotonic() - start < 15
    ignoring = (
        "import signal\nfor s in (15, 2, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass"
    )
    assert run(ignoring, seconds=30, cpu_seconds=1).status in ("time", "error")


def test_endless_output_and_memory_and_files_are_bounded():
    outcome = run("while True: print('x' * 1000)", output_bytes=10_000)
    assert outcome.status == "output" and len(outcome.stdout) <= 10_000
    outcome = run("import sys\nwhile True: sys.stderr.write('x' * 1000)", output_bytes=10_000)
    assert outcome.status == "output" and len(outcome.stderr) <= 10_000
    assert "MemoryError" in refused("x = 'x' * 2**30")
    assert "MemoryError" in refused("x = []\nwhile True: x.append(bytearray(2**20))")
    assert "File too large" in refused("open('big', 'wb').write(bytes(2**25))")
    many = "import time\nfor i in range(10**6):\n    open(str(i), 'w').close()\n"
    assert run(many, files=100).status in ("files", "error")
    growing = "i = 0\nwhile True:\n    open(str(i), 'wb').write(bytes(2**20)); i += 1"
    assert run(growing, file_bytes=4 * 2**20, files=10**6).status in ("files", "error")


def test_it_starts_no_process_and_no_thread():
    assert "Operation not permitted" in refused("import os\nos.fork(); print('LEAKED')")
    assert "Operation not permitted" in refused(
        "import os\nwhile True:\n    os.fork()\n    print('LEAKED')"
    )
    assert "not permitted" in refused(
        "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo LEAKED'])"
    )
    assert "not permitted" in refused("import os; os.execv('/bin/sh', ['sh', '-c', 'echo LEAKED'])")
    assert "can't start new thread" in refused(
        "import threading; threading.Thread(target=lambda: print('LEAKED')).start()"
    )
    assert refused("import multiprocessing as m\nm.Process(target=print, args=['LEAKED']).start()")
    assert refused("import os; os.posix_spawn('/bin/echo', ['echo', 'LEAKED'], {})")


def test_it_reads_and_writes_nothing_outside_its_folder(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("LEAKED")
    for path in (
        secret,
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/cmdline",
        __file__,
        pytest.__file__,
    ):
        assert "PermissionError" in refused(f"print('LEAKED', open({str(path)!r}).read())")
    assert "PermissionError" in refused(
        f"import os; print('LEAKED', os.listdir({str(tmp_path)!r}))"
    )
    assert "PermissionError" in refused(f"open({str(tmp_path / 'new')!r}, 'w')")
    assert "PermissionError" in refused(f"import os; os.remove({str(secret)!r})")
    # Ways around: a link, a link made by other means, the folder above, a rename, a truncation.
    for way in (
        f"os.symlink({str(secret)!r}, 'link'); print(open('link').read())",
        f"os.link({str(secret)!r}, 'link'); print(open('link').read())",
        "print('LEAKED', os.listdir('..'))",
        "print('LEAKED', open('../program.py').read())",
        "os.chdir('/'); print('LEAKED', os.listdir('.'))",
        f"os.rename({str(secret)!r}, 'mine'); print(open('mine').read())",
        f"os.truncate({str(secret)!r}, 0)",
        f"open({str(secret)!r}, 'r+')",
        f"os.setxattr({str(secret)!r}, 'user.a', b'b')",
        f"os.chown({str(secret)!r}, 0, 0)",
        f"os.chmod({str(secret)!r}, 0o777)",
        f"os.utime({str(secret)!r})",
        "os.mknod('disk', 0o60600, 0x800); print('LEAKED', open('disk', 'rb').read(1))",
        "os.mkfifo('pipe'); print('LEAKED')",
        "os.chroot('.'); print('LEAKED')",
    ):
        assert refused(f"import os\n{way}"), way
    assert secret.read_text() == "LEAKED"
    assert not (tmp_path / "new").exists()


def test_it_has_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "LEAKED")
    outcome = run("import os, sys; print(dict(os.environ), sys.argv)")
    assert outcome.status == "ok" and "LEAKED" not in outcome.stdout
    # No descriptor but the three is open.
    outcome = run(
        """
        import os
        for fd in range(3, 64):
            try:
                os.fstat(fd)
                print("LEAKED", fd)
            except OSError:
                pass
        """
    )
    assert (outcome.status, outcome.stdout) == ("ok", "")


def test_it_reaches_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
            error = refused(
                f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM); print('LEAKED')"
            )
            assert "PermissionError" in error
        assert refused(f"import socket; socket.create_connection(('127.0.0.1', {port}))")
        assert refused("import socket; print('LEAKED', socket.socketpair())")
    assert refused("import urllib.request as u; print('LEAKED', u.urlopen('http://example.com'))")


def test_it_signals_traces_and_limits_nobody():
    me = os.getpid()
    for way in (
        f"os.kill({me}, 15)",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
        "os.kill(0, 9)",
        "os.killpg(0, 9)",
        "os.kill(1, 9)",
        "os.setpriority(os.PRIO_PROCESS, 0, -20)",
        f"resource.prlimit({me}, resource.RLIMIT_CPU, (1, 1))",
        "os.setuid(1000)",
        "os.nice(-5)",
        # Who owns a pipe is signalled when somebody reads from it: with SIGKILL, if asked so.
        "import fcntl; fcntl.fcntl(1, 8, os.getppid())",
        "import fcntl; fcntl.fcntl(1, 10, 9)",
        "import fcntl, struct; fcntl.fcntl(1, 15, struct.pack('ii', 1, os.getppid()))",
        "os.sched_setaffinity(0, {0})",
    ):
        assert "PermissionError" in refused(f"import os, resource\n{way}\nprint('LEAKED')"), way
    raising = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))"
    assert "not allowed to raise" in refused(raising)
    # To itself it may.
    assert run("import os; os.kill(os.getpid(), 9)").code == -9
    assert run("import os; os.abort()").code == -6


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64's system calls")
def test_system_calls_by_number_are_refused():
    numbers = {"ptrace": 101, "mount": 165, "bpf": 321, "io_uring_setup": 425, "unshare": 272,
               "setns": 308, "memfd_create": 319, "process_vm_readv": 310, "clone3": 435,
               "keyctl": 250, "perf_event_open": 298, "userfaultfd": 323, "socket": 41,
               "execve": 59, "prctl": 157, "seccomp": 317, "open_tree": 428}  # fmt: skip
    calls = [*numbers.values(), *(0x40000000 + n for n in (39, 41, 59))]
    outcome = run(
        f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for number in {calls}:
            result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
            print(number, result, ctypes.get_errno())
        """
    )
    assert outcome.status == "ok", outcome
    for line in outcome.stdout.splitlines():
        number, result, error = map(int, line.split())
        assert (result, error) == (-1, 1), number


@pytest.mark.parametrize(
    ("header", "column", "pattern"),
    [
        ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0, r"#define __NR_(\w+)\s+(\d+)"),
        # AArch64 has the generic table.
        ("/usr/include/asm-generic/unistd.h", 1, r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
)
def test_numbers_of_system_calls_are_the_kernels(header, column, pattern):
    if not os.path.exists(header):
        pytest.skip(f"no {header}")
    with open(header) as file:
        numbers = {name: int(number) for name, number in re.findall(pattern, file.read())}
    numbers.setdefault("newfstatat", numbers.get("fstatat"))
    for name, ours in {**jail._CALLS, **jail._CHECKED}.items():
        assert numbers.get(name) == ours[column], name


def test_a_program_cannot_say_that_it_was_not_isolated():
    outcome = run("import os, sys; sys.stderr.write('cannot isolate'); os._exit(1)")
    assert outcome.status == "error" and outcome.code == 1


def test_where_it_cannot_be_isolated_nothing_runs(monkeypatch, tmp_path):
    jail = python_runner._PROGRAM.read_text()
    broken = tmp_path / "jail.py"
    broken.write_text(
        jail.replace("_LANDLOCK_CREATE, _LANDLOCK_ADD", "_LANDLOCK_NONE, _LANDLOCK_ADD").replace(
            "syscall(_LANDLOCK_CREATE, None, 0, 1)", "syscall(9999, None, 0, 1)"
        )
    )
    monkeypatch.setattr(python_runner, "_PROGRAM", broken)
    with pytest.raises(IsolationError, match="no Landlock"):
        run_python("print('LEAKED')")


def test_programs_run_side_by_side():
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda i: run(f"print({i} ** 2)"), range(32)))
    assert [int(outcome.stdout) for outcome in outcomes] == [i * i for i in range(32)]


def test_pipes_that_are_handed_over_are_open_inside_and_closed_here():
    reading, theirs = os.pipe()
    outcome = run_python(f"import os; os.write({theirs}, b'through')", descriptors=[theirs])
    assert outcome.status == "ok", outcome
    # The end of the stream comes only if nobody else holds the other end.
    assert os.read(reading, 100) == b"through" and os.read(reading, 100) == b""
    os.close(reading)
    with pytest.raises(OSError):
        os.fstat(theirs)


def test_pipes_are_closed_where_nothing_can_be_run(monkeypatch, tmp_path):
    reading, theirs = os.pipe()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(IsolationError, match="No such file"):
        run_python("", descriptors=[theirs])
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_the_same_program_writes_the_same():
    source = (
        "import os; print(os.getcwd(), {'a', 'b', 'c', 'd'}, hash('a')); open('/' + os.getcwd())"
    )
    first = run(source)
    assert first.stdout.startswith(". {") and "arkjax-python-" not in first.stderr
    assert all(run(source).stdout == first.stdout for _ in range(3))


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run("import os; os.makedirs('a/b'); open('a/b/c', 'w').write('x'); os.chmod('a', 0)")
    assert list(tmp_path.iterdir()) == []
