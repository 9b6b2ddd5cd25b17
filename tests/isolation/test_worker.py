"""A program in a process of its own: what it is told, what it may do, and when it is ended."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from arkjax.errors import ArkJAXError, DataError
from arkjax.isolation import worker as module
from arkjax.isolation.worker import Stopped, Worker

pytestmark = pytest.mark.fast

PROGRAM = """
import os
import resource
import time

def warm():
    pass

def answer(request):
    do, value = request["do"], request.get("value")
    if do == "echo":
        return value
    if do == "work":
        while True:
            pass
    if do == "grow":
        try:
            return len(bytearray(value))
        except MemoryError:
            return "no memory"
    if do == "open":
        try:
            with open(*value):
                return "opened"
        except OSError as error:
            return type(error).__name__
    if do == "write":
        try:
            with open(value, "w") as file:
                file.write("x")
            return "written"
        except OSError:
            return "refused"
    if do == "end":
        os._exit(value)
    if do == "sleep":
        time.sleep(value)
    if do == "facts":
        return {
            "environment": dict(os.environ),
            "handles": len(os.listdir("/proc/self/fd")),
            "pid": os.getpid(),
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        }
"""


@pytest.fixture
def make(tmp_path):
    """Makes a worker of a program; at the end of the test it is closed."""
    made = []

    def make(program=PROGRAM, **settings):
        path = tmp_path / f"program{len(made)}.py"
        path.write_text(program)
        defaults = {
            "purpose": "try things", "remedy": "install them", "memory": 2**29,
            "opens_files": True,
        }  # fmt: skip
        made.append(Worker(path, **defaults | settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def pid(worker):
    return worker.ask({"do": "facts"}, 5)["pid"]


def test_objects_come_back_as_they_were(make):
    value = {
        "é": ["\ud83d", "\udc00\ud83d", "\ud83d\ude00", "😀", None, 1.5, True],
        "": "a" * 10**6,
    }
    assert make().ask({"do": "echo", "value": value}, 5) == value


def test_it_sees_nothing_of_the_environment_but_what_it_is_given(make, monkeypatch):
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    plain = set(make().ask({"do": "facts"}, 5)["environment"])
    assert plain <= {"LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH"}
    told = make(variables=("TZ", "NOT_SET")).ask({"do": "facts"}, 5)["environment"]
    assert told["TZ"] == "UTC" and set(told) - {"TZ"} == plain


def test_it_inherits_no_file(make, tmp_path):
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("the system does not tell what a process has open")
    before = make().ask({"do": "facts"}, 5)["handles"]
    with open(tmp_path / "mine", "w") as file:
        os.set_inheritable(file.fileno(), True)
        assert make().ask({"do": "facts"}, 5)["handles"] == before


def test_it_writes_no_file_and_opens_one_only_where_it_may(make, tmp_path):
    (tmp_path / "there").write_text("x")
    there = [str(tmp_path / "there")]
    free, closed = make(), make(opens_files=False)
    assert free.ask({"do": "open", "value": there}, 5) == "opened"
    assert free.ask({"do": "write", "value": str(tmp_path / "new")}, 5) == "refused"
    assert closed.ask({"do": "open", "value": there}, 5) == "OSError"
    assert free.ask({"do": "facts"}, 5)["core"] == 0


def test_memory_is_limited(make):
    worker = make()
    assert worker.ask({"do": "grow", "value": 2**20}, 5) == 2**20
    assert worker.ask({"do": "grow", "value": 2**29}, 5) == "no memory"


def test_endless_work_is_ended_and_the_next_request_answered(make):
    worker = make()
    first = pid(worker)
    with pytest.raises(Stopped, match=r"^it takes more than 0\.2 s of processor time$"):
        worker.ask({"do": "work"}, 0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert worker.ask({"do": "echo", "value": 1}, 5) == 1
    assert pid(worker) != first


def test_each_request_has_its_own_time(make):
    worker = make()
    # Asleep it takes none.
    assert worker.ask({"do": "sleep", "value": 0.3}, 0.1) is None
    first = pid(worker)
    for _ in range(20):
        assert worker.ask({"do": "echo", "value": [0] * 50_000}, 0.2) == [0] * 50_000
    assert pid(worker) == first


def test_who_gets_no_processor_time_is_given_up(make, monkeypatch):
    worker = make()
    first = pid(worker)
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with pytest.raises(Stopped, match="exit code -9"):
        worker.ask({"do": "sleep", "value": 600}, 5)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_process_that_ends_over_a_request_stops_it_alone(make):
    worker = make()
    with pytest.raises(Stopped, match=r"ended the process that works on it \(exit code 7\)"):
        worker.ask({"do": "end", "value": 7}, 5)
    assert worker.ask({"do": "echo", "value": 1}, 5) == 1


def test_a_process_that_somebody_killed_is_started_anew(make):
    worker = make()
    killed = pid(worker)
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert pid(worker) != killed


def test_an_interrupted_request_answers_no_later_one(make, monkeypatch):
    worker = make()
    assert worker.ask({"do": "echo", "value": 1}, 5) == 1

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.ask({"do": "echo", "value": "stale"}, 5)
    monkeypatch.undo()
    assert worker.ask({"do": "echo", "value": 2}, 5) == 2


def test_threads_get_their_own_replies(make):
    worker, found = make(), {}

    def work(part):
        for value in range(part, 80, 4):
            found[value] = worker.ask({"do": "echo", "value": value}, 5)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {value: value for value in range(80)}


def test_what_is_missing_is_said_with_its_remedy(make):
    lacking = make("def warm():\n    import no_such_package\n")
    with pytest.raises(DataError, match=r"cannot try things \(No module.*\): install them"):
        lacking.ask({}, 1)
    broken = make("1 / 0")
    with pytest.raises(DataError, match=r"ended with exit code 1\): install them"):
        broken.ask({}, 1)


def test_no_process_is_one_clear_line(make, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ArkJAXError, match="cannot start a process to try things: "):
        make().ask({"do": "echo"}, 1)


def test_a_fork_has_a_process_of_its_own_and_the_end_leaves_none(make, tmp_path):
    make()  # writes the program
    code = f"""
import os
from pathlib import Path
from arkjax.isolation.worker import Worker
worker = Worker(Path({str(tmp_path / "program0.py")!r}), purpose="", remedy="", memory=2**29,
                opens_files=True)
first = worker.ask({{"do": "facts"}}, 5)["pid"]
child = os.fork()
if child == 0:
    second = worker.ask({{"do": "facts"}}, 5)["pid"]
    worker.close()
    os._exit(second == first)
assert os.waitpid(child, 0)[1] == 0
assert worker.ask({{"do": "facts"}}, 5)["pid"] == first
print(first)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_killed_parent_leaves_no_process(make, tmp_path):
    make()
    code = f"""
import os, signal
from pathlib import Path
from arkjax.isolation.worker import Worker
worker = Worker(Path({str(tmp_path / "program0.py")!r}), purpose="", remedy="", memory=2**29,
                opens_files=True)
print(worker.ask({{"do": "facts"}}, 5)["pid"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    left = int(done.stdout)
    for _ in range(200):
        try:
            os.kill(left, 0)
        except ProcessLookupError:
            return
        # Nobody may have waited for it yet.
        with open(f"/proc/{left}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                return
        time.sleep(0.05)
    pytest.fail("the process outlives who started it")
