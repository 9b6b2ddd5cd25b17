"""A team that debates through a server."""

import hashlib
import json
import re
import threading
import types

import pytest

from arkjax import teams
from arkjax.errors import DataError
from arkjax.tasks.problems import Grade, Problem
from arkjax.text.chat import PlainChat
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


class Grader:
    """The answer is the number after the last "so"."""

    def extract(self, text):
        found = re.findall(r"so\s*(\d+)", text)
        return found[-1] if found else None

    def equal(self, a, b):
        return a == b

    def accepts(self, problem, answer):
        return answer == problem.answer

    def grade(self, problem, text):
        answer = self.extract(text)
        return Grade(answer is not None and self.equal(answer, problem.answer), answer, "")


@pytest.fixture
def debate(tokenizer):
    """A function that has a small team debate with some model; what it is made of beside it."""
    chat = PlainChat(tokenizer)
    problems = [Problem(f"p{i}", f"what is {i}", str(i % 3), "toy", "d") for i in range(6)]

    def speak(prompt, seed, sampling):
        draw = hashlib.sha256(json.dumps([prompt, seed]).encode()).digest()[0]
        ids = [*tokenizer.encode(f"coins {draw % 7}, so {draw % 3}"), chat.end_id]
        return ids, [-0.5] * len(ids), [-0.25] * len(ids), "stop"

    def play(model, store=None):
        spec = teams.debate(rounds=3)
        return teams.play(spec, problems, {"policy": model}, chat, tokenizer, Grader(), store, 5)

    return types.SimpleNamespace(play=play, speak=speak, calls=6 * 4 * 3)


def test_a_team_debates_through_a_server_and_goes_on_with_the_next(
    serve, connect, tokenizer, debate, tmp_path
):
    """Killed half-way, a debate keeps what was said and ends as one that nobody killed."""
    quiet = serve(speak=debate.speak, max_model_len=4096)
    with CallStore(tmp_path / "whole") as store:
        whole = debate.play(connect(quiet, tokenizer), store)
        assert len(store) == len(quiet.bodies) == debate.calls
    dying = serve(speak=debate.speak, max_model_len=4096)

    def die(body, attempt):
        if len(dying.bodies) > debate.calls // 2:
            threading.Thread(target=dying.kill).start()
            return {"act": "reset"}

    dying.trouble = die
    store = CallStore(tmp_path / "killed", shard_calls=5)
    with pytest.raises(DataError, match=r"call \w+: \S+ gave no answer in 3 attempts"):
        debate.play(connect(dying, tokenizer, max_concurrency=3, retries=2), store)
    resumed = CallStore(tmp_path / "killed")
    kept = len(resumed)
    assert debate.calls // 4 < kept < debate.calls
    after = serve(speak=debate.speak, max_model_len=4096)
    with resumed:
        debates = debate.play(connect(after, tokenizer), resumed)
    # Not one call that had ended is made again.
    assert len(after.bodies) == debate.calls - kept
    assert resumed.content_hash() == CallStore(tmp_path / "whole").content_hash()
    assert [d.answer for d in debates] == [d.answer for d in whole]
    assert {d.answer for d in whole} <= {"0", "1", "2"} and whole[0].cost.generated_tokens > 0
