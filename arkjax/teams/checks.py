"""Finds what is wrong with a team before any call is made, and says where in its config."""

from collections.abc import Iterator

from arkjax.errors import ConfigError
from arkjax.teams.fields import unknown_name
from arkjax.teams.primitives import SHOWS, Chosen, Selector, Stage
from arkjax.teams.rules import DECIDERS, Item, Repeat
from arkjax.teams.team import Team, total
from arkjax.teams.views import levels

MOST_PLAYS = 1000
"""Stages that a play may have: what it can cost is counted by going through them."""


def check(team: Team, path: str) -> None:
    """Make sure that a team can be played.

    Args:
      team: the team.
      path: where it stands in a config.

    Raises:
      ConfigError: one line with the field's dotted path, what is wrong and what may stand there.
    """
    _check_agents(team, path)
    for i, stage in enumerate(team.stages):
        _check_stage(team, stage, f"{path}.stages[{i}]")
    _check_schedule(team, path)
    _check_reducer(team, path)
    _check_fields(team, path)
    _check_budget(team, path)


def _check_agents(team: Team, path: str) -> None:
    if not team.name:
        raise ConfigError(f"{path}.name is empty")
    if not team.agents:
        raise ConfigError(f"{path}.agents is empty: a team needs an agent")
    _unique([agent.id for agent in team.agents], f"{path}.agents", "id")
    _unique([stage.name for stage in team.stages], f"{path}.stages", "name")
    _unique([tool.name for tool in team.tools], f"{path}.tools", "tool")
    if all(agent.tool for agent in team.agents):
        raise ConfigError(f"{path}.agents are all tools: a team needs one that a model plays")
    for i, agent in enumerate(team.agents):
        if not agent.id:
            raise ConfigError(f"{path}.agents[{i}].id is empty: every agent needs an id")
        if agent.tool:
            _check_tool(team, agent.tool, f"{path}.agents[{i}].tool")


def _check_stage(team: Team, stage: Stage, at: str) -> None:
    if not stage.name:
        raise ConfigError(f"{at}.name is empty: every stage needs a name")
    _check_speakers(team, stage, f"{at}.speakers")
    _check_view(team, stage, f"{at}.view")
    for j, tool in enumerate(stage.tools):
        _check_tool(team, tool, f"{at}.tools[{j}]")
    if stage.order == "graph":
        try:
            for turn in range(len(stage.view.matrix) or 1):
                levels(stage.view, team.select(stage.speakers), team.ids, turn)
        except ValueError as error:
            raise ConfigError(
                f"{at}.view: in the order 'graph' {error}: let the edges run one way"
            ) from None
    if stage.each and stage.view.graph == "none":
        raise ConfigError(f"{at}.each is 'message', but its view shows no message")
    for j, field in enumerate(stage.optional):
        if field not in stage.fields:
            raise unknown_name(f"{at}.optional[{j}]", field, stage.fields, "field of the parser")
    for name in team.select(stage.speakers):
        agent = team.agent(name)
        if agent.tool:
            if stage.parser not in ("none", "fields"):
                raise ConfigError(
                    f"{at}.parser is {stage.parser!r}, but {name!r} is a tool, whose results are"
                    " read by 'fields', with keys, or not at all ('none')"
                )
        elif "fields" in stage.parsers:
            raise ConfigError(f"{at}.parser is 'fields', but {name!r} is no tool")
        elif stage.n_samples > 1 and agent.sampling.temperature == 0:
            raise ConfigError(
                f"{at}.n_samples is {stage.n_samples}, but agent {name!r} samples at"
                " temperature 0: all samples would be equal; raise its temperature"
            )


def _check_speakers(team: Team, stage: Stage, at: str) -> None:
    speakers = stage.speakers
    if not isinstance(speakers, Chosen):
        _check_selector(team, speakers, at)
        return
    _check_selector(team, speakers.among, f"{at}.among")
    if speakers.default:
        _check_agent(team, speakers.default, f"{at}.default")
        if speakers.default not in team.select(speakers.among):
            raise ConfigError(
                f"{at}.default is {speakers.default!r}, who cannot be chosen: name one of"
                f" {', '.join(team.select(speakers.among))}"
            )


def _check_view(team: Team, stage: Stage, at: str) -> None:
    view = stage.view
    named = [
        *(("hub", name) for name in [view.hub] if name),
        *((f"edges[{j}]", name) for j, edge in enumerate(view.edges) for name in edge),
        *((f"groups[{j}]", name) for j, group in enumerate(view.groups) for name in group),
    ]
    for field, name in named:
        _check_agent(team, name, f"{at}.{field}")
    _check_selector(team, view.authors, f"{at}.authors")
    names = [stage.name for stage in team.stages]
    for j, name in enumerate(view.stages):
        if name not in names:
            raise unknown_name(f"{at}.stages[{j}]", name, names, "stage")
    size = len(team.agents)
    for j, rows in enumerate(view.matrix):
        if len(rows) != size or any(len(row) != size for row in rows):
            raise ConfigError(
                f"{at}.matrix[{j}] is not {size} rows of {size}, one for each of the team's agents"
            )
    heard = [team.stage(name) for name in view.stages] or team.stages
    fields = {field for stage in heard for field in stage.fields}
    if view.show not in SHOWS and view.show not in fields:
        raise ConfigError(
            f"{at}.show is {view.show!r}, but no stage's parser reads such a field; known: "
            f"{', '.join(sorted((*SHOWS, *fields)))}"
        )


def _check_schedule(team: Team, path: str) -> None:
    names = [stage.name for stage in team.stages]
    for at, item in _places(team.schedule, f"{path}.schedule"):
        if isinstance(item, str) and item not in names:
            raise unknown_name(at, item, names, "stage")
    plays = _plays(team.schedule)
    if plays > MOST_PLAYS:
        raise ConfigError(
            f"{path}.schedule can play {plays} stages, {MOST_PLAYS} at most: lower the max of its"
            " repeats"
        )
    if not plays:
        raise ConfigError(f"{path}.schedule plays no stage: name at least one")


def _plays(items: tuple[Item, ...]) -> int:
    """How many stages the longest play has."""
    return sum(item.max * _plays(item.stages) if isinstance(item, Repeat) else 1 for item in items)


def _places(items: tuple[Item, ...], path: str) -> Iterator[tuple[str, Item]]:
    for i, item in enumerate(items):
        yield f"{path}[{i}]", item
        if isinstance(item, Repeat):
            yield from _places(item.stages, f"{path}[{i}].repeat")


def _check_reducer(team: Team, path: str) -> None:
    reducer, at = team.reducer, f"{path}.reducer"
    if reducer.agent:
        _check_agent(team, reducer.agent, f"{at}.agent")
    _check_selector(team, reducer.voters, f"{at}.voters")
    if reducer.kind == "all":
        return
    heard = team.voters
    if reducer.kind in (*DECIDERS, "last") and reducer.agent:
        heard = (reducer.agent,)
    played = list(team.unrolled(longest=True))
    stages = [stage for stage in played if set(heard) & set(team.select(stage.speakers))]
    if not stages:
        listed = ", ".join(heard)
        raise ConfigError(f"{at} needs {listed} to speak, but no stage of the schedule lets them")
    weighed = played if reducer.kind == "approvals" else stages
    for place, field, among in (
        ("field", reducer.field, stages),
        ("weight", reducer.weight, weighed),
    ):
        parsed = sorted({name for stage in among for name in stage.fields})
        if field and field not in parsed:
            raise ConfigError(
                f"{at}.{place} is {field!r}, which no parser of the stages where these agents speak"
                f" reads; they read: {', '.join(parsed) or 'nothing'}"
            )


def _check_fields(team: Team, path: str) -> None:
    """Every field that is asked for is read somewhere, and every one that is read is asked for."""
    asked = {("", team.reducer.field), ("", team.reducer.weight), ("", "answer")}
    for i, agent in enumerate(team.agents):
        for j, field in enumerate(agent.role_from):
            asked.add(_check_field(team, field, f"{path}.agents[{i}].role_from[{j}]"))
    for i, stage in enumerate(team.stages):
        asked.add(("", stage.view.show))
        if stage.view.pick_by:
            asked.add(_check_field(team, stage.view.pick_by, f"{path}.stages[{i}].view.pick_by"))
        if isinstance(stage.speakers, Chosen):
            asked.add(_check_field(team, stage.speakers.by, f"{path}.stages[{i}].speakers.by"))
    stops = [(f"{path}.stop", team.stop)]
    for at, item in _places(team.schedule, f"{path}.schedule"):
        if isinstance(item, Repeat) and item.stop is not None:
            stops.append((f"{at}.stop", item.stop))
    for at, stop in stops:
        for j, condition in enumerate(stop.when):
            asked.add(_check_field(team, condition.field, f"{at}.when[{j}].field"))
    for i, stage in enumerate(team.stages):
        for field in stage.fields:
            if not {("", field), (stage.name, field)} & asked:
                raise ConfigError(
                    f"{path}.stages[{i}].parser reads {field!r}, which nothing asks for: no view,"
                    " speaker, role, reducer or stop rule; leave it out"
                )


def _check_field(team: Team, name: str, path: str) -> tuple[str, str]:
    """The (stage, field) that is meant; the stage is empty where any may read it."""
    place, dot, field = name.rpartition(".")
    if dot and place not in [stage.name for stage in team.stages]:
        raise unknown_name(path, place, [stage.name for stage in team.stages], "stage")
    stages = [stage for stage in team.stages if place in ("", stage.name)]
    known = {field for stage in stages for field in stage.fields}
    if field not in known:
        where = f"stage {place!r}" if dot else "any stage"
        raise ConfigError(
            f"{path} is {name!r}, but no parser of {where} reads {field!r}; known: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return place, field


def _check_budget(team: Team, path: str) -> None:
    least = total(team.cost(stage) for stage in team.unrolled(longest=False))
    for field in ("calls", "tokens"):
        given, needed = getattr(team.budget, field), getattr(least, field)
        if given and given < needed:
            raise ConfigError(
                f"{path}.budget.{field} is {given}: one pass of the schedule can take {needed}"
            )


def _check_selector(team: Team, selector: Selector, path: str) -> None:
    if isinstance(selector, str) and selector.startswith("tag:"):
        tags = {tag for agent in team.agents for tag in agent.tags}
        if selector.removeprefix("tag:") not in tags:
            raise unknown_name(path, selector.removeprefix("tag:"), tags, "tag")
    if not team.select(selector):
        raise ConfigError(f"{path} is empty: name at least one agent")
    for name in team.select(selector):
        _check_agent(team, name, path)
    _unique(list(team.select(selector)), path, "agent")


def _check_agent(team: Team, name: str, path: str) -> None:
    if name not in team.ids:
        raise unknown_name(path, name, team.ids, "agent")


def _check_tool(team: Team, name: str, path: str) -> None:
    names = [tool.name for tool in team.tools]
    if name not in names:
        raise unknown_name(path, name, names, "tool of the team")


def _unique(names: list[str], path: str, what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path}: the {what} {twice[0]!r} stands there more than once")
