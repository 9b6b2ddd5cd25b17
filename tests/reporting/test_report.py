"""The report as data: its shape, what it must say, and equal runs giving equal reports."""

import json

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting import headline, systems
from arkjax.reporting.report import (
    build_report,
    deterministic_view,
    standard_claims,
    write_report,
)

ACCURACY = {
    "base": 0.5,
    "self_consistency": 0.51,
    "role_vote": 0.55,
    "team": 0.7,
    "student_da": 0.9,
    "student_da_unverified": 0.71,
    "control_single_agent": 0.6,
    "control_no_debate": 0.9,
}


def outcomes(names=tuple(ACCURACY), seeds=(0, 1), n=120, accuracy=None, split="test"):
    rng = np.random.default_rng(7)
    hard = rng.random(n)
    rows = []
    for seed in seeds:
        for name in names:
            noise = np.random.default_rng([seed, len(name)]).random(n)
            right = 0.7 * hard + 0.3 * noise < {**ACCURACY, **(accuracy or {})}[name]
            calls = {"team": 9, "self_consistency": 14, "role_vote": 4}.get(name, 1)
            for i in range(n):
                rows.append(
                    {
                        "seed": seed,
                        "split": split,
                        "system": name,
                        "problem_id": f"p{i}",
                        "part": ("plain", "single", "multi")[i % 3],
                        "domain": ("coins", "gap")[i % 2],
                        "correct": bool(right[i]),
                        "answer": "3",
                        "calls": calls,
                        "prompt_tokens": 40 * calls,
                        "generated_tokens": 30 * calls,
                        "seconds": 0.01 * calls,
                    }
                )
    return Outcomes.from_records(rows)


def build(table, **changes):
    arguments = {
        "config_hash": "c0ffee" * 8,
        "versions": {"arkjax": "0"},
        "device": {"kind": "cpu"},
        "seeds": table.distinct("seed"),
        "wall_seconds": {"base": 1.5},
        "resamples": 2000,
    }
    return build_report(table, **{**arguments, **changes})


@pytest.fixture(scope="module")
def report():
    return build(outcomes(), counts={"student_da": {"traces": {"kept": 5, "dropped": 2}}})


def test_shape_is_the_documented_one(report):
    assert report["schema"] == 1 and report["seeds"] == [0, 1]
    keys = {"config_hash", "versions", "device", "splits", "captured_gain", "comparisons"}
    assert keys | {"wall_seconds"} <= set(report)
    section = report["splits"]["test"]
    assert section["n"] == 120 and set(section["systems"]) == set(ACCURACY)
    entry = section["systems"]["team"]
    assert list(entry)[:6] == [
        "accuracy", "ci95", "calls", "prompt_tokens", "generated_tokens", "seconds",
    ]  # fmt: skip
    low, high = entry["ci95"]
    assert low < entry["accuracy"] < high
    assert (entry["calls"], entry["generated_tokens"]) == (9.0, 270.0)
    assert set(entry["by_domain"]) == {"coins", "gap"}
    assert np.mean(list(entry["by_domain"].values())) == pytest.approx(entry["accuracy"])
    assert set(report["captured_gain"]) == {"student_da", "student_da_unverified"}
    gain = report["captured_gain"]["student_da"]
    assert gain["ci95"][0] < gain["value"] < gain["ci95"][1] and gain["value"] > 1
    for comparison in report["comparisons"]:
        assert {"a", "b", "split", "difference", "ci95", "p"} <= set(comparison)


def test_figures_are_those_of_the_table(report):
    table = outcomes()
    for name in ACCURACY:
        cells = table.matrix(name, "test")
        entry = report["splits"]["test"]["systems"][name]
        assert entry["accuracy"] == pytest.approx(cells.mean())
        assert entry["by_seed"] == pytest.approx(cells.mean(axis=1))


def test_json_holds_the_whole_report(report, tmp_path):
    write_report(tmp_path / "deep" / "report", report)
    text = (tmp_path / "deep" / "report" / "report.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(report))
    assert text.splitlines()[1].startswith(' "first_line"')


@pytest.mark.parametrize("control", sorted(systems.CONTROLS))
def test_first_line_names_a_missing_control(control):
    report = build(outcomes([name for name in ACCURACY if name != control]))
    assert control in report["first_line"].split(".")[0]
    assert report["missing"][control]


def test_first_line_names_a_missing_twin_and_an_oracle():
    names = [name for name in ACCURACY if name != "student_da_unverified"]
    report = build(outcomes(names), oracle=["team"])
    assert "student_*_unverified" in report["first_line"] and "oracle" in report["first_line"]
    assert report["splits"]["test"]["systems"]["team"]["oracle"]
    assert any("oracle" in note for note in report["notes"])


def test_complete_report_begins_with_what_was_found(report):
    assert report["missing"] == {}
    assert report["first_line"] == report["headline"][0]
    assert report["first_line"].startswith("On test, the team answers")


def test_no_improvement_is_claimed_where_the_interval_holds_zero(report):
    by_pair = {(c["a"], c["b"], c["part"]): c for c in report["comparisons"]}
    tie = by_pair["student_da", "control_no_debate", None]
    assert headline.holds_zero(tie["ci95"])
    assert tie["verdict"].startswith("no difference shown")
    assert "not shown to differ from control: no debate" in report["headline"][1]
    clear = by_pair["team", "self_consistency", None]
    assert clear["verdict"] == "team is better than self-consistency"
    turned = build(outcomes(), claims=[("self_consistency", "team", "test", None)])
    assert turned["comparisons"][0]["verdict"] == "self-consistency is worse than team"
    assert "above self-consistency" in turned["first_line"]


def test_team_that_adds_nothing_has_no_captured_gain():
    report = build(outcomes(accuracy={"team": 0.5}))
    gain = report["captured_gain"]["student_da"]
    assert gain["value"] is None and gain["ci95"] is None and "cannot be told" in gain["reason"]
    assert "no share of the team's gain can be stated" in report["headline"][1]


def test_claims_about_absent_systems_are_listed_with_the_reason(report):
    claims = [("team", "ghost", "test", None), ("team", "base", "ood", None)]
    claims += [("team", "base", "test", "huge"), ("team", "base", "test", "multi")]
    found = build(outcomes(), claims=claims)
    assert [entry["reason"] for entry in found["not_compared"]] == [
        "ghost was not evaluated",
        "split 'ood' was not evaluated",
        "part 'huge' was not evaluated",
    ]
    assert [entry["n"] for entry in found["comparisons"]] == [40]
    claims = standard_claims(outcomes())
    assert ("student_da", "control_no_debate", "test", "multi") in claims
    assert ("student_da_unverified", "team", "test", None) in claims
    assert not any(rival == "control_answer_only" for _, rival, _, _ in claims)


def test_a_stack_is_held_against_what_its_last_phase_began_with():
    names = ("student_da", "student_da_then_grpo", "student_rsft_then_da", "control_answer_only")
    even = dict.fromkeys(names, 0.5)
    claims = {(a, b) for a, b, _, _ in standard_claims(outcomes(names, accuracy=even))}
    assert ("student_da_then_grpo", "student_da") in claims
    assert not any(b == "student_rsft" for _, b in claims)  # it was not evaluated
    assert {a for a, b in claims if b == "control_answer_only"} == set(names[:3])


def test_two_runs_of_the_same_seeds_give_the_same_report(report):
    other = build(
        outcomes(),
        counts=report["counts"],
        wall_seconds={"base": 9.0},
        device={"kind": "tpu"},
        versions={"arkjax": "1"},
    )
    assert other != report
    assert deterministic_view(other) == deterministic_view(report)
    text = json.dumps(deterministic_view(report))
    assert "seconds" not in text and '"device"' not in text


def test_order_of_rows_does_not_matter(report):
    rows = outcomes().records()
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = build(Outcomes.from_records([rows[i] for i in order]), counts=report["counts"])
    assert deterministic_view(shuffled) == deterministic_view(report)


def test_one_seed_says_what_its_intervals_lack():
    assert any(note.startswith("One seed") for note in build(outcomes(seeds=(3,)))["notes"])


def test_wrong_seeds_and_empty_tables_are_refused():
    with pytest.raises(DataError, match=r"hold seeds \[0, 1\]"):
        build(outcomes(), seeds=[0, 1, 2])
    with pytest.raises(DataError, match="no outcomes"):
        build(Outcomes.from_records([]), seeds=[])
    rows = outcomes().records()[:-1]
    with pytest.raises(DataError, match="answered 0 times"):
        build(Outcomes.from_records(rows))
