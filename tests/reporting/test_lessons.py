"""What each system is said to be, and how much it is said to have learned from."""

import pytest

from arkjax.reporting import lessons
from arkjax.synthesis.strategies import PHASES, Strategy

pytestmark = pytest.mark.fast


def counted(examples, problems):
    return {"examples": examples, "problems_kept": problems, "traces": 7}


def report(**counts):
    return {"counts": counts, "counts_by_seed": {}, "seeds": [0]}


def test_no_two_strategies_read_the_same():
    students = [Strategy((phase,)).student for phase in PHASES.values()]
    said = {name: (lessons.what(name), lessons.kept(name)) for name in students}
    assert len(set(said.values())) == len(students)
    for name, (what, kept) in said.items():
        assert kept, name
        # The gold answer is not looked at where, and only where, the name says so.
        assert ("never looked at" in kept) == name.endswith("_unverified")
        assert ("without what led to them" in what) == (name == "control_answer_only")


def test_what_the_readme_says_of_them():
    assert lessons.what("student_rsft") == ("one trace a problem from the debates (AgentArk eq. 1)")
    assert lessons.what("student_sequence+logit").startswith(lessons.what("student_da") + ", and")
    assert lessons.what("control_single_agent").startswith("samples of the bare prompt")
    assert lessons.what("control_no_debate").startswith("samples of the roles before anybody")
    assert lessons.kept("control_no_debate") == lessons.kept("student_da") == "right answer"


def test_a_stack_says_what_each_phase_learns():
    said = lessons.what("student_rsft_then_da")
    assert said == f"{lessons.what('student_rsft')}; then {lessons.what('student_da')}"
    assert lessons.kept("student_rsft_then_da") == "right answer"
    assert "; then " in lessons.kept("student_rsft_unverified_then_da")
    assert lessons.what("student_da, wide") == lessons.what("student_da")


def test_what_is_not_trained_has_no_filter_and_no_examples():
    found = report(da=counted(5, 3))
    for name in ("base", "self_consistency", "role_vote", "team", "mine", "student_of_mine"):
        assert lessons.what(name) and lessons.kept(name) is None
        assert lessons.taught(found, name) is None
    # Without a team there is no budget to equal.
    assert "team's generated tokens" in lessons.what("self_consistency", ["base", "team, wide"])
    assert "team" not in lessons.what("self_consistency", ["base", "self_consistency"])


def test_examples_are_those_of_the_students_own_data_set():
    found = report(da=counted(1881, 989), rsft=counted(989, 989), control_no_debate=counted(9, 4))
    for name in ("student_da", "student_logit", "student_on_policy"):
        assert lessons.taught(found, name) == [lessons.Taught((1881,), (989,))]
    stack = lessons.taught(found, "student_rsft_then_grpo")
    assert stack == [lessons.Taught((989,), (989,)), None]
    assert lessons.taught(found, "control_no_debate") == [lessons.Taught((9,), (4,))]
    assert lessons.taught(found, "control_single_agent") is None
    for broken in ({"traces": {"kept": 5}}, {"examples": "x", "problems_kept": 1}, 3, None):
        assert lessons.taught(report(da=broken), "student_da") is None


def test_seeds_are_told_by_their_ends():
    found = report(da=counted(5, 3))
    found["counts_by_seed"] = {str(s): {"da": counted(n, 3)} for s, n in enumerate((9, 1500, 7))}
    [one] = lessons.taught(found, "student_da")
    assert lessons.span(one.examples) == "7 to 1,500" and lessons.span(one.problems) == "3"
    assert one.mean == pytest.approx(1516 / 3)


def test_each_run_of_a_comparison_has_its_own_counts():
    found = {**report(a={"da": counted(5, 3)}, b={"da": counted(8, 4)}), "runs": [{}, {}]}
    assert lessons.taught(found, "student_da, b") == [lessons.Taught((8,), (4,))]
    assert lessons.taught(found, "student_da, c") is None
    # Of one name alone nothing says whose it is, unless all agree.
    assert lessons.taught(found, "student_da") is None
    found["counts"]["b"] = found["counts"]["a"]
    assert lessons.taught(found, "student_da")[0].examples == (5, 5)


def test_very_different_numbers_are_said():
    found = report(da=counted(100, 50), control_no_debate=counted(51, 30))
    controls = ["control_no_debate", "control_single_agent"]
    assert lessons.unlike(found, "student_da", controls) is None
    found["counts"]["control_single_agent"] = counted(50, 30)
    assert lessons.unlike(found, "student_da", controls) == (
        "It learned from 100 examples of 50 problems, but control: single agent from 50 of 30; "
        "that too may make a difference."
    )
    # The other way round as well; and none at all is the most different.
    found["counts"]["control_no_debate"] = counted(200, 90)
    assert "no debate from 200 of 90" in lessons.unlike(found, "student_da", controls)
    assert lessons.unlike(found, "student_grpo", controls) is None
