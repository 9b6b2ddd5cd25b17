"""What all readers of answers share: statements and labels."""

import pytest

from arkjax.tasks.graders.choices import last_choice
from arkjax.tasks.graders.reading import last_stated

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("The answer is Paris.", "Paris."),
        ("Answer: Paris", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("**Final Answer**\n\nParis\nmore", "Paris"),
        ("### Answer\nParis", "Paris"),
        ("A: Paris", "Paris"),
        ("The answer to the question is Paris", "Paris"),
        ("Answer: Rome\nNo. Answer: Paris", "Paris"),
        ("<answer>Paris</answer> indeed", "Paris"),
        ("The answer is\n$$\n18\n$$", "18"),
        ("so the answer is", ""),
        ("Answer:\n\n", ""),
        ("The answer is wrong", None),
        ("Your answer is not correct", None),
        ("ANSWER = 4", "4"),
        ("an answering machine", None),
        ("VITA: life", None),
        ("", None),
    ],
)
def test_what_a_marker_states(text, stated):
    assert last_stated(text) == stated


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("f(a) = 3 and f(b) = 4", None),
        ("so do I.", None),
        ("It is I", None),
        ("**I**", "I"),
        ("The answer is I.", "I"),
        ("The answer is I think B", "B"),
        ("answer(B)", "B"),
    ],
)
def test_arguments_and_pronouns_are_no_choices(text, letter):
    assert last_choice(text, "ABCDEI") == letter
