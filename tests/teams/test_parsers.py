"""Parsers read answers, not articles; nothing makes them raise or hang."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arkjax.tasks.graders.choices import last_choice
from arkjax.tasks.graders.reading import last_boxed, last_number
from arkjax.teams.parsers import PARSERS, fields_of, parse

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
        ("A is right, not B", "A"),
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


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Clarity: 4\nDepth: 3", "3.5"),
        ("1. Clarity: 4\n2) **Depth**: 2", "3"),
        ("- **Clarity**: 4/5\n- **Depth:** 5/5", "4.5"),
        ("Clarity: 4.\nDepth: 5.\n", "4.5"),
        ("Score (1-10): **7**", "7"),
        ("Accuracy & style = -2", "-2"),
        ("Score: 0.75", "0.75"),
        ("Score: 85%", "85"),
        ("### Score: 8 out of 10", "8"),
        ("Cost: 1,000", None),
        ("v: 1.2.3", None),
        ("see: 3rd", None),
        ("4", None),
        ("The plan fails at step 3", None),
        ("", None),
    ],
)
def test_scores(text, score):
    assert parse("scores", text) == ({} if score is None else {"score": score})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes.", "yes"),
        ("Final verdict: **Incorrect**", "no"),
        ("It is not correct.", "no"),
        ("It is **not** correct", "no"),
        ("The solution isn't correct.", "no"),
        ("It isn’t quite right, but I wouldn't reject it", "yes"),
        ("This cannot fail.", "yes"),
        ("That is not yet correct", "no"),
        ("not wrong", "yes"),
        ("I disapprove", "no"),
        ("It fails.", "no"),
        ("All checks passed", "yes"),
        ("Is it correct? No.", "no"),
        ("I agree. APPROVED", "yes"),
        ("correctness, nobody, yesterday, know", None),
        ("", None),
    ],
)
def test_verdicts(text, verdict):
    assert parse("verdict", text) == ({} if verdict is None else {"verdict": verdict})


@pytest.mark.parametrize(
    ("text", "ranking"),
    [
        ("[2, 1, 3]", ["2", "1", "3"]),
        ('["agent 2", "agent 1"]', ["agent 2", "agent 1"]),
        ("[2] > [1] > [3]", ["2", "1", "3"]),
        ("So b > a>c.", ["b", "a", "c"]),
        ("Agent 2 > Agent 1 > Agent 3", ["Agent 2", "Agent 1", "Agent 3"]),
        ("**Agent 3**, **Agent 1**", ["Agent 3", "Agent 1"]),
        ("the best two are 3, 1.", ["3", "1"]),
        ("see [1]; my ranking is [b, a, b]", ["b", "a"]),
        ("[ ]", None),
        ("one alone", None),
        ("", None),
    ],
)
def test_rankings(text, ranking):
    found = parse("ranking", text)
    assert ({key: json.loads(value) for key, value in found.items()}) == (
        {} if ranking is None else {"ranking": ranking}
    )


def test_names():
    names = ["ann", "critic", "critic 12", "12", "Émile", "c++"]
    for text, name in [
        ("ann, then CRITIC should speak", "critic"),
        ("let critic 12 go on", "critic 12"),
        ("annoying critics", None),
        ("next: émile!", "Émile"),
        ("I choose c++.", "c++"),
        ("", None),
    ]:
        assert parse("speaker", text, names=names) == ({} if name is None else {"next": name})


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"Next Step": "go", "other": 1}', {"next_step": "go"}),
        ('{"next_step": 1} then {"next_step": 2}', {"next_step": "2"}),
        ('{"next_step": 1} then {"other": 2}', {"next_step": "1"}),
        ('```json\n{"plan": ["a", "b"], "next_step": null}\n```', {"plan": '["a", "b"]'}),
        ('{"a": {"plan": 7}}', {}),
        ('{"plan": NaN}', {"plan": "NaN"}),
        ('{"plan": true}', {"plan": "true"}),
        ('{"plan": "\\ud800x"}', {"plan": "?x"}),
        (r"\frac{1}{2} " * 90 + '{"plan": 3}', {"plan": "3"}),
        ('{} { {"plan": 3} }', {"plan": "3"}),
        ("{'plan': 3}", {}),
        ('{"plan": 3', {}),
    ],
)
def test_json(text, fields):
    found = parse("json", text, keys=["next_step", "plan"])
    assert found == fields
    assert all(value.encode() for value in found.values())


HOSTILE = [
    '{"x":' * 80_000,
    '{"x":[' * 80_000,
    '{"x":' + "[" * 990 + "]" * 990 + "}",
    '{"' * 200_000,
    '{"x": ' + "9" * 8000 + "}",
    "a > " * 100_000,
    "agent " * 80_000,
    "**" * 200_000 + ">",
    "[a] > " * 80_000,
    "a: " * 100_000,
    "not " * 100_000 + "yes",
    "\n" * 400_000,
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
    parse(kind, text, pattern=PATTERN, extract=lambda text: text[:1], keys=["x"], names=["a"])
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
