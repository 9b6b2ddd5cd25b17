"""The embedded world's SentencePiece model."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world as world
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

PATH = shipped_path(f"data/{world.NAME}/tokenizer.model")
TOKENIZER = Tokenizer(PATH)
UNKNOWN = 1
PRINTABLE = string.ascii_letters + string.digits + string.punctuation


def test_special_pieces():
    assert (TOKENIZER.pad_id, TOKENIZER.eos_id) == (0, 2)
    assert 64 < TOKENIZER.vocab_size <= 192
    assert len(TOKENIZER.hash) == 64


@pytest.mark.parametrize("character", PRINTABLE)
def test_every_printable_character_is_known(character):
    for text in (character, f"a{character}", f"{character}{character}"):
        ids = TOKENIZER.encode(text)
        assert UNKNOWN not in ids
        assert TOKENIZER.decode(ids) == text


@given(st.lists(st.text(PRINTABLE, min_size=1), min_size=1).map(" ".join))
def test_any_english_role_text_comes_back(text):
    ids = TOKENIZER.encode(text)
    assert UNKNOWN not in ids and TOKENIZER.eos_id not in ids
    assert max(ids) < TOKENIZER.vocab_size
    assert TOKENIZER.decode(ids) == text


def test_every_word_of_the_world_is_one_piece():
    words = [*world.SKILLS, *world.EXPERTS, world.BARE_BYLINE, world.JUDGE]
    words += [*"0123456789", "is", "total", ";", ",", "so", "question"]
    assert {word: len(TOKENIZER.encode(word)) for word in words} == dict.fromkeys(words, 1)


def test_texts_of_the_world_come_back():
    for problem in EMBEDDED_SETS.evaluation()["validation"]:
        assert TOKENIZER.decode(TOKENIZER.encode(problem.question)) == problem.question


def test_a_batch_is_its_texts_one_by_one():
    texts = ["coins 4 7 is 2 total 2 ;", "", "judge:", "You are a careful critic!"]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]


def test_the_end_token_leaves_no_text():
    ids = TOKENIZER.encode("so 3")
    assert TOKENIZER.decode([*ids, TOKENIZER.eos_id]) == "so 3"


@pytest.mark.parametrize("content", [None, b"", b"not a model", PATH.read_bytes()[:500]])
def test_damaged_models_are_named(tmp_path, content):
    path = tmp_path / "broken.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="broken.model"):
        Tokenizer(path)
