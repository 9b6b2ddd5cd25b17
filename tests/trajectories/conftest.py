"""Debates as a record holds them: consistent in every way that `verify` looks at."""

import dataclasses
import functools

import numpy as np
import pytest

from arkjax.sampling.params import SamplingParams
from arkjax.shipped import shipped_path
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import TEMPLATE, Call, call_id, sampling_dict

TOOL = "tool:calculator/1"


@functools.cache
def world_tokenizer() -> Tokenizer:
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


def make_call(prompt: list[tuple[str, tuple[int, ...]]], words: str, **fields) -> Call:
    """A call whose prompt has these parts, (source, ids), and that says these words."""
    tokenizer = world_tokenizer()
    segments, ids = [], ()
    for source, some in prompt:
        segments.append((source, len(ids), len(ids) + len(some)))
        ids += tuple(some)
    spoken = (*tokenizer.encode(words), tokenizer.eos_id)
    draw = np.random.default_rng(len(ids) + sum(spoken)).random(len(spoken))
    logprobs = tuple(float(np.float32(-x)) for x in draw)
    call = Call(
        call_id="",
        problem_id="p0",
        system="debate",
        stage="opening",
        round=0,
        agent="a0",
        sample=0,
        parents=tuple(source for source, _ in prompt if source != TEMPLATE),
        prompt_segments=tuple(segments),
        prompt_ids=ids,
        prefix_len=len(ids) - len(prompt[-1][1]),
        cached_len=0,
        gen_ids=spoken,
        logprobs=logprobs,
        sampling_logprobs=logprobs,
        text=tokenizer.decode(spoken[:-1]),
        parsed={"answer": words.split()[-1]},
        parse_ok=True,
        finish_reason="stop",
        sampling=sampling_dict(
            SamplingParams(temperature=0.7, max_tokens=24, stop_ids=(tokenizer.eos_id,))
        ),
        seed=5,
        model="base-0",
        correct=None,
        seconds=0.25,
    )
    return identified(dataclasses.replace(call, **fields))


def identified(call: Call) -> Call:
    """The call under the id that its content has."""
    names = ("problem_id", "model", "stage", "round", "agent", "sample", "prompt_ids", "sampling")
    content = {name: getattr(call, name) for name in (*names, "seed")}
    return dataclasses.replace(call, call_id=call_id(**content))


def make_debate(number: int, agents: int = 3, rounds: int = 2, tool: bool = False) -> list[Call]:
    """All calls of a debate: in later rounds everybody hears the round before."""
    tokenizer = world_tokenizer()
    chat = PlainChat(tokenizer)
    question = (TEMPLATE, tuple(chat.question(f"coins {number % 10} 4 , gap 3 {number % 7}")))
    said: list[Call] = []
    for r in range(rounds):
        heard = [call for call in said if call.round == r - 1]
        transcript = []
        for call in heard:
            transcript += [(TEMPLATE, tuple(chat.turn(call.agent))), (call.call_id, call.gen_ids)]
        for a in range(agents):
            turn = (TEMPLATE, tuple(chat.turn(f"a{a}")))
            prompt = [question, *transcript, turn]
            if not transcript:
                prompt = [(TEMPLATE, question[1] + turn[1])]
            else:
                prompt = [(TEMPLATE, question[1] + transcript[0][1]), *transcript[1:], turn]
            said.append(
                make_call(
                    prompt,
                    f"coins makes {(number + a) % 10} ; so {(number * a + r) % 10}",
                    problem_id=f"p{number}",
                    stage=("opening", "rebuttal")[min(r, 1)],
                    round=r,
                    agent=f"a{a}",
                    seed=number * 100 + r * 10 + a,
                    correct=(number * a + r) % 3 == 0,
                )
            )
    if tool:
        last = said[-1]
        action = make_call(
            [(TEMPLATE, last.prompt_ids), (last.call_id, last.gen_ids)],
            "sum 7",
            problem_id=last.problem_id,
            stage=last.stage,
            round=last.round,
            agent=last.agent,
            step=1,
            model=TOOL,
            finish_reason="tool",
            logprobs=(),
            sampling_logprobs=(),
        )
        said.append(action)
    return said


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return world_tokenizer()


@pytest.fixture(scope="session")
def debate():
    """`make_debate`."""
    return make_debate


@pytest.fixture(scope="session")
def with_id():
    """`identified`."""
    return identified


@pytest.fixture
def store_of(tmp_path):
    """Writes calls as a store and returns its directory."""
    from arkjax.trajectories.store import CallStore

    def write(calls, name="calls", shard_calls=8):
        with CallStore(tmp_path / name, shard_calls=shard_calls) as store:
            store.append(calls)
        return tmp_path / name

    return write
