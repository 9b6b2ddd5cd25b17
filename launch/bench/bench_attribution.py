"""How often attribution finds the message that decided a debate, and what shared prompts save.

    python launch/bench/bench_attribution.py [--run runs/quickstart] [--debates 400] [--record 128]

Needs a finished run of `configs/quickstart.py` (its stages base and sample; it is only read).

- decisive: debates of the embedded world in which one message decides. A problem has traps in one
  domain only. Its expert states the right value, three others the popular error, in an order that
  changes from problem to problem; then readers, played by the run's base model at temperature 0,
  read all four and answer. Three settings, from the plainest to the hardest:
  - one_domain: the problem has that domain alone. Three laymen speak, and a judge reads.
  - two_domains: half of the problem is of a domain that nobody is expert in.
  - experts: of the three, two are experts of domains that the problem does not have, and they read
    as well. They err like laymen, but to the model their bylines are a sign that somebody knows.
  `found` is how often the expert's message has the highest influence of the four, and `by_position`
  the same by where it stands, with the number of debates; `shapley` is how often its author has the
  largest share of the gain, and `flips` how often answer flips credit it, and no other, with a
  correction: never where the only reader, the judge, has not spoken before. A debate in which no
  reader was right tells nothing: it counts as not found, and among `nobody_right`. `margin_nats`
  are the 5th, 50th and 95th percentile of how far the expert's message is above the next.
- shapley_error: the most by which exact Shapley values miss the gain that they divide, in nats.
- record: the run's own debates of four agents and two rounds. `tokens` are those of all prompts and
  targets about which leave-one-out influence asks the model, and with it the game of all 16
  coalitions, over the tokens that are computed for that; `padded` the same with padding on both
  sides; `wall` the time of `Engine.score` over that of `Engine.score_continuations` on the same
  pairs, both warm. Above 1 sharing is better. `difference` is the most by which their
  log-probabilities differ.

The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from arkjax import config as configs
from arkjax.models.placement import load_model
from arkjax.run_config import RunConfig
from arkjax.sampling.engine import Engine
from arkjax.sampling.params import Generation, Request
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.synthesis.attribution import AttributionConfig, attribute, counted
from arkjax.synthesis.influence import Pair, game, influence_pairs, readings
from arkjax.tasks.embedded_world import (
    BARE_BYLINE,
    GUESSES,
    INPUTS,
    JUDGE,
    KNOWS,
    SEEN_MIXTURES,
    SKILLS,
    TOTALS,
    Item,
    make_problem,
    part_of,
    solution_text,
)
from arkjax.tasks.problems import Problem
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.debate import Debate
from arkjax.teams.runner import play
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.store import CallStore
from arkjax.versions import versions

TASK = "embedded_world"
SETTINGS = ("one_domain", "two_domains", "experts")


class Scripted:
    """An engine to which the answers to some prompts are told beforehand."""

    def __init__(self, engine: Engine, words: dict[tuple[int, ...], tuple[int, ...]]):
        self._engine, self._words = engine, words
        self._said: list[Generation] = []
        self.max_context = engine.max_context

    @property
    def pending(self) -> int:
        return self._engine.pending + len(self._said)

    def submit(self, request: Request) -> None:
        ids = self._words.get(request.prompt_ids)
        if ids is None:
            self._engine.submit(request)
            return
        none = (0.0,) * len(ids)
        self._said.append(Generation(request.id, ids, none, none, "stop", 0, 0.0))

    def step(self) -> list[Generation]:
        said, self._said = self._said, []
        return said + (self._engine.step() if self._engine.pending else [])


def team_of(expert: str, bylines: Sequence[str]) -> TeamSpec:
    """An expert and others speak in any order; the last two of these and a judge read them all."""
    short = {"temperature": 0.0, "max_tokens": 36}
    others = {f"{byline}-{i}": byline for i, byline in enumerate(bylines)}
    agents = [
        {"id": name, "role": role, "tags": ["speaker"], "sampling": short}
        for name, role in {expert: expert, **others}.items()
    ]
    judge = {"id": JUDGE, "role": JUDGE, "sampling": short}
    view = {"graph": "full", "order": "shuffled"}
    readers = [*(name for name, role in others.items() if role != BARE_BYLINE), JUDGE]
    return TeamSpec.from_config(
        {
            "name": f"decisive-{expert}",
            "agents": [*agents, judge],
            "stages": [
                {"name": "opening", "speakers": "tag:speaker"},
                {"name": "answers", "speakers": readers, "view": view},
            ],
            "schedule": ["opening", "answers"],
            "reducer": {"kind": "judge", "agent": JUDGE},
        }
    )


def draw(
    rng: random.Random, domain: str, other: str | None, name: str
) -> tuple[tuple[Item, ...], Problem]:
    """A problem of two or three items, of one or two domains, with traps in `domain` alone."""
    while True:
        both = (domain, other or domain)
        domains = [*both, *rng.choices(both, k=rng.randint(0, 1))]
        rng.shuffle(domains)
        items = tuple(
            (
                d,
                *rng.choice(
                    INPUTS[d, d == domain and (i == domains.index(d) or rng.random() < 0.5)]
                ),
            )
            for i, d in enumerate(domains)
        )
        if part_of(items) == "single":
            return items, make_problem(items, name)


def answer_of(rng: random.Random, items: tuple[Item, ...], domain: str | None) -> str:
    """What the expert of a domain, or a layman, says about the items."""
    skills = [SKILLS[d] for d, _, _ in items]
    own = [d == domain for d, _, _ in items]
    values = [
        (skill.truth if mine else skill.misconception)(a, b)
        for skill, mine, (_, a, b) in zip(skills, own, items, strict=True)
    ]
    verbs = [KNOWS if mine else GUESSES for mine in own]
    return solution_text(items, values, verbs, rng.choice(TOTALS))


def decisive(
    engine: Engine, tokenizer: Tokenizer, chat: PlainChat, count: int, setting: str
) -> dict:
    """Debates with one decisive message, in one of the settings."""
    rng, grader = random.Random(0), get_task(TASK).grader
    pairs = [pair for pair in SEEN_MIXTURES if len(pair) == 2]
    pairs += [pair[::-1] for pair in pairs]
    found: dict[int, list[bool]] = {}
    tally = {"influence": 0, "flips": 0, "shapley": 0, "nobody_right": 0}
    margins, errors = [], []
    for number, (domain, other) in enumerate(pairs):
        share = count * (number + 1) // len(pairs) - count * number // len(pairs)
        expert = SKILLS[domain].expert
        outsiders = [s.expert for d, s in SKILLS.items() if d not in (domain, other)]
        laymen = [BARE_BYLINE] * 3
        spec = team_of(expert, [BARE_BYLINE, *outsiders] if setting == "experts" else laymen)
        second = None if setting == "one_domain" else other
        names = [f"{domain}-{other}-{i:03d}" for i in range(share)]
        drawn = [draw(rng, domain, second, name) for name in names]
        words = {}
        for items, problem in drawn:
            for agent in spec.agents[:-1]:
                text = answer_of(rng, items, domain if agent.id == expert else None)
                prompt = (*chat.question(problem.question), *chat.turn(agent.role))
                words[prompt] = (*tokenizer.encode(text), chat.end_id)
        problems = list({problem.question: problem for _, problem in drawn}.values())
        models = dict.fromkeys(spec.models, Scripted(engine, words))
        debates = play(spec, problems, models, chat, tokenizer, grader, None, 0)
        calls = [call for debate in debates for call in debate.calls]
        known = attribute(
            calls,
            spec,
            {debate.problem.id: debate.answer for debate in debates},
            grader,
            AttributionConfig(kinds=("flips", "influence", "shapley")),
            scorer=engine.score_continuations,
            end_id=chat.end_id,
        )
        for debate in debates:
            one = _judged(debate, known, expert)
            margins.append(one.pop("margin"))
            found.setdefault(one.pop("position"), []).append(one["influence"])
            for name, value in one.items():
                tally[name] += value
        errors.append(_shapley_error(debates, known, spec, engine, chat))
    total = sum(map(len, found.values()))
    return {
        "debates": total,
        "found": round(tally["influence"] / total, 4),
        "by_position": {
            str(at): [round(sum(hits) / len(hits), 4), len(hits)]
            for at, hits in sorted(found.items())
        },
        "shapley": round(tally["shapley"] / total, 4),
        "flips": round(tally["flips"] / total, 4),
        "nobody_right": tally["nobody_right"],
        "margin_nats": [round(float(q), 2) for q in np.nanquantile(margins, (0.05, 0.5, 0.95))],
        "shapley_error": max(errors),
    }


def _judged(debate: Debate, known: Attribution, expert: str) -> dict:
    """Whether attribution finds the expert's message."""
    opening = [known.messages[call.call_id] for call in debate.calls if call.round == 0]
    (own,) = [message for message in opening if message.agent == expert]
    others = [message for message in opening if message.agent != expert]
    reader = next(call for call in debate.calls if call.parents)
    margin = float("nan")
    if own.influence is not None:
        margin = own.influence - max(message.influence for message in others)
    shares = {
        name: credit.shapley
        for (problem, name), credit in known.agents.items()
        if problem == debate.problem.id and credit.shapley is not None
    }
    return {
        "position": reader.parents.index(own.call_id),
        "margin": margin,
        "influence": margin > 0,
        "shapley": bool(shares) and max(shares, key=shares.get) == expert,
        "flips": own.corrected > 0 and not any(message.corrected for message in others),
        "nobody_right": own.influence is None,
    }


def _shapley_error(
    debates: Sequence[Debate], known: Attribution, spec: TeamSpec, engine: Engine, chat: PlainChat
) -> float:
    """The most by which shares miss what everybody's messages add to nobody's."""
    games = {}
    for debate in debates:
        calls = counted(debate.calls, spec)
        played = game(readings(calls, chat.end_id), calls)
        if played is not None:
            games[debate.problem.id] = played
    pairs = list(dict.fromkeys(pair for played in games.values() for pair in played.asked()))
    scores = engine.score_continuations(pairs)
    worth = {p: float(s.sum(dtype=np.float64)) for p, s in zip(pairs, scores, strict=True)}
    worst = 0.0
    for problem, played in games.items():
        everybody, nobody = [], []
        for reading in played.readings:
            everybody.append(worth[reading.without(frozenset())])
            nobody.append(worth[reading.without(frozenset(reading.shown.messages))])
        gain = (sum(everybody) - sum(nobody)) / len(everybody)
        shares = [known.agents[problem, name].shapley for name in played.players]
        worst = max(worst, abs(sum(shares) - gain))
    return worst


def record(engine: Engine, run: Path, team: str, chat: PlainChat, limit: int) -> dict:
    """What shared prompts save on the run's own debates."""
    spec = library.load(team)
    by_problem: dict[str, list] = {}
    for call in CallStore(run / "seed-0" / "sample" / "team").load():
        by_problem.setdefault(call.problem_id, []).append(call)
    loo: list[Pair] = []
    games: list[Pair] = []
    for name in sorted(by_problem)[:limit]:
        calls = counted(by_problem[name], spec)
        of = readings(calls, chat.end_id)
        loo += influence_pairs(of)
        played = game(of, calls)
        games += played.asked() if played else ()
    result = {}
    for name, pairs in (("influence", loo), ("influence_and_shapley", loo + games)):
        pairs = list(dict.fromkeys(pairs))
        whole = [prompt + target for prompt, target in pairs]
        engine.score(whole)
        plain, seconds_plain, count_plain = _timed(engine, lambda w=whole: engine.score(w))
        engine.score_continuations(pairs)
        shared, seconds, count = _timed(engine, lambda p=pairs: engine.score_continuations(p))
        result[name] = {
            "problems": min(limit, len(by_problem)),
            "pairs": len(pairs),
            "computed": count[0],
            "seconds": round(seconds, 2),
            "tokens": round(count_plain[0] / count[0], 2),
            "padded": round(count_plain[1] / count[1], 2),
            "wall": round(seconds_plain / seconds, 2),
            "difference": max(
                float(np.abs(s - p.logprobs[len(prompt) - 1 :]).max())
                for s, p, (prompt, _) in zip(shared, plain, pairs, strict=True)
            ),
        }
    return result


def _timed(engine: Engine, work) -> tuple[list, float, tuple[int, int]]:
    engine.profile.reset()
    started = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - started
    return done, seconds, (engine.profile.scoring_tokens, engine.profile.scoring_padded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--debates", type=int, default=400, help="debates with a decisive message")
    parser.add_argument("--record", type=int, default=128, help="problems of the run's record")
    args = parser.parse_args()
    config = configs.build(RunConfig, configs.load("quickstart"))
    model = load_model(args.run / "seed-0" / "base" / "model", make_mesh(), ShardingRules())
    tokenizer = Tokenizer(shipped_path(config.tokenizer))
    chat = PlainChat(tokenizer)
    engine = Engine(model, config.engine, tokenizer)
    found = {}
    for setting in SETTINGS:
        found[setting] = decisive(engine, tokenizer, chat, args.debates, setting)
        print(setting, json.dumps(found[setting]), flush=True)
    result = {
        "bench": "attribution",
        "config": {"run": str(args.run), "debates": args.debates, "record": args.record},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "decisive": found,
        "record": record(engine, args.run, config.team, chat, args.record),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
