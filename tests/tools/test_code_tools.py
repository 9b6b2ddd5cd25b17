"""Running and testing agents' code."""

import os
import re
import tempfile
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.tasks.problems import Problem
from arkjax.tools.code_tools import CodeOptions, PythonTool, TestsTool, extract_code
from arkjax.tools.python_runner import can_isolate
from arkjax.tools.wire import decode, encode

isolated = pytest.mark.skipif(
    bool(can_isolate()) and "ARKJAX_PARITY" not in os.environ, reason=can_isolate()
)


def problem(tests=(), **meta) -> Problem:
    return Problem("p", "Write f.", "gold", "t", "d", {"public_tests": list(tests), **meta})


def check(code: str, *tests, **meta):
    return TestsTool().run(textwrap.dedent(code), problem(tests, **meta))


def passed(code: str, *tests, **meta) -> bool:
    """Whether all tests passed, by all that the result says."""
    result = check(code, *tests, **meta)
    assert result.fields["n_tests"] == str(len(tests))
    everything = result.fields["n_passed"] == str(len(tests))
    assert result.fields["passed"] == ("yes" if everything else "no")
    return everything


def run(code: str, **options):
    return PythonTool(CodeOptions(**options)).run(textwrap.dedent(code), problem())


# --- finding the code ---------------------------------------------------------------------------


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("print(1)\n", "print(1)"),
        ("So:\n```python\na\n```\nor\n```python\nb\n```\nwhich prints\n```\n3\n```", "b\n"),
        ("```\na\n```", "a\n"),
        ("```py\n  a\n```\n```bash\nls\n```", "  a\n"),
        ("Text\n```Python\nx = 1", "x = 1"),
        ("```json\n{}\n```", ""),
        ("a = '```'\nprint(a)", "a = '```'\nprint(a)"),
        ("", ""),
    ],
)
def test_code_is_found_in_a_message(text, code):
    assert extract_code(text) == code


@pytest.mark.fast
@given(st.lists(st.sampled_from(["```", "```python", "\n", "x", "``", " "])).map("".join))
def test_any_message_has_some_code_or_none(text):
    assert isinstance(extract_code(text), str)


# --- python -------------------------------------------------------------------------------------


@isolated
def test_a_program_runs_and_its_words_come_back():
    result = run("print(sum(range(5)))")
    assert (result.text, result.status) == ("10", "ok")
    assert run("```python\nprint('é')\n```").text == "é"
    assert run("x = 1").text == "(it printed nothing)"
    result = run("print('before')\n1 / 0")
    assert result.status == "error"
    assert result.text.startswith("before\nTraceback") and "ZeroDivisionError" in result.text
    assert run("while True: pass", seconds=1).status == "time"
    assert run("while True: print('x' * 999)").status == "output"
    assert "MemoryError" in run("x = bytes(2**28)", memory_mib=128).text
    assert run("import sys; sys.exit(3)").text == "error: it ended with exit code 3"


@isolated
def test_the_same_program_gives_the_same_words():
    code = """
        import os, tempfile, json
        print(os.getcwd(), os.path.abspath("x"), object(), set("the same order"), hash("a"))
        print(tempfile.gettempdir())
        json.loads("{")
    """
    one, other = run(code), run(code)
    assert one == other and one.status == "error"
    for place in (tempfile.gettempdir() + "/", "arkjax", os.path.dirname(os.__file__)):
        assert place not in one.text
    assert not re.search(r"0x[0-9a-f]{6}", one.text)


@isolated
def test_long_outputs_keep_their_beginning_and_end():
    result = run("print('begin', 'x' * 20000, 'end')", characters=300)
    assert result.text.startswith("begin") and result.text.endswith("end")
    assert len(result.text) < 400


@isolated
@pytest.mark.parametrize(
    "input", ["", "```\n```", "```json\n1\n```", "\0", "print('\ud800')", "é" * 99]
)
def test_odd_programs_are_answered(input):
    for tool in (PythonTool(), TestsTool()):
        for own in (problem(), problem(["assert f(1)"])):
            result = tool.run(input, own)
            assert result.status == "error" or result.fields["passed"] == "no"
            assert result.text.encode("utf-8")
    assert "at most" in PythonTool().run("x" * 10**6, problem()).text


# --- tests: the honest --------------------------------------------------------------------------

RAISES = """
try:
    f(1)
    assert False
except ValueError as error:
    assert 'no' in str(error)
"""
NESTED = "{1: (2, [b'3', None, 1j, {4.5}, frozenset('a')])}"
ADD = "def add(a, b):\n    return a + b\n"


@isolated
def test_the_first_failure_is_shown_with_what_was_expected_and_what_came():
    result = check(ADD, "assert add(1, 2) == 3", "assert add(1, 1) == 3", "assert 4 == add(2, 3)")
    assert result.text == (
        "1 of 3 tests passed\ntest 2 failed: assert add(1, 1) == 3\nexpected: 3\ngot: 2"
    )
    assert dict(result.fields) == {"passed": "no", "n_passed": "1", "n_tests": "3"}
    assert "expected: 4\ngot: 5" in check(ADD, "assert 4 == add(2, 3)").text
    assert "not so that 2 > 5" in check(ADD, "assert add(1, 1) > 5").text
    result = check(ADD, "assert add(1, 2) == 3")
    assert (result.text, result.status) == ("1 of 1 tests passed", "ok")
    assert result.fields["passed"] == "yes"


@isolated
def test_inputs_and_outputs():
    tests = [{"stdin": "4\n", "stdout": "8\n"}, {"stdin": "5\n", "stdout": "11"}]
    result = check("print(int(input()) * 2, ' ')", *tests)
    assert result.text == "1 of 2 tests passed\ntest 2 failed: input: 5\nexpected: 11\ngot: 10"
    result = check("print(int(input()) * 2)\n1 / 0", tests[0])
    assert result.fields["passed"] == "no" and "ZeroDivisionError" in result.text
    assert passed("import sys\nprint(8)\nsys.exit(1)", tests[0]) is False
    assert passed(ADD + "if __name__ == '__main__': print(8)", tests[0], "assert add(1, 1) == 2")


@isolated
def test_what_never_ends_is_tried_once():
    tests = [{"stdin": str(i), "stdout": str(i)} for i in range(3)]
    code = "n = int(input())\nwhile n == 1: pass\nprint(n)"
    result = TestsTool(CodeOptions(seconds=1)).run(code, problem(tests))
    assert result.text == "1 of 3 tests passed\ntest 2 failed: input: 1\nerror: it took too long"


@isolated
def test_many_failures_are_counted_and_the_first_is_told():
    result = check("def f(x): return x % 7", *[f"assert f({i}) == {i}" for i in range(3000)])
    assert result.text == (
        "7 of 3000 tests passed\ntest 8 failed: assert f(7) == 7\nexpected: 7\ngot: 0"
    )


@isolated
def test_without_tests_the_code_is_run():
    result = check("print(3)")
    assert (result.fields["passed"], result.fields["n_tests"]) == ("yes", "0")
    assert "no public tests" in result.text and result.text.endswith("\n3")
    result = check("1 / 0")
    assert result.fields["passed"] == "no" and "ZeroDivisionError" in result.text


@isolated
@pytest.mark.parametrize(
    ("code", "tests", "meta"),
    [
        ("def f(x):\n    yield from range(x)", ["assert list(f(3)) == [0, 1, 2]"], {}),
        (
            "def f(x):\n    yield from range(x)",
            ["assert all(a == b for a, b in enumerate(f(3)))"],
            {},
        ),
        ("def f(x): x.sort()", ["a = [2, 1]\nf(a)\nassert a == [1, 2]"], {}),
        ("def f(d): d['k'] = {1}", ["a = {}\nf(a)\nassert a == {'k': {1}}"], {}),
        ("def f(g, xs): return [g(x) for x in xs]", ["assert f(lambda x: -x, [1]) == [-1]"], {}),
        ("def f(g, xs): return [g(x) for x in xs]", ["assert f(len, ['ab']) == [2]"], {}),
        ("def f(g, x): return g(x)", ["import math\nassert f(math.sqrt, 4) == 2"], {}),
        ("def f(n): return lambda x: x + n", ["assert f(2)(3) == 5"], {}),
        ("def f(x):\n    raise ValueError('no')", [RAISES], {}),
        ("def f(x): return float('nan')", ["assert f(1) != f(1)"], {}),
        (f"def f(): return {NESTED}", [f"assert f() == {NESTED}"], {}),
        (
            "from collections import Counter\ndef f(s): return Counter(s)",
            ["assert f('aab') == {'a': 2, 'b': 1}", "assert f('aab') == Counter('aab')"],
            {},
        ),
        (
            "from fractions import Fraction\ndef f(): return Fraction(1, 3)",
            ["assert f() == Fraction(1, 3)"],
            {},
        ),
        (
            "import re\ndef f(s): return re.match('a', s)",
            ["assert f('a')", "assert not f('b')"],
            {},
        ),
        ("def f(): return 10 ** 6000 * 7", ["assert f() == 7 * 10 ** 6000"], {}),
        (
            "import math\ndef f(x): return x * math.pi",
            ["assert math.isclose(f(1), 3.14159265, rel_tol=1e-6)"],
            {},
        ),
        ("def sum(a, b): return a + b + 1", ["assert sum(10, 15) == 26"], {}),
        (
            "def max(a): return 7\ndef helper(): pass",
            ["assert max([1]) == 7"],
            {"entry_point": "max"},
        ),
        (
            "def f(a): return a",
            ["def check(candidate):\n    assert candidate(3) == 3\ncheck(f)"],
            {},
        ),
        ("def f(a): return a", ["assert candidate(3) == 3"], {"entry_point": "f"}),
        (
            "def f(x): return g(x)\ndef g(x): return x",
            ["assert f(y) == 5"],
            {"test_setup": "import math\ny = math.floor(5.5)"},
        ),
        ("import functools\nf = functools.partial(pow, 2)", ["assert f(3) == 8"], {}),
        ("import fractions\nf = fractions.Fraction(1, 2)", ["assert f * 2 == 1"], {}),
        (
            "import operator\nf = operator.add\ng = operator.itemgetter(1)",
            ["assert f(1, 2) == 3 and g('ab') == 'b'"],
            {},
        ),
        ("from random import randint as f", ["assert f(3, 3) == 3"], {}),
        ("def f(x): return x", ["assert f(z) == 1"], {"test_setup": ["y = 1", "z = y"]}),
        ("big = list(range(10 ** 6))\ndef f(i): return big[i]", ["assert f(999) == 999"], {}),
    ],
)
def test_right_code_passes(code, tests, meta):
    result = check(code, *tests, **meta)
    assert result.fields["passed"] == "yes", result.text


@isolated
def test_objects_of_the_codes_own_classes_are_used_by_tests():
    code = """
        import dataclasses

        class Node:
            def __init__(self, value):
                self.value, self.next = value, None

        def depth(node):
            return 0 if node is None else 1 + depth(node.next)

        @dataclasses.dataclass
        class Point:
            x: int
            def __add__(self, other): return Point(self.x + other.x)
            def __len__(self): return self.x
            def __getitem__(self, i): return i * self.x

        class Stack(list):
            pass
    """
    tests = [
        "assert depth(root) == 2",
        "assert isinstance(root, Node) and not isinstance(3, Node)",
        "assert root.next.value == 7",
        "p = Point(2) + Point(3)\nassert p.x == 5 and p == Point(5) and p != Point(4)",
        "assert len(Point(4)) == 4 and Point(4)[3] == 12",
        "assert Stack([1]) == [1]",
        "assert not hasattr(root, 'previous')",
    ]
    setup = "root = Node(1)\nroot.next = Node(7)"
    result = check(code, *tests, test_setup=setup)
    assert result.fields["passed"] == "yes", result.text


@isolated
def test_what_goes_wrong_is_said():
    def said(code, test="assert f(1) == 2", **meta):
        return check(code, test, **meta).text

    assert "NameError: name 'f' is not defined" in said("def g(x): return 2")
    text = said("def f(x):\n    return x / 0")
    assert 'File "solution.py", line 2, in f' in text and "ZeroDivisionError" in text
    assert "SyntaxError" in said("def f(:")
    assert "ended before it could be tested" in said("import os; os._exit(0)")
    assert "ended while it was tested" in said("import os\ndef f(x): os._exit(0)")
    assert "SystemExit" in said("raise SystemExit(0)")
    assert "preparation" in said("def f(x): return 2", test_setup="1 / 0")
    slow = TestsTool(CodeOptions(seconds=1))
    for code in ("while True: pass", "def f(x):\n    while True: pass"):
        assert "took too long" in slow.run(code, problem(["assert f(1) == 2"])).text
    assert "wrote too much" in said("while True: print('x' * 99)")


@isolated
@pytest.mark.parametrize(
    "tests",
    [["assert f(:"], [3], "assert f(1)", {"a": 1}, [{"stdin": "1"}], [{"stdin": 1, "stdout": "1"}]],
)
def test_damaged_tests_are_told_and_nothing_passes(tests):
    result = TestsTool().run(
        "def f(x): return x", Problem("p", "", "", "t", "d", {"public_tests": tests})
    )
    assert result.status == "error" and "damaged" in result.text
    assert result.fields["passed"] == "no"


# --- what crosses between the two ---------------------------------------------------------------


def _plain():
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.complex_numbers(allow_nan=False),
        st.fractions(),
        st.decimals(allow_nan=False),
        st.dates(),
        st.datetimes().map(lambda d: d.replace(fold=0)),
    )


values = st.recursive(
    st.deferred(_plain),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.sets(st.floats(allow_nan=False))
    ),
    max_leaves=20,
)


def _types(value):
    """The types in a value, which its equality does not tell apart, such as 1 and True."""
    if isinstance(value, dict):
        return dict, [(_types(key), _types(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(item) for item in value)
    if isinstance(value, list | tuple):
        return type(value), [_types(item) for item in value]
    return type(value)


@pytest.mark.fast
@given(values)
def test_values_come_back_as_they_went_with_their_types(value):
    def refuse(*arguments):
        raise AssertionError(arguments)

    back = decode(encode(value, refuse), refuse)
    assert back == value and _types(back) == _types(value)


@pytest.mark.fast
def test_what_contains_itself_is_not_copied_for_ever():
    value: list = []
    value.append(value)
    seen = []
    encode(value, lambda x: seen.append(x) or {"object": [0, "list"]})
    assert len(seen) == 1
