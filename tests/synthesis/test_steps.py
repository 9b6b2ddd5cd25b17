"""Steps of an answer: runs of its own tokens, cut where their text says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.synthesis.steps import spans, step_ends
from arkjax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.fast
CHATS = Path(__file__).parents[1] / "golden" / "chat"
NAMES = ("gemma", "llama2", "llama2/tokenizer.model", "llama3", "mistral", "qwen")
KINDS = ("auto", "paragraph", "newline", "sentence", "clause")
LOADED = {name: load_tokenizer(CHATS / name) for name in NAMES}
WORLD = load_tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


def steps(tokenizer, text, kind):
    """The texts of the steps of a text, white space around them aside."""
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    return [tokenizer.decode(ids[a:b]).strip() for a, b in spans(step_ends(ids, tokenizer, kind))]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), kind=st.sampled_from(KINDS))
@settings(max_examples=150, deadline=None)
def test_every_token_but_the_closing_ones_is_in_one_step(name, data, kind):
    tokenizer = LOADED[name]
    one = st.integers(0, tokenizer.id_limit - 1)
    marks = st.sampled_from([i for t in (";", ".\n", "\n\n", "🦊") for i in tokenizer.encode(t)])
    ids = data.draw(st.lists(one | marks | st.sampled_from(tokenizer.end_ids), max_size=24))
    ends = step_ends(ids, tokenizer, kind)
    words = len(ids)
    while words and ids[words - 1] in tokenizer.end_ids:
        words -= 1
    assert list(ends) == sorted(set(ends))
    assert (ends[-1] if ends else 0) == words
    assert all(0 < end <= words for end in ends)
    # What follows an answer's last word moves nothing.
    assert step_ends([*ids[:words], tokenizer.eos_id], tokenizer, kind) == ends


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_cut_where_the_text_says(name):
    tokenizer = LOADED[name]
    text = 'We add 3.5 and 2, e.g. by hand. "Is it 5.5?" Yes (Dr. No says so).\n\n'
    text += "So: 5.5.\nThat is all"
    assert steps(tokenizer, text, "sentence") == [
        "We add 3.5 and 2, e.g. by hand.",
        '"Is it 5.5?"',
        "Yes (Dr. No says so).",
        "So: 5.5.",
        "That is all",
    ]
    assert [one.count(".") for one in steps(tokenizer, text, "newline")] == [7, 2, 0]
    assert len(steps(tokenizer, text, "paragraph")) == 2
    assert steps(tokenizer, "a = 1; b = 2 ; so 3", "clause") == ["a = 1;", "b = 2 ;", "so 3"]


@pytest.mark.parametrize("name", NAMES)
def test_characters_of_several_tokens_do_not_move_a_cut(name):
    """Nor do they hide one: a full stop of three bytes, and one right behind such characters."""
    tokenizer = LOADED[name]
    assert steps(tokenizer, "你好。我是🦊。第二", "sentence") == ["你好。", "我是🦊。", "第二"]
    assert steps(tokenizer, "🦊🦊; é🦊; ü", "clause") == ["🦊🦊;", "é🦊;", "ü"]


def test_auto_takes_the_first_that_gives_several():
    tokenizer = LOADED["qwen"]
    for text, kind in (
        ("One. Two; three.\nFour.", "newline"),
        ("One. Two; three.", "sentence"),
        ("One; two; three", "clause"),
    ):
        assert steps(tokenizer, text, "auto") == steps(tokenizer, text, kind)
        assert len(steps(tokenizer, text, kind)) > 1
    assert steps(tokenizer, "nothing to cut", "auto") == ["nothing to cut"]


def test_marks_without_words_are_no_steps():
    tokenizer = LOADED["qwen"]
    assert steps(tokenizer, "\n\n  \n", "newline") == [""]
    assert steps(tokenizer, "\n\na\n\n\n\nb\n\n", "newline") == ["a", "b"]
    assert step_ends([tokenizer.eos_id], tokenizer, "auto") == ()
    assert step_ends([], tokenizer, "auto") == ()


def test_a_solution_of_the_embedded_world_is_one_step_an_item():
    text = "coins 2 8 makes 1 total 1 ; peak 3 2 is 3 total 4 ; so 4"
    assert steps(WORLD, text, "auto") == [
        "coins 2 8 makes 1 total 1 ;",
        "peak 3 2 is 3 total 4 ;",
        "so 4",
    ]


def test_a_template_may_have_end_tokens_of_its_own():
    ids = WORLD.encode("so 4")
    assert step_ends([*ids, 7], WORLD, "auto", end_ids=(7,)) == (len(ids),)
    assert step_ends([*ids, 7], WORLD, "auto") == (len(ids) + 1,)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="'word' are not known: choose one of auto, "):
        step_ends([1], WORLD, "word")
