"""Streams of ids decode to what all of the ids decode to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.text.stream import StreamDecoder, token_texts

pytestmark = pytest.mark.fast

NAMES = ("gemma", "llama2", "llama2/tokenizer.model", "llama3", "mistral", "qwen")


def pushed(tokenizer, ids, special=False):
    decoder = StreamDecoder(tokenizer, special=special)
    return [decoder.push(index) for index in ids] + [decoder.flush()]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), special=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_ids_come_out_as_decoded_at_once(name, tokenizers, data, special):
    tokenizer = tokenizers(name)
    bytes_and_special = [
        index
        for index in range(tokenizer.id_limit)
        if tokenizer.is_byte(index) or tokenizer.token(index) in tokenizer.special_tokens
    ]
    one = st.integers(0, tokenizer.id_limit) | st.sampled_from(bytes_and_special)
    ids = data.draw(st.lists(one, max_size=16))
    expected = tokenizer.decode(ids, special=special)
    assert "".join(pushed(tokenizer, ids, special)) == expected
    # And so they do in pieces of several.
    decoder, at = StreamDecoder(tokenizer, special=special), data.draw(st.integers(0, len(ids)))
    pieces = [decoder.push(*ids[:at]), decoder.push(*ids[at:]), decoder.flush()]
    assert "".join(pieces) == expected


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_out_whole(name, tokenizers, text):
    tokenizer = tokenizers(name)
    ids = tokenizer.encode(text)
    assert "".join(pushed(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", NAMES)
def test_text_comes_as_soon_as_it_is_known(name, tokenizers):
    tokenizer = tokenizers(name)
    ids = tokenizer.encode("The quick brown")
    pieces = pushed(tokenizer, ids)
    assert pieces[-1] == "" and all(pieces[1:-1])
    assert pieces[0] == tokenizer.decode(ids[:1])


@pytest.mark.parametrize("name", NAMES)
def test_no_part_of_a_character_comes_before_the_rest(name, tokenizers):
    tokenizer = tokenizers(name)
    pieces = pushed(tokenizer, [*tokenizer.encode("a"), *tokenizer.encode("🦊"), tokenizer.eos_id])
    assert "🦊" in pieces or " 🦊" in pieces
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_texts_of_single_tokens_make_the_whole(name, tokenizers, data):
    tokenizer = tokenizers(name)
    bytes_ = [index for index in range(tokenizer.id_limit) if tokenizer.is_byte(index)]
    one = st.integers(0, tokenizer.id_limit) | st.sampled_from(bytes_ or [0])
    ids = data.draw(st.lists(one, max_size=16))
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(alphabet="ab .;é漢🦊", max_size=12))
@settings(max_examples=100, deadline=None)
def test_a_character_is_the_text_of_its_last_token(name, tokenizers, text):
    """Decoding up to a token gives at least its text, up to the one before it never that."""
    tokenizer = tokenizers(name)
    ids = tokenizer.encode("x" + text)
    texts = token_texts(tokenizer, ids)
    for count in range(1, len(ids) + 1):
        known = "".join(texts[:count])
        if texts[count - 1]:
            assert tokenizer.decode(ids[:count]).startswith(known)
            assert not tokenizer.decode(ids[: count - 1]).startswith(known)
