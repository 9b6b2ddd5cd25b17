"""The paper's figures beside ours: where they apply, and that they are marked."""

import collections
import json

import pytest

from arkjax.reporting.markdown import results_table
from arkjax.reporting.published import published, tables

from .test_report import build, outcomes

pytestmark = pytest.mark.fast


def config(student="hf:Qwen/Qwen3-0.6B", teacher="hf:Qwen/Qwen3-32B", task="gsm8k", **more):
    made = {"task": task, "base": {"checkpoint": student}}
    if teacher:
        made |= {"policy": "teacher", "models": {"teacher": {"checkpoint": teacher}}}
    return made | more


def report(*splits):
    """Two systems, one of which the paper has as well, on each of these splits."""
    systems = {"accuracy": 0.5}
    sections = {s: {"systems": {"student_da": systems, "team": systems}} for s in splits}
    return {"splits": sections}


def test_the_tables_are_whole():
    paper = tables()
    rows = [dict(zip(paper["columns"], row, strict=True)) for row in paper["rows"]]
    counted = collections.Counter(row["table"] for row in rows)
    # Two tests of 3 teachers, 3 strategies and 4 training sets each, and the untrained model.
    grid = {f"Table {n}": 2 * (3 * 3 * 4 + 1) for n in range(9, 14)}
    assert counted == grid | {"Table 7": 8, "Table 8": 5 * 2 * 4}
    assert len({json.dumps(row[:-1]) for row in paper["rows"]}) == len(rows)
    for row in rows:
        assert 20 < row["percent"] < 95
        assert {row["student"], row["teacher"]} - {None} <= set(paper["models"])
    # Figures that the paper's text names: its untrained models, and gains of answers alone.
    base = {(r["student"], r["tested_on"]): r["percent"] for r in rows if r["system"] == "base"}
    assert base["Qwen3-8B", "gsm8k"] == 88.17 and base["Gemma-7B", "medmcqa"] == 49.29
    best = {
        student: max(
            row["percent"] - base[student, "medmcqa"]
            for row in rows
            if row["system"] == "control_answer_only"
            and (row["student"], row["tested_on"]) == (student, "medmcqa")
        )
        for student in ("Gemma-7B", "Qwen3-8B")
    }
    assert best["Qwen3-8B"] == pytest.approx(3.4, abs=0.05)
    assert best["Gemma-7B"] > 6.8


def test_a_point_of_the_grid_has_the_papers_figures():
    made = published(config(), report("test", "medmcqa:validation", "svamp:test", "ood"))
    rows = {(row["system"], row["split"]): row for row in made["rows"]}
    assert rows["student_da", "test"] == {
        "name": "student DA, test",
        "ours": 0.5,
        "paper": 0.4867,
        "system": "student_da",
        "dataset": "gsm8k",
        "student": "Qwen3-0.6B",
        "teacher": "Qwen3-32B",
        "trained_on": "gsm8k",
        "split": "test",
        "table": "Table 13",
    }
    assert rows["student_pad", "medmcqa:validation"]["paper"] == 0.3309
    assert rows["student_pad", "medmcqa:validation"]["ours"] is None
    assert rows["base", "test"]["paper"] == 0.4193 and rows["base", "test"]["trained_on"] is None
    assert {split for _, split in rows} == {"test", "medmcqa:validation"}
    assert [row["split"] for row in made["rows"]][:2] == ["test", "test"]
    assert "2602.03955" in made["source"] and "not measured here" in made["note"]


@pytest.mark.parametrize(
    "student, teacher",
    [
        ("/models/Qwen3-0.6B", "hf:Qwen/Qwen3-32B@main"),
        ("hf:Qwen/Qwen3-8B", ""),
        ("hf:meta-llama/Meta-Llama-3-8B-Instruct", "google/gemma-3-27b-it"),
    ],
)
def test_models_are_told_by_the_end_of_their_names(student, teacher):
    assert published(config(student, teacher), report("test"))


def test_a_team_behind_a_server_is_told_by_the_servers_model():
    served = {"policy": "big", "remotes": {"big": {"model": "Qwen/Qwen3-32B"}}}
    assert published(config(teacher="") | served, report("test"))


@pytest.mark.parametrize(
    "other",
    [
        {"student": ""},
        {"student": "hf:Qwen/Qwen3-4B"},
        {"teacher": "hf:Qwen/Qwen3-14B"},
        {"teacher": ""},  # Qwen3-0.6B teaches nobody in the paper
        {"task": "svamp"},
    ],
)
def test_other_runs_have_none(other):
    assert published(config(**other), report("test")) is None


def test_stacks_are_of_one_pair_of_models():
    pair = config("hf:Qwen/Qwen3-1.7B", task="math")
    rows = published(pair, report("gsm8k:test"))["rows"]
    stacks = {row["system"]: row["paper"] for row in rows if "_then_" in row["system"]}
    assert stacks == {"student_rsft_then_da": 0.6989, "student_pad_then_da": 0.7014}
    rows = published(config(), report("test"))["rows"]
    assert not [row for row in rows if "_then_" in row["system"]]


def test_the_table_marks_them():
    ours = build(outcomes())
    table = results_table(ours)
    assert "paper" not in table
    ours["published"] = published(config(), ours)
    quoted = results_table(ours)
    head, _, *lines = quoted.splitlines()
    assert head.startswith("| system | test, % | paper: test, % |")
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines}
    assert cells["student DA"][2] == "48.7" and cells["team"][2] == "–"
    assert "Columns “paper”: arXiv 2602.03955" in quoted and "not measured here" in quoted
