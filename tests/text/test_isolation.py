"""Templates that attack the program that renders them are stopped, and stop nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from arkjax.errors import DataError
from arkjax.isolation import worker
from arkjax.text import isolation
from arkjax.text.isolation import SECONDS
from arkjax.text.templates import ChatTemplate

HELLO = [{"role": "user", "content": "Hello!"}]
# An attack that uses up the second of processor time takes longer on a busy machine.
PATIENCE = 20 * SECONDS

INTERNALS = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cla' ~ 'ss__') }}",
    "{{ [messages]|map(attribute='__class__')|list }}",
    "{{ messages.append.__self__ }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ namespace.__init__ }}",
    "{{ self.__init__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0[__class__]}'.format('') }}",
    "{{ '{x.__class__.__mro__}'.format_map({'x': 1}) }}",
    "{{ ('{0.__class__}' | string).format(1) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ ['{0.__class__}']|map('format', 1)|map(attribute='__class__')|list }}",
    "{% set ns = namespace(__class__=1) %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ dict.__call__ }}",
    "{{ (1).__class__.__base__ }}",
    "{{ messages[0].get.__self__ }}",
]
CHANGES = [
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{{ messages.clear() }}",
    "{% set _ = messages[0].pop('role') %}",
    "{{ messages.sort() }}",
]
OTHER_FILES = [
    "{% include 'x.jinja' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends 'x' %}",
    "{% if false %}{% include 'x' %}{% endif %}",
]
GROW = (
    "{{% set ns = namespace(s={start}) %}}"
    "{{% for i in range(99) %}}{{% set ns.s = {more} %}}{{% endfor %}}"
)
GREEDY = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{% set n = messages|length * 10**10 %}{{ 'a' * n }}",
    "{{ [1] * 10**10 }}",
    "{{ '%0999999999d' % 1 }}",
    "{% set n = messages|length %}{{ '%0*d' % (999999999 * n, 1) }}",
    "{% set n = messages|length %}{{ ('%0' ~ n ~ '999999999d') % 1 }}",
    "{% set n = messages|length %}{{ 'a'|center(10**9 * n) }}",
    "{% set n = messages|length %}{{ 'a'.ljust(10**10 * n) }}",
    "{% set n = messages|length %}{{ '{:>9999999999}'.format(n) }}",
    "{% set n = messages|length %}{{ 'a'|indent(10**10 * n, true) }}",
    "{% set n = messages|length %}{{ [1]|batch(10**9 * n, 'x')|list }}",
    "{% set n = messages|length %}{{ lipsum(n=10**7 * n) }}",
    "{% set n = messages|length %}{{ (7 + n) ** ((8 + n) ** 9) > 0 }}",
    "{% set n = messages|length %}{{ (10 * n) ** (10 ** 9) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    GROW.format(start="'x'", more="ns.s + ns.s") + "{{ ns.s }}",
    GROW.format(start="'x'", more="ns.s ~ ns.s"),
    GROW.format(start="[0]", more="[ns.s, ns.s]") + "{{ ns.s }}",
    GROW.format(start="[0]", more="[ns.s, ns.s]") + "{{ ns.s | tojson }}",
    GROW.format(start="[0]", more="[ns.s, ns.s]")
    + GROW.format(start="[0]", more="[ns.s, ns.s]").replace("ns", "ms")
    + "{{ ns.s == ms.s }}",
    GROW.format(start="{0: 0}", more="{0: ns.s, 1: ns.s}") + "{{ ns.s | pprint }}",
    "{% set ns = namespace(s=[0]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}"
    "{{ ns.s }}",
    "{% set s = 'a' * 999999 %}{{ s.replace('a', s) }}",
    "{% set s = 'a' * 99999 %}{{ s | list | join(s) }}",
    "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ 'a' | urlize(10**9) * 10**9 }}",
    "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "{{ " + "-" * 100_000 + "1 }}",
    "{{ " + "x." * 60_000 + "x }}",
    "{% if 1 %}" * 9_000 + "{% endif %}" * 9_000,
    "{{ " + " + ".join(["1"] * 60_000) + " }}",
]


def stopped(text):
    start = time.perf_counter()
    with pytest.raises(DataError) as error:
        ChatTemplate(text, source="evil.jinja").render(HELLO)
    assert time.perf_counter() - start < PATIENCE
    message = str(error.value)
    assert message.startswith("evil.jinja")
    return message


@pytest.mark.fast
@pytest.mark.parametrize("text", [*INTERNALS, *CHANGES])
def test_what_reaches_for_internals_or_changes_messages_is_stopped(text):
    assert "evil.jinja, line 1 " in (message := stopped(text)), message
    assert "was stopped" in message or "fails: " in message


@pytest.mark.fast
@pytest.mark.parametrize("text", OTHER_FILES)
def test_what_reads_other_files_is_stopped(text):
    assert "reads another file" in stopped(text)


@pytest.fixture
def hurried(monkeypatch):
    """Grants a fifth of the processor time, so that all the attacks end sooner."""
    isolation.close()
    monkeypatch.setattr(isolation, "SECONDS", SECONDS / 5)
    yield
    isolation.close()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("text", GREEDY, ids=lambda text: text[:60])
def test_what_takes_too_much_is_stopped(text):
    stopped(text)
    assert ChatTemplate("{{ messages[0].content }}").render(HELLO) == "Hello!"


def test_a_stopped_template_says_what_it_took():
    assert "more than 1 s of processor time" in stopped(GREEDY[1])
    assert "more than 1024 MiB of memory" in stopped("{% set n = 10**10 %}{{ 'a' * n }}")
    assert "RecursionError" in stopped("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_a_program_that_ignores_the_timers_signal_stops_attacks_all_the_same():
    program = f"""
import signal
from arkjax.errors import DataError
from arkjax.isolation import worker
from arkjax.text.templates import ChatTemplate
signal.signal(signal.SIGPROF, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPROF])
try:
    ChatTemplate({GREEDY[1]!r}).render({HELLO!r})
except DataError as error:
    print("processor time" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=PATIENCE)
    assert done.stdout == b"True\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's clock")
def test_the_time_is_kept_from_outside_too(tmp_path, monkeypatch):
    """As where the process cannot set itself a timer."""
    text = worker._SERVER.read_text()
    timed = 'signal.setitimer(signal.ITIMER_PROF, asked["seconds"])'
    assert timed in text
    server = tmp_path / "server.py"
    server.write_text(text.replace(timed, "pass"))
    isolation.close()
    monkeypatch.setattr(worker, "_SERVER", server)
    try:
        assert "more than 1 s of processor time" in stopped(GREEDY[1])
    finally:
        isolation.close()


def test_attacks_are_stopped_in_any_thread_and_disturb_no_other():
    good, results = ChatTemplate("{{ messages[0].content }}{{ i }}"), []

    def attack():
        results.append("processor time" in stopped(GREEDY[1]))

    def chat(i):
        for _ in range(20):
            results.append(good.render(HELLO, i=i) == f"Hello!{i}")

    threads = [threading.Thread(target=attack) for _ in range(2)]
    threads += [threading.Thread(target=chat, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 82 and all(results)


def children():
    """Ids of the processes that still run and that any thread of this one has started."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/children") as handle:
            found += handle.read().split()
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="asks Linux for its processes")
def test_a_process_that_was_killed_is_started_again():
    template = ChatTemplate("{{ messages[0].content }}")
    killed = []
    for pid in children():
        with open(f"/proc/{pid}/cmdline") as handle:
            if "renderer.py" in handle.read():
                os.kill(int(pid), signal.SIGKILL)
                os.waitid(os.P_PID, int(pid), os.WEXITED | os.WNOWAIT)
                killed.append(pid)
    assert killed
    assert template.render(HELLO) == "Hello!"


PROGRAM = """
import os, sys
from arkjax.text.templates import ChatTemplate
template = ChatTemplate("{{ messages[0].content }}")
hello = [{"role": "user", "content": "Hello!"}]
assert template.render(hello) == "Hello!"
child = os.fork()
if child == 0:
    os._exit(template.render(hello) != "Hello!")
assert os.waitpid(child, 0)[1] == 0
assert template.render(hello) == "Hello!"
assert "jinja2" not in sys.modules
print("done")
"""


def test_forks_have_a_process_of_their_own_and_the_end_is_quiet():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not os.path.exists("/proc/self/limits"), reason="asks Linux for its limits")
def test_the_process_may_open_nothing():
    ChatTemplate("x")
    limits = []
    for pid in children():
        with open(f"/proc/{pid}/cmdline") as handle:
            if "renderer.py" not in handle.read():
                continue
        with open(f"/proc/{pid}/limits") as handle:
            limits += [line.split() for line in handle]
        handles = len(os.listdir(f"/proc/{pid}/fd"))
    files = next(line for line in limits if line[:3] == ["Max", "open", "files"])
    size = next(line for line in limits if line[:3] == ["Max", "file", "size"])
    assert int(files[3]) <= handles + 1 and int(size[3]) == 0
