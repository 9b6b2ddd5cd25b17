"""Every strategy through the command line: one run with a student of each, and stacks of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from arkjax.models.placement import load_model
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.synthesis.strategies import PHASES, Strategy, stack

from .kills import kill_at

ALONE = [Strategy((phase,)).student for name, phase in PHASES.items() if name != "synthesizer"]
STACKS = [stack(names).student for names in (("rsft", "da"), ("pad", "da"), ("da", "on_policy"))]
# Few steps: what is learned is the study's matter, that it runs and resumes is this file's.
SHORT = (
    "--config.student.train.steps=4",
    "--config.student.train.checkpoint_every=2",
    "--config.student.on_policy.train.steps=2",
    "--config.student.on_policy.train.checkpoint_every=1",
    "--config.student.policy.train.steps=2",
    "--config.student.policy.train.checkpoint_every=1",
    "--config.student.reward_model.epochs=1",
    "--config.evaluation.limit=24",
    "--config.evaluation.splits=('test',)",
)


def copied(run: Path, workdir: Path) -> Path:
    """A run directory with what a run's students are made from."""
    (workdir / "seed-0").mkdir(parents=True)
    shutil.copy(run / "lock", workdir)
    for stage in ("base", "sample"):
        shutil.copytree(run / "seed-0" / stage, workdir / "seed-0" / stage)
    return workdir


def weights(folder: Path) -> dict[str, np.ndarray]:
    model = load_model(folder / "model", make_mesh(), ShardingRules())
    return {name: np.asarray(array) for name, array in model.arrays().items()}


@pytest.fixture(scope="module")
def made(tiny_run, arkjax_command, made_once):
    """A run with a student of every strategy, and some of several phases."""
    students = tuple(dict.fromkeys([*ALONE, *STACKS]))

    def make(folder: Path) -> None:
        workdir = copied(tiny_run, folder / "run")
        common = ("--config", "tiny", "--workdir", workdir, f"--config.students={students}")
        done = arkjax_command("run", *common, *SHORT)
        assert done.returncode == 0, done.stderr
        (folder / "said").write_text(done.stdout + done.stderr)

    folder = made_once("strategies", make)
    return folder / "run", students, (folder / "said").read_text()


def test_every_strategy_trains_a_student_of_its_own(made):
    workdir, students, _ = made
    found = {name: weights(workdir / "seed-0" / "distill" / name) for name in students}
    base = weights(workdir / "seed-0" / "base")
    flat = {name: np.concatenate([w[n].ravel() for n in sorted(w)]) for name, w in found.items()}
    start = np.concatenate([base[name].ravel() for name in sorted(base)])
    for name, student in flat.items():
        assert np.isfinite(student).all() and not np.array_equal(student, start), name
    names = list(flat)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            # Of a team whose corrections need no step more than a trace, the forms agree.
            if "student_corrective" not in (a, b) and "student_consolidated" not in (a, b):
                assert not np.array_equal(flat[a], flat[b]), (a, b)


def test_a_stack_begins_with_the_student_before_it(made):
    workdir, _, _ = made
    distill = workdir / "seed-0" / "distill"

    def away(a: str, b: str) -> float:
        first, second = (weights(distill / name) for name in (a, b))
        return max(float(np.abs(first[n] - second[n]).max()) for n in first)

    # Four steps at most move a weight by four learning rates.
    assert 0 < away("student_rsft", "student_rsft_then_da") < 5e-3
    assert 0 < away("student_pad", "student_pad_then_da") < 5e-3


def test_the_report_shows_all_of_them_and_their_reward_models(made):
    workdir, students, _ = made
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert set(students) <= set(report["splits"]["test"]["systems"])
    # A later phase does not train a reward model of its own.
    assert set(report["process_rewards"]) == {"student_pad"}
    figures = report["process_rewards"]["student_pad"]
    for name in ("step_auroc", "first_error_accuracy", "majority", "best", "oracle"):
        assert 0 <= figures[name] <= 1
    assert max(figures["majority"], figures["best"]) <= figures["oracle"]
    assert figures["lift_over_vote"] == pytest.approx(figures["best"] - figures["majority"])
    assert "Process rewards" in (workdir / "report" / "report.html").read_text()


def test_filters_are_counted_for_every_data_set(made):
    workdir, _, _ = made
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert set(report["counts"]) == {
        p.dataset.name for p in PHASES.values() if p.dataset and p.name != "synthesizer"
    }
    assert all(counted["filters"] for counted in report["counts"].values())


def test_bytes_of_the_tape_are_said(made):
    _, _, said = made
    assert "da: top_k tape, " in said and " bytes a token, " in said


def test_students_are_added_one_by_one(made, arkjax_command, tmp_path):
    """One field chooses the strategy. What a run has stays, and all end as in a run of all."""
    workdir = copied(made[0], tmp_path / "one")
    common = ("--config", "tiny", "--workdir", workdir, *SHORT)
    distill = workdir / "seed-0" / "distill"

    def add(choice: str, *further: str) -> str:
        done = arkjax_command("run", *common, choice, *further)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def made_at() -> dict[str, int]:
        models = distill.glob("*/model")
        return {path.parent.name: path.stat().st_mtime_ns for path in models}

    def figures(run: Path) -> dict[str, dict]:
        systems = json.loads((run / "report/report.json").read_text())["splits"]["test"]["systems"]
        wanted = ("accuracy", "ci95", "calls", "generated_tokens")
        return {n: {field: system[field] for field in wanted} for n, system in systems.items()}

    every = figures(made[0])
    shared = every.keys() - set(made[1])
    add("--config.student.strategy=logit")
    first = made_at()
    assert first.keys() == {"student_logit"} == figures(workdir).keys() - shared
    add("--config.student.strategy=('rsft', 'da')")
    second = made_at()
    assert second.keys() == first.keys() | {"student_rsft", "student_rsft_then_da"}
    assert figures(workdir).keys() - shared == {"student_rsft_then_da"}
    all_three = ("student_logit", "student_rsft_then_da", "student_grpo")
    said = add(f"--config.students={all_three}")
    assert "student_logit" not in said.partition("student_grpo")[0]  # Nothing of it is done again.
    third = made_at()
    assert third.keys() == second.keys() | {"student_grpo"}
    assert first.items() <= second.items() <= third.items()
    found = figures(workdir)
    assert found.keys() == shared | set(all_three)
    assert all(found[name] == every[name] for name in found)
    for name in third:
        whole, alone = weights(made[0] / "seed-0/distill" / name), weights(distill / name)
        assert all(np.array_equal(whole[n], alone[n]) for n in whole), name

    # Fields that only others read may change; those of a student here may not.
    other = "--config.student.policy.train.steps=3"
    said = add("--config.student.strategy=logit", other)
    assert said.count("finished before") == 6 and figures(workdir).keys() - shared == first.keys()
    done = arkjax_command("distill", *common, f"--config.students={all_three}", other)
    assert done.returncode == 4
    assert "student_grpo.policy.train.steps: 2 -> 3" in done.stderr and "--redo" in done.stderr
    assert made_at() == third
    done = arkjax_command("distill", *common, "--config.student.strategy=da_unverified")
    assert done.returncode == 3
    assert "synthesize has no da_unverified yet: run `arkjax synthesize" in done.stderr


def test_a_student_that_training_made_no_better_is_said_to_be_left_as_it_was(
    made, arkjax_command, tmp_path
):
    """Such steps spoil any model."""
    workdir, name = copied(made[0], tmp_path / "held-out"), "control_answer_only"
    options = (
        *SHORT,
        "--config.student.held_out=32",
        "--config.student.train.optimizer.learning_rate=0.1",
        "--config.evaluation.limit=4",
    )
    common = ("--config", "tiny", "--workdir", workdir, f"--config.students=('{name}',)")
    done = arkjax_command("run", *common, *options)
    assert done.returncode == 0, done.stderr
    assert f"{name}: no look was as good as the " in done.stderr
    base, student = weights(workdir / "seed-0" / "base"), weights(workdir / "seed-0/distill" / name)
    assert all(np.array_equal(base[n], student[n]) for n in base)
    summary = json.loads((workdir / "seed-0/distill/stage.json").read_text())["summary"]
    kept = summary["parts"][name]["kept"]
    assert kept["step"] == 0 < kept["accuracy"]
    report = json.loads((workdir / "report" / "report.json").read_text())
    [note] = [note for note in report["notes"] if name in note]
    assert "the weights that its last phase began with" in note


def test_own_answers_killed_midway_end_the_same(made, arkjax_command, tmp_path):
    workdir = copied(made[0], tmp_path / "killed")
    students = ("student_on_policy", "student_grpo")
    options = ("--config", "tiny", "--workdir", workdir, f"--config.students={students}", *SHORT)
    for command in ("synthesize", "score"):
        assert arkjax_command(command, *options).returncode == 0
    for student in students:
        process = arkjax_command.start("-m", "arkjax", "distill", *options)
        kill_at(process, workdir, f"seed-0/distill/{student}/checkpoints/1*", 0)
    done = arkjax_command("distill", *options)
    assert done.returncode == 0, done.stderr
    for name in students:
        whole = weights(made[0] / "seed-0" / "distill" / name)
        ours = weights(workdir / "seed-0" / "distill" / name)
        assert all(np.array_equal(whole[n], ours[n]) for n in whole), name


def test_a_synthesizers_words_need_a_team_with_one(made, arkjax_command, tmp_path):
    workdir = copied(made[0], tmp_path / "none")
    pure = ("--config.student.strategy=synthesizer", "--config.synthesis.fallback=False")
    done = arkjax_command("synthesize", "--config", "tiny", "--workdir", workdir, *pure)
    assert done.returncode == 3 and "synthesizer: none of" in done.stderr
