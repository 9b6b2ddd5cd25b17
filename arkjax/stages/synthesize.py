"""The synthesize stage: from recorded calls to packed training rows."""

import dataclasses
from pathlib import Path

from arkjax.distillation.rows import pack
from arkjax.errors import DataError
from arkjax.session import Session
from arkjax.synthesis.strategies import Dataset
from arkjax.synthesis.unified import Unifier, synthesizer_of
from arkjax.training.embeddings import answer_embeddings
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.store import CallStore


def synthesize(session: Session, path: Path) -> dict:
    """Attribute the debates, choose traces from the recorded calls, pack them into rows.

    Its parts are the data sets; their summaries count what each filter kept and dropped.
    """
    sampled, made = session.stage("sample"), session.stage("synthesize").made()
    answers = sampled.summary()["team_answers"]
    if made:
        attribution = Attribution.load(path / "attribution")
    else:
        attribution = session.attribute(path / "attribution", answers)
    counts = {}
    for dataset in session.datasets.values():
        if dataset.name in made:
            continue
        store = CallStore(sampled.path / dataset.source)
        problems = sorted(store.problems())
        # Debate by debate: a record may be larger than memory.
        debates = (
            (problem, session.players.in_own_tokens(calls))
            for problem, calls in store.by_problem(problems)
        )
        unifier = _unifier(session, dataset, attribution)
        with session.progress.task(dataset.name, total=len(problems), unit="problems") as task:
            examples, counted = unifier(debates, answers, task=task)
        if not examples:
            raise DataError(
                f"{dataset.name}: none of {counted.calls} calls passed the filters "
                f"({dataclasses.asdict(counted)}). Raise config.sample.problems, or lower "
                "config.synthesis.min_agreeing"
            )
        pack(examples, session.config.student.row_length).save(path / dataset.name)
        counts[dataset.name] = dataclasses.asdict(counted)
    return {"parts": counts}


def _unifier(session: Session, dataset: Dataset, attribution: Attribution) -> Unifier:
    config = dataset.selection(session.config.synthesis)
    # The controls' calls are of no debate, and attribution knows which messages are right.
    of_debates = dataset.source == "team" and dataset.gate == "gold"
    embed = None
    if config.diversity == "hidden":
        questions = session.training_problems
        embed = answer_embeddings(
            session.model("base"), lambda call: session.prompt(questions[call.problem_id].question)
        )
    return Unifier(
        config,
        session.task.grader,
        session.tokenizer,
        session.training_problems,
        session.prompt,
        end_ids=session.chat.end_ids,
        synthesizer=synthesizer_of(session.team) if dataset.source == "team" else None,
        attribution=attribution if of_debates else None,
        embed=embed,
        foreign=session.players.foreign,
    )
