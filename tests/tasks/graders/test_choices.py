"""Where the letter of an option is read: the same for every letter, and no article for an A."""

import pytest

from arkjax.tasks.graders import ChoiceGrader
from arkjax.tasks.graders.choices import last_choice, read_choice

pytestmark = pytest.mark.fast

OPTIONS = ["12 km", "15 km", "a car", "B vitamins", "cannot be determined"]

# With X for the letter.
EITHER_CASE = [
    "X", "(X)", "**X**", "X) 12 km", "(X) 12 km", "X: 12 km", "X. 12 km",
    "Answer: X", "Answer: X.\nNote: B and C are wrong.", "Answer: **X**", "Answer: 'X'",
    "Answer: “X”", "Answer: [X]", "Answer: X!", "Answer: X) 12 km", "Answer: X since y > 0",
    "Answer: X and here is why: B is odd", "Answer: X, and here is why", "Answer: X (see above)",
    "Answer: X\n\nA is too small, B and C are too large.", "Answer:\n- X", "<answer>X</answer>",
    "**Final Answer**\n\nX", "The answer is X because the speed is constant.",
    "The answer is **X** because of D", "The answer is X, as C fails.",
    "The answer is X; D is too large", "The answer is (X), not (D)", "The answer is option X",
    "The answer is: (X) 12 km", r"\boxed{X}", r"\boxed{\text{(X)}}, since C", r"$\boxed{X}$",
    "Option X is correct.", "So the choice is X.", "I choose X", "I'd go with X.",
    "I would pick option X because of C", "It must be X.", "Therefore, X.",
    "X\n\nExplanation: A is ruled out", "(X)\n\nExplanation: D is ruled out", "**X**\n\nE is wrong",
    "Let me see. C fails.\nAnswer: X", "Answer: D\nI was wrong.\nThe answer is X",
    "The answer is X.\nA: 12 km\nB: 15 km",
]  # fmt: skip
CAPITALS = [
    "Answer: X 12 km", "The answer is X with 12", "X is correct.", "X is right, not D",
    "The answer is X for sure", "The answer is X in this case, not C", "The answer is therefore X",
]  # fmt: skip


@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("form", EITHER_CASE)
def test_every_letter_is_read_alike_in_either_case(form, case):
    assert [last_choice(form.replace("X", case(x))) for x in "ABCDE"] == [*"ABCDE"]


@pytest.mark.parametrize("form", CAPITALS)
def test_every_capital_is_read_alike(form):
    assert [last_choice(form.replace("X", x)) for x in "ABCDE"] == [*"ABCDE"]


@pytest.mark.parametrize(
    "text",
    [
        "The answer is a car",
        "The answer is A car",
        "Answer: A train",
        "Answer: a train",
        "A train leaves at 5",
        "The answer is a little more than b",
        "The answer is a for-loop",
        "So I choose a car",
        "It is a car",
        "The answer is a + b",
        "Answer: d = 12",
        "I go for a walk",
    ],
)
def test_articles_and_unknowns_are_no_letters(text):
    assert last_choice(text) is None


@pytest.mark.parametrize("marker", ["", "Answer: ", "The answer is "])
@pytest.mark.parametrize(
    "said",
    ["X or Y", "(X) or (Y)", "X and Y", "X/Y", "X, Y", "either X or Y", "X, or possibly Y",
     "(X) 12 km or (Y) 15 km"],
)  # fmt: skip
def test_one_of_several_is_no_answer(marker, said):
    for x, y in zip("ABCDE", "BCDEA", strict=True):
        found = read_choice(marker + said.replace("X", x).replace("Y", y))
        assert found.letter is None
        assert "several options" in found.where


@pytest.mark.parametrize(
    "form",
    ["Answer: not X", "It can't be X", "It is not option X.", "The answer is not X", "X is wrong",
     "Answer: X is wrong", "We rule out X", "It isn't (X)"],
)  # fmt: skip
def test_what_is_denied_is_no_answer(form):
    for letter in "ABCDE":
        found = read_choice(form.replace("X", letter))
        assert found.letter is None
        assert "which option is not the answer" in found.where


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is not B but C", "C"),
        ("It is B, not C", "B"),
        ("Answer: B, A is too small", "B"),
        ("Answer: B. Wait, C.", "B"),
        ("Answer: B.\nLater I saw that option C is odd.\nAnswer: D", "D"),
        ("A\nB\nC", "C"),
        ("Answer: Let us think. It is a square. Therefore, B.", "B"),
        ("Answer: 20 km\nNote: B and C are wrong.", None),
        ("Answer: 20 km\nB was never in question, C was.", None),
        ("First B. The answer is 12", None),
    ],
)
def test_which_of_several_letters_is_read(text, letter):
    assert last_choice(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: A 12 km", "A"),
        ("Answer: a 12 km", "A"),
        ("Answer: b 15 km", "B"),
        ("Answer: A) 12 km", "A"),
        ("Answer: a car", "C"),
        ("Answer: A car", "C"),
        ("Answer: A a car", "A"),
        ("Answer: B vitamins", "D"),
        ("Answer: B because of the vitamins", "B"),
        ("A: 15 km", "B"),
        ("E) cannot be determined", "E"),
        ("The answer is E) Cannot be determined", "E"),
    ],
)
def test_the_words_of_options(text, letter, problem):
    options = OPTIONS if "A a car" not in text else ["a car", "B) 7"]
    assert ChoiceGrader().grade(problem("A", options=options), text).extracted == letter


def test_a_grade_says_where_the_letter_stands(problem):
    posed = problem("B", options=OPTIONS)
    for text, correct, reason in [
        ("Answer: B", True, "matches; read the letter behind 'Answer:'"),
        ("Answer: C", False, "expected B; read the letter behind 'Answer:'"),
        ("Answer: 15 km", True, "matches; read the option's text behind 'Answer:'"),
        ("B\n\nD is odd", True, "matches; read the letter in the first line"),
        ("Answer: 20 km", False, "behind 'Answer:' stands no option"),
        ("Answer: B or C", False, "the text names several options: B, C"),
        ("Answer: not B", False, "the text only says which option is not the answer"),
        ("so be it", False, "the text names no option"),
    ]:
        grade = ChoiceGrader().grade(posed, text)
        assert (grade.correct, grade.reason) == (correct, reason)
