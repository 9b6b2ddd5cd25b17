"""The evaluate stage: every system on the same problems."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.systems import outcomes_of, systems
from arkjax.reporting.debates import alone, choose_debates, debate_record
from arkjax.session import Session
from arkjax.stages.process_rewards import process_rewards
from arkjax.stages.quality import Quality
from arkjax.storage import write_atomic
from arkjax.teams.debate import Debate
from arkjax.trajectories.store import CallStore

Played = Mapping[str, Mapping[str, Debate]]
"""Debates by system and problem id."""


def evaluate(session: Session, path: Path) -> dict:
    """Every system on the same problems: outcomes, costs, and debates to read.

    Its parts are the students; their summaries have the figures of their reward models. What
    students answered that this config does not name stays among the outcomes.
    """
    config, made = session.config, session.stage("evaluate").made()
    samples = session.stage("sample").summary()["samples_for_budget"]
    compared = systems(
        session.team,
        session.single,
        session.samples(samples),
        session.roles(1),
        config.students,
        config.policy,
    )
    records = []
    quality = Quality(session, path)
    played = defaultdict(dict)
    for system in compared:
        for split in config.evaluation.splits:
            problems = session.problems(split, config.evaluation.limit or None)
            known = [CallStore(path / split / other) for other in system.shares]
            label = f"{system.name}, {split}"
            debates, _ = session.play(
                system.team,
                problems,
                system.model,
                path / split / system.name,
                label,
                known,
                session.task_of(split),
            )
            outcomes = outcomes_of(debates, system=system.name, split=split, seed=session.seed)
            records += outcomes
            quality.add(system, split, debates)
            if split == config.evaluation.splits[0]:
                played[system.name] = {debate.problem.id: debate for debate in debates}
    split = config.evaluation.splits[0]
    examples = choose_debates(_debates(session, path, split, played))
    if others := made.keys() - set(config.students):
        before = Outcomes.load(path / "outcomes.parquet").records()
        records += [outcome for outcome in before if outcome.system in others]
    Outcomes.from_records(records).save(path / "outcomes.parquet")
    write_atomic(path / "debates.json", json.dumps(examples, indent=1))
    rewards = process_rewards(
        session,
        [name for name in config.students if name not in made],
        path / split / "self_consistency",
        session.problems(split, config.evaluation.limit or None),
        session.task_of(split).grader,
    )
    return {
        "samples_for_budget": samples,
        "oracle": [system.name for system in compared if system.team.uses_oracle],
        "parts": {
            name: {"process_rewards": rewards[name]} if name in rewards else {}
            for name in config.students
            if name not in made
        }
        | quality.finish(),
    }


def _debates(session: Session, path: Path, split: str, played: Played) -> Iterator[dict]:
    """The team's debates on a split as records, beside what the best student and base answered."""
    best = max(
        (name for name in session.config.students if name.startswith("student")),
        key=lambda name: sum(debate.correct for debate in played[name].values()),
        default=None,
    )

    def store(system: str) -> str:
        return (path / split / system).relative_to(session.run.root).as_posix()

    def single(system: str | None, problem_id: str) -> dict | None:
        if system is None:
            return None
        return alone(played[system][problem_id], system=system, store=store(system))

    for problem_id, debate in played["team"].items():
        yield debate_record(
            debate,
            split=split,
            seed=session.seed,
            store=store("team"),
            field=session.team.reducer.field,
            student=single(best, problem_id),
            base=single("base", problem_id),
        )
