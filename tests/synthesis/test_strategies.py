"""Students by name, and the examples that they learn from."""

import dataclasses

import pytest

from arkjax.errors import ConfigError
from arkjax.synthesis.contexts import ContextConfig, teacher_prompts
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.strategies import (
    CONTROLS,
    PHASES,
    stack,
    strategy,
    with_prefixes,
)

from .selecting import select

pytestmark = pytest.mark.fast
RUN = SelectionConfig(max_traces=3, min_agreeing=2, prefer_corrective=True)


# --- strategies -----------------------------------------------------------------------------------


def test_an_unknown_student_is_told_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'student_rsft'"):
        strategy("student_rfst")
    with pytest.raises(ConfigError, match="There are student_rsft, "):
        strategy("xyzzy")
    with pytest.raises(ConfigError, match="unknown strategy 'dda': did you mean 'da'"):
        stack(["rsft", "dda"])
    with pytest.raises(ConfigError, match="at least one phase: there are rsft, "):
        stack([])


@pytest.mark.parametrize(
    ("phases", "name"),
    [
        (["rsft"], "student_rsft"),
        (["rsft", "da"], "student_rsft_then_da"),
        (["pad", "da"], "student_pad_then_da"),
        (["sequence+logit"], "student_sequence+logit"),
        (["da", "on_policy", "grpo"], "student_da_then_on_policy_then_grpo"),
        (["no_debate"], "control_no_debate"),
        (["answer_only", "da"], "student_answer_only_then_da"),
    ],
)
def test_a_stack_and_its_students_name_are_the_same(phases, name):
    assert stack(phases).student == name
    assert strategy(name) == stack(phases)


@pytest.mark.parametrize(
    "name", ["control_da", "student_no_debate", "student_", "rsft", "student_rsft_then_"]
)
def test_a_student_has_one_name(name):
    with pytest.raises(ConfigError, match="unknown student"):
        strategy(name)


def test_a_misspelt_stack_is_recognised():
    with pytest.raises(ConfigError, match="did you mean 'student_rsft_then_da'"):
        strategy("student_rsft_then_daa")


def test_what_later_phases_begin_with_is_trained_before_and_once():
    asked = ["student_rsft_then_da", "student_da", "student_rsft_then_pad", "student_rsft"]
    made = with_prefixes(asked)
    assert list(made) == [
        "student_rsft",
        "student_rsft_then_da",
        "student_da",
        "student_rsft_then_pad",
    ]
    assert made["student_rsft_then_pad"].before == made["student_rsft"]
    assert made["student_rsft"].before is None


def test_names_say_what_a_student_learns_from():
    for name, phase in PHASES.items():
        assert name == phase.name
        if phase.dataset is None:
            assert phase.learns in ("pad", "grpo")
            continue
        assert (phase.dataset.gate == "team") == name.endswith("_unverified")
        assert phase.dataset.source == "team" or name in CONTROLS
    assert PHASES["single_agent"].dataset.source == "single_agent"
    assert PHASES["no_debate"].dataset.source == "roles"
    assert PHASES["answer_only"].dataset.form == "answer_only"


def test_a_twin_differs_in_its_gate_alone():
    for name, phase in PHASES.items():
        if not name.endswith("_unverified"):
            continue
        other = PHASES[name.removesuffix("_unverified")]
        dataset = dataclasses.replace(phase.dataset, name=other.dataset.name, gate="gold")
        assert dataclasses.replace(phase, name=other.name, dataset=dataset) == other


def test_datasets_are_shared_only_by_phases_that_select_alike():
    by_name = {}
    for phase in PHASES.values():
        if phase.dataset is None:
            continue
        assert by_name.setdefault(phase.dataset.name, phase.dataset) == phase.dataset


def test_no_student_without_gold_answers_meets_them_in_its_teacher():
    # The teacher's contexts may be chosen by verdicts.
    with_teacher = [phase for phase in PHASES.values() if phase.needs_teacher]
    assert with_teacher and all(phase.dataset.gate == "gold" for phase in with_teacher)


def test_rsft_takes_one_trace_and_da_distinct_ones_that_differ(call, grader):
    lines = [(1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 7), (9, 8, 7, 6, 5, 4), (1, 2, 3, 4, 5, 6)]
    calls = [call(agent=agent, words=words) for agent, words in zip("abcd", lines, strict=True)]
    calls += [call(problem="p2", agent=agent) for agent in "abcde"]
    one, _ = select(calls, {}, grader, PHASES["rsft"].dataset.selection(RUN))
    assert [t.call.problem_id for t in one] == ["p1", "p2"]
    several, counts = select(calls, {}, grader, PHASES["da"].dataset.selection(RUN))
    assert [t.call.problem_id for t in several] == ["p1"] * 3 + ["p2"] * 3
    assert counts.repeated == 1 and counts.beyond_limit == 2
    # The farthest from the first is the second choice.
    assert [t.call.agent for t in several[:3]] == ["a", "c", "b"]
    assert {t.call.call_id for t in one} <= {t.call.call_id for t in several}


# --- the teacher's contexts -----------------------------------------------------------------------


@pytest.fixture
def debate(call):
    """Agents a (wrong, then right), b (right twice) and c (wrong twice); every prompt its own."""
    answers = {"a": "43", "b": "33", "c": "44"}
    return [
        call(said[r], agent=agent, round=r, prompt=(r, ord(agent)))
        for agent, said in answers.items()
        for r in (0, 1)
    ]


@pytest.mark.parametrize(
    ("rounds", "agents", "most", "expected"),
    [
        ("first", "all", 9, ["0a", "0b", "0c"]),
        ("last", "all", 9, ["1a", "1b", "1c"]),
        ("all", "all", 9, ["1a", "1b", "1c", "0a", "0b", "0c"]),
        ("first", "correct", 9, ["0b"]),
        ("last", "correct", 9, ["1a", "1b"]),
        ("all", "correct", 9, ["1a", "1b", "0b"]),
        # Earlier rounds are dropped first.
        ("all", "all", 4, ["1a", "1b", "1c", "0a"]),
        ("last", "correct", 1, ["1a"]),
    ],
)
def test_contexts_are_the_recorded_prompts(debate, rounds, agents, most, expected):
    prompts = teacher_prompts(debate, ContextConfig(rounds, agents, most))
    assert [f"{r}{chr(agent)}" for r, agent in prompts] == expected
    assert teacher_prompts(debate[::-1], ContextConfig(rounds, agents, most)) == prompts


def test_where_nobody_was_right_everybody_is_heard(debate):
    wrong = [c for c in debate if c.agent == "c"]
    prompts = teacher_prompts(wrong, ContextConfig("last", "correct", 4))
    assert prompts == [(1, ord("c"))]


def test_a_prompt_counts_once_however_often_it_was_sampled(call):
    calls = [call(sample=i, prompt=(5, 6)) for i in range(3)] + [call(agent="b", prompt=(7,))]
    assert teacher_prompts(calls, ContextConfig("all", "all", 4)) == [(5, 6), (7,)]


def test_no_context_at_all_is_refused():
    with pytest.raises(ConfigError, match="most is 0"):
        ContextConfig("last", "all", 0)
