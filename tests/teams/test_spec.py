"""Teams as data: what is wrong with a config is said in one line, with its place."""

import copy

import pytest
from ml_collections import ConfigDict

from arkjax import teams
from arkjax.errors import ConfigError
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast

TEAM = {
    "name": "toy",
    "agents": [
        {"id": "ann", "role": "ann", "tags": ["expert"]},
        {"id": "bob", "role": "bob", "tags": ["expert"], "sampling": {"max_tokens": 10}},
        {"id": "eve", "role": "eve"},
    ],
    "stages": [
        {"name": "opening", "speakers": "tag:expert", "parser": "number"},
        {"name": "verdict", "speakers": ["eve"], "view": {"graph": "full"}, "parser": "number"},
    ],
    "schedule": ["opening", {"repeat": ["opening"], "max": 3, "min": 1}, "verdict"],
    "reducer": {"kind": "judge", "agent": "eve"},
    "stop": {"agree": 1.0},
    "budget": {"calls": 50, "tokens": 5000},
}


def changed(*path, value):
    team = copy.deepcopy(TEAM)
    place = team
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return team


def test_a_team_survives_its_dict_and_its_hash_follows_its_content():
    team = TeamSpec.from_config(TEAM)
    assert TeamSpec.from_config(team.to_dict()) == team
    assert TeamSpec.from_config(ConfigDict(TEAM)) == team
    assert TeamSpec.from_config(ConfigDict(TEAM), "elsewhere").hash == team.hash
    other = TeamSpec.from_config(changed("agents", 0, "role", value="anna"))
    assert len(team.hash) == 64 and other.hash != team.hash
    assert hash(team) != hash(other)


def test_teams_described_before_later_fields_keep_their_hash():
    """Recorded when a team had none of the fields that are `added`: its calls stay valid."""
    assert TeamSpec.from_config(TEAM).hash == (
        "9456076b285ea2c7704594e800b40fb645a8cb66c002e5d3f9c2840cd4acad0e"
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("reducr",),
            {},
            r"config\.team\.reducr: there is no field 'reducr'; did you mean 'reducer'",
        ),
        (("agents", 1, "rol"), "x", r"config\.team\.agents\[1\]\.rol.*did you mean 'role'"),
        (
            ("agents", 1, "sampling"),
            {"temprature": 1},
            r"agents\[1\]\.sampling\.temprature.*'temperature'",
        ),
        (
            ("agents", 1, "sampling"),
            {"temperature": -1.0},
            r"agents\[1\]\.sampling\.temperature is -1",
        ),
        (
            ("agents", 1, "sampling"),
            {"top_k": "x"},
            r"sampling\.top_k is 'x': expected a whole number",
        ),
        (
            ("agents", 1, "id"),
            "ann",
            r"config\.team\.agents: the id 'ann' stands there more than once",
        ),
        (("agents",), [], r"config\.team\.agents is empty"),
        (("agents",), 3, r"config\.team\.agents is 3: expected a list"),
        (("stages", 1, "name"), "opening", r"config\.team\.stages: the name 'opening'"),
        (
            ("stages", 1, "speakers"),
            ["evee"],
            r"stages\[1\]\.speakers: there is no agent 'evee'; did you mean 'eve'",
        ),
        (
            ("stages", 1, "speakers"),
            "tag:expart",
            r"there is no tag 'expart'; did you mean 'expert'",
        ),
        (
            ("stages", 1, "order"),
            "random",
            r"stages\[1\]\.order: there is no choice 'random'.*parallel, sequential",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "rings"},
            r"stages\[1\]\.view\.graph.*did you mean 'ring'",
        ),
        (
            ("stages", 1, "view"),
            {"edges": [["ann", "bob"]]},
            r"view\.edges is set, but the graph is 'full'.*set graph to 'edges'",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "star"},
            r"view\.hub is missing: the graph 'star' needs it",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "star", "hub": "zoe"},
            r"view\.hub: there is no agent 'zoe'",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "edges", "edges": [["ann", "zoe"]]},
            r"view\.edges\[0\].*'zoe'",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "edges", "edges": [["ann"]]},
            r"edges\[0\] is \['ann'\]: expected a list of 2",
        ),
        (
            ("stages", 1, "view"),
            {"graph": "groups", "groups": [["zoe"]]},
            r"view\.groups\[0\].*'zoe'",
        ),
        (("stages", 1, "parser"), "numbers", r"parser: .*did you mean 'number'"),
        (("stages", 1, "n_samples"), 0, r"n_samples is 0: it must be at least 1"),
        (("stages", 1, "n_samples"), True, r"n_samples is True: expected a whole number"),
        (("stages", 1, "on_parse_failure"), "resample", r"resamples is 0"),
        (
            ("schedule", 0),
            "openin",
            r"config\.team\.schedule\[0\]: there is no stage 'openin'; did you mean 'opening'",
        ),
        (
            ("schedule", 1),
            {"repeat": ["opening"]},
            r"schedule\[1\]\.max is missing: a repeat without a bound",
        ),
        (
            ("schedule", 1),
            {"repeat": ["opening"], "max": 1, "min": 2},
            r"min is 2: it must not exceed max = 1",
        ),
        (("schedule", 1), {"repeat": [], "max": 1}, r"repeat is empty"),
        (("schedule",), [], r"schedule plays no stage"),
        (("reducer",), {"kind": "judge"}, r"config\.team\.reducer\.agent is missing"),
        (("reducer", "agent"), "zoe", r"reducer\.agent: there is no agent 'zoe'"),
        (("reducer", "field"), "verdict", r"reducer\.field is 'verdict', which no parser"),
        (("reducer",), {"kind": "weighted_vote"}, r"reducer\.weight is missing"),
        (("stages", 1, "parser"), "none", r"reducer\.field is 'answer', which no parser"),
        (("schedule",), ["opening"], r"reducer needs eve to speak"),
        (("stop", "agree"), 1.5, r"stop\.agree is 1\.5: it is a share"),
        (
            ("budget", "calls"),
            4,
            r"config\.team\.budget\.calls is 4: one pass of the schedule can take 5",
        ),
        (
            ("budget", "tokens"),
            100,
            r"budget\.tokens is 100: one pass of the schedule can take 212",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(path, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TeamSpec.from_config(changed(*path, value=value))
    assert "\n" not in str(caught.value)


def test_a_field_may_be_missing_if_the_stage_says_so(world):
    team = changed("stages", 0, "parser", value="number+regex")
    team["stages"][0] |= {"pattern": "(?P<done>END)", "optional": ["done"]}
    team["stop"] = {"when": [{"field": "opening.done", "equals": "END"}]}
    (debate,) = world.play(TeamSpec.from_config(team), world.problems(1), world.Model())
    assert debate.parse_failures == 0
    team["stages"][0]["optional"] = ["dome"]
    with pytest.raises(ConfigError, match=r"stages\[0\]\.optional\[0\].*did you mean 'done'"):
        TeamSpec.from_config(team)


def test_equal_samples_are_refused():
    team = changed("agents", 2, "sampling", value={"temperature": 0.0})
    team["stages"][1]["n_samples"] = 2
    with pytest.raises(ConfigError, match="'eve' samples at temperature 0"):
        TeamSpec.from_config(team)


@pytest.mark.parametrize("pattern", ["", "(", r"(a+)+$", r"(a|a)*b", r"(.)\1", "a*b*c*d*", "(a?)*"])
def test_patterns_that_could_take_for_ever_are_refused(pattern):
    team = changed("stages", 1, "parser", value="regex")
    team["stages"][1]["pattern"] = pattern
    with pytest.raises(ConfigError, match=r"stages\[1\]\.pattern"):
        TeamSpec.from_config(team)


def test_named_groups_are_the_fields_of_a_pattern():
    team = changed("stages", 0, "parser", value="regex")
    team["stages"][0]["pattern"] = r"so (?P<answer>\d+) sure (?P<confidence>[0-9.]+)"
    team["reducer"] = {"kind": "weighted_vote", "weight": "confidence", "voters": "tag:expert"}
    assert TeamSpec.from_config(team).stages[0].fields == ("answer", "confidence")


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("vanilla", 1),
        ("self_consistency:n=5", 5),
        ("roles:n=3", 12),
        ("debate:rounds=3", 12),
        ("debate:rounds=1", 4),
        ("judge", 5),
        ("debate_judge:rounds=2,max_tokens=32", 9),
    ],
)
def test_shipped_teams_and_their_options(name, calls):
    team = teams.load(name)
    assert team.name == name.partition(":")[0]
    assert sum(team.cost(stage).calls for stage in team.unrolled(longest=True)) == calls
    assert not team.uses_oracle


def test_constructors_are_the_shipped_teams():
    assert teams.vanilla() == teams.load("vanilla")
    assert teams.self_consistency(5) == teams.load("self_consistency:n=5")
    assert teams.roles(n=2) == teams.load("roles:n=2")
    assert teams.debate(rounds=3, temperature=1.0) == teams.load("debate:rounds=3,temperature=1.0")
    assert teams.judge() == teams.load("judge")
    assert teams.debate_judge() == teams.load("debate_judge")
    experts = ["accountant", "watchman", "surveyor", "climber"]
    assert teams.debate(roles=experts) == teams.load("debate")


@pytest.mark.parametrize(
    ("old", "new"), [("single", "vanilla"), ("samples:n=3", "self_consistency")]
)
def test_names_of_older_runs_say_what_they_are_called_now(old, new):
    with pytest.raises(ConfigError, match=f"is called '{new}' now"):
        teams.load(old)


def test_constructors_take_agents_or_roles():
    team = teams.judge(agents=5)
    assert [agent.id for agent in team.agents] == [*(f"agent-{i}" for i in range(1, 6)), "judge"]
    assert {agent.role for agent in team.agents} == {"answer", "judge"}
    team = teams.debate(roles=["You are a poet.", "You doubt."])
    assert [agent.role for agent in team.agents] == ["You are a poet.", "You doubt."]
    with pytest.raises(ConfigError, match="agents is 3, but there are 1 roles"):
        teams.debate(agents=3, roles=["x"])
    with pytest.raises(ConfigError, match="agents is 0"):
        teams.debate(agents=0)


def test_teams_of_users(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"def get_config(arg=''):\n    return dict({TEAM!r}, name=arg or 'toy')\n")
    assert teams.load(f"{path}:other").name == "other"
    path.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="defines no get_config"):
        teams.load(str(path))
    path.write_text("def get_config(arg=''):\n    return {'name': int(arg)}\n")
    with pytest.raises(ConfigError, match=r"mine\.py:2 with the argument 'x': ValueError: invalid"):
        teams.load(f"{path}:x")
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(ConfigError, match=r"mine\.py:1: ModuleNotFoundError"):
        teams.load(str(path))
    path.write_text("def (\n")
    with pytest.raises(ConfigError, match="mine.py, line 1"):
        teams.load(str(path))
    with pytest.raises(ConfigError, match="does not exist"):
        teams.load(str(tmp_path / "none.py"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("debat", "did you mean 'debate'"),
        ("debate:round=3", "no option 'round'; did you mean 'rounds'"),
        ("debate:rounds=x", "rounds must be written rounds=2"),
        ("debate:rounds", "rounds must be written rounds=2"),
        ("debate:rounds=0", "max is -1"),
    ],
)
def test_wrong_names_and_options(name, message):
    with pytest.raises(ConfigError, match=message):
        teams.load(name)
