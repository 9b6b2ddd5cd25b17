"""The stages in order: base, sample, synthesize, score, distill, evaluate, report.

Each stage reads what earlier ones wrote, writes its own directory, and can be killed at any moment:
the same command goes on and ends with the same result.
"""

import contextlib
import dataclasses
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Rows, pack
from arkjax.distillation.tape import Tape, write_tape
from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.systems import outcomes_of, samples_for_budget, systems
from arkjax.models.huggingface.opening import find, open_model
from arkjax.models.huggingface.peft import export_peft
from arkjax.models.lora import add_lora, merge_lora
from arkjax.models.placement import init_model, model_info, save_model
from arkjax.models.weights import num_parameters
from arkjax.progress import Progress
from arkjax.reporting.debates import choose_debates, debate_record
from arkjax.run_config import RunConfig
from arkjax.run_report import report
from arkjax.rundir import RunDirectory
from arkjax.session import Session
from arkjax.storage import content_hash, write_atomic
from arkjax.synthesis.contexts import teacher_prompts
from arkjax.synthesis.selection import select
from arkjax.synthesis.strategies import to_examples
from arkjax.synthesis.weights import credit_of, example_weights
from arkjax.tasks.registry import evaluation_hashes
from arkjax.training.base import base_rows
from arkjax.training.scoring import tape_scorer
from arkjax.training.supervised import train
from arkjax.trajectories.store import CallStore, write_run_info
from arkjax.versions import versions

SOURCES = ("team", "single_agent", "roles")


def run(
    config: RunConfig,
    workdir: Path,
    stages: Sequence[str],
    redo: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Do some stages of a run, those that are finished excepted.

    Args:
      config: of the run.
      workdir: the run directory; made if it does not exist.
      stages: names from `STAGES`, or "report", in order.
      redo: a stage that is done anew, and all that follow it.
      seed: only this one of the config's seeds.
      progress: where work is shown.

    Raises:
      ArkJAXError: one clear line; what was written before is kept.
    """
    progress = progress or Progress(enabled=False)
    if seed is not None and seed not in config.seeds:
        raise ConfigError(f"--seed {seed} is not one of the config's seeds {config.seeds}")
    if redo is not None and redo not in stages:
        raise ConfigError(
            f"--redo {redo} would delete that stage, but this command does not make it again: "
            f"give it to `arkjax {redo}` or to `arkjax run`"
        )
    with RunDirectory(workdir) as directory:
        directory.write_config(config.to_dict())
        for one in config.seeds if seed is None else (seed,):
            with contextlib.closing(Session(config, directory, one, progress)) as session:
                if stages != ("report",):
                    session.check(_ahead(session, stages, redo))
                _clear(session, redo)
                for name in stages:
                    if name != "report":
                        _do(session, name)
        if "report" in stages:
            report(config, directory, STAGES, progress)


def _ahead(session: Session, stages: Sequence[str], redo: str | None) -> list[str]:
    """The stages that are going to be done: the unfinished ones, and those to be done anew."""
    names = [name for name in stages if name != "report"]
    again = names[names.index(redo) :] if redo in names else []
    return [name for name in names if name in again or not session.stage(name).finished]


def _clear(session: Session, redo: str | None) -> None:
    if redo is None or redo == "report":
        return
    names = list(STAGES)
    # First, lest something is deleted and the command then stops at an earlier stage.
    for name in names[: names.index(redo)]:
        session.stage(name).check(session.inputs(name))
    for name in names[names.index(redo) :][::-1]:
        session.stage(name).clear()


def _do(session: Session, name: str) -> None:
    """Do one stage unless it is finished."""
    stage = session.stage(name)
    previous = list(STAGES)[: list(STAGES).index(name)]
    for earlier in previous:
        session.stage(earlier).summary()
        session.stage(earlier).check(session.inputs(earlier))
    if stage.begin(session.inputs(name)):
        session.progress.say(f"seed {session.seed}, {name}: finished before")
        return
    started = time.monotonic()
    summary = STAGES[name](session, stage.path)
    seconds = time.monotonic() - started
    stage.finish({**summary, "seconds": seconds})
    session.progress.say(f"seed {session.seed}, {name}: done in {seconds:.0f} s")


# --- base ---------------------------------------------------------------------------------------


def base(session: Session, path: Path) -> dict:
    """Load a checkpoint, or train the embedded world's base model."""
    config = session.config
    if config.base.checkpoint:
        source = find(config.base.checkpoint)
        opened = open_model(source, session.mesh, config.sharding, progress=session.progress)
        session.tokenizer.check_fits(opened.model.config.vocab_size, source.folder)
        if opened.info.get("tokenizer", session.tokenizer.hash) != session.tokenizer.hash:
            raise DataError(
                f"{config.base.checkpoint} was trained with another tokenizer than "
                f"{session.tokenizer.path}: leave config.tokenizer empty to take its own"
            )
        info = {**opened.info, "tokenizer": session.tokenizer.hash}
        save_model(path / "model", opened.model, info, session.tokenizer_files)
        return {"parameters": num_parameters(opened.model.config)}
    if config.model.vocab_size < session.tokenizer.vocab_size:
        raise ConfigError(
            f"config.model.vocab_size is {config.model.vocab_size}, but the tokenizer has "
            f"{session.tokenizer.vocab_size} pieces: raise it to at least that"
        )
    train_config = config.base.train
    if not (path / "model").exists():
        rows = base_rows(
            config.world,
            session.seed,
            evaluation_hashes(config.world),
            session.tokenizer,
            session.chat,
            config.base.row_length,
            train_config.steps * train_config.batch_rows,
        )
        model = train(
            init_model(config.model, session.seed, session.mesh, config.sharding),
            rows,
            Objective(cross_entropy=1.0),
            train_config,
            path,
            seed=session.seed,
            mesh=session.mesh,
            rules=config.sharding,
            progress=session.progress,
            name=f"seed {session.seed}, base model",
        )
        info = {"tokenizer": session.tokenizer.hash}
        save_model(path / "model", model, info, session.tokenizer_files)
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    return {"parameters": num_parameters(config.model)}


# --- sample -------------------------------------------------------------------------------------


def sample(session: Session, path: Path) -> dict:
    """The team works on training problems; two controls get the same number of calls."""
    problems = session.problems("train", session.config.sample.problems)
    _refuse_evaluation_problems(session, problems)
    policy, team = session.config.policy, session.team
    debates, store = session.play(team, problems, policy, path / "team", "team")
    calls = sum(debate.cost.calls for debate in debates)
    per_problem = round(calls / len(problems))
    members = len(session.roles(1).agents)
    plays = {
        "single_agent": (session.samples(per_problem), "single-agent samples"),
        "roles": (session.roles(max(1, round(per_problem / members))), "roles without debate"),
    }
    spent = {"team": debates}
    for source, (spec, label) in plays.items():
        spent[source], _ = session.play(spec, problems, policy, path / source, label, known=[store])
    players = session.config.players(team, policy)
    info = {
        "team": team.to_dict(),
        "team_hash": team.hash,
        "model": session.model_id(policy),
        "players": {name: session.model_id(player) for name, player in players.items()},
        "tokenizer": session.tokenizer.hash,
        "chat": {"kind": type(session.chat).__name__, "template": session.chat.identity},
        "mesh": dict(session.mesh.shape),
        "dtype": session.config.model.dtype,
        "seed": session.seed,
        "versions": versions(),
    }
    write_run_info(path, info)
    tokens = {
        source: sum(debate.cost.generated_tokens for debate in played) / len(problems)
        for source, played in spent.items()
    }
    return {
        "problems": len(problems),
        "calls": {source: sum(d.cost.calls for d in played) for source, played in spent.items()},
        "tokens_per_problem": tokens,
        "accuracy": {
            source: sum(d.correct for d in played) / len(problems)
            for source, played in spent.items()
        },
        # How many samples of the single agent cost as many tokens as the team does.
        "samples_for_budget": samples_for_budget(
            tokens["team"], tokens["single_agent"] / per_problem
        ),
        "team_answers": {debate.problem.id: debate.answer for debate in debates},
    }


def _refuse_evaluation_problems(session: Session, problems: Sequence) -> None:
    """No problem of the evaluation may be trained on."""
    limit = session.config.evaluation.limit or None
    evaluated = {
        problem.question_hash
        for split in session.config.evaluation.splits
        for problem in session.problems(split, limit)
    }
    leaked = [problem.id for problem in problems if problem.question_hash in evaluated]
    if leaked:
        raise DataError(
            f"training problem {leaked[0]} asks the same as an evaluation problem "
            f"({len(leaked)} such in all): take them out of the training split"
        )


# --- synthesize ---------------------------------------------------------------------------------


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


# --- score --------------------------------------------------------------------------------------


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


# --- distill ------------------------------------------------------------------------------------


def distill(session: Session, path: Path) -> dict:
    """Train every student from the base model, all with the same steps.

    Adapters are merged, so that a student is a model like any other; `adapter/` keeps them alone.
    """
    config = session.config.student
    examples = {}
    for name, strategy in session.strategies.items():
        rows = Rows.load(session.stage("synthesize").path / strategy.dataset)
        examples[name] = len(rows.placements)
        if not (path / name / "model").exists():
            objective, teacher = Objective(cross_entropy=1.0), None
            if strategy.logits:
                objective = config.objective
                teacher = Tape.open(session.stage("score").path / strategy.dataset, rows).targets
            student = session.model("base")
            if config.lora is not None:
                student = add_lora(
                    student,
                    config.lora,
                    config.base_quantization,
                    session.seed,
                    session.config.sharding,
                )
            student = train(
                student,
                rows,
                objective,
                config.train,
                path / name,
                seed=session.seed,
                mesh=session.mesh,
                rules=session.config.sharding,
                progress=session.progress,
                name=name,
                teacher=teacher,
            )
            if config.lora is not None:
                base = session.config.base.checkpoint or f"{session.config.name}-base"
                export_peft(student, path / name / "adapter", base)
                student = merge_lora(student, session.config.sharding)
            origin = model_info(session.stage("base").path / "model").get("hf")
            info = {"tokenizer": session.tokenizer.hash, "student": name, "hf": origin}
            save_model(path / name / "model", student, info, session.tokenizer_files)
        shutil.rmtree(path / name / "checkpoints", ignore_errors=True)
    return {"examples": examples}


# --- evaluate -----------------------------------------------------------------------------------


def evaluate(session: Session, path: Path) -> dict:
    """Every system on the same problems: outcomes, costs, and debates to read."""
    config = session.config
    samples = session.stage("sample").summary()["samples_for_budget"]
    compared = systems(
        session.team,
        session.single,
        session.samples(samples),
        session.roles(1),
        config.students,
        config.policy,
    )
    records, debates_to_read = [], []
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
            )
            outcomes = outcomes_of(debates, system=system.name, split=split, seed=session.seed)
            records += outcomes
            if split == config.evaluation.splits[0]:
                played[system.name] = {debate.problem.id: debate for debate in debates}
    split = config.evaluation.splits[0]
    best = max(
        (name for name in config.students if name.startswith("student")),
        key=lambda name: sum(d.correct for d in played[name].values()),
        default=None,
    )
    for debate in played["team"].values():
        alone = None
        if best is not None:
            answer = played[best][debate.problem.id]
            alone = {
                "system": best,
                "text": answer.calls[0].text,
                "answer": answer.answer,
                "correct": answer.correct,
            }
        record = debate_record(debate, session.task.grader, split=split, student=alone)
        debates_to_read.append(record)
    Outcomes.from_records([dataclasses.asdict(o) for o in records]).save(path / "outcomes.parquet")
    write_atomic(path / "debates.json", json.dumps(choose_debates(debates_to_read), indent=1))
    oracle = [system.name for system in compared if system.team.uses_oracle]
    return {"samples_for_budget": samples, "oracle": oracle}


STAGES: dict[str, Callable[[Session, Path], dict]] = {
    "base": base,
    "sample": sample,
    "synthesize": synthesize,
    "score": score,
    "distill": distill,
    "evaluate": evaluate,
}
