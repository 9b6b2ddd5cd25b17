"""What steps tell of an answer, against answers whose every step is known."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.evaluation.proxies import final_call, proxies
from arkjax.sampling.params import SamplingParams
from arkjax.synthesis.steps import step_texts
from arkjax.tasks import embedded_world as world
from arkjax.tasks.problems import StepChecker, StepGrader
from arkjax.tasks.world_grader import WorldGrader
from arkjax.teams.debate import Cost, Debate
from arkjax.trajectories.schema import Call, sampling_dict

pytestmark = pytest.mark.fast

GRADER = WorldGrader()
ITEMS = (("coins", 4, 7), ("gap", 3, 8))
PROBLEM = world.make_problem(ITEMS, "p")
FIRST, SECOND = world.true_values(ITEMS)
RIGHT = world.solution_text(ITEMS, (FIRST, SECOND))


class OnlyGrader:
    """Knows nothing of steps."""

    def __init__(self):
        for name in ("extract", "equal", "accepts", "grade"):
            setattr(self, name, getattr(GRADER, name))


def call(text, round=0, agent="a", **fields):
    grade = GRADER.grade(PROBLEM, text)
    made = Call(
        call_id=f"{agent}@{round}",
        problem_id="p",
        system="team",
        stage="talk",
        round=round,
        agent=agent,
        sample=0,
        parents=(),
        prompt_segments=(),
        prompt_ids=(1,),
        prefix_len=0,
        cached_len=0,
        gen_ids=(1,),
        logprobs=(0.0,),
        sampling_logprobs=(0.0,),
        text=text,
        parsed={} if grade.extracted is None else {"answer": grade.extracted},
        parse_ok=True,
        finish_reason="stop",
        sampling=sampling_dict(SamplingParams()),
        seed=0,
        model="base",
        correct=grade.correct,
        seconds=0.0,
    )
    return dataclasses.replace(made, **fields)


def debate(*calls, answer=None):
    last = calls[-1].parsed.get("answer") if calls and answer is None else answer
    correct = last == PROBLEM.answer
    return Debate(PROBLEM, "team", calls, last, correct, 1, False, 0, "", Cost())


def figures(*calls, grader=GRADER, answer=None):
    return {f.measure: (f.value, f.weight) for f in proxies(debate(*calls, answer=answer), grader)}


def test_a_right_answer():
    assert isinstance(GRADER, StepChecker) and isinstance(GRADER, StepGrader)
    assert figures(call(RIGHT)) == {
        "sound_answers": (1.0, 1.0),
        "right_steps": (1.0, 3),
        "steps_verified": (1.0, 3),
    }


def test_a_wrong_value_that_is_added_up_well():
    wrong = world.solution_text(ITEMS, (FIRST, (SECOND + 1) % 10))
    assert figures(call(wrong)) == {
        "sound_answers": (0.0, 1.0),
        "right_steps": (1 / 3, 3),
        "steps_verified": (1.0, 3),
        "first_wrong_step": (2.0, 1.0),
        "wrong_starts_corrected": (0.0, 1.0),
    }


def test_a_wrong_start_that_comes_right_in_the_end():
    # The second step is wrong about its value and its sum, the close states the right answer.
    off = (SECOND + 1) % 10
    text = (
        f"coins 4 7 is {FIRST} total {FIRST} ; gap 3 8 is {off} total {(FIRST + off + 1) % 10} ; "
        f"so {PROBLEM.answer}"
    )
    found = figures(call(text))
    assert found["sound_answers"] == (0.0, 1.0)
    assert found["wrong_starts_corrected"] == (1.0, 1.0)
    assert "first_wrong_step" not in found  # asked of wrong answers alone
    assert found["right_steps"] == (2 / 3, 3)
    assert found["steps_verified"] == (1 / 3, 3)  # neither the second sum nor the close follows


def test_talk_that_mends_a_wrong_opening():
    bad = world.solution_text(ITEMS, ((FIRST + 1) % 10, SECOND))
    mended = figures(call(bad, 0, "a"), call(RIGHT, 0, "b"), call(RIGHT, 1, "a"))
    assert mended["wrong_openings_corrected"] == (1.0, 1.0)
    missed = figures(call(bad, 0, "a"), call(bad, 1, "a"))
    assert missed["wrong_openings_corrected"] == (0.0, 1.0)
    # Most were right: nothing was to be corrected.
    fine = figures(call(bad, 0, "a"), call(RIGHT, 0, "b"), call(RIGHT, 0, "c"), call(bad, 1, "a"))
    assert "wrong_openings_corrected" not in fine


def test_the_final_call_states_the_answer_in_the_last_round_that_does():
    bad = world.solution_text(ITEMS, ((FIRST + 1) % 10, SECOND))
    calls = call(RIGHT, 0, "a"), call(bad, 1, "a"), call(RIGHT, 1, "b"), call("hm", 2, "c")
    assert final_call(debate(*calls, answer=PROBLEM.answer), GRADER).call_id == "b@1"
    assert final_call(debate(*calls, answer="none of these"), GRADER).call_id == "c@2"
    tool = call("so 3", 3, "t", model="tool:calculator/1")
    assert final_call(debate(*calls, tool, answer=PROBLEM.answer), GRADER).call_id == "b@1"
    assert final_call(debate(tool, answer="3"), GRADER) is None
    assert final_call(debate(answer=None), GRADER) is None


def test_nothing_to_measure():
    assert figures() == {}
    assert figures(call("  ")) == {"sound_answers": (0.0, 1.0)}
    assert figures(call(RIGHT), grader=OnlyGrader()) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from([RIGHT, ";", "so 3", "\n", "."])).map("".join))
)
def test_no_text_makes_it_fail(text):
    for figure in proxies(debate(call(text), answer="3"), GRADER):
        assert figure.weight > 0
        assert figure.value >= 0 and (figure.measure == "first_wrong_step" or figure.value <= 1)
    steps = step_texts(text)
    assert "".join(steps) == text or not text.strip()
    assert len(GRADER.consistent_steps(PROBLEM, steps)) == len(steps)


def test_texts_are_cut_into_steps():
    assert step_texts(" \n") == []
    assert step_texts("so 7") == ["so 7"]
    assert step_texts("a ; b ; so 7") == ["a ;", " b ;", " so 7"]
    assert step_texts("First.\nThen b; c.\n") == ["First.\n", "Then b; c.\n"]
    assert step_texts("One thing. Another, e.g. this. So.") == [
        "One thing.",
        " Another, e.g. this.",
        " So.",
    ]
    assert step_texts("a. b; c", "clause") == ["a. b;", " c"]
