"""Configs of the whole language: nothing in them raises but a ConfigError with its place."""

import copy
import math

import pytest
from ml_collections import ConfigDict

from arkjax.errors import ConfigError
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast

TEAM = {
    "name": "toy",
    "tools": ["calculator", {"name": "lookup", "top": 3}],
    "agents": [
        {
            "id": "boss",
            "role": "boss",
            "tags": ["head"],
            "model": "policy",
            "sampling": {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
                         "max_tokens": 10, "stop_ids": [1], "stop": ["x"], "top_logprobs": 2},
            "seed_offset": 1,
            "byline": "chief",
            "role_from": ["plan.job"],
        },
        {"id": "ann", "tags": ["x"]},
        {"id": "bob", "tags": ["x"]},
        {"id": "calc", "tool": "calculator"},
    ],
    "stages": [
        {
            "name": "plan",
            "speakers": ["boss"],
            "order": "sequential",
            "view": {"graph": "matrix", "k": 2, "hub": "ann", "edges": [["ann", "bob"]],
                     "groups": [["ann", "bob"]], "rounds": "window", "window": 2, "own": False,
                     "show": "job", "order": "shuffled", "layout": "role_first", "authors": "tag:x",
                     "stages": ["plan"], "p": 0.3, "seed": 3, "matrix": [[[0, 1, 1, 1]] * 4],
                     "pick": "best", "pick_by": "rate.score", "anonymous": True},
            "n_samples": 2,
            "parser": "json+number",
            "pattern": "so",
            "choices": "AB",
            "on_parse_failure": "resample",
            "resamples": 2,
            "default": "x",
            "seed_group": "g",
            "instruction": "go",
            "keys": ["next", "job"],
            "tools": ["calculator"],
            "tool_calls": 2,
            "result_tokens": 9,
        },
        {
            "name": "talk",
            "speakers": {"by": "plan.next", "among": "tag:x", "top": 2, "default": "bob"},
        },
        {"name": "rate", "speakers": ["ann"], "each": "message", "parser": "scores"},
        {"name": "run", "speakers": ["calc"], "parser": "fields", "keys": ["status"],
         "view": {"graph": "full"}},
    ],
    "schedule": [
        "plan",
        {
            "repeat": ["talk", {"repeat": ["rate"], "max": 2, "min": 0}],
            "max": 3,
            "min": 1,
            "stop": {"rounds": 9, "agree": 0.5, "unchanged": 2, "oracle": False, "tokens": 99,
                     "every": True,
                     "when": [{"field": "rate.score", "at_least": 3.0, "share": 0.5},
                              {"field": "run.status", "equals": "ok"},
                              {"field": "plan.next", "missing": True}]},
        },
        "run",
    ],
    "reducer": {"kind": "approvals", "agent": "ann", "field": "answer", "weight": "score",
                "voters": ["ann", "bob"], "tie": "lowest", "scale": [[0.5, 1], [0.9, 2]],
                "latest": True},
    "stop": {"agree": 1.0},
    "budget": {"calls": 500, "tokens": 50000, "seconds": 9.5},
}  # fmt: skip
NOBODY = [[0] * 4] * 4
GARBAGE = [
    None, True, -1, 0, 7, 10**30, 2.5, math.nan, math.inf, "", "zz", "tag:", "tag:zz", "a.b", ".",
    "plan.", [], ["zz"], [1], [[]], [["ann"]], [None], [{}], {}, {"zz": 1}, {"graph": "ring"}, b"x",
]  # fmt: skip


def places(value, path=()):
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def put(data, path, value):
    team = copy.deepcopy(data)
    place = team
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return team


def test_a_team_of_all_parts_survives_its_dict():
    spec = TeamSpec.from_config(TEAM)
    again = TeamSpec.from_config(spec.to_dict())
    assert again == spec and again.hash == spec.hash and hash(again) == hash(spec)
    assert TeamSpec.from_config(ConfigDict(TEAM)).hash == spec.hash


def test_no_value_anywhere_raises_anything_else():
    """Each value in each place is taken, or refused in one line that names a field."""
    refused, taken = 0, 0
    for path in places(TEAM):
        for value in GARBAGE:
            try:
                spec = TeamSpec.from_config(put(TEAM, path, value))
            except ConfigError as error:
                refused += 1
                message = str(error)
                assert message.startswith("config.team"), (path, value, message)
                assert "\n" not in message and len(message) < 600, (path, value, message)
            else:
                taken += 1
                assert TeamSpec.from_config(spec.to_dict()).hash == spec.hash, (path, value)
    assert refused > 1500 and taken > 200


def test_every_part_counts_for_the_hash():
    """What differs has another hash, also in the parts that came later."""
    reference = TeamSpec.from_config(TEAM).hash
    for path, value in [
        (("agents", 0, "byline"), "other"),
        (("agents", 0, "role_from"), ["plan.next"]),
        (("stages", 0, "view", "anonymous"), False),
        (("stages", 0, "view", "p"), 0.4),
        (("stages", 0, "view", "pick"), "next"),
        (("stages", 0, "view", "matrix"), [[[1, 1, 1, 1]] * 4]),
        (("stages", 0, "tool_calls"), 1),
        (("stages", 0, "result_tokens"), 8),
        (("stages", 1, "speakers", "top"), 1),
        (("stages", 1, "speakers", "default"), "ann"),
        (("schedule", 1, "stop", "every"), False),
        (("schedule", 1, "stop", "when", 0, "at_least"), 2.0),
        (("reducer", "scale"), [[0.5, 1]]),
        (("reducer", "latest"), False),
        (("budget", "seconds"), 3.0),
        (("tools", 1, "top"), 4),
    ]:
        assert TeamSpec.from_config(put(TEAM, path, value)).hash != reference, path


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("agents", 0, "id"), "", r"agents\[0\]\.id is empty"),
        (("agents", 3, "tool"), "lookp", r"\[3\]\.tool: there is no tool of the team 'lookp'"),
        (("agents", 0, "role_from"), ["plan.jb"], r"\[0\]\.role_from\[0\] is 'plan\.jb'.*job"),
        (("agents", 0, "role_from"), ["pln.job"], r"role_from\[0\]: .*'pln'; did you mean 'plan'"),
        (("tools",), ["calculator", "calculator", "lookup"], r"tools: the tool 'calculator'"),
        (("tools",), ["lookup"], r"no tool of the team 'calculator'; .*known: lookup"),
        (("tools",), ["calculator", {"name": "lookup", "top": [3]}], r"tools\[1\]\.top is \[3\]"),
        (("stages", 0, "name"), "", r"stages\[0\]\.name is empty"),
        (("stages", 0, "tools"), ["calc"], r"stages\[0\]\.tools\[0\].*did you mean 'calculator'"),
        (("stages", 0, "tool_calls"), 0, r"tool_calls is 0: it must be at least 1"),
        (("stages", 0, "result_tokens"), 0, r"result_tokens is 0: it must be at least 1"),
        (("stages", 0, "keys"), [], r"stages\[0\]\.keys is empty: name the fields"),
        (("stages", 0, "keys"), ["next", "job", "odd"], r"parser reads 'odd', which nothing asks"),
        (("stages", 0, "parser"), "json+numbr", r"parser: .*'numbr'; did you mean 'number'"),
        (("stages", 0, "parser"), "json+fields", r"parser is 'fields', but 'boss' is no tool"),
        (("stages", 3, "parser"), "number", r"parser is 'number', but 'calc' is a tool"),
        (("stages", 0, "order"), "shufled", r"order: .*did you mean 'shuffled'"),
        (("stages", 0, "view", "show"), "jb", r"view\.show is 'jb', but .*known: .*job.*no_think"),
        (("stages", 0, "view", "authors"), "tag:y", r"view\.authors: there is no tag 'y'"),
        (("stages", 0, "view", "authors"), ["anne"], r"view\.authors: .*did you mean 'ann'"),
        (("stages", 0, "view", "authors"), [], r"view\.authors is empty"),
        (("stages", 0, "view", "stages"), ["pln"], r"view\.stages\[0\].*did you mean 'plan'"),
        (("stages", 0, "view", "p"), 1.5, r"view\.p is 1\.5: it is a probability"),
        (("stages", 0, "view", "p"), math.nan, r"view\.p is nan"),
        (("stages", 0, "view", "matrix"), [], r"view\.matrix is missing"),
        (("stages", 0, "view", "matrix"), [[[0, 1]] * 2], r"matrix\[0\] is not 4 rows of 4"),
        (("stages", 0, "view", "matrix"), [[[0, 2, 0, 0]] * 4], r"matrix\[0\] is .*of 0 and 1"),
        (("stages", 0, "view", "pick_by"), "", r"view\.pick_by is missing"),
        (("stages", 0, "view", "pick_by"), "rate.scor", r"pick_by is .*reads 'scor'; known: score"),
        (("stages", 1, "speakers", "by"), "next.plan", r"speakers\.by: there is no stage 'next'"),
        (("stages", 1, "speakers", "by"), "plan.nxt", r"speakers\.by is 'plan\.nxt'.*job, next"),
        (("stages", 1, "speakers", "among"), ["an"], r"speakers\.among: .*did you mean 'ann'"),
        (("stages", 1, "speakers", "top"), 0, r"speakers\.top is 0"),
        (("stages", 1, "speakers", "default"), "boss", r"default is 'boss'.*one of ann, bob"),
        (("stages", 1, "speakers", "bye"), "x", r"speakers\.bye: .*did you mean 'by'"),
        (("stages", 2, "each"), "mesage", r"each: .*did you mean 'message'"),
        (("stages", 2, "view"), "none", r"each is 'message', but its view shows no message"),
        (("schedule", 1, "repeat", 1, "max"), None, r"schedule\[1\]\.repeat\[1\]\.max is missing"),
        (("schedule", 1, "repeat", 1, "repeat"), ["rte"], r"repeat\[1\]\.repeat\[0\]: .*'rate'"),
        (("schedule", 1, "stop", "when", 0), {"field": "rate.score"}, r"when\[0\]: say what"),
        (("schedule", 1, "stop", "when", 0, "equals"), "4", r"when\[0\]: say what the field must"),
        (("schedule", 1, "stop", "when", 0, "share"), 1.1, r"when\[0\]\.share is 1\.1"),
        (("schedule", 1, "stop", "when", 2, "share"), 0.5, r"when\[2\]\.share is 0\.5, but"),
        (("schedule", 1, "stop", "when", 0, "field"), "rate.x", r"when\[0\]\.field is 'rate\.x'"),
        (("schedule", 1, "stop", "agree"), math.nan, r"schedule\[1\]\.stop\.agree is nan"),
        (("stop", "when"), [{"field": "odd", "equals": "x"}], r"stop\.when\[0\]\.field is 'odd'"),
        (("reducer", "scale"), [[1, 2, 3]], r"reducer\.scale\[0\] is \[1, 2, 3\]: expected two"),
        (("reducer", "weight"), "", r"reducer\.weight is missing: approvals compares"),
        (("reducer", "kind"), "approval", r"reducer\.kind: .*did you mean 'approvals'"),
        (("reducer",), {"kind": "synthesize"}, r"reducer\.agent is missing"),
        (("schedule", 1, "max"), 10**9, r"schedule can play 3000000002 stages, 1000 at most: low"),
        (("schedule", 1, "repeat", 1, "max"), 10**30, r"schedule can play 3\d* stages"),
        (("budget", "seconds"), -1.0, r"budget\.seconds is -1"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_place_and_the_remedy(path, value, message):
    with pytest.raises(ConfigError, match=r"^config\.team.*" + message) as caught:
        TeamSpec.from_config(put(TEAM, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("view", "who"),
    [
        ({"graph": "full"}, "boss, ann, bob"),
        ({"graph": "ring"}, "boss, ann, bob"),
        ({"graph": "edges", "edges": [["ann", "bob"], ["bob", "ann"]]}, "ann, bob"),
        ({"graph": "matrix", "matrix": [NOBODY, [[0, 1, 0, 0], [1, 0, 0, 0], *NOBODY[2:]]]},
         "boss, ann"),
    ],
)  # fmt: skip
def test_those_who_wait_for_each_other_are_named(view, who):
    stage = {"name": "talk", "order": "graph", "view": view, "speakers": ["boss", "ann", "bob"]}
    with pytest.raises(ConfigError, match=rf"stages\[1\]\.view: .*'graph' {who} wait for each"):
        TeamSpec.from_config(put(TEAM, ("stages", 1), stage))


def test_a_team_of_tools_alone_is_refused():
    data = {
        "name": "tools",
        "tools": ["calculator"],
        "agents": [{"id": "calc", "tool": "calculator"}],
        "stages": [{"name": "run", "parser": "none"}],
        "schedule": ["run"],
        "reducer": "all",
    }
    with pytest.raises(ConfigError, match=r"config\.team\.agents are all tools"):
        TeamSpec.from_config(data)
