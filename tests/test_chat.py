"""A talk in the terminal: prompts, streaming, commands, and what is remembered."""

import dataclasses
import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax import chat, cli
from arkjax.chat import Message, Talk, prompt_ids
from arkjax.errors import ConfigError, DataError
from arkjax.models.huggingface.speaker import Speaker
from arkjax.models.presets import tiny
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sampling.params import SamplingParams
from arkjax.shipped import shipped_path
from arkjax.text.chat import PlainChat
from arkjax.text.dialogue import template_variable
from arkjax.text.templates import load_chat_template
from arkjax.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden" / "chat"
QWEN = Tokenizer(GOLDEN / "qwen")
WORLD = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


def template_of(family: str):
    return load_chat_template(GOLDEN / "templates" / f"{family}.jinja")


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = dataclasses.replace(tiny(), vocab_size=QWEN.id_limit, max_context=256)
    rng = np.random.default_rng(3)
    weights = {
        name: jnp.asarray(
            rng.normal(0, 3 * spec.fan_in**-0.5, spec.shape)
            if spec.fan_in
            else np.full(spec.shape, spec.constant),
            np.float32,
        )
        for name, spec in weight_specs(config).items()
    }
    return Transformer(config, weights)


@pytest.fixture
def make_talk(model):
    def make(**settings) -> Talk:
        greedy = SamplingParams(temperature=0.0, max_tokens=12)
        template = template_of("qwen3")
        return Talk(
            model, QWEN, template, {}, role="", sampling=greedy, seed=0, context=192, **settings
        )

    return make


@pytest.fixture
def talk(make_talk) -> Talk:
    return make_talk()


def scripted(*lines: str):
    """Reads these lines, then nothing more."""
    left = list(lines)

    def read(prompt: str) -> str:
        if not left:
            raise EOFError
        return left.pop(0)

    return read


def test_the_role_is_the_system_prompt_and_history_is_in_the_prompt():
    template = template_of("qwen3")
    said = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "2+2?")]
    plain = [{"role": m.role, "content": m.content} for m in said]
    assert prompt_ids(said, "", QWEN, template, {}) == template.encode(QWEN, plain)
    with_role = prompt_ids(said, "You are terse.", QWEN, template, {})
    system = {"role": "system", "content": "You are terse."}
    assert with_role == template.encode(QWEN, [system, *plain])
    thinking = prompt_ids(said, "", QWEN, template, {"enable_thinking": False})
    assert thinking == template.encode(QWEN, plain, enable_thinking=False)
    assert thinking != prompt_ids(said, "", QWEN, template, {})


def test_a_template_without_system_prompts_gets_the_role_in_the_first_message():
    tokenizer, template = Tokenizer(GOLDEN / "gemma"), template_of("gemma2")
    said = [Message("user", "Hi")]
    merged = [{"role": "user", "content": "You are terse.\n\nHi"}]
    assert prompt_ids(said, "You are terse.", tokenizer, template, {}) == template.encode(
        tokenizer, merged
    )


def test_without_a_template_the_role_is_a_byline_and_answers_are_its_transcript():
    plain = PlainChat(WORLD)
    question = plain.question("coins 4 7 , gap 3 8")
    said = [
        Message("user", "an older question"),
        Message("assistant", "so 3", "judge"),
        Message("user", "coins 4 7 , gap 3 8"),
    ]
    assert prompt_ids(said, "surveyor", WORLD, None, {}) == [*question, *plain.turn("surveyor")]
    said.append(Message("assistant", "so 5", "surveyor"))
    heard = [*plain.turn("surveyor"), *WORLD.encode("so 5"), plain.end_id]
    assert prompt_ids(said, "judge", WORLD, None, {}) == [*question, *heard, *plain.turn("judge")]


def test_what_streams_is_the_answer_and_is_remembered(talk, make_talk):
    pieces = list(talk.ask("coins"))
    assert len(pieces) > 2
    answer = talk.messages[-1]
    assert "".join(pieces) == answer.content == QWEN.decode(answer.ids)
    assert 1 <= len(answer.ids) <= 12
    again = make_talk()
    again.seed = 9  # greedy: the seed does not matter
    assert "".join(again.ask("coins")) == answer.content


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(talk):
    stream = talk.ask("coins")
    first = next(stream)
    stream.close()
    stopped = talk.messages[-1]
    assert stopped.role == "assistant" and stopped.content.startswith(first)
    assert len(stopped.ids) < 12
    whole = "".join(talk.ask("again"))
    assert talk.messages[-1].content == whole


def test_commands(talk, capsys, tmp_path):
    file = tmp_path / "talk.jsonl"
    code = chat.run(
        talk,
        scripted(
            "/next",
            "/role You are terse.",
            "coins",
            "/set temperature=0.5 top_k=3 max_tokens=4",
            "/next",
            "/history",
            f"/save {file}",
            "/set warmth=1",
            "/set top_p=7",
            "/jump",
            "/undo",
        ),
        "a title",
    )
    out = capsys.readouterr().out
    assert code == 0
    assert out.startswith("a title\n/help lists the commands\n")
    assert "nothing was asked yet" in out
    assert "user: coins" in out and out.count("You are terse.: ") == 2
    assert "/set warmth=1: write NAME=NUMBER" in out
    assert "sampling.top_p is 7.0: it must be in (0, 1]" in out
    assert "there is no command /jump" in out
    assert talk.sampling == SamplingParams(temperature=0.5, top_k=3, max_tokens=4)
    assert talk.messages == []
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [message["role"] for message in saved] == ["user", "assistant", "assistant"]
    assert len(saved[2]["ids"]) <= 4


def test_a_talk_beyond_the_context_says_what_to_do(talk):
    with pytest.raises(DataError, match="/undo, /clear, or start with a larger --max-context"):
        list(talk.ask("coins and gaps " * 100))
    # What could not be answered stands in nobody's way.
    assert talk.messages == []
    assert "".join(talk.ask("coins")) == talk.messages[-1].content


def test_a_talk_is_saved_nowhere_but_in_a_file(talk, capsys, tmp_path):
    device = os.stat("/dev/null").st_rdev
    lines = ("coins", "/save /dev/null", f"/save {tmp_path}", f"/save {tmp_path}/no/x", "/history")
    assert chat.run(talk, scripted(*lines), "t") == 0
    out = capsys.readouterr().out
    assert "a device or a pipe" in out and "it is a directory" in out and "does not exist" in out
    assert "user: coins" in out
    assert os.stat("/dev/null").st_rdev == device and not list(tmp_path.iterdir())


def test_a_model_in_int8_answers_too(make_talk):
    pytest.importorskip("qwix")
    small = make_talk(cache="int8", weights="int8")
    assert "".join(small.ask("Hi")) == small.messages[-1].content != ""
    with pytest.raises(ConfigError, match="engine.weights is 'int4'"):
        make_talk(weights="int4")


def test_the_command_keeps_a_model_in_int8_where_asked(model, monkeypatch):
    pytest.importorskip("qwix")
    talks = []
    speaker = Speaker(GOLDEN, model, QWEN, template_of("qwen3"))
    monkeypatch.setattr(chat, "open_speaker", lambda *arguments: speaker)
    monkeypatch.setattr(chat, "run", lambda talk, *others: talks.append(talk) or 0)
    assert cli.main(["chat", "a model", "--cache=int8", "--weights=int8"]) == 0
    assert cli.main(["chat", "a model"]) == 0
    kept = [(talk._engine.config.cache, talk._engine.config.weights) for talk in talks]
    assert kept == [("int8", "int8"), ("model", "model")]


def test_ctrl_c_at_the_prompt_does_not_leave(talk, capsys):
    lines = iter([KeyboardInterrupt, "/exit"])

    def read(prompt: str) -> str:
        line = next(lines)
        if line is KeyboardInterrupt:
            raise line
        return line

    assert chat.run(talk, read, "t") == 0
    assert "/exit or Ctrl-D leaves" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["thinking", "a b=1", "thinking=yes", "=1", "messages=[]"])
def test_a_template_variable_is_checked(word):
    with pytest.raises(ConfigError, match="NAME=JSON"):
        template_variable(word)
    assert template_variable("enable_thinking=false") == ("enable_thinking", False)


@pytest.mark.slow
def test_a_student_of_a_run_answers_in_a_process_of_its_own(arkjax_command, tiny_run, tmp_path):
    words = tmp_path / "words"
    words.write_text("coins 4 7 , gap 3 8\n/role judge\n/next\n/exit\n")
    student = tiny_run / "seed-0" / "distill" / "student_da" / "model"
    with words.open() as lines:
        done = arkjax_command("chat", student, "--temperature=0", "--max-tokens=40", stdin=lines)
    assert done.returncode == 0, done.stderr
    title, _, first, second = done.stdout.splitlines()[:4]
    assert "parameters" in title
    assert "coins 4 7" in first and "coins 4 7" in second
    missing = arkjax_command("chat", tmp_path / "nothing")
    assert missing.returncode == 3 and "there is no model at" in missing.stderr
