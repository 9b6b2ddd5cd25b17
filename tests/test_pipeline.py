"""Whole runs of a miniature: what they show, and that nothing but their config changes it."""

import functools
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from arkjax import cli, config
from arkjax.distillation.rows import Rows
from arkjax.evaluation.outcomes import Outcomes
from arkjax.models.placement import load_model
from arkjax.reporting.debates import KINDS
from arkjax.reporting.report import deterministic_view
from arkjax.reporting.systems import CONTROLS
from arkjax.run_config import RunConfig
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.tasks.embedded_sets import EMBEDDED_SETS
from arkjax.tasks.registry import get_task
from arkjax.tasks.world_documents import make_documents
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.base import base_rows
from arkjax.trajectories.attribution import Attribution
from arkjax.trajectories.store import CallStore

from .kills import kill_at, wait_for

STAGES = tuple(name for name in cli.STAGES if name != "report")
TINY = config.build(RunConfig, config.load("tiny"))


def report_of(workdir: Path) -> dict:
    return json.loads((workdir / "report" / "report.json").read_text())


def comparison(report: dict, a: str, b: str, part: str | None = None, split: str = "test") -> dict:
    wanted = {"a": a, "b": b, "split": split, "part": part}
    (found,) = [c for c in report["comparisons"] if wanted.items() <= c.items()]
    return found


def copied(run: Path, workdir: Path, stages=STAGES) -> Path:
    """A run directory with some of the stages of another."""
    (workdir / "seed-0").mkdir(parents=True)
    shutil.copy(run / "lock", workdir)
    for stage in stages:
        shutil.copytree(run / "seed-0" / stage, workdir / "seed-0" / stage)
    return workdir


def finished_at(workdir: Path) -> dict[str, int]:
    return {s: (workdir / "seed-0" / s / "stage.json").stat().st_mtime_ns for s in STAGES}


# --- what a run shows -----------------------------------------------------------------------------


def test_the_report_has_every_system_on_every_split(tiny_run):
    report = report_of(tiny_run)
    systems = {"base", "self_consistency", "role_vote", "team", *TINY.students}
    assert report["splits"].keys() == set(TINY.evaluation.splits)
    for split in report["splits"].values():
        assert split["systems"].keys() == systems
        assert split["n"] == TINY.evaluation.limit
        for name, system in split["systems"].items():
            assert 0 <= system["ci95"][0] <= system["accuracy"] <= system["ci95"][1] <= 1
            one_call = name == "base" or name.startswith(("student", "control"))
            assert (system["calls"] == 1) == one_call
        costs = {name: s["generated_tokens"] for name, s in split["systems"].items()}
        # The single agent votes over at least as many tokens as the team spends.
        assert costs["self_consistency"] >= 0.9 * costs["team"]
    assert report["wall_seconds"].keys() == set(STAGES)
    # What the config leaves out is missing, each student's own twin among it, and that is said.
    wanted = {"student_rsft_unverified", "student_da_unverified", *CONTROLS}
    assert set(report["missing"]) == wanted - systems
    assert all(name in report["first_line"] for name in report["missing"])
    assert not report["oracle"]
    assert report["command"] == "arkjax run --config tiny --workdir runs/tiny"
    assert (report["name"], report["task"]) == (TINY.name, TINY.task)
    # A sentence for the team, one for the student, and one for every further split.
    assert len(report["headline"]) == 1 + len(report["splits"])
    assert all(
        set(of) == {"base", "self_consistency", "role_vote"}
        for of in report["comparisons_by_domain"]["test"].values()
    )
    assert (tiny_run / "report" / "report.html").stat().st_size > 10_000


def test_every_figure_of_the_report_is_that_of_its_records(tiny_run):
    report = report_of(tiny_run)
    for split, systems in report["records"].items():
        assert systems.keys() == report["splits"][split]["systems"].keys()
        for name, stores in systems.items():
            (store,) = stores
            calls = CallStore(tiny_run / store["path"]).load()
            entry = report["splits"][split]["systems"][name]
            assert len(calls) == store["calls"] == entry["calls"] * report["splits"][split]["n"]
            right = {call.problem_id for call in calls if call.correct}
            n = report["splits"][split]["n"]
            assert entry["pool"]["accuracy"] == pytest.approx(len(right) / n)
            assert entry["device_seconds"] == entry["seconds"] * report["device"]["count"]
            assert (entry["flips"] is not None) == (name == "team")
            calibration = entry["calibration"]
            assert calibration["n"] == n  # every answer of this world stands in the text
            if entry["calls"] == 1:
                assert entry["pool"]["gap"] == 0
    flips = report["splits"]["test"]["systems"]["team"]["flips"]
    opened = report["splits"]["test"]["systems"]["role_vote"]["accuracy"]
    n = report["splits"]["test"]["n"]
    # Roles without communication are the debate's first round, vote for vote.
    assert flips["misled"]["n"] == round(opened * n)
    assert flips["corrected"]["n"] == n - round(opened * n)
    gain = flips["net"]["value"]
    assert gain == pytest.approx(comparison(report, "team", "role_vote")["difference"])
    assert report["counts_by_seed"] == {"0": report["counts"]}


def test_examples_can_be_found_in_the_records(tiny_run):
    examples = json.loads((tiny_run / "seed-0" / "evaluate" / "debates.json").read_text())
    kinds = [example["kind"] for example in examples]
    assert "corrected" in kinds and kinds == sorted(kinds, key=list(KINDS).index)
    for example in examples:
        for record in (example, example["student"], example["base"]):
            store = CallStore(tiny_run / record["store"])
            found = [store.get(name) for name in record["call_ids"]]
            assert found and {call.problem_id for call in found} == {example["problem_id"]}
        for shown in example["calls"]:
            call = CallStore(tiny_run / example["store"]).get(shown["call_id"])
            assert (shown["text"], shown["agent"]) == (call.text, call.agent)


def test_the_team_beats_the_base_and_talk_does_it(tiny_run):
    report = report_of(tiny_run)
    accuracies = {n: s["accuracy"] for n, s in report["splits"]["test"]["systems"].items()}
    gain = comparison(report, "team", "base")
    assert gain["difference"] > 0.2 and gain["ci95"][0] > 0.1, accuracies
    assert comparison(report, "team", "role_vote")["ci95"][0] > 0, accuracies
    assert comparison(report, "team", "self_consistency")["ci95"][0] > 0, accuracies
    # What no single role can solve is solved by the team alone.
    assert comparison(report, "team", "base", part="multi")["ci95"][0] > 0.1, accuracies


def test_where_experts_know_nothing_nothing_is_gained(arkjax_command, tmp_path):
    """The same command on the negative world: the demonstration can fail."""
    done = arkjax_command(
        "run",
        "--config=tiny",
        f"--workdir={tmp_path}",
        "--config.world.negative=True",
        "--config.students=('student_da',)",
        "--config.evaluation.splits=('test',)",
        # Of the world with experts this smaller model's team knows twice as much as it does alone.
        "--config.model.d_model=96",
        "--config.model.head_dim=24",
        "--config.model.d_ff=256",
        "--config.model.num_layers=2",
        "--config.model.scan_unroll=2",
        "--config.base.train.steps=240",
    )
    assert done.returncode == 0, done.stderr
    report = report_of(tmp_path)
    accuracies = {n: s["accuracy"] for n, s in report["splits"]["test"]["systems"].items()}
    # It did learn: of the problems without traps some. How many depends on the processor, since
    # training that short is chaotic in the last bit; a model that learned nothing has none.
    assert accuracies["base"] > 0.1, accuracies
    for system in ("team", "role_vote", "self_consistency"):
        against = comparison(report, "team", "base") if system == "team" else None
        assert accuracies[system] - accuracies["base"] < 0.1, accuracies
        if against is not None:
            assert against["ci95"][0] <= 0.02, accuracies
    assert report["captured_gain"]["student_da"]["value"] is None
    assert accuracies["student_da"] - accuracies["base"] < 0.1, accuracies


# --- what a run may look at -----------------------------------------------------------------------


def question_hash(tokenizer: Tokenizer, prompt_ids) -> str:
    opening = list(prompt_ids[: prompt_ids.index(tokenizer.eos_id)])
    question = tokenizer.decode(opening).removeprefix("question:")
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()


def test_no_evaluation_question_is_ever_trained_on(tiny_run):
    tokenizer = Tokenizer(shipped_path(TINY.tokenizer))
    asks = functools.partial(question_hash, tokenizer)
    seed = tiny_run / "seed-0"
    evaluated = {asks(c.prompt_ids) for c in CallStore(seed / "evaluate/test/base").load()}
    evaluated |= {asks(c.prompt_ids) for c in CallStore(seed / "evaluate/ood/base").load()}
    task = get_task(TINY.task)
    problems = [
        problem
        for split in TINY.evaluation.splits
        for problem in task.load(split, TINY.evaluation.limit, world=TINY.world)
    ]
    assert evaluated == {problem.question_hash for problem in problems}
    assert len(evaluated) == 2 * TINY.evaluation.limit

    trained = set()
    for source in ("team", "single_agent", "roles"):
        calls = CallStore(seed / "sample" / source).load()
        trained |= {asks(call.prompt_ids) for call in calls}
    assert len(trained) == TINY.sample.problems
    for path in (seed / "synthesize").iterdir():
        if path.is_dir() and path.name != "attribution":
            rows = Rows.load(path)
            chosen = {asks(rows.example(i).prompt_ids) for i in range(len(rows.placements))}
            assert chosen and chosen <= trained
    training = TINY.base.train
    documents = base_rows(
        make_documents(TINY.world, 0, EMBEDDED_SETS.hashes(TINY.world)),
        tokenizer,
        PlainChat(tokenizer),
        TINY.base.row_length,
        training.steps * training.batch_rows,
    )
    trained |= {asks(documents.example(i).prompt_ids) for i in range(len(documents.placements))}
    assert len(trained) > 1000
    assert not trained & evaluated


def test_the_runs_here_find_no_heavy_framework(arkjax_command):
    for name in ("tensorflow", "tensorflow_datasets", "seqio", "torch"):
        missing = arkjax_command.python("-c", f"import {name}")
        assert f"No module named '{name}'" in missing.stderr


# --- who contributed what -------------------------------------------------------------------------


def test_every_message_of_the_team_is_attributed(tiny_run):
    seed = tiny_run / "seed-0"
    found = Attribution.load(seed / "synthesize" / "attribution")
    calls = CallStore(seed / "sample" / "team").load()
    assert found.messages.keys() == {call.call_id for call in calls}
    assert found.agents.keys() == {(call.problem_id, call.agent) for call in calls}
    assert sum(message.corrected for message in found.messages.values()) > 0
    # Nobody asked the model.
    assert {message.influence for message in found.messages.values()} == {None}
    assert {w for w in Rows.load(seed / "synthesize/da").loss_weights.ravel().tolist()} == {0, 1}


def test_examples_may_weigh_by_influence(tiny_run, arkjax_command, tmp_path):
    workdir = copied(tiny_run, tmp_path / "run", ("base", "sample", "synthesize"))
    done = arkjax_command(
        "synthesize",
        "--config=tiny",
        "--workdir",
        workdir,
        "--redo=synthesize",
        "--config.synthesis.attribution.kinds=('flips','influence','shapley')",
        "--config.synthesis.attribution.problems=40",
        "--config.synthesis.weights=influence",
    )
    assert done.returncode == 0, done.stderr
    assert "attribution: 60/60 problems" in done.stderr
    path = workdir / "seed-0" / "synthesize"
    found = Attribution.load(path / "attribution")
    asked = [m for m in found.messages.values() if m.influence is not None]
    assert 0 < len({m.problem_id for m in asked}) <= 40 and {m.round for m in asked} == {0}
    shares = [a for a in found.agents.values() if a.shapley is not None]
    assert {a.shapley_error for a in shares} == {0.0}
    assert not (path / "attribution-parts").exists()
    weights = [p.weight for p in Rows.load(path / "da").placements]
    assert np.mean(weights) == pytest.approx(1.0) and len(set(weights)) > 5
    # Who looks at no gold answer learns from what no gold answer has weighed; controls debate not.
    for name in ("da_unverified", "control_no_debate"):
        assert {p.weight for p in Rows.load(path / name).placements} == {1.0}


# --- killed, continued, repeated ------------------------------------------------------------------


def weights_of(workdir: Path, model: str) -> dict[str, np.ndarray]:
    loaded = load_model(workdir / "seed-0" / model / "model", make_mesh(), ShardingRules())
    return {name: np.asarray(array) for name, array in loaded.arrays().items()}


def assert_same_run(a: Path, b: Path) -> None:
    """Equal reports, tokens, log-probabilities, answers and weights; clocks may differ."""
    for model in ("base", *(f"distill/{student}" for student in TINY.students)):
        ours, theirs = weights_of(a, model), weights_of(b, model)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{model} {name}")
        logs = [w / "seed-0" / model / "metrics.jsonl" for w in (a, b)]
        assert logs[0].read_bytes() == logs[1].read_bytes()
    for record in sorted({path.parent for path in (a / "seed-0").rglob("calls-*.parquet")}):
        other = b / record.relative_to(a)
        assert CallStore(record).content_hash() == CallStore(other).content_hash(), record
    tables = [Outcomes.load(w / "seed-0" / "evaluate" / "outcomes.parquet") for w in (a, b)]
    for name in ("system", "problem_id", "answer", "correct", "generated_tokens"):
        np.testing.assert_array_equal(tables[0][name], tables[1][name])
    assert deterministic_view(report_of(a)) == deterministic_view(report_of(b))


def test_killed_anywhere_it_ends_the_same(tiny_run, arkjax_command, tmp_path, capfd):
    """`run`, killed in several stages, then finished stage by stage: the same as one `run`."""
    workdir = copied(tiny_run, tmp_path / "run", stages=("base",))
    command = ("-m", "arkjax", "run", "--config", "tiny", "--workdir", workdir)
    rng = random.Random(os.getpid())
    places = (
        "seed-0/sample/stage.json",
        "seed-0/distill/*/metrics.jsonl",
        "seed-0/evaluate/test/*",
    )
    for place in places:
        process = arkjax_command.start(*command)
        if place == places[0]:
            wait_for(process, workdir, place)
            assert cli.main(["report", "--config", "tiny", "--workdir", str(workdir)]) == 4
            error = capfd.readouterr().err
            assert f"is in use by process {process.pid}" in error
        kill_at(process, workdir, place, rng.uniform(0, 1))
    one_by_one = f"""
from arkjax.cli import main
for stage in {(*STAGES, "report")}:
    assert main([stage, "--config", "tiny", "--workdir", {str(workdir)!r}]) == 0, stage
"""
    done = arkjax_command.python("-c", one_by_one)
    assert done.returncode == 0, done.stderr
    assert_same_run(workdir, tiny_run)


def test_a_base_killed_in_training_ends_the_same(arkjax_command, tmp_path):
    arguments = ["base", "--config", "tiny", "--quiet", "--config.base.train.steps=40"]
    arguments += ["--config.base.train.checkpoint_every=5", "--workdir"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = arkjax_command.start("-m", "arkjax", *arguments, killed)
    kill_at(process, killed, "seed-0/base/checkpoints/10*", 0.2)
    for workdir in (killed, whole):
        done = arkjax_command(*arguments, workdir)
        assert done.returncode == 0, done.stderr
    logs = [(w / "seed-0/base/metrics.jsonl").read_bytes() for w in (killed, whole)]
    assert logs[0] == logs[1]
    ours, theirs = weights_of(killed, "base"), weights_of(whole, "base")
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert not (killed / "seed-0/base/checkpoints").exists()


def test_finished_stages_are_not_repeated(tiny_run, tmp_path):
    workdir = copied(tiny_run, tmp_path / "run")
    before = finished_at(workdir)
    assert cli.main(["run", "--config", "tiny", "--workdir", str(workdir)]) == 0
    assert finished_at(workdir) == before
    assert deterministic_view(report_of(workdir)) == deterministic_view(report_of(tiny_run))


def test_redo_makes_a_stage_anew_and_leaves_those_before_it(tiny_run, arkjax_command, tmp_path):
    workdir = copied(tiny_run, tmp_path / "run")
    before = finished_at(workdir)
    arguments = [
        "run",
        "--config",
        "tiny",
        "--workdir",
        str(workdir),
        "--config.evaluation.limit=4",
    ]
    done = arkjax_command(*arguments)
    assert done.returncode == 4
    assert "evaluation.limit: 80 -> 4" in done.stderr and "--redo evaluate" in done.stderr
    assert finished_at(workdir) == before
    done = arkjax_command(*arguments, "--redo", "evaluate")
    assert done.returncode == 0, done.stderr
    after = finished_at(workdir)
    assert after.pop("evaluate") != before.pop("evaluate")
    assert after == before
    assert report_of(workdir)["splits"]["test"]["n"] == 4


# --- stages in the wrong order or of another config -----------------------------------------------


def run_main(capfd, *arguments: object) -> tuple[int, str]:
    code = cli.main([str(argument) for argument in arguments])
    error = capfd.readouterr().err
    assert "Traceback" not in error
    return code, error


@pytest.mark.parametrize("stage", [*STAGES[1:], "report"])
def test_a_stage_without_the_one_before_says_what_to_run(stage, capfd, tmp_path):
    code, error = run_main(capfd, stage, "--config", "tiny", "--workdir", tmp_path)
    assert code == 3 and f"run `arkjax base --workdir {tmp_path}" in error
    assert not list(tmp_path.glob("seed-0/*"))


@pytest.mark.parametrize("stage", ["synthesize", "distill", "report"])
def test_a_single_stage_notices_that_earlier_ones_are_of_another_config(
    stage, tiny_run, capfd, tmp_path
):
    made = STAGES if stage == "report" else STAGES[: STAGES.index(stage)]
    workdir = copied(tiny_run, tmp_path / "run", made)
    arguments = (stage, "--config", "tiny", "--workdir", workdir)
    code, error = run_main(capfd, *arguments, "--config.world.slip_rate=0.25")
    assert code == 4 and "world.slip_rate: 0.0 -> 0.25" in error
    assert {path.name for path in (workdir / "seed-0").iterdir()} == set(made)


def test_what_cannot_be_done_again_is_not_deleted(tiny_run, capfd, tmp_path):
    workdir = copied(tiny_run, tmp_path / "run")
    before = finished_at(workdir)
    arguments = ("--config", "tiny", "--workdir", workdir)
    code, error = run_main(capfd, "evaluate", *arguments, "--redo", "sample")
    assert code == 2 and "--redo sample" in error
    # An earlier stage of another config would stop the command after the deletion.
    changed = "--config.sample.problems=61"
    code, error = run_main(capfd, "run", *arguments, "--redo", "evaluate", changed)
    assert code == 4 and "sample.problems: 60 -> 61" in error
    assert finished_at(workdir) == before
