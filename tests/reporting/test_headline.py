"""The headline: further splits, the best of several, and unequal numbers of examples."""

import numpy as np
import pytest

from arkjax.evaluation.outcomes import Outcomes
from arkjax.reporting.domains import ABOVE, NONE, NOT_ABOVE, by_gain, domain_sentence
from arkjax.reporting.headline import interval, points
from arkjax.reporting.html import render_html

from .test_page import parse
from .test_report import ACCURACY, build, outcomes


def splits(**accuracy_of):
    """Outcomes of all systems on splits, each with accuracies of its own."""
    return Outcomes.concatenate(
        [outcomes(accuracy=accuracy, split=split) for split, accuracy in accuracy_of.items()]
    )


@pytest.fixture(scope="module")
def report():
    flat = {"team": ACCURACY["base"], "student_da": 0.6}
    return build(splits(test={}, ood=flat, zoo={}), resamples=None)


def test_each_further_split_has_one_sentence(report):
    team, student, ood, zoo = report["headline"]
    assert team.startswith("On test, the team") and student.startswith("Student DA")
    assert ood.startswith("On ood, no gain of the team is shown: ")
    assert "so no share of it is defined" in ood
    entry = next(
        c for c in report["comparisons"]
        if (c["a"], c["b"], c["split"], c["part"]) == ("team", "base", "ood", None)
    )  # fmt: skip
    assert f"({points(entry['difference'])} points {interval(entry['ci95'], points)})" in ood
    assert zoo.startswith("On zoo, a gain of the team is shown: ")
    right = report["splits"]["zoo"]["systems"]["student_da"]["accuracy"]
    gain = report["captured_gain_by_split"]["zoo"]["student_da"]["value"]
    assert f"student DA answers {100 * right:.1f}% right" in zoo
    assert f", {100 * gain:.0f}% of the team's gain over base" in zoo


def test_a_loss_is_no_gain():
    low = {"base": 0.9, "team": 0.2}
    ood = build(splits(test={}, ood=low), resamples=None)["headline"][2]
    assert ood.startswith("On ood, a loss of the team is shown: ")


def test_a_gain_that_the_number_of_comparisons_takes_away_is_not_shown():
    table = splits(test={}, ood={"team": 0.57, "base": 0.5})
    claims = [("team", "base", split, None) for split in ("test", "ood")]
    one = build(table, claims=claims)
    entry = next(c for c in one["comparisons"] if c["split"] == "ood")
    assert entry["shown"] and "a gain of the team is shown" in one["headline"][2]
    many = build(table, claims=claims[:1] + claims[1:] * 300)
    assert "no gain of the team is shown" in many["headline"][2]
    assert "once the number of comparisons is allowed for" in many["headline"][2]
    # It is defined what a share of it would be, so that is not denied.
    assert "no share of it is defined" not in many["headline"][2]


def test_the_student_of_further_splits_is_the_one_chosen_on_the_first():
    names = [*ACCURACY, "student_rsft"]
    tables = [
        outcomes(names, accuracy={"student_rsft": rsft, "student_da": da}, split=split)
        for split, rsft, da in (("test", 0.85, 0.95), ("ood", 0.95, 0.65))
    ]
    found = build(Outcomes.concatenate(tables), resamples=300)
    on = {s: found["splits"][s]["systems"] for s in ("test", "ood")}
    ends = {
        s: sorted(100 * on[s][n]["accuracy"] for n in ("student_da", "student_rsft")) for s in on
    }
    _, student, ood = found["headline"]
    low, high = ends["test"]
    assert student.startswith(
        f"Student DA (the best of 2 verified students, which have {low:.1f} to {high:.1f}% on "
        "test; chosen on these very problems) answers"
    )
    low, high = ends["ood"]
    assert "; student DA answers" in ood and "student RSFT" not in ood
    assert f"one of 2 verified students, which have {low:.1f} to {high:.1f}% here" in ood
    assert "student DA, best of 2" in " ".join(parse(render_html(found, figures={})).text)


def test_a_single_student_is_the_best_of_none(report):
    assert "best of" not in " ".join(report["headline"])


def test_unequal_numbers_of_examples_are_said_beside_the_controls():
    counts = {
        name: {"examples": n, "problems_kept": n // 2}
        for name, n in (("da", 1881), ("control_no_debate", 643), ("control_single_agent", 1700))
    }
    found = build(outcomes(), counts=counts, resamples=300)
    assert found["headline"][1].endswith(
        "It learned from 1,881 examples of 940 problems, but control: no debate from 643 of 321; "
        "that too may make a difference."
    )
    table = render_html(found, figures={}).split("<caption><span>What each system is", 1)[1]
    row = table.split("<code>control_no_debate</code>", 1)[1].split("</tr>")[0]
    assert '<td class="n">643</td><td class="n">321</td>' in row
    assert "samples of the roles before anybody is heard" in row and "right answer" in row


def test_domains_are_judged_by_tests_with_holm_over_all_of_them():
    rng = np.random.default_rng(3)
    rows = [vars(row).copy() for row in outcomes(n=180).records()]
    accuracy = {
        # Of the team, the role vote, self-consistency and base.
        "a": (0.95, 0.2, 0.2, 0.2),
        "b": (0.95, 0.95, 0.2, 0.2),
        "c": (0.2, 0.2, 0.2, 0.2),
    }
    order = ("team", "role_vote", "self_consistency", "base")
    luck = {}
    for row in rows:
        number = int(row["problem_id"][1:])
        row["domain"] = "abc"[number % 3]
        if row["system"] in order:
            hard = luck.setdefault(number, rng.random())
            row["correct"] = hard < accuracy[row["domain"]][order.index(row["system"])]
    found = build(Outcomes.from_records(rows))
    tests = found["comparisons_by_domain"]["test"]
    assert set(tests) == set("abc")
    assert all(set(of) == {"base", "self_consistency", "role_vote"} for of in tests.values())
    entries = [entry for of in tests.values() for entry in of.values()]
    smallest = min(entries, key=lambda entry: entry["p"])
    assert smallest["p_holm"] == pytest.approx(9 * smallest["p"])
    told = {row["domain"]: row["verdict"] for row in by_gain(found, "test")}
    assert told == {"a": ABOVE, "b": NOT_ABOVE, "c": NONE}
    said = domain_sentence(found, "test")
    assert "In a the team is above self-consistency and role vote, and above base." in said
    assert "In b the team is above base, but not shown to be above both" in said
    assert "In c the team's own gain over base is not shown." in said
    assert "Holm's correction over these 9 comparisons" in said
    del found["comparisons_by_domain"]  # as reports of before have none
    assert domain_sentence(found, "test") is None
    assert {row["verdict"] for row in by_gain(found, "test")} == {None}
    part = render_html(found, figures={}).split('id="domains"')[1].split("</section>")[0]
    assert "Every domain" in part and "verdict" not in part
