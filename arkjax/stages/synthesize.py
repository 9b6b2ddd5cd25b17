"""The synthesize stage: from recorded calls to packed training rows."""

import dataclasses
from pathlib import Path

from arkjax.distillation.rows import pack
from arkjax.errors import DataError
from arkjax.session import Session
from arkjax.synthesis.selection import select
from arkjax.synthesis.strategies import to_examples
from arkjax.synthesis.weights import credit_of, example_weights
from arkjax.trajectories.store import CallStore


def synthesize(session: Session, path: Path) -> dict:
    """Attribute the debates, choose traces from the recorded calls, pack them into rows."""
    sampled, config = session.stage("sample"), session.config.synthesis
    answers = sampled.summary()["team_answers"]
    attribution = session.attribute(path / "attribution", answers)
    problems = session.problems("train", session.config.sample.problems)
    questions = {problem.id: problem.question for problem in problems}
    role = session.single.agents[0].role
    counts = {}
    for name, strategy in session.strategies.items():
        if strategy.dataset in counts:
            continue
        calls = session.players.in_own_tokens(CallStore(sampled.path / strategy.source).load())
        selection = strategy.selection(config)
        # The controls' calls are of no debate, and attribution knows which messages are right.
        of_debates = strategy.source == "team" and strategy.gate == "gold"
        known = attribution if of_debates else None
        traces, counted = select(calls, answers, session.task.grader, selection, known)
        if not traces:
            raise DataError(
                f"{name}: none of {counted.calls} calls passed the filters "
                f"({dataclasses.asdict(counted)}). Raise config.sample.problems, or lower "
                "config.synthesis.min_agreeing"
            )
        weights = None
        if known is not None and config.weights != "none":
            credits = [credit_of(trace.call, known, config.weights) for trace in traces]
            weights = example_weights(credits)
        examples = to_examples(traces, questions, session.chat, role, weights)
        pack(examples, session.config.student.row_length).save(path / strategy.dataset)
        counts[strategy.dataset] = dataclasses.asdict(counted)
    return {"counts": counts}
