"""The score stage: the team's token distributions on the students' rows."""

from pathlib import Path

from arkjax.distillation.rows import Rows
from arkjax.distillation.tape import Tape, write_tape
from arkjax.rundir import apart
from arkjax.session import Session
from arkjax.stages.teaching import team_views
from arkjax.storage import content_hash
from arkjax.training.scoring import live_teacher, tape_scorer


def score(session: Session, path: Path) -> dict:
    """Write the team's token distributions on the rows of students that learn them.

    Its parts are the tapes, by data set.
    """
    teacher, inputs = session.config.teacher, session.inputs("score")
    tapes = {}
    if not inputs["parts"]:
        session.progress.say("score: no student learns distributions over recorded words: no tape")
    for dataset in sorted(session.stage("score").missing(inputs)):
        rows = Rows.load(session.stage("synthesize").path / dataset)
        live = live_teacher(
            session.model("base"),
            rows,
            team_views(session, [p.provenance for p in rows.placements], teacher.contexts),
            teacher.row_length,
            teacher.contexts,
            vocab_size=session.tokenizer.vocab_size,
        )
        kept = teacher.tape_format(session.config.student.objective.kd_temperature, session.seed)
        with session.progress.task("tape", total=rows.num_rows, unit="rows") as task:
            write_tape(
                path / dataset,
                rows,
                tape_scorer(live, rows, kept, vocab_size=session.tokenizer.vocab_size),
                kept,
                teacher_id=content_hash(apart(inputs)[0]),
                vocab_size=session.tokenizer.vocab_size,
                batch_rows=teacher.batch_rows,
                shard_rows=teacher.shard_rows,
                progress=task.advance,
            )
        tape = Tape.open(path / dataset, rows, hashes=False)  # Just written.
        tapes[dataset] = {
            "rows": rows.num_rows,
            "kind": tape.kind,
            "tokens": tape.predicted,
            "bytes_per_token": tape.bytes_per_token,
            "teacher": live.team.summary(),
        }
        session.progress.say(
            f"{dataset}: {tape.kind} tape, {tape.bytes_per_token:.1f} bytes a token, "
            f"{tape.predicted:,} tokens"
        )
    return {"parts": tapes}
