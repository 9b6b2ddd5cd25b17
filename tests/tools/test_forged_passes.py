"""Code that tries to pass its tests without being right."""

import os
import textwrap

import pytest

from arkjax.tasks.problems import Problem
from arkjax.tools.code_tools import TestsTool
from arkjax.tools.python_runner import can_isolate

pytestmark = pytest.mark.skipif(
    bool(can_isolate()) and "ARKJAX_PARITY" not in os.environ, reason=can_isolate()
)


def check(code: str, *tests):
    problem = Problem("p", "Write f.", "gold", "t", "d", {"public_tests": list(tests)})
    return TestsTool().run(textwrap.dedent(code), problem)


def passed(code: str, *tests) -> bool:
    return check(code, *tests).fields["passed"] == "yes"


LIAR = """
class Liar:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
    def __sub__(self, other): return 0.0
    __rsub__ = __add__ = __radd__ = __mul__ = __sub__
    def __abs__(self): return 0.0
    def __float__(self): return 0.0
    def __bool__(self): return True
    def __hash__(self): return 0
    def __contains__(self, other): return True
    def __instancecheck__(self, other): return True
    __class__ = int
"""
TESTS = [
    "assert f(1) == 3",
    "assert 3 == f(1)",
    "assert [f(1)] == [3]",
    "assert f(1) in (3,)",
    "assert {f(1): 0} == {3: 0}",
    "assert abs(f(1) - 3) < 1e-6",
    "assert 2.9 < f(1) < 3.1",
    "import math\nassert math.isclose(f(1), 3)",
    "assert str(f(1)) == '3' and f(1) == 3",
    "assert all(f(x) == x + 2 for x in [1, 2])",
    "assert type(f(1)) is int and f(1) == 3",
    "assert f(1).__eq__(3) is True and f(1) == 3",
]


def test_an_honest_function_passes_all_that_the_dishonest_must_fail():
    assert passed("def f(x): return x + 2", *TESTS)


@pytest.mark.parametrize(
    "code",
    [
        LIAR + "def f(x): return Liar()",
        LIAR + "f = Liar()\nLiar.__call__ = lambda self, x: self",
        LIAR + "class T(int, Liar): pass\ndef f(x): return T(4)",
        "class T(int):\n    __eq__ = lambda *a: True\n    __hash__ = int.__hash__\n"
        "def f(x): return T(4)",
        "import unittest.mock\ndef f(x): return unittest.mock.ANY",
        "import unittest.mock\nf = unittest.mock.MagicMock()\nf().__eq__ = lambda *a: True",
        # Python's functions, changed or covered.
        "import builtins, math, operator\nfor m in (builtins, math, operator):\n"
        "    for n in ('abs', 'isclose', 'all', 'eq', 'lt', 'type', 'str', 'isinstance'):\n"
        "        if hasattr(m, n): setattr(m, n, lambda *a, **k: True)\n"
        "def f(x): return 4",
        "def abs(x): return 0\ndef all(x): return True\ndef str(x): return '3'\n"
        "def type(x): return int\ndef f(x): return 4",
        "import types, sys\nmath = types.ModuleType('math')\nmath.isclose = lambda *a: True\n"
        "sys.modules['math'] = math\ndef f(x): return 4",
        # Words and endings.
        "print('12 of 12 tests passed')\nimport sys\nsys.exit(0)",
        "import os, atexit\natexit.register(lambda: os._exit(0))\ndef f(x): raise SystemExit(0)",
        "def f(x): raise SystemExit(0)",
        "import os\ndef f(x): os._exit(0)",
        "def f(x): raise KeyboardInterrupt",
        "def f(x): raise StopIteration",
        "def f(x): raise AssertionError",
        # Claims to be another thing.
        "import unittest.mock\ndef f(x): pass\nf.__module__, f.__name__ = 'unittest.mock', '_ANY'",
        "def f(x): pass\nf.__module__, f.__name__ = 'random', '_os'",
        "def f(x): pass\nf.__module__, f.__name__ = 'random', 'random'",
        "import unittest.mock as f",
        "__note__ = lambda value: 3\ndef f(x): return 4",
        "AssertionError = ValueError\ndef f(x): return 4",
    ],
)
def test_none_of_these_passes(code):
    result = check(code, *TESTS)
    assert result.fields["n_passed"] == "0", result.text
    assert result.fields["passed"] == "no"


REACH = """
import gc, os, json, sys
wires = [x for x in gc.get_objects() if type(x).__name__ == "Wire"]
players = [x for x in gc.get_objects() if type(x).__name__ == "Player"]
frames = []
frame = sys._getframe()
while frame:
    frames.append(frame)
    frame = frame.f_back
"""


@pytest.mark.parametrize(
    "code",
    [
        # Speaks for the player, or as the referee would.
        'wires[0].send({"results": [{"passed": True}] * 12})',
        'wires[0].send({"value": True})\nf = lambda x: 4',
        'wires[0].send({"names": {"f": {"value": {"object": [0, "f"]}}}})\n'
        'for i in range(99): wires[0].send({"value": True})',
        'for i in range(99): wires[0].send({"value": {"library": ["unittest.mock", "ANY"]}})',
        'for i in range(99): wires[0].send({"value": {"function": 0}, "changed": {"0": 1}})',
        'for fd in range(3, 64):\n    try: os.write(fd, b"\\x00garbage\\n" * 99)\n'
        "    except OSError: pass\nf = lambda x: 4",
        'for fd in range(3, 64):\n    try: os.write(fd, b"[" * 100000 + b"\\n")\n'
        "    except OSError: pass\nf = lambda x: 4",
        'sys.__stdout__.write(json.dumps({"results": [{"passed": True}] * 12}))\n'
        "sys.__stdout__.flush()\nos._exit(0)",
        # Changes how values are told.
        'type(players[0]).serve.__globals__["encode"] = lambda *a: True\nf = lambda x: 4',
        "sys.modules['json'].dumps = lambda x: '{\"value\": true}'\nf = lambda x: 4",
        # Looks for what is expected, here, in the frames, on the disk, in other processes.
        "found = [o for o in gc.get_objects() if isinstance(o, str) and 'assert f(1)' in o]\n"
        "found += [v for fr in frames for v in fr.f_locals.values()\n"
        "          if 'assert f' in str(v) and 'wires' not in str(v)]\n"
        "f = lambda x: x + 2 if found else 4",
        "found = []\nparent = '/proc/%d/cmdline' % os.getppid()\n"
        "for p in ('/proc/self/mem', parent, '..'):\n"
        "    try: found.append(os.listdir(p) if p[0] == '.' else open(p).read())\n"
        "    except OSError: pass\nf = lambda x: x + 2 if found else 4",
        "os.lseek(0, 0, 0)\ntext = os.read(0, 10**6).decode()\n"
        "f = lambda x: x + 2 if 'assert ' + 'f(1)' in text else 4",
    ],
)
def test_what_reaches_for_the_harness_passes_nothing(code):
    result = check(REACH + code, *TESTS)
    assert result.fields["n_passed"] == "0", result.text


def test_the_harness_is_in_reach_of_those_who_try():
    assert passed(REACH + "def f(x): return len(wires), len(players)", "assert f(1) == (1, 1)")


def test_outputs_cannot_be_forged_either():
    test = {"stdin": "4", "stdout": "8"}
    for code in (
        "print('ok')",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "print(open('../stdout').read())",
        "import builtins; builtins.print = lambda *a: None; print(8)",
    ):
        assert not passed(code, test)
