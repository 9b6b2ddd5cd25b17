"""The report as data: its shape, what it must say, and equal runs giving equal reports."""

import json

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting import headline, systems
from arkjax.reporting.claims import standard_claims
from arkjax.reporting.report import build_report, deterministic_view, write_report
from arkjax.synthesis.strategies import strategy

ACCURACY = {
    "base": 0.5,
    "self_consistency": 0.51,
    "role_vote": 0.55,
    "team": 0.7,
    "student_da": 0.9,
    "student_da_unverified": 0.71,
    "control_single_agent": 0.6,
    "control_no_debate": 0.9,
    "control_answer_only": 0.55,
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
                        "difficulty": f"Level {8 + i % 4}",
                        "in_pool": bool(right[i]) or calls > 1 and i % 5 == 0,
                        "opening_correct": bool(right[i]) ^ (name == "team" and i % 6 == 0),
                        "confidence": 0.8 if right[i] else 0.4,
                        "rounds": 2 if name == "team" else 1,
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
    assert "student_da_unverified" in report["first_line"] and "oracle" in report["first_line"]
    assert report["splits"]["test"]["systems"]["team"]["oracle"]
    assert any("oracle" in note for note in report["notes"])


def test_every_verified_student_needs_its_own_twin():
    more = ("student_rsft", "student_pad", "student_rsft_then_da", "student_sequence+logit")
    even = dict.fromkeys(more, 0.5)
    found = build(outcomes([*ACCURACY, *more], accuracy=even))
    # A phase that learns from rewards or distributions has no form without gold answers.
    lacking = {"student_rsft_unverified", "student_rsft_unverified_then_da_unverified"}
    assert set(found["missing"]) == lacking
    assert all(name in found["first_line"] for name in lacking)
    claims = {(entry["a"], entry["b"]) for entry in found["not_compared"]}
    assert ("student_rsft", "student_rsft_unverified") in claims
    assert not any(a == "student_pad" and "unverified" in b for a, b in claims)
    note = next(note for note in found["notes"] if note.startswith("There is no way to train"))
    assert "student_pad, student_sequence+logit without" in note and "twin of student_da" in note


def test_twins_are_students_that_can_be_trained():
    for name in ("student_da", "student_rsft", "student_rsft_then_da"):
        assert strategy(systems.twin(name)).student == systems.twin(name)
        assert systems.kind(systems.twin(name)) == "unverified"
    assert systems.twin("student_rsft_unverified_then_da") == systems.twin("student_rsft_then_da")
    assert systems.twin("student_da, wide") == "student_da_unverified, wide"  # each of its run
    for name in ("student_grpo", "student_da_then_grpo", "mine", "base"):
        assert systems.twin(name) is None
    assert systems.label("student_rsft_unverified_then_da_unverified") == (
        "student RSFT then DA, no gold"
    )


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
    assert ("student_da", "control_answer_only", "test", None) in claims


def test_a_stack_is_held_against_what_its_last_phase_began_with():
    names = ("student_da", "student_da_then_grpo", "student_rsft_then_da", "control_answer_only")
    even = dict.fromkeys(names, 0.5)
    claims = {(a, b) for a, b, _, _ in standard_claims(outcomes(names, accuracy=even))}
    assert ("student_da_then_grpo", "student_da") in claims
    assert not any(b == "student_rsft" for _, b in claims)  # it was not evaluated
    assert {a for a, b in claims if b == "control_answer_only"} == set(names[:3])


def test_a_difference_is_called_one_only_if_interval_and_adjusted_p_say_so():
    entry = {"a": "team", "b": "base", "difference": 0.1}
    clear = {**entry, "ci95": [0.05, 0.15], "p_holm": 0.05}
    assert headline.verdict(clear) == "team is better than base"
    assert headline.verdict({**clear, "difference": -0.1, "ci95": [-0.15, -0.05]}) == (
        "team is worse than base"
    )
    for held in ({**clear, "ci95": [0.0, 0.2]}, {**clear, "p_holm": 0.051}):
        assert headline.verdict(held).startswith("no difference shown between team and base")
        assert not headline.is_shown(held)
        for word in ("better", "worse", "above", "below"):
            assert word not in headline.verdict(held)


def test_a_weak_difference_is_called_none_anywhere():
    """Forty comparisons of one pair: what one alone would show, they together do not."""
    table = outcomes(("base", "team"), seeds=(0,), accuracy={"base": 0.5, "team": 0.575})
    one = build(table, claims=[("team", "base", "test", None)])["comparisons"][0]
    assert one["shown"] and one["verdict"] == "team is better than base"
    many = build(table, claims=[("team", "base", "test", None)] * 60)
    for entry in many["comparisons"]:
        assert not headline.holds_zero(entry["ci95"]) and entry["p_holm"] > 0.05
        assert not entry["shown"] and entry["verdict"].startswith("no difference shown")


def test_as_many_draws_as_the_number_of_comparisons_asks_for():
    table = outcomes(("base", "team"), n=30, accuracy={"base": 0.1, "team": 0.9})
    claims = [("team", "base", "test", None)] * 300
    report = build(table, claims=claims, resamples=None)
    assert report["resamples"] == 24_000
    assert all(entry["shown"] for entry in report["comparisons"])
    assert build(table, claims=claims[:9], resamples=None)["resamples"] == 10_000


def test_talk_pool_and_calibration_are_in_the_report(report):
    section = report["splits"]["test"]
    table = outcomes()
    team = section["systems"]["team"]
    right, began = table.matrix("team", "test"), table.matrix("team", "test", "opening_correct")
    assert team["flips"]["corrected"]["n"] == (~began).sum()
    assert team["flips"]["corrected"]["count"] == (~began & right).sum()
    assert team["flips"]["misled"]["count"] == (began & ~right).sum()
    net = team["flips"]["net"]
    assert net["value"] == pytest.approx(right.mean() - began.mean())
    assert net["ci95"][0] <= net["value"] <= net["ci95"][1]
    assert section["systems"]["role_vote"]["flips"] is None  # nobody hears anybody
    pool = table.matrix("team", "test", "in_pool").mean()
    assert team["pool"]["accuracy"] == pytest.approx(pool)
    assert team["pool"]["gap"] == pytest.approx(pool - right.mean())
    assert section["systems"]["base"]["pool"]["gap"] == 0
    calibration = team["calibration"]
    assert [b["high"] for b in calibration["bins"]] == [0.4, 0.8]
    assert [b["accuracy"] for b in calibration["bins"]] == [0, 1]
    share = right.mean()
    assert calibration["ece"] == pytest.approx(0.4 * (1 - share) + 0.2 * share)
    unknown = [{**vars(row), "confidence": float("nan")} for row in table.records()]
    found = build(Outcomes.from_records(unknown))
    assert found["splits"]["test"]["systems"]["team"]["calibration"] is None
    json.dumps(found, allow_nan=False)


def test_levels_of_difficulty_are_in_their_own_order(report, tmp_path):
    section = report["splits"]["test"]
    levels = ["Level 8", "Level 9", "Level 10", "Level 11"]
    assert list(section["difficulties"]) == levels
    write_report(tmp_path, report)
    written = json.loads((tmp_path / "report.json").read_text())
    by_level = written["splits"]["test"]["systems"]["team"]["by_difficulty"]
    assert list(by_level) == levels and {entry["n"] for entry in by_level.values()} == {30}
    accuracy = section["systems"]["team"]["accuracy"]
    assert np.mean([entry["accuracy"] for entry in by_level.values()]) == pytest.approx(accuracy)
    plain = [{**vars(row), "difficulty": ""} for row in outcomes().records()]
    none = build(Outcomes.from_records(plain))["splits"]["test"]
    assert none["difficulties"] == none["systems"]["team"]["by_difficulty"] == {}


def test_numbers_in_texts_count_as_numbers():
    mixed = [
        "10",
        "9",
        "Level 10",
        "level",
        "Level 2",
        "",
        "2.5",
        "2.10",
        "007",
        "7",
        "x1y2",
        "x1y",
    ]
    for order in (mixed, mixed[::-1]):
        assert systems.ordered_levels(order) == [
            "", "2.5", "2.10", "007", "7", "9", "10", "Level 2", "Level 10", "level", "x1y", "x1y2",
        ]  # fmt: skip
    assert systems.ordered_levels(["9" * 9000, "1" + "0" * 9000])[0] == "9" * 9000


def test_all_devices_of_the_machine_are_counted():
    report = build(outcomes(), device={"kind": "tpu", "count": 4})
    team = report["splits"]["test"]["systems"]["team"]
    assert team["device_seconds"] == pytest.approx(4 * team["seconds"])
    right = team["accuracy"]
    assert team["per_correct"]["device_seconds"] == pytest.approx(4 * team["seconds"] / right)


def test_spread_over_seeds_and_intervals_by_domain(report):
    team = report["splits"]["test"]["systems"]["team"]
    a, b = team["by_seed"]
    spread = {"sd": pytest.approx(abs(a - b) / 2**0.5), "low": min(a, b), "high": max(a, b)}
    assert team["over_seeds"] == spread
    assert set(team["by_domain_ci95"]) == set(team["by_domain"])
    for domain, (low, high) in team["by_domain_ci95"].items():
        assert low <= team["by_domain"][domain] <= high
    one = build(outcomes(seeds=(3,)))["splits"]["test"]["systems"]["team"]
    assert one["over_seeds"] is None


def test_counts_of_all_seeds_and_where_the_calls_are():
    stores = {"test": {"team": [{"seed": 0, "path": "seed-0/evaluate/test/team", "calls": 9}]}}
    report = build(outcomes(), counts_by_seed={0: {"da": 1}, 1: {"da": 2}}, records=stores)
    assert report["counts_by_seed"] == {"0": {"da": 1}, "1": {"da": 2}}
    assert report["records"] == stores


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


def test_the_hardest_part_of_either_world_is_compared_by_itself():
    assert systems.hardest(["plain", "single", "multi"]) == "multi"
    assert systems.hardest(["far", "near", "plain"]) == "far"
    assert systems.hardest(["far"]) is None and systems.hardest([]) is None
