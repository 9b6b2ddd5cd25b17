"""Which of the team's prompts the teacher takes, how much each weighs, and which examples count."""

import dataclasses

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.storage import plain
from arkjax.synthesis.contexts import (
    ContextConfig,
    TeacherContext,
    agent_accuracy,
    plain_view,
    teacher_contexts,
    teacher_prompts,
    teacher_views,
)
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit

pytestmark = pytest.mark.fast

LAST = ContextConfig("last", "all", 9)


def with_(**changes) -> ContextConfig:
    return dataclasses.replace(LAST, **changes)


@pytest.fixture
def debate(call):
    """Agents a (wrong, then right), b (right twice), c (wrong twice); a judge who is right.

    Every prompt is (round, letter). The right answer is 3.
    """
    answers = {"a": "43", "b": "33", "c": "44"}
    calls = [call(said[0], agent=agent, prompt=(0, ord(agent))) for agent, said in answers.items()]
    calls += [
        call(said[1], agent=agent, round=1, prompt=(1, ord(agent)), parents=tuple(calls[:3]))
        for agent, said in answers.items()
    ]
    calls.append(call("3", agent="j", round=2, prompt=(2, ord("j")), parents=tuple(calls[3:])))
    return calls


def source(call) -> dict:
    return {"problem_id": call.problem_id, "call_ids": [call.call_id]}


def named(view) -> dict[str, float]:
    return {f"{c.prompt[0]}{chr(c.prompt[1])}": c.weight for c in view.contexts}


def test_fields_that_came_later_leave_the_hash_of_older_configs():
    assert plain(LAST) == {"rounds": "last", "agents": "all", "most": 9}
    assert plain(with_(gate="verified"))["gate"] == "verified"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["2j"]),
        ({"speakers": "judge"}, ["2j"]),
        ({"speakers": "debaters"}, ["1a", "1b", "1c"]),
        ({"speakers": "debaters", "rounds": "first"}, ["0a", "0b", "0c"]),
        ({"speakers": "debaters", "agents": "correct"}, ["1a", "1b"]),
        ({"speakers": "judge", "rounds": "all"}, ["2j"]),
        ({"rounds": "all", "most": 3}, ["2j", "1a", "1b"]),
    ],
)
def test_contexts_by_name(debate, grader, changes, expected):
    view = teacher_contexts(debate, source(debate[0]), with_(**changes), grader)
    assert list(named(view)) == expected
    assert [c.prompt for c in view.contexts] == teacher_prompts(debate, with_(**changes))
    assert named(view) == pytest.approx(dict.fromkeys(expected, 1 / len(expected)))
    assert view.gate == 1.0
    again = teacher_contexts(debate[::-1], source(debate[0]), with_(**changes), grader)
    assert again == view


def test_a_judge_that_was_not_called_is_missed_only_where_there_is_none_at_all(debate, grader):
    config = with_(speakers="judge")
    # One debate ended before the judge was asked: its last round is taken.
    other = [dataclasses.replace(c, problem_id="p2") for c in debate[:6]]
    examples = [source(debate[0]), source(other[0])]
    views = teacher_views({"p1": debate, "p2": other}, examples, config, grader)
    assert [list(named(view)) for view in views] == [["2j"], ["1a", "1b", "1c"]]
    with pytest.raises(ConfigError, match="nobody speaks in the last round alone"):
        teacher_views({"p2": other}, examples[1:], config, grader)
    # Independent answers are read by nobody and read nobody: no judge among them.
    alone = [c for c in other if c.round == 0]
    with pytest.raises(ConfigError, match="judge"):
        teacher_views({"p2": alone}, examples[1:], config, grader)


DEBATERS = {"speakers": "debaters"}


def test_right_answers_weigh(debate, grader):
    config = with_(**DEBATERS, weights="correctness", rounds="all")
    view = teacher_contexts(debate, source(debate[0]), config, grader)
    assert named(view) == pytest.approx({"1a": 1 / 3, "1b": 1 / 3, "0b": 1 / 3})
    # Of samples of one prompt, the share that is right.
    samples = [
        dataclasses.replace(debate[0], call_id=f"s{i}", sample=i, correct=i < 1) for i in range(4)
    ]
    view = teacher_contexts(
        [*samples, debate[1]], source(debate[1]), with_(weights="correctness"), grader
    )
    assert named(view) == pytest.approx({"0a": 0.2, "0b": 0.8})
    wrong = [c for c in debate if c.agent == "c"]
    view = teacher_contexts(wrong, source(wrong[0]), config, grader)
    assert named(view) == pytest.approx({"1c": 0.5, "0c": 0.5})


def test_agents_weigh_by_how_often_they_are_right(debate, call, grader):
    other = [call("4", agent=a, problem="p2", prompt=(0, ord(a))) for a in "ab"]
    calls = {"p1": debate, "p2": other}
    assert agent_accuracy(calls) == {"a": 0.5, "b": 0.5, "c": 0.0, "j": 1.0}
    config = with_(weights="accuracy", rounds="all", most=9)
    (view,) = teacher_views(calls, [source(debate[0])], config, grader)
    of_agent = {"j": 1.0, "a": 0.5, "b": 0.5}
    total = 1.0 + 4 * 0.5
    assert named(view) == pytest.approx(
        {name: of_agent[name[1]] / total for name in ("2j", "1a", "1b", "0a", "0b")}
    )
    with pytest.raises(ConfigError, match="accuracy"):
        teacher_contexts(debate, source(debate[0]), config, grader)


def test_credit_weighs_by_its_rank(debate, grader):
    corrected = {"a": 0.0, "b": 2.0, "c": -1.0}
    attribution = Attribution.of(
        [MessageCredit(c.call_id, "p1", c.agent, c.round, 0, 0, False, False) for c in debate],
        [
            AgentCredit("p1", agent, max(x, 0), max(-x, 0), False, False)
            for agent, x in corrected.items()
        ],
    )
    config = with_(**DEBATERS, weights="attribution")
    view = teacher_contexts(debate, source(debate[0]), config, grader, attribution=attribution)
    # Ranks 2, 3 and 1 of three: (1/2 + (r - 1/2) / 3) / 3.
    assert named(view) == pytest.approx({"1a": 1 / 3, "1b": 4 / 9, "1c": 2 / 9})
    with pytest.raises(ConfigError, match="not attributed"):
        teacher_contexts(debate, source(debate[0]), config, grader)


def test_the_majority_weighs_and_no_gold_answer_is_looked_at(debate, grader):
    blind = [dataclasses.replace(c, correct=None) for c in debate]
    config = with_(**DEBATERS, weights="consensus", gate="consensus", agreement=0.75)
    assert not config.uses_gold
    view = teacher_contexts(blind, source(blind[1]), config, grader)
    # Last answers: a, b and the judge say 3, c says 4.
    assert named(view) == pytest.approx({"1a": 3 / 7, "1b": 3 / 7, "1c": 1 / 7})
    assert view.gate == 1.0
    silent = [dataclasses.replace(c, parsed={}) for c in blind]
    view = teacher_contexts(silent, source(silent[0]), config, grader)
    assert view.gate == 0.0
    assert named(view) == pytest.approx(dict.fromkeys(["1a", "1b", "1c"], 1 / 3))


@pytest.mark.parametrize(
    ("own", "gate", "agreement", "open_"),
    [
        ("0b", "none", 0.5, True),
        ("0b", "verified", 0.5, True),
        ("0c", "verified", 0.5, False),
        ("1c", "verified", 0.5, False),
        ("0b", "consensus", 0.75, True),
        ("0b", "consensus", 0.76, False),
        ("0c", "consensus", 0.25, True),
        ("0c", "consensus", 0.26, False),
    ],
)
def test_gates_of_examples(debate, grader, own, gate, agreement, open_):
    (call,) = [c for c in debate if f"{c.round}{c.agent}" == own]
    config = with_(**DEBATERS, gate=gate, agreement=agreement)
    assert teacher_contexts(debate, source(call), config, grader).gate == open_


def test_a_right_example_needs_a_right_context_to_be_verified(debate, grader):
    # Nobody was right at first but b, whose prompt the limit leaves out.
    config = with_(rounds="first", gate="verified", most=1)
    assert teacher_contexts(debate, source(debate[1]), config, grader).gate == 0.0
    config = dataclasses.replace(config, agents="correct")
    assert teacher_contexts(debate, source(debate[1]), config, grader).gate == 1.0


def test_an_example_may_say_its_answer_itself(debate, grader):
    written = {"problem_id": "p1", "call_ids": ["elsewhere"], "answer": "3", "correct": True}
    for gate in ("verified", "consensus"):
        config = with_(gate=gate)
        assert teacher_contexts(debate, written, config, grader).gate == 1.0
        wrong = written | {"answer": "9", "correct": False}
        assert teacher_contexts(debate, wrong, config, grader).gate == 0.0
        with pytest.raises(DataError, match="call elsewhere .* problem p1 .*team's"):
            teacher_contexts(
                debate, {"problem_id": "p1", "call_ids": ["elsewhere"]}, config, grader
            )


def test_a_problem_without_calls_is_named(debate, grader):
    with pytest.raises(DataError, match="no call on problem p7"):
        teacher_views({"p1": debate}, [{"problem_id": "p7"}], LAST, grader)


def test_shares_must_be_shares():
    for name in ("agreement", "token_agreement"):
        for value in (0.0, 1.5):
            with pytest.raises(ConfigError, match=f"teacher.contexts.{name} is {value}"):
                with_(**{name: value})


def test_plain_prompts_are_alike():
    contexts = plain_view([[1, 2], [3]]).contexts
    assert contexts == (TeacherContext((1, 2), 0.5), TeacherContext((3,), 0.5))
