"""Words of models with other tokens, encoded anew for the students."""

import dataclasses
from pathlib import Path

import pytest

from arkjax.config import to_dict
from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.synthesis.foreign import reencoded
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import Unifier
from arkjax.tasks.registry import get_task
from arkjax.text.chat import BylineChat
from arkjax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

GOLDEN = Path(__file__).parents[1] / "golden" / "chat"
DA = SelectionConfig(max_traces=2, min_agreeing=1, prefer_corrective=True)


@pytest.fixture(scope="module")
def own():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


@pytest.fixture
def stranger(call):
    """A call of a Qwen, whose ids mean other words to everybody else."""
    qwen = Tokenizer(GOLDEN / "qwen")

    def made(text, finish_reason="stop", **changes):
        ids = tuple(qwen.encode(text))
        logprobs = (-0.5,) * len(ids)
        return dataclasses.replace(
            call(),
            model="qwen-1",
            text=text,
            gen_ids=ids,
            logprobs=logprobs,
            sampling_logprobs=logprobs,
            finish_reason=finish_reason,
            **changes,
        )

    return made


def test_the_words_stay_and_the_tokens_do_not(own, stranger):
    call = stranger("coins 4 7 so 3; gap 3 8")
    made = reencoded(call, own, own.eos_id)
    assert own.decode(made.gen_ids) == call.text and made.gen_ids[-1] == own.eos_id
    assert made.gen_ids != call.gen_ids
    kept = ("call_id", "problem_id", "model", "text", "parsed", "correct", "agent", "round")
    assert all(getattr(made, name) == getattr(call, name) for name in kept)
    # What is true of the other tokens alone is not said of these.
    assert made.logprobs == made.sampling_logprobs == made.prompt_ids == made.top_ids == ()


def test_an_unfinished_answer_has_no_end(own, stranger):
    made = reencoded(stranger("coins 4 7 so 3", finish_reason="length"), own, own.eos_id)
    assert made.gen_ids[-1] != own.eos_id


def test_words_that_cannot_be_said_are_left_out(own, stranger):
    assert reencoded(stranger("caf\u00e9"), own, own.eos_id) is None


@pytest.mark.parametrize("family", ["llama2", "llama3", "gemma", "mistral", "qwen"])
def test_special_tokens_in_a_text_are_words(family, stranger):
    tokenizer = Tokenizer(GOLDEN / family)
    text = "So 3.\n\nThen <|im_end|> and <eos> and </s>: **42**"
    made = reencoded(stranger(text), tokenizer, tokenizer.eos_id)
    assert tokenizer.decode(made.gen_ids[:-1]) == text
    assert tokenizer.eos_id not in made.gen_ids[:-1]


def test_examples_say_that_they_were_encoded_anew(own, stranger):
    task = get_task("embedded_world")
    problem = task.load("test", 1)[0]
    text = f"... so {problem.answer}"
    call = stranger(text, problem_id=problem.id, correct=True, parsed={"answer": problem.answer})
    made = reencoded(call, own, own.eos_id)
    chat = BylineChat(own)
    unifier = Unifier(
        DA,
        task.grader,
        own,
        {problem.id: problem},
        chat.question,
        end_ids=chat.end_ids,
        foreign={"qwen-1"},
    )
    examples, _ = unifier([(problem.id, [made])], {problem.id: problem.answer})
    assert [example.provenance["reencoded"] for example in examples] == [["qwen-1"]]
    assert own.decode(examples[0].target_ids) == text
    plain, _ = dataclasses.replace(unifier, foreign=())([(problem.id, [made])], {})
    assert "reencoded" not in plain[0].provenance


def test_the_option_changes_no_older_config():
    assert "foreign" not in to_dict(DA)
    assert to_dict(dataclasses.replace(DA, foreign="reencode"))["foreign"] == "reencode"
    with pytest.raises(ConfigError, match="synthesis.foreign is 'translate'"):
        dataclasses.replace(DA, foreign="translate")
