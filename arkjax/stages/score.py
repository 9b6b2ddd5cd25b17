"""The score stage: the team's token distributions on the students' rows."""

from collections import defaultdict
from pathlib import Path

from arkjax.distillation.rows import Rows
from arkjax.distillation.tape import Tape, write_tape
from arkjax.session import Session
from arkjax.storage import content_hash
from arkjax.synthesis.contexts import teacher_prompts
from arkjax.training.scoring import tape_scorer
from arkjax.trajectories.store import CallStore


def score(session: Session, path: Path) -> dict:
    """Write the team's token distributions on the rows of students that learn them."""
    teacher = session.config.teacher
    tapes = {}
    datasets = {s.dataset: s for s in session.strategies.values() if s.logits}
    for dataset, strategy in datasets.items():
        rows = Rows.load(session.stage("synthesize").path / dataset)
        by_problem = defaultdict(list)
        team = CallStore(session.stage("sample").path / "team").load()
        for call in session.players.in_own_tokens(team):
            by_problem[call.problem_id].append(call)
        prompts = [
            teacher_prompts(by_problem[p.provenance["problem_id"]], teacher.contexts)
            for p in rows.placements
        ]
        kd_temperature = session.config.student.objective.kd_temperature
        scorer = tape_scorer(
            session.model("base"), rows, prompts, teacher.row_length, teacher.top_k, kd_temperature
        )
        with session.progress.task("tape", total=rows.num_rows, unit="rows") as task:
            write_tape(
                path / dataset,
                rows,
                scorer,
                teacher_id=content_hash(session.inputs("score")),
                k=teacher.top_k,
                vocab_size=session.tokenizer.vocab_size,
                batch_rows=teacher.batch_rows,
                kd_temperature=kd_temperature,
                dtype=teacher.dtype,
                shard_rows=teacher.shard_rows,
                progress=task.advance,
            )
        tape = Tape.open(path / dataset, rows)
        tapes[dataset] = {"rows": rows.num_rows, "bytes_per_token": tape.bytes_per_token}
        tapes[dataset]["source"] = strategy.source
    return {"tapes": tapes}
