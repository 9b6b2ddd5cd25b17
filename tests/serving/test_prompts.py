"""Orders as calls of the engine: prompts, what they share, seeds, and what does not fit."""

import dataclasses

import pytest

from arkjax.serving.prompts import Prompts
from arkjax.serving.protocol import read_chat, read_completion
from arkjax.serving.refusals import Refusal
from arkjax.serving.tokens import Tokens
from arkjax.text.chat import PlainChat
from arkjax.text.leading import leading_ids
from arkjax.text.templates import load_chat_template

pytestmark = pytest.mark.fast

SYSTEM = {
    "role": "system",
    "content": "You are a careful critic who answers in one short sentence. " * 3,
}


def user(words: str) -> dict:
    return {"role": "user", "content": words}


def assistant(words: str) -> dict:
    return {"role": "assistant", "content": words}


@pytest.fixture(scope="module")
def chat(prompts, limits):
    """A function that reads a chat into calls."""

    def read(*messages: dict, **fields):
        order = read_chat({"messages": list(messages), "seed": 7, **fields}, limits)
        return prompts.requests(order, "c")

    return read


@pytest.fixture(scope="module")
def text(prompts, limits):
    """A function that reads a completion into calls."""

    def read(prompt, **fields):
        return prompts.requests(
            read_completion({"prompt": prompt, "seed": 7, **fields}, limits), "c"
        )

    return read


def test_a_chat_is_what_the_template_makes_of_it(chat, speaker):
    messages = [SYSTEM, user("Hi"), assistant("Hello"), user("2+2?")]
    (call,) = chat(*messages)
    assert list(call.prompt_ids) == speaker.template.encode(speaker.tokenizer, messages)
    assert call.prefix_len == len(call.prompt_ids) - 1
    assert call.sampling.max_tokens == 16 and call.seed == 7
    (bare,) = chat(*messages, chat_template_kwargs={"enable_thinking": False})
    expected = speaker.template.encode(speaker.tokenizer, messages, enable_thinking=False)
    assert list(bare.prompt_ids) == expected != list(call.prompt_ids)


def test_the_next_turn_begins_with_the_prefix_of_the_last(chat):
    turns = [SYSTEM, user("How many coins are in the gap?"), assistant("7"), user("And then?")]
    (first,) = chat(*turns[:2])
    (second,) = chat(*turns)
    (third,) = chat(*turns, assistant("9"), user("So?"))
    assert first.prefix_len in second.shared
    assert {first.prefix_len, second.prefix_len} < set(third.shared)
    for call in (first, second, third):
        assert list(call.shared) == sorted(set(call.shared))
        assert all(0 < length < call.prefix_len for length in call.shared)
    assert second.prompt_ids[: first.prefix_len] == first.prompt_ids[: first.prefix_len]


def test_chats_under_one_system_prompt_share_it(chat):
    (one,), (other,) = chat(SYSTEM, user("Hi")), chat(SYSTEM, user("What is it?"))
    (length,) = one.shared
    assert other.shared == (length,)
    assert one.prompt_ids[:length] == other.prompt_ids[:length]
    assert one.prompt_ids[length] != other.prompt_ids[length]


def test_what_is_shared_does_not_depend_on_what_came_before(prompts, chat, limits, speaker):
    talk = [SYSTEM, user("Hi"), assistant("Hello"), user("2+2?")]
    before = chat(*talk)
    for i in range(5):
        chat(SYSTEM, user(f"Hi {i}"))
    fresh = Prompts(speaker.tokenizer, speaker.template, {}, limits)
    order = read_chat({"messages": talk, "seed": 7}, limits)
    assert chat(*talk) == before == fresh.requests(order, "c")


def test_without_a_template_a_chat_is_a_transcript(speaker, limits):
    prompts = Prompts(speaker.tokenizer, None, {}, limits)
    plain = PlainChat(speaker.tokenizer)

    def read(*messages):
        order = read_chat({"messages": list(messages)}, limits)
        return list(prompts.requests(order, "c")[0].prompt_ids)

    question = plain.question("coins")
    assert read(user("older"), assistant("x"), user("coins")) == [*question, *plain.turn("answer")]
    said = [*plain.turn("judge"), *speaker.tokenizer.encode("so 5"), plain.end_id]
    role = {"role": "system", "content": "critic"}
    heard = read(role, user("coins"), {**assistant("so 5"), "name": "judge"})
    assert heard == [*question, *said, *plain.turn("critic")]
    for messages, why in [
        ([assistant("x")], "no message is of the user"),
        ([user("a"), role, user("b")], "a message of the system stands behind others"),
    ]:
        with pytest.raises(Refusal, match=why) as caught:
            read(*messages)
        assert (caught.value.status, caught.value.param) == (400, "messages")


def test_answers_to_one_prompt_have_seeds_in_a_row_and_one_prefix(chat, text):
    calls = chat(user("Hi"), n=3)
    assert [call.seed for call in calls] == [7, 8, 9]
    assert len({call.id for call in calls}) == 3
    assert len({call.prompt_ids for call in calls}) == 1
    assert {call.prefix_len for call in calls} == {len(calls[0].prompt_ids) - 1}
    # Prompts that are the same get answers that are not.
    calls = text(["Hi", "Hi"], n=2)
    assert [call.seed for call in calls] == [7, 8, 9, 10]
    assert len({call.id for call in calls}) == 4


def test_prompts_of_a_completion_are_taken_as_they_are(text, speaker):
    (call,) = text("The quick", prefix_len=1, max_tokens=3)
    assert list(call.prompt_ids) == speaker.tokenizer.encode("The quick")
    assert (call.prefix_len, call.shared, call.sampling.max_tokens) == (1, (), 3)
    assert text([5, 6, 7])[0].prompt_ids == (5, 6, 7)
    assert text([5, 6, 7])[0].prefix_len == 0
    spelled = text("<|im_end|>")[0].prompt_ids
    assert speaker.tokenizer.token_id("<|im_end|>") not in spelled


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"prompt": ""}, "prompt", "no tokens"),
        ({"prompt": [[5], []]}, "prompt[1]", "no tokens"),
        ({"prompt": [5] * 512}, "prompt", "has 512 tokens, and with them the context of 512"),
        ({"prompt": [5] * 506, "max_tokens": 7}, "prompt", "up to 7 tokens"),
        ({"prompt": [5, 6], "prefix_len": 2}, "prefix_len", "at least one must follow"),
    ],
)
def test_what_does_not_fit_is_refused(text, fields, param, said):
    with pytest.raises(Refusal, match=said) as caught:
        text(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    if "context" in caught.value.message:
        assert caught.value.code == "context_length_exceeded"


def test_an_answer_that_sets_no_length_gets_what_is_left(text):
    assert text([5] * 506)[0].sampling.max_tokens == 6
    assert text([5] * 511)[0].sampling.max_tokens == 1
    assert text([5] * 9, max_tokens=503)[0].sampling.max_tokens == 503


def test_a_template_that_refuses_names_the_messages(tokenizers_of, golden, limits):
    template = load_chat_template(golden / "templates" / "mistral.jinja")
    prompts = Prompts(tokenizers_of("mistral"), template, {}, limits)
    order = read_chat({"messages": [user("Hi"), user("Hi")]}, limits)
    with pytest.raises(Refusal, match="refuses these messages") as caught:
        prompts.requests(order, "c")
    assert (caught.value.status, caught.value.param) == (400, "messages")


@pytest.mark.parametrize("name", ["qwen", "llama2", "llama3", "mistral", "gemma"])
def test_texts_begin_as_transformers_has_them_begin(name, tokenizers_of, parity, golden):
    tokenizer = tokenizers_of(name)
    theirs = parity.AutoTokenizer.from_pretrained(golden / name)
    whole = theirs("The quick brown fox").input_ids
    assert [*leading_ids(tokenizer), *tokenizer.encode("The quick brown fox")] == whole


def test_a_sentencepiece_model_alone_begins_with_nothing(tokenizers_of):
    assert leading_ids(tokenizers_of("llama2/tokenizer.model")) == ()


def test_completions_begin_with_the_tokenizers_beginning(tokenizers_of, limits):
    tokenizer = tokenizers_of("llama3")
    own = dataclasses.replace(limits, vocab_size=tokenizer.id_limit)
    prompts = Prompts(tokenizer, None, {}, own)

    def read(prompt, **fields):
        order = read_completion({"prompt": prompt, **fields}, own)
        return prompts.requests(order, "c")[0].prompt_ids

    ids = tuple(tokenizer.encode("Hi"))
    assert read("Hi") == (tokenizer.bos_id, *ids)
    assert read("") == (tokenizer.bos_id,)
    assert read("Hi", add_special_tokens=False) == ids
    assert read(list(ids)) == ids


@pytest.mark.parametrize("name", ["qwen", "llama2", "llama2/tokenizer.model", "llama3", "gemma"])
def test_bytes_of_tokens_make_up_the_text(name, tokenizers_of):
    tokenizer = tokenizers_of(name)
    tokens = Tokens(tokenizer)
    for text in ("Übung 日本語 👩‍👩‍👧 안녕하세요", "The quick  brown\n fox", "naïve cafe\u0301"):
        ids = tokenizer.encode(text)
        spelled = b"".join(bytes(tokens.spelled(index)) for index in ids)
        # The first word may have a space put before it.
        assert spelled.decode().removeprefix(" ") == tokenizer.decode(ids)
    end = tokenizer.token(tokenizer.eos_id)
    assert tokens.text(tokenizer.eos_id) == end
    assert bytes(tokens.spelled(tokenizer.eos_id)).decode() == end
    assert tokens.name(5, as_id=True) == "token_id:5"
