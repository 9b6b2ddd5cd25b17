"""How the systems of a whole small run reason: every figure from its table, and a judge later."""

import json
import math
import shutil
from collections import defaultdict

import numpy as np
import pytest

from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting.report import deterministic_view
from arkjax.stages.quality import quality_rows
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.slow

_CONFIG = """
from ml_collections import ConfigDict
from arkjax import config

def get_config(arg=""):
    c = config.load("tiny")
    # So few words that they fit into the world's small model.
    c.evaluation.judge = ConfigDict({
        "player": "base",
        "problems": 2,
        "max_tokens": 8,
        "dimensions": {"Sums": "add up"},
        "template": "{dimensions} {question} {answer} {form}",
    })
    return c
"""


def report_of(workdir):
    return json.loads((workdir / "report" / "report.json").read_text())


def test_every_figure_is_the_weighted_mean_of_recorded_ones(tiny_run):
    quality = report_of(tiny_run)["quality"]
    rows = quality_rows(tiny_run / "seed-0" / "evaluate")
    groups = defaultdict(list)
    for row in rows:
        groups[row.split, row.system, row.measure].append(row)
    figures = {
        (split, system, measure): figure
        for split, systems in quality["splits"].items()
        for system, measures in systems.items()
        for measure, figure in measures.items()
    }
    assert figures.keys() == groups.keys()
    assert {measure for _, _, measure in figures} == quality["measures"].keys()
    assert all(quality["measures"].values()) and quality["judge"] is None
    for key, of in groups.items():
        mean = sum(r.value * r.weight for r in of) / sum(r.weight for r in of)
        value = math.exp(mean) if key[2] == "perplexity" else mean
        assert figures[key]["value"] == pytest.approx(value, rel=1e-9), key
        assert figures[key]["n"] == len(of)
        low, high = figures[key]["ci95"] or (value, value)
        assert low <= value * (1 + 1e-12) and value <= high * (1 + 1e-12), key


def test_figures_lead_to_the_calls_that_they_are_about(tiny_run):
    evaluate = tiny_run / "seed-0" / "evaluate"
    rows = quality_rows(evaluate)
    outcomes = Outcomes.load(evaluate / "outcomes.parquet").records()
    answers = {(o.split, o.system, o.problem_id): o for o in outcomes}
    for split in ("test", "ood"):
        team = CallStore(evaluate / split / "team")
        traces = [r for r in rows if (r.split, r.measure) == (split, "perplexity")]
        by_system = defaultdict(set)
        for row in traces:
            call = team.get(row.call_id)
            assert call.correct and call.problem_id == row.problem_id
            assert row.weight == len(call.gen_ids) and row.value > 0
            by_system[row.system].add(row.call_id)
        students = {o.system for o in outcomes} - {"team", "self_consistency", "role_vote"}
        assert by_system.keys() == students
        assert len({frozenset(calls) for calls in by_system.values()}) == 1
        store = CallStore(evaluate / split / "base")
        for row in rows:
            if (row.split, row.system, row.measure) != (split, "base", "sound_answers"):
                continue
            assert store.get(row.call_id).problem_id == row.problem_id
            right = answers[split, "base", row.problem_id].correct
            assert row.value <= right  # who is right in every step is right


def test_a_student_reads_its_own_words_as_it_said_them(tiny_run):
    """Where a student said what the team had said, both have one log-probability."""
    evaluate = tiny_run / "seed-0" / "evaluate"
    team = CallStore(evaluate / "test" / "team")
    student = CallStore(evaluate / "test" / "student_da")
    own = {(call.problem_id, call.gen_ids): call for call in student}
    compared = 0
    for row in quality_rows(evaluate):
        if (row.split, row.system, row.measure) == ("test", "student_da", "perplexity"):
            said = own.get((row.problem_id, team.get(row.call_id).gen_ids))
            if said is not None:
                assert row.value == pytest.approx(-np.mean(said.logprobs), abs=1e-5)
                compared += 1
    assert compared


def test_a_judge_that_comes_later_changes_nothing_else(tiny_run, arkjax_command, tmp_path):
    workdir, config = tmp_path / "run", tmp_path / "judged.py"
    shutil.copytree(tiny_run, workdir)
    config.write_text(_CONFIG)
    evaluate = workdir / "seed-0" / "evaluate"
    before, rows = report_of(workdir), quality_rows(evaluate)
    done = arkjax_command("run", "--config", config, "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("finished before") == 5
    assert "perplexity" not in done.stderr  # measured before

    judged = report_of(workdir)["quality"]["judge"]
    calls = list(CallStore(evaluate / "judge"))
    assert (judged["player"], judged["problems"]) == ("base", 2)
    assert judged["calls"] == len(calls) > 0
    assert judged["prompt_tokens"] == sum(len(call.prompt_ids) for call in calls)
    # Such a model is no judge, and is not made one.
    assert judged["unparsed"] == len(calls)
    assert [r for r in quality_rows(evaluate) if not r.measure.startswith("judge_")] == rows

    # Nor does it change what is reported without it.
    done = arkjax_command("report", "--config", "tiny", "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    assert deterministic_view(report_of(workdir)) == deterministic_view(before)
    # Another rubric is another judgement.
    config.write_text(_CONFIG.replace("add up", "are sums"))
    done = arkjax_command("run", "--config", config, "--workdir", workdir)
    assert done.returncode == 4
    assert "judge.dimensions.Sums" in done.stderr and "--redo evaluate" in done.stderr


def test_a_run_that_is_older_than_its_measures_is_reported_without(
    tiny_run, arkjax_command, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    state = workdir / "seed-0" / "evaluate" / "stage.json"
    recorded = json.loads(state.read_text())
    del recorded["files"]["quality.parquet"]
    state.write_text(json.dumps(recorded))
    (workdir / "seed-0" / "evaluate" / "quality.parquet").unlink()
    done = arkjax_command("report", "--config", "tiny", "--workdir", workdir)
    assert done.returncode == 0, done.stderr
    assert report_of(workdir)["quality"] == {"judge": None, "measures": {}, "splits": {}}
