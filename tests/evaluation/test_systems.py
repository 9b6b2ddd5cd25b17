"""What is compared, and at which budget."""

import dataclasses
import math

import pytest

from arkjax.evaluation.outcomes import Outcomes
from arkjax.evaluation.systems import outcomes_of, samples_for_budget, systems
from arkjax.tasks.problems import Problem
from arkjax.teams import library
from arkjax.teams.debate import Cost, Debate

pytestmark = pytest.mark.fast
STUDENTS = ("student_da", "control_no_debate")


@pytest.fixture(scope="module")
def compared():
    return systems(
        library.debate(),
        library.vanilla(),
        library.self_consistency(n=9),
        library.roles(),
        STUDENTS,
    )


def test_every_system_is_there_once_and_played_by_the_right_model(compared):
    names = [system.name for system in compared]
    assert names == ["base", "self_consistency", "role_vote", "team", *STUDENTS]
    assert [system.model for system in compared] == ["base"] * 4 + list(STUDENTS)


def test_students_are_asked_exactly_as_the_base_is(compared):
    by_name = {system.name: system for system in compared}
    for student in STUDENTS:
        assert by_name[student].team == by_name["base"].team
    assert by_name["base"].team.agents[0].sampling.temperature == 0


def test_calls_are_shared_only_within_one_model_and_after_they_were_made(compared):
    for i, system in enumerate(compared):
        for other in system.shares:
            earlier = [s for s in compared[:i] if s.name == other]
            assert earlier and earlier[0].model == system.model


@pytest.mark.parametrize(
    ("team", "sample"), [(300.0, 40.0), (40.0, 40.0), (1.0, 40.0), (80.0, 40.0), (80.1, 40.0)]
)
def test_the_budget_is_at_least_the_teams_and_no_sample_too_many(team, sample):
    n = samples_for_budget(team, sample)
    assert isinstance(n, int) and n >= 1
    assert n * sample >= team
    assert n == 1 or (n - 1) * sample < team
    assert n == max(1, math.ceil(team / sample))


def test_outcomes_keep_every_figure_of_a_debate():
    problem = Problem(
        "p1", "q", "3", "embedded_world", "coins+gap", {"part": "multi", "difficulty": 3}
    )
    cost = Cost(calls=8, prompt_tokens=400, prefill_tokens=90, generated_tokens=150, seconds=0.25)
    debate = Debate(
        problem, "debate", (), "3", True, 2, False, 0, "", cost,
        opening="5", opening_correct=False, in_pool=True, confidence=0.75,
    )  # fmt: skip
    silent = dataclasses.replace(
        debate, problem=dataclasses.replace(problem, id="p2", meta={}), answer=None, correct=False
    )
    first, second = outcomes_of([debate, silent], system="team", split="ood", seed=4)
    assert dataclasses.asdict(first) == {
        "seed": 4,
        "split": "ood",
        "system": "team",
        "problem_id": "p1",
        "part": "multi",
        "domain": "coins+gap",
        "correct": True,
        "answer": "3",
        "calls": 8,
        "prompt_tokens": 400,
        "generated_tokens": 150,
        "seconds": 0.25,
        "difficulty": "3",
        "in_pool": True,
        "opening_correct": False,
        "confidence": 0.75,
        "rounds": 2,
    }
    assert (second.part, second.difficulty) == ("", "") and not second.correct
    # A team without an answer has the empty one in the table.
    assert Outcomes.from_records([first, second])["answer"].tolist() == ["3", ""]
