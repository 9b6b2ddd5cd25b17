"""Debates about the embedded world as they might be recorded, in its own tokens."""

import random

from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world as world
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_grader import WorldGrader
from arkjax.text.tokenizer import Tokenizer, load_tokenizer
from arkjax.trajectories.schema import Call

WORLD = load_tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
GRADER = WorldGrader()
END = WORLD.eos_id


def said(
    text: str,
    problem: Problem,
    *,
    round: int = 0,
    agent: str = "a",
    sample: int = 0,
    parents: tuple[Call, ...] = (),
    tokenizer: Tokenizer = WORLD,
    answer: str | None = "",
    correct: bool | None = None,
    finish: str = "stop",
) -> Call:
    """A recorded message; what it answers is read by the world's grader unless it is told."""
    ids = (*tokenizer.encode(text), *([tokenizer.eos_id] if finish == "stop" else []))
    if answer == "":
        answer = GRADER.extract(text)
    right = answer is not None and answer == problem.answer
    return Call(
        call_id=f"{problem.id}/{round}/{agent}/{sample}",
        problem_id=problem.id,
        system="debate",
        stage="rebuttal" if round else "opening",
        round=round,
        agent=agent,
        sample=sample,
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
        correct=right if correct is None else correct,
        seconds=0.1,
    )


def problem_of(items: tuple[world.Item, ...], name: str = "p1") -> Problem:
    """A problem of the world."""
    return world.make_problem(items, name)


def debates(count: int, seed: int = 0) -> tuple[dict[str, Problem], list[tuple[str, list[Call]]]]:
    """Problems and debates of four agents over three rounds, with all that can go wrong.

    Steps are wrong, totals slip, steps are left out or in another order, answers are not said or
    not ended, and errors cancel out.
    """
    rng = random.Random(seed)
    problems, made = {}, []
    for number in range(count):
        domains = rng.choices(list(world.SKILLS), k=rng.randint(1, 4))
        items = tuple((name, rng.randrange(10), rng.randrange(10)) for name in domains)
        problem = problem_of(items, f"p{number:03d}")
        problems[problem.id] = problem
        calls: list[Call] = []
        for round in range(3):
            heard = tuple(call for call in calls if call.round == round - 1)
            for agent in "abcd":
                text = _answer(rng, items, skill=0.55 + 0.2 * round)
                if rng.random() < 0.05:
                    text = text.rpartition(" so ")[0] or text
                finish = "length" if rng.random() < 0.05 else "stop"
                calls.append(
                    said(text, problem, round=round, agent=agent, parents=heard, finish=finish)
                )
        made.append((problem.id, calls))
    return problems, made


def _answer(rng: random.Random, items: tuple[world.Item, ...], skill: float) -> str:
    order = list(items)
    if rng.random() < 0.1:
        rng.shuffle(order)
    if rng.random() < 0.05:
        order = order[1:]
    values = [
        value if rng.random() < skill else rng.randrange(10) for value in world.true_values(order)
    ]
    verbs = [rng.choice(world.VERBS) for _ in order]
    text = world.solution_text(order, values, verbs, rng.choice(world.TOTALS))
    # A slip in the last digit alone.
    return text if rng.random() < 0.95 else f"{text[:-1]}{rng.randrange(10)}"
