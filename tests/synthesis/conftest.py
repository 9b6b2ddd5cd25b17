"""Recorded calls as tests need them: only what matters is said."""

import dataclasses
import hashlib
import random

import pytest

from arkjax.shipped import shipped_path
from arkjax.synthesis.flips import flips
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import Unifier
from arkjax.tasks import embedded_world
from arkjax.tasks.world_grader import WorldGrader
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import load_tokenizer
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit
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


# --- debates about the embedded world -------------------------------------------------------------

BASE = SelectionConfig(2, 2, True, correction="no ;", between=";")
FIELDS = {field.name for field in dataclasses.fields(SelectionConfig)}


class WorldDebates:
    """Debates of four agents over three rounds, in the world's own tokens.

    All goes wrong that can: steps are wrong, totals slip, steps are left out or in another order,
    answers are not said or not ended, and errors cancel out.
    """

    def __init__(self, count: int):
        self.tokenizer = load_tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
        self.grader = WorldGrader()
        self.chat = PlainChat(self.tokenizer)
        self.base = BASE
        self.no = tuple(self.tokenizer.encode(BASE.correction))
        self.between = tuple(self.tokenizer.encode(BASE.between))
        rng = random.Random(0)
        self.problems, self.debates = {}, []
        for number in range(count):
            self._debate(rng, f"p{number:03d}")
        self.calls = {call.call_id: call for _, calls in self.debates for call in calls}
        self.votes = {
            name: sorted(call.parsed.get("answer", "?") for call in calls)[6]
            for name, calls in self.debates
        }
        self.credits = self._credits()

    def unify(self, of=None, problems=None, answers=None, **changes):
        """Examples and counts; `changes` are of the config or of the unifier."""
        given = {"attribution": changes.pop("known", self.credits), "synthesizer": "d"}
        given |= {name: value for name, value in changes.items() if name not in FIELDS}
        config = {name: value for name, value in changes.items() if name in FIELDS}
        unifier = Unifier(
            dataclasses.replace(BASE, **config),
            self.grader,
            self.tokenizer,
            problems or self.problems,
            self.prompt,
            **given,
        )
        return unifier(self.debates if of is None else of, answers or self.votes)

    def prompt(self, question):
        """What the student is asked."""
        return [*self.chat.question(question), *self.chat.turn("answer")]

    def problem_of(self, items, name="p1"):
        """A problem about these items."""
        return embedded_world.make_problem(items, name)

    def said(
        self,
        text,
        problem,
        *,
        round=0,
        agent="a",
        parents=(),
        tokenizer=None,
        answer="",
        finish="stop",
    ) -> Call:
        """A recorded message; the world's grader reads its answer unless that is told."""
        tokenizer = tokenizer or self.tokenizer
        ids = (*tokenizer.encode(text), *([tokenizer.eos_id] if finish == "stop" else []))
        answer = self.grader.extract(text) if answer == "" else answer
        return Call(
            call_id=f"{problem.id}/{round}/{agent}",
            problem_id=problem.id,
            system="debate",
            stage="rebuttal" if round else "opening",
            round=round,
            agent=agent,
            sample=0,
            parents=tuple(parent.call_id for parent in parents),
            prompt_segments=(("template", 0, 2),),
            prompt_ids=(3, 4),
            prefix_len=1,
            cached_len=0,
            gen_ids=ids,
            logprobs=(-0.5,) * len(ids),
            sampling_logprobs=(-0.5,) * len(ids),
            text=text,
            parsed={} if answer is None else {"answer": answer},
            parse_ok=answer is not None,
            finish_reason=finish,
            sampling={},
            seed=0,
            model="base",
            correct=answer is not None and answer == problem.answer,
            seconds=0.1,
        )

    def _debate(self, rng, name):
        domains = rng.choices(list(embedded_world.SKILLS), k=rng.randint(1, 4))
        items = tuple((domain, rng.randrange(10), rng.randrange(10)) for domain in domains)
        self.problems[name] = problem = self.problem_of(items, name)
        calls: list[Call] = []
        for round in range(3):
            heard = tuple(call for call in calls if call.round == round - 1)
            for agent in "abcd":
                text = _answer(rng, items, skill=0.55 + 0.2 * round)
                if rng.random() < 0.05:
                    text = text.rpartition(" so ")[0]
                finish = "length" if rng.random() < 0.05 else "stop"
                where = {"round": round, "agent": agent, "parents": heard, "finish": finish}
                calls.append(self.said(text, problem, **where))
        self.debates.append((name, calls))

    def _credits(self):
        messages, agents = [], []
        for name, calls in self.debates:
            found = flips(calls, self.problems[name].answer, self.grader.equal)
            for call in calls:
                credit = dataclasses.astuple(found.messages[call.call_id])
                messages.append(MessageCredit(call.call_id, name, call.agent, call.round, *credit))
            agents += [
                AgentCredit(name, agent, *dataclasses.astuple(credit))
                for agent, credit in found.agents.items()
            ]
        return Attribution.of(messages, agents)


def _answer(rng, items, skill):
    order = list(items)
    if rng.random() < 0.1:
        rng.shuffle(order)
    if rng.random() < 0.05:
        order = order[1:]
    values = [
        value if rng.random() < skill else rng.randrange(10)
        for value in embedded_world.true_values(order)
    ]
    verbs = [rng.choice(embedded_world.VERBS) for _ in order]
    text = embedded_world.solution_text(order, values, verbs, rng.choice(embedded_world.TOTALS))
    # A slip in the last digit alone.
    return text if rng.random() < 0.95 else f"{text[:-1]}{rng.randrange(10)}"


@pytest.fixture(scope="session")
def world() -> WorldDebates:
    """Sixty debates, the examples that they can become, and messages of one's own."""
    return WorldDebates(60)
