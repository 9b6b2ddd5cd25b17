"""Recorded calls as tests need them: only what matters is said."""

import hashlib

import pytest

from arkjax.trajectories.schema import Call

END = 1


@pytest.fixture(scope="session")
def call():
    """A function that makes a call; its id follows from problem, round, agent and sample."""

    def make(
        answer: str | None = "3",
        *,
        correct: bool | None = None,
        problem: str = "p1",
        round: int = 0,
        agent: str = "a",
        sample: int = 0,
        words: tuple[int, ...] | None = None,
        parents: tuple[Call, ...] = (),
        finish: str = "stop",
        prompt: tuple[int, ...] = (5, 6),
    ) -> Call:
        name = f"{problem}/{round}/{agent}/{sample}"
        if words is None:
            words = tuple(hashlib.sha256(name.encode()).digest()[:8])
        ids = (*words, END) if finish == "stop" else words
        return Call(
            call_id=name,
            problem_id=problem,
            system="debate",
            stage="opening" if round == 0 else "rebuttal",
            round=round,
            agent=agent,
            sample=sample,
            parents=tuple(parent.call_id for parent in parents),
            prompt_segments=(("template", 0, len(prompt)),),
            prompt_ids=prompt,
            prefix_len=1,
            cached_len=0,
            gen_ids=ids,
            logprobs=(-0.5,) * len(ids),
            sampling_logprobs=(-0.5,) * len(ids),
            text="",
            parsed={} if answer is None else {"answer": answer},
            parse_ok=answer is not None,
            finish_reason=finish,
            sampling={},
            seed=0,
            model="base",
            correct=(answer == "3") if correct is None else correct,
            seconds=0.1,
        )

    return make


class Equality:
    """A grader that may only compare answers with one another: it knows no gold one."""

    def equal(self, a: str, b: str) -> bool:
        """Whether they are the same words."""
        return a == b

    def grade(self, *_):
        raise AssertionError("the gold answer was looked at")

    extract = grade


@pytest.fixture(scope="session")
def grader() -> Equality:
    return Equality()
