"""The table of systems for a terminal."""

import pytest

from arkjax.evaluation.outcomes import Outcome, Outcomes
from arkjax.reporting.report import build_report
from arkjax.reporting.terminal import findings, systems_table

pytestmark = pytest.mark.fast


def outcome(system, number, correct, calls):
    tokens = 1000 * calls
    return Outcome(
        0, "test", system, f"p{number}", "", "d", correct, "", calls, tokens, 10 * calls, 0.5,
        difficulty="", in_pool=correct, opening_correct=correct, confidence=0.5, rounds=1,
    )  # fmt: skip


@pytest.fixture
def report():
    rows = [outcome("base", n, False, 1) for n in range(4)]
    rows += [outcome("team", n, n < 2, 8) for n in range(4)]
    return build_report(
        Outcomes.from_records(rows),
        config_hash="",
        versions={},
        device={},
        seeds=[0],
        wall_seconds={},
        claims=[],
        resamples=100,
    )


def test_a_row_for_each_system_with_its_costs(report):
    title, head, base, team = systems_table(report, "test").splitlines()
    assert title == "4 problems of split test; costs per problem"
    assert head.startswith("system  ") and head.endswith("seconds per right answer")
    assert base.startswith("base      0.0 [0.0, ") and base.endswith("none right")
    assert team.split()[-5:] == ["8.0", "8,000", "80", "0.5", "1"]
    assert len(head) == len(base) == len(team)


def test_further_figures_become_columns_and_lines(report):
    report["scores"] = {"team": {"f1": 0.25}}
    report["choices"] = {"mc1": 0.5}
    *_, head, base, team, last = systems_table(report, "test").splitlines()
    assert head.endswith("     f1") and team.endswith("  0.250") and base.endswith("  0.000")
    assert last == "mc1: 0.500"


def test_findings_are_first_line_headline_and_tables(report):
    said = findings(report)
    assert said.startswith(report["first_line"] + "\n\n" + report["headline"][0])
    assert said.endswith(systems_table(report, "test"))
    # What was found is not said twice where nothing is missing.
    report["first_line"] = report["headline"][0]
    assert findings(report).count(report["headline"][0]) == 1
    report["headline"] = ["\x1b[2J team"]
    assert "\x1b" not in findings(report)
