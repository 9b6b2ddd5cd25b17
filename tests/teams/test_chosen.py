"""Speakers that a message names, orders of speaking, written roles, questions by message."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.teams.plans import Setting
from arkjax.teams.script import _Table
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast

TEAM = {
    "name": "toy",
    "agents": [
        {"id": "boss", "role": "the boss of all"},
        {"id": "ann", "tags": ["x"], "role": "Poet"},
        {"id": "bob", "tags": ["x"], "byline": "critic"},
        {"id": "eve", "tags": ["x"]},
    ],
    "stages": [
        {"name": "pick", "speakers": ["boss"], "parser": "json", "keys": ["next"]},
        {"name": "talk", "speakers": {"by": "pick.next", "among": "tag:x"}, "parser": "task"},
    ],
    "schedule": [{"repeat": ["pick", "talk"], "max": 3}],
    "reducer": {"kind": "last", "voters": "tag:x"},
}


def team(**chosen):
    data = json.loads(json.dumps(TEAM))
    data["stages"][1]["speakers"] |= chosen
    return TeamSpec.from_config(data)


def speakers(world, spec, *choices):
    """Who spoke in `talk`, given what the boss says in each round."""
    left = iter(choices)

    def say(request, draw):
        return next(left) if world.text_of(request).endswith("boss:") else "so 1"

    (debate,) = world.play(spec, world.problems(1), world.Model(say=say))
    return [call.agent for call in debate.calls if call.stage == "talk"]


def named(world, value, **chosen):
    words = json.dumps({"next": value})
    return speakers(world, team(**chosen), words, words, words)[: chosen.get("top", 1)]


@pytest.mark.parametrize(
    ("value", "who"),
    [
        ("bob", ["bob"]),
        (" BOB ", ["bob"]),
        ("Critic", ["bob"]),
        ("poet", ["ann"]),
        (2, ["bob"]),
        ("3", ["eve"]),
        ('"eve"', ["eve"]),
        # As an anonymous view has it: by the place in the team, where the boss is the first.
        ("agent 3", ["bob"]),
        ("Agent 4", ["eve"]),
        # What names nobody who can be chosen: who has spoken least, in the team's order.
        ("boss", ["ann"]),
        ("agent 1", ["ann"]),
        ("0", ["ann"]),
        ("4", ["ann"]),
        ("-1", ["ann"]),
        ("99999999999999999999999", ["ann"]),
        ("²", ["ann"]),
        ("", ["ann"]),
        (None, ["ann"]),
        ("[" * 5000, ["ann"]),
        ({"name": "bob"}, ["ann"]),
        ([["bob"]], ["ann"]),
        (True, ["ann"]),
    ],
)
def test_who_is_named(world, value, who):
    assert named(world, value) == who


@pytest.mark.parametrize(
    ("value", "top", "who"),
    [
        (["eve", "ann"], 2, ["eve", "ann"]),
        (["eve", "eve", 3, "bob"], 2, ["eve", "bob"]),
        (["eve"], 2, ["eve"]),
        (["nobody", "critic", "poet", "eve"], 3, ["bob", "ann", "eve"]),
        ([], 2, ["ann", "bob"]),
        (["agent 4", "agent 2"], 2, ["eve", "ann"]),
    ],
)
def test_several_speak_in_the_order_that_names_them(world, value, top, who):
    words = json.dumps({"next": value})
    spec = team(top=top)
    left = iter([words] * 3)

    def say(request, draw):
        return next(left) if world.text_of(request).endswith("boss:") else "so 1"

    model = world.Model(say=say)
    world.play(spec, world.problems(1), model)
    asked = [world.text_of(request).rpartition("#")[2] for request in model.requests[1:4]]
    heads = {"ann": "Poet:", "bob": "bob\ncritic:", "eve": "eve:"}
    assert asked[: len(who)] == [heads[name] for name in who]
    assert spec.cost(spec.stages[1]).calls == top


def test_without_a_choice_the_floor_goes_round_or_to_the_default(world):
    assert speakers(world, team(), "hm", "hm", "hm") == ["ann", "bob", "eve"]
    assert speakers(world, team(default="eve"), "hm", "hm", "hm") == ["eve"] * 3
    # A choice of before does not stand for one that could not be read.
    bob = '{"next": "bob"}'
    assert speakers(world, team(), bob, "hm", "hm") == ["bob", "ann", "eve"]


@settings(max_examples=200, deadline=None)
@given(st.text() | st.recursive(st.text() | st.integers() | st.none(), st.lists).map(json.dumps))
def test_no_text_breaks_a_choice(value):
    spec = team()
    table = _Table(Setting(spec, {}, None, 0, {}), None)
    assert set(table._resolve(value, ("ann", "bob", "eve"))) <= {"ann", "bob", "eve"}


def orders(world, order, view=None, names="abcd", seed=0):
    spec = TeamSpec.from_config(
        {
            "name": "row",
            "agents": [{"id": name} for name in names],
            "stages": [{"name": "talk", "order": order, "view": view or {}, "parser": "task"}],
            "schedule": ["talk", "talk"],
        }
    )
    model = world.Model(say=lambda request, draw: "so 1")
    world.play(spec, world.problems(1), model, None, seed)
    return [world.text_of(request).removeprefix("#what is 0") for request in model.requests]


def test_a_shuffled_row_hears_who_came_before_and_is_drawn_anew_each_time(world):
    rows = set()
    for seed in range(5):
        asked = orders(world, "shuffled", {"rounds": "all", "own": False}, seed=seed)
        for row in (asked[:4], asked[4:]):
            names = [text[-2] for text in row]
            assert sorted(names) == list("abcd")
            rows.add("".join(names))
        assert [text.count("so 1") for text in asked] == [0, 1, 2, 3, 3, 4, 5, 6]
    assert len(rows) > 5
    assert orders(world, "shuffled") == orders(world, "shuffled")


def test_a_graph_is_played_wave_by_wave(world):
    view = {"graph": "edges", "edges": [["c", "a"], ["a", "b"], ["c", "d"]], "own": False}
    asked = orders(world, "graph", view)[:4]
    assert asked == ["#c:", "#c:so 1##a:", "#c:so 1##d:", "#a:so 1##b:"]


def test_a_matrix_of_several_rounds_is_played_in_each_rounds_own_order(world):
    first, second = [[0, 0], [1, 0]], [[0, 1], [0, 0]]
    view = {"graph": "matrix", "matrix": [first, second], "own": False}
    assert orders(world, "graph", view, names="ab") == [
        "#a:", "#a:so 1##b:", "#b:", "#b:so 1##a:",
    ]  # fmt: skip


def test_each_message_is_asked_about_by_itself(world):
    spec = TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [{"id": "a"}, {"id": "b"}, {"id": "c"}],
            "stages": [
                {"name": "say", "speakers": ["a", "b"], "n_samples": 2},
                {
                    "name": "rate",
                    "speakers": ["c"],
                    "each": "message",
                    "n_samples": 3,
                    "parser": "verdict",
                    "on_parse_failure": "resample",
                    "resamples": 1,
                },
            ],
            "schedule": ["say", "rate"],
            "reducer": {"kind": "approvals", "weight": "verdict", "voters": ["a", "b"]},
        }
    )

    def say(request, draw):
        text = world.text_of(request)
        if text.endswith("#c:"):
            # Whether 2 is right, it says only when asked again.
            return "hm" if draw % 2 else ("yes" if "so 2" in text else "no")
        return f"so {1 + request.seed % 3}"

    (debate,) = world.play(spec, world.problems(1), world.Model(say=say))
    said, rated = debate.calls[:4], debate.calls[4:]
    assert all(len(call.parents) == 1 for call in rated)
    first = [call for call in rated if call.sample < 12]
    assert [c.parents[0] for c in first] == [c.call_id for c in said for _ in range(3)]
    again = {call.sample for call in rated if call.sample >= 12}
    assert again == {12 + call.sample for call in first if not call.parse_ok}
    assert len({call.seed for call in rated}) == len(rated) <= spec.cost(spec.stages[1]).calls == 24


def test_roles_are_those_that_were_written_last(world):
    spec = TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [
                {"id": "chief"},
                {"id": "a", "role": "You idle.", "role_from": ["plan.job", "mend.job"]},
            ],
            "stages": [
                {"name": "plan", "speakers": ["chief"], "parser": "json", "keys": ["job"]},
                {"name": "mend", "speakers": ["chief"], "parser": "json", "keys": ["job"]},
                {"name": "work", "speakers": ["a"], "view": "none"},
            ],
            "schedule": ["work", "plan", "work", "mend", "work", "plan", "work"],
        }
    )
    words = iter(['{"job": "You dig."}', '{"job": ["dig", 2]}', "no job"])

    def say(request, draw):
        return next(words) if world.text_of(request).endswith("chief:") else "so 1"

    model = world.Model(say=say)
    world.play(spec, world.problems(1), model)
    roles = [text.rpartition("#")[2] for r in model.requests
             if (text := world.text_of(r)).endswith("a:")]  # fmt: skip
    assert roles == ["You idle.\na:", "You dig.\na:", '["dig", 2]\na:', '["dig", 2]\na:']
