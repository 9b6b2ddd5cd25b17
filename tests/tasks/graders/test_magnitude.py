"""Numbers that are too large to be computed are found by inspection."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tasks.graders import MathGrader, symbolic
from arkjax.tasks.graders.magnitude import DEEPEST, hindrance

pytestmark = pytest.mark.fast

GIANTS = [
    r"2^{10^{10}}", "9^{9^{9^9}}", "9^9^9^9", "10**10**10", "10000000!", "10,000,000!", "18!!!!",
    "((9!)!)!", r"\left(10^6\right)!", r"x^{10^{10}}", r"7^{7^{7^7}} \mod 10", "1e999999999",
    r"\binom{999999999}{499999999}", r"3 + \frac{2^{99999999}}{5}", r"\sqrt{2^{99999999}}",
    "2^{-10^{10}}", r"(1 + 10^{9})^{10^{9}}",
]  # fmt: skip
ORDINARY = [
    "18", "x^2+2x+1", r"\frac{\sqrt{3}}{2}", "5!", "100!", "2^{1000}", "2^{2007}", "10^{100}",
    r"90^\circ", r"e^{i\pi}", r"(3+4i)^{100}", r"\binom{10}{3}", "1^{10^{10}}", "x_{100}^{2}",
    r"1-\left(\frac{364}{365}\right)^{1000}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    r"\sum_{n=1}^{99999999} n", r"[0,1)\cup(2,3]", "", "9" * 900, ")))^^((", "!^_",
]  # fmt: skip


@pytest.fixture
def no_process(monkeypatch):
    def ask(request, seconds):
        raise AssertionError(f"{request} was asked")

    monkeypatch.setattr(symbolic._WORKER, "ask", ask)


@pytest.mark.parametrize("text", GIANTS)
def test_giants_are_refused_without_a_process(text, no_process, problem):
    assert "over 5000 digits" in hindrance(text)
    grade = MathGrader().grade(problem("18"), rf"\boxed{{{text}}}")
    assert not grade.correct and "over 5000 digits" in grade.reason
    assert not MathGrader().accepts(problem(text), "18")
    assert MathGrader().grade(problem(text), rf"\boxed{{{text}}}").correct


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_expressions_are_compared(text):
    assert hindrance(text) == ""


@pytest.mark.parametrize("pair", ["()", "{}", "[]"])
def test_deep_expressions_are_refused(pair):
    for depth in (10, DEEPEST + 2, 490):
        text = pair[0] * depth + "x" + pair[1] * depth
        assert hindrance(text) == "" or depth > DEEPEST
        assert ("levels" in hindrance(text)) == (depth > DEEPEST)
    assert "levels" in hindrance("2^" * 300 + "2")


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 10**6), st.integers(0, 10**6), st.sampled_from(["{}^{{{}}}", "({})**{}"]))
def test_no_power_of_more_digits_passes(base, exponent, form):
    digits = 0 if exponent > 10**5 else len(str(exponent))
    if hindrance(form.format(base, exponent)) == "":
        assert digits and base**exponent < 10**5001


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*"29x!^_*+-/(){}[],. ", r"\frac", r"\sum", "**"]), max_size=300))
def test_any_text_is_inspected(parts):
    assert isinstance(hindrance("".join(parts)), str)
