"""Parsers read answers, not articles; nothing makes them raise or hang."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arkjax.teams.parsers import PARSERS, fields_of, last_boxed, last_choice, last_number, parse

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("coins 4 7 is 2 ; so 3", "3"),
        ("so -3", "-3"),
        ("x = −3.50", "-3.50"),
        ("5-3", "3"),
        ("(a) - 3", "3"),
        ("it is 1,234,567.", "1234567"),
        ("1,2,3", "3"),
        ("about .5", "0.5"),
        ("3/4", "3/4"),
        ("$12", "12"),
        ("12.", "12"),
        ("x2 and v1", None),
        ("none", None),
        ("٣", None),
        ("", None),
    ],
)
def test_numbers(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B.", "B"),
        ("The answer is (c)", "C"),
        ("Answer: **D**", "D"),
        (r"so \boxed{A}", "A"),
        (r"so \boxed{\text{E}}", "E"),
        ("B", "B"),
        ("A", "A"),
        ("A is right, not B", "B"),
        ("The answer is A, as B fails", "A"),
        ("A is the one", "A"),
        ("first (A) looked good but (B) it is", "B"),
        ("A dog ran.", None),
        ("This is a test", None),
        ("the answer is a mystery", None),
        ("The answer is A mystery", None),
        ("A cat and I saw a bat; I ran", None),
        ("an Apple", None),
        ("I'd say", None),
        ("B's and A's", None),
        ("Q", None),
    ],
)
def test_choices(text, letter):
    assert last_choice(text, "ABCDEI") == letter


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{x} }}", "x"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{}", None),
        ("boxed", None),
    ],
)
def test_boxes(text, content):
    assert last_boxed(text) == content


def test_patterns():
    assert parse("regex", "so 1\nso 2 ok\n", pattern=r"so (\d+)") == {"answer": "2"}
    assert parse("regex", "x", pattern=r"so (\d+)") == {}
    named = r"(?P<answer>\d+) (?P<sure>\d+)?"
    assert parse("regex", "7 ", pattern=named) == {"answer": "7"}


def test_the_task_parser_asks_the_grader_and_none_reads_nothing():
    assert parse("task", "x", extract=lambda text: "9") == {"answer": "9"}
    assert parse("task", "x", extract=lambda text: None) == {}
    assert parse("none", "so 3") == {}


HOSTILE = [
    "1," * 200_000,
    "1" * 400_000 + "x",
    "-" * 400_000,
    "(" * 400_000,
    r"\boxed{" * 60_000,
    r"\boxed" + "{" * 400_000 + "}" * 400_000,
    "answer is " * 40_000,
    " A " * 100_000,
    "a" * 400_000,
    "\x00" * 400_000,
    "\ud800 so 3",
]
PATTERN = r"(\w+)\s*=\s*x"


@pytest.mark.parametrize("kind", PARSERS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_take_bounded_time(kind, text):
    start = time.process_time()
    parse(kind, text, pattern=PATTERN, extract=lambda text: text[:1])
    assert time.process_time() - start < 1.0


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from("ab A{}\\()[]boxed0123456789,.-/\n answer is=x*")) | st.text(),
    st.sampled_from(PARSERS),
)
@example("\\boxed{A", "choice")
def test_no_text_makes_a_parser_raise(text, kind):
    fields = parse(
        kind, text, pattern=PATTERN, extract=lambda text: None, keys=["x"], names=["a", "is"]
    )
    assert set(fields) <= set(fields_of(kind, PATTERN, ["x"]))
    assert all(isinstance(value, str) for value in fields.values())
    assert all(isinstance(value, str) for value in fields.values())
