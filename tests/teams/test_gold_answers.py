r"""Answers that a well-known distiller of debates misreads, `1,234` as 234 and the like."""

import pytest

from arkjax.tasks.embedded_world import make_problem
from arkjax.tasks.graders.choices import last_choice
from arkjax.tasks.graders.reading import last_boxed, last_number
from arkjax.tasks.world_grader import WorldGrader

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 1,234", "1234"),
        ("The answer is 1,234.", "1234"),
        ("#### -3.5", "-3.5"),
        ("x = -3.5", "-3.5"),
        ("it is \u22123.5", "-3.5"),
        (r"so $\frac{3}{4}$", "3/4"),
        (r"so $-\dfrac{ 3 }{ 4 }$.", "-3/4"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"3 of \frac{x}{4}", "4"),
    ],
)
def test_numbers_are_read_whole(text, number):
    assert last_number(text) == number


def test_a_boxed_fraction_stays_what_it_is():
    assert last_boxed(r"thus \boxed{\frac{3}{4}}.") == r"\frac{3}{4}"
    assert last_boxed(r"\boxed{1,234}") == "1,234"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("This is a good question.", None),
        ("A good question", None),
        ("I think that it is a matter of taste", None),
        ("The answer is a matter of taste, so (C)", "C"),
        ("It is a bird. The answer is B.", "B"),
        ("Answer: A", "A"),
    ],
)
def test_the_article_is_no_choice(text, choice):
    assert last_choice(text) == choice


def test_the_world_reads_one_digit_and_not_a_part_of_a_number():
    problem = make_problem((("coins", 2, 8), ("peak", 3, 2)), "p")
    assert WorldGrader().grade(problem, "so 4").correct
    for text in ("so 1,234", "so -4", "so 14", "so 0.4", "so a"):
        assert not WorldGrader().grade(problem, text).correct
