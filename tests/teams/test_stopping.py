"""When repeats end: conditions on fields, shares of speakers, budgets, blocks within blocks."""

import dataclasses
from types import SimpleNamespace

import pytest

from arkjax.teams.rules import Budget, Condition, Reducer, Stop
from arkjax.teams.spec import TeamSpec
from arkjax.teams.stopping import Talk, holds, reason_to_stop

pytestmark = pytest.mark.fast


def said(*messages):
    """Messages written "stage/agent0 field=value field=value": the digit is the round."""
    calls = []
    for i, message in enumerate(messages):
        place, *fields = message.split(" ")
        stage, _, author = place.partition("/")
        parsed = dict(field.split("=") for field in fields)
        calls.append(
            SimpleNamespace(
                call_id=str(i), stage=stage, agent=author[0], round=int(author[1]), parsed=parsed
            )
        )
    return calls


def talk(*messages, **more):
    return Talk(said(*messages), ("a", "b", "c"), **more)


@pytest.mark.parametrize(
    ("condition", "messages", "expected"),
    [
        # The latest message in which the field could be read counts.
        (Condition("check.ok", equals="yes"), ["check/a0 ok=yes"], True),
        (Condition("check.ok", equals=" YES "), ["check/a0 ok=Yes"], True),
        (Condition("check.ok", equals="yes"), ["check/a0 ok=yes", "check/a1 ok=no"], False),
        (Condition("check.ok", equals="yes"), ["check/a0 ok=yes", "check/a1"], True),
        (Condition("check.ok", equals="yes"), ["other/a0 ok=yes"], False),
        (Condition("ok", equals="yes"), ["other/a0 ok=yes"], True),
        (Condition("ok", equals="yes"), [], False),
        # Numbers.
        (Condition("score", at_least=4), ["x/a0 score=4"], True),
        (Condition("score", at_least=4), ["x/a0 score=3.99"], False),
        (Condition("score", at_least=-1), ["x/a0 score=0"], True),
        (Condition("score", at_least=0), ["x/a0 score=nan"], False),
        (Condition("score", at_least=0), ["x/a0 score=many"], False),
        (Condition("score", at_least=0), ["x/a0"], False),
        # Shares: of all who spoke there, each by its latest message.
        (Condition("v.ok", equals="yes", share=1), ["v/a0 ok=yes", "v/b0 ok=yes"], True),
        (Condition("v.ok", equals="yes", share=1), ["v/a0 ok=yes", "v/b0 ok=no"], False),
        (Condition("v.ok", equals="yes", share=1), ["v/a0 ok=yes", "v/b0"], False),
        (Condition("ok", equals="yes", share=1), ["v/a0 ok=yes", "v/b0"], False),
        (Condition("ok", equals="yes", share=1), ["v/a0 ok=yes", "w/b0"], True),
        (Condition("v.ok", equals="yes", share=0.5), ["v/a0 ok=yes", "v/b0"], True),
        (Condition("v.ok", equals="yes", share=1), ["v/a0 ok=no", "v/a1 ok=yes"], True),
        (Condition("v.ok", equals="yes", share=1), ["v/a0 ok=yes", "v/a1"], False),
        (Condition("v.ok", equals="yes", share=0.1), [], False),
        # Of samples of one round, each counts.
        (Condition("v.ok", equals="yes", share=0.6), ["v/a0 ok=yes", "v/a0 ok=no"], False),
        # Missing: the latest message of the stage.
        (Condition("v.ok", missing=True), ["v/a0"], True),
        (Condition("v.ok", missing=True), ["v/a0", "v/b0 ok=x"], False),
        (Condition("v.ok", missing=True), ["v/a0 ok=x", "v/b0", "w/a1 ok=x"], True),
        (Condition("v.ok", missing=True), ["w/a0"], False),
    ],
)
def test_conditions(condition, messages, expected):
    assert holds(condition, talk(*messages)) == expected


def test_shares_are_what_they_say_whatever_their_binary_digits():
    """0.55 * 20 is more than 11, and 11 of 20 are 0.55."""
    for n in range(1, 40):
        for k in range(1, n + 1):
            messages = [f"v/{chr(97 + i)}0 ok={'yes' if i < k else 'no'}" for i in range(n)]
            condition = Condition("v.ok", equals="yes", share=k / n)
            assert holds(condition, talk(*messages))
            more = dataclasses.replace(condition, share=(k + 0.5) / n)
            assert not holds(more, talk(*messages))


def reason(stop, *messages, gold="7", **more):
    return reason_to_stop(
        stop, Reducer(), talk(*messages, **more), lambda a, b: a == b, lambda a: a == gold
    )


AGREED = ["x/a0 answer=7", "x/b0 answer=7", "x/c0 answer=7"]


@pytest.mark.parametrize(
    ("stop", "more", "expected"),
    [
        (Stop(), {}, ""),
        (Stop(every=True), {}, ""),
        (Stop(rounds=2), {"rounds": 1}, ""),
        (Stop(rounds=2), {"rounds": 2}, "rounds"),
        (Stop(tokens=100), {"tokens": 99}, ""),
        (Stop(tokens=100), {"tokens": 100}, "tokens"),
        (Stop(tokens=100, agree=1.0), {"tokens": 99}, "agree"),
        (Stop(tokens=100, agree=1.0), {"tokens": 100}, "tokens"),
        (Stop(tokens=100, agree=1.0, every=True), {"tokens": 99}, ""),
        (Stop(tokens=100, agree=1.0, every=True), {"tokens": 100}, "tokens+agree"),
        (Stop(oracle=True), {}, "oracle"),
        (Stop(oracle=True), {"gold": "8"}, ""),
        (Stop(when=(Condition("answer", equals="7"),)), {}, "answer"),
        (Stop(when=(Condition("answer", equals="8"), Condition("x.answer", at_least=7))), {},
         "x.answer"),
        (Stop(when=(Condition("answer", equals="8"), Condition("x.answer", at_least=7)),
              every=True), {}, ""),
        (Stop(when=(Condition("answer", equals="7"), Condition("x.answer", at_least=7)),
              every=True, rounds=1), {"rounds": 3}, "rounds+answer+x.answer"),
    ],
)  # fmt: skip
def test_rules(stop, more, expected):
    assert reason(stop, *AGREED, **more) == expected


def test_an_oracle_asks_the_voters_before_a_judge_has_spoken():
    judge = Reducer("judge", agent="z")
    found = reason_to_stop(
        Stop(oracle=True), judge, talk(*AGREED), lambda a, b: a == b, lambda a: a == "7"
    )
    assert found == "oracle"


def toy(schedule, **more):
    return TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [{"id": "a", "sampling": {"max_tokens": 10}}, {"id": "b"}],
            "stages": [{"name": name, "speakers": ["a"]} for name in ("x", "y", "z")],
            "schedule": schedule,
            **more,
        }
    )


def played(world, spec, say=lambda request, draw: "so 1"):
    (debate,) = world.play(spec, world.problems(1), world.Model(say=say))
    return "".join(call.stage for call in debate.calls), debate.stopped


AGREE = {"agree": 0.5}


@pytest.mark.parametrize(
    ("schedule", "stages", "stopped"),
    [
        (["x", {"repeat": ["y"], "max": 3, "min": 0, "stop": AGREE}, "z"], "xz", "agree"),
        (["x", {"repeat": ["y"], "max": 3, "min": 0, "stop": {}}, "z"], "xyyyz", ""),
        (["x", {"repeat": ["y"], "max": 3, "stop": {"rounds": 3}}], "xyy", "rounds"),
        (["x", {"repeat": ["y"], "max": 0}], "x", ""),
        # A block within a block has its own rule, or the team's.
        ([{"repeat": ["x", {"repeat": ["y"], "max": 2, "min": 0, "stop": AGREE}, "z"], "max": 2,
           "stop": {}}], "xzxz", "agree"),
        ([{"repeat": ["x", {"repeat": ["y"], "max": 2, "min": 0, "stop": {}}, "z"], "max": 2,
           "stop": AGREE}], "xyyz", "agree"),
        ([{"repeat": ["x", {"repeat": ["y"], "max": 2}], "max": 2, "stop": {}}], "xyyxyy", ""),
        # What ended a block does not speak for the one after it.
        (["x", {"repeat": ["y"], "max": 3, "min": 0, "stop": AGREE},
          {"repeat": ["z"], "max": 2, "min": 2}], "xzz", ""),
    ],
)  # fmt: skip
def test_blocks(world, schedule, stages, stopped):
    assert played(world, toy(schedule)) == (stages, stopped)


def test_a_block_takes_the_teams_rule_if_it_has_none(world):
    schedule = ["x", {"repeat": ["y"], "max": 3, "min": 0}]
    assert played(world, toy(schedule, stop=AGREE)) == ("x", "agree")
    assert toy(schedule, stop={"oracle": True}).uses_oracle
    inner = [
        "x",
        {"repeat": ["y", {"repeat": ["z"], "max": 1, "stop": {"oracle": True}}], "max": 1},
    ]
    assert toy(inner).uses_oracle and not toy(schedule).uses_oracle


@pytest.mark.parametrize("calls", range(4, 12))
def test_a_block_within_a_block_leaves_what_must_still_follow(world, calls):
    """The passes that the outer block must make are paid for before what is optional."""
    schedule = [
        {"repeat": ["x", {"repeat": ["y"], "max": 4, "min": 0, "stop": {}}], "max": 3, "min": 3},
        "z",
    ]
    spec = toy(schedule, budget={"calls": calls, "tokens": 10 * calls})
    stages, stopped = played(world, spec)
    assert len(stages) == calls and stages.count("x") == 3 and stages.endswith("z")
    assert stopped == "budget"


def test_a_budget_of_seconds_ends_talks(world):
    """Half a second a call in this world."""
    schedule = ["x", {"repeat": ["y"], "max": 9}, "z"]
    assert played(world, toy(schedule, budget={"seconds": 2})) == ("xyyyz", "budget")
    assert played(world, toy(schedule, budget={"seconds": 0.1})) == ("xyz", "budget")
    assert played(world, toy(schedule, budget={"seconds": 99.5}))[1] == ""


def test_tokens_end_a_talk(world):
    schedule = ["x", {"repeat": ["y"], "max": 9}]
    # "so 1" and its end are five tokens.
    assert played(world, toy(schedule, stop={"tokens": 14})) == ("xyy", "tokens")
    assert played(world, toy(schedule, stop={"tokens": 15})) == ("xyy", "tokens")
    assert played(world, toy(schedule, stop={"tokens": 16})) == ("xyyy", "tokens")


def test_a_rule_survives_its_dict():
    stop = {"when": [{"field": "answer", "at_least": 0.0}, {"field": "x.answer", "equals": "7"}],
            "every": True, "tokens": 9}  # fmt: skip
    spec = toy(["x", {"repeat": ["y", {"repeat": ["z"], "max": 2}], "max": 3, "stop": stop}])
    again = TeamSpec.from_config(spec.to_dict())
    assert again == spec and again.hash == spec.hash
    assert again.schedule[1].stop.when[0].at_least == 0.0
    changed = dataclasses.replace(spec.schedule[1], stop=None)
    other = dataclasses.replace(spec, schedule=("x", changed))
    assert other.hash != spec.hash
    assert dataclasses.replace(spec, budget=Budget(seconds=1.5)).hash != spec.hash
