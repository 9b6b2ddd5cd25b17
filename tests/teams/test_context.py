"""What a play can cost and how long its prompts can be: a bound of every play, exact for simple."""

import collections
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkjax import teams
from arkjax.errors import ConfigError, DataError
from arkjax.teams.context import check_context, tokens_needed
from arkjax.teams.plans import Voice
from arkjax.teams.runner import team_tools
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast

AGENTS = ("ann", "b", "carl")


def needed(spec, world, chat=None, problems=1):
    """The shortest context that is said to be enough."""
    tools = team_tools(spec)
    low, high = 1, 2**40
    while low < high:
        middle = (low + high) // 2
        try:
            check_context(spec, world.problems(problems), chat or world.chat, middle, tools)
            high = middle
        except DataError:
            low = middle + 1
    return low


@pytest.mark.parametrize("team", [teams.vanilla(max_tokens=9), teams.debate(3, max_tokens=5)])
def test_what_each_problem_needs_is_what_the_check_asks_for(world, team):
    problems = world.problems(3)
    problems = [
        dataclasses.replace(problem, question=problem.question + "?" * 10 * i)
        for i, problem in enumerate(problems)
    ]
    found = tokens_needed(team, problems, world.chat)
    for problem, tokens in zip(problems, found, strict=True):
        check_context(team, [problem], world.chat, tokens)
        with pytest.raises(DataError, match=f"can need {tokens} tokens"):
            check_context(team, [problem], world.chat, tokens - 1)


def talkative(world, numbers=3):
    """A model that uses all its tokens, calls tools at times, and agrees with itself at times."""

    def say(request, draw):
        most = request.sampling.max_tokens
        if draw % 4 == 0 and request.sampling.stop:
            words = "Action: calculator[1/3]" if draw % 8 else "Action: nobody_knows[1]"
            return words[:most] + "…" * (len(words) >= most)
        if draw % 11 == 0:
            return "hm"
        words = f"so {draw % numbers + 1}"
        return words + "." * (most - len(words)) + "…"

    model = world.Model(say=say)
    model.max_context = 2**40
    return model


def check_play(spec, world, seed=0):
    """Play a team; its prompts and costs are within what was said before."""
    model = talkative(world)
    debates = world.play(spec, world.problems(2), model, None, seed)
    longest = max((len(r.prompt_ids) + r.sampling.max_tokens for r in model.requests), default=0)
    assert longest <= needed(spec, world, problems=2)
    for debate in debates:
        calls, tokens = collections.Counter(), collections.Counter()
        stages = {}
        for call in debate.calls:
            stages[call.round] = spec.stage(call.stage)
            calls[call.round] += not call.is_action
            tokens[call.round] += 0 if call.is_action else len(call.gen_ids)
        for number, stage in stages.items():
            assert calls[number] <= spec.cost(stage).calls
            assert tokens[number] <= spec.cost(stage).tokens
    return debates


VIEWS = st.fixed_dictionaries(
    {},
    optional={
        "graph": st.sampled_from(
            ["full", "none", "self", "ring", "chain", "before", "tree", "layer", "random", "matrix"]
        ),
        "k": st.integers(1, 2),
        "rounds": st.sampled_from(["last", "window", "all"]),
        "window": st.integers(1, 2),
        "own": st.booleans(),
        "show": st.sampled_from(["full", "no_think", "answer"]),
        "order": st.sampled_from(["agents", "shuffled"]),
        "layout": st.sampled_from(["transcript_first", "role_first"]),
        "authors": st.sampled_from(["all", ["ann"], ["b", "carl"]]),
        "stages": st.sampled_from([[], ["s0"], ["s1"]]),
        "anonymous": st.booleans(),
        "pick": st.sampled_from(["all", "all", "best", "next"]),
        "pick_by": st.just("answer"),
        "matrix": st.just([[[0, 1, 1]] * 3, [[1, 1, 0], [0, 1, 0], [1, 1, 1]]]),
    },
)
STAGES = st.fixed_dictionaries(
    {
        "speakers": st.sampled_from(
            ["all", "all", ["carl", "ann"], ["b"], {"by": "answer"}, {"by": "s0.answer", "top": 2}]
        ),
        "order": st.sampled_from(["parallel", "sequential", "shuffled", "graph"]),
        "view": VIEWS,
        "n_samples": st.sampled_from([1, 1, 2]),
    },
    optional={
        "each": st.just("message"),
        "tools": st.just(["calculator"]),
        "tool_calls": st.integers(1, 2),
        "result_tokens": st.integers(1, 12),
        "instruction": st.just("go"),
        "on_parse_failure": st.sampled_from(["keep", "resample"]),
        "resamples": st.integers(1, 1),
    },
)
TEAMS = st.fixed_dictionaries(
    {
        "agents": st.tuples(
            *(
                st.fixed_dictionaries(
                    {"id": st.just(name), "sampling": st.fixed_dictionaries(
                        {"max_tokens": st.sampled_from([4, 9, 30])})},
                    optional={"role_from": st.just(["s1.answer"]), "byline": st.just(name * 3)},
                )
                for name in AGENTS
            )
        ),
        "stages": st.lists(STAGES, min_size=2, max_size=3),
        "schedule": st.sampled_from(
            [
                ["s0", "s1"],
                ["s0", {"repeat": ["s1"], "max": 2, "min": 0}, "s0"],
                ["s0", {"repeat": ["s1", {"repeat": ["s0"], "max": 2, "min": 0}], "max": 2}],
                [{"repeat": ["s0", "s1"], "max": 2, "min": 0}, "s1"],
            ]
        ),
        "stop": st.sampled_from([{}, {"agree": 0.5}, {"tokens": 60}]),
    }
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEAMS, st.integers(0, 3))
def test_no_play_of_any_team_goes_beyond(world, data, seed):
    stages = [{**stage, "name": f"s{i}"} for i, stage in enumerate(data["stages"])]
    team = {**data, "name": "any", "tools": ["calculator"], "stages": stages}
    try:
        spec = TeamSpec.from_config(team)
    except ConfigError:
        return
    check_play(spec, world, seed)


def toy(stages, schedule, agents=AGENTS, **more):
    return TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [
                a if isinstance(a, dict) else {"id": a, "sampling": {"max_tokens": 8}}
                for a in agents
            ],
            "stages": stages,
            "schedule": schedule,
            **more,
        }
    )


@pytest.mark.parametrize("rounds", ["last", "all", "window"])
@pytest.mark.parametrize("graph", ["full", "ring", "before", "chain"])
@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_the_worst_case_of_simple_views_is_exact(world, rounds, graph, order):
    view = {"graph": graph, "rounds": rounds, "window": 2}
    spec = toy(
        [{"name": "s0"}, {"name": "s1", "view": view, "order": order}],
        ["s0", {"repeat": ["s1"], "max": 3, "min": 3}],
    )
    model = world.Model(say=lambda request, draw: "so 12345…")
    world.play(spec, world.problems(3), model)
    longest = max(len(request.prompt_ids) for request in model.requests) + 8
    assert longest == needed(spec, world)
    check_context(spec, world.problems(3), world.chat, longest)
    with pytest.raises(DataError, match=f"can need {longest} tokens"):
        check_context(spec, world.problems(3), world.chat, longest - 1)


def test_a_talk_that_ends_early_may_leave_more_to_be_read(world):
    """Many samples of an opening, which a rebuttal would have hidden."""
    spec = toy(
        [{"name": "s0", "n_samples": 5}, {"name": "s1"}, {"name": "s2", "speakers": ["ann"]}],
        ["s0", {"repeat": ["s1"], "max": 2, "min": 0}, "s2"],
        stop={"agree": 0.5},
    )
    model = world.Model(say=lambda request, draw: "so 12345…")
    (debate,) = world.play(spec, world.problems(1), model)
    assert debate.stopped == "agree"
    longest = max(len(request.prompt_ids) for request in model.requests) + 8
    # The rebuttal might read as much, and carl's header is a letter longer than ann's.
    assert needed(spec, world) == longest + 1


def test_all_who_may_have_been_chosen_may_be_read(world):
    """Each of them spoke once: all their latest messages are seen at the end."""
    spec = toy(
        [
            {"name": "s0", "speakers": {"by": "answer", "top": 1}},
            {"name": "end", "speakers": ["ann"], "view": {"own": False}},
        ],
        [{"repeat": ["s0"], "max": 3, "min": 3}, "end"],
    )
    numbers = iter("2311")
    words = collections.defaultdict(lambda: f"so {next(numbers)}....…")
    model = world.Model(say=lambda request, draw: words[request.id])
    (debate,) = world.play(spec, world.problems(1), model)
    assert [call.agent for call in debate.calls] == ["ann", "b", "carl", "ann"]
    assert len(model.requests[-1].prompt_ids) + 8 <= needed(spec, world)


def test_the_order_that_is_drawn_does_not_matter_to_the_bound(world):
    spec = toy([{"name": "s0", "order": "shuffled"}], ["s0"])
    check_play(spec, world)
    for seed in range(6):
        check_play(spec, world, seed)


def test_names_count_as_the_reader_has_them(world):
    spec = toy(
        [{"name": "s0"}, {"name": "s1", "view": {"anonymous": True}}], ["s0", "s1"], agents="xyz"
    )
    model = world.Model(say=lambda request, draw: "." * 64 + "…")
    model.max_context = 2**20
    world.play(spec, world.problems(1), model)
    assert "#agent 3:" in world.text_of(model.requests[-1])
    check_play(spec, world)


def test_a_field_takes_no_more_room_than_its_message_could(world):
    """What is read as JSON, and what stands in for an answer, is longer than what was said."""
    stage = {"name": "s0", "parser": "json", "keys": ["answer"], "speakers": ["ann"]}
    shown = {"name": "s1", "speakers": ["b"], "view": {"show": "answer"}}
    agents = ({"id": "ann", "sampling": {"max_tokens": 32}}, "b")
    spec = toy([stage, shown], ["s0", "s1"], agents)
    numbers = '{"answer":[1,2,3,4,5,6,7,8,9,0]}'
    model = world.Model(say=lambda r, d: numbers + "…" if r.sampling.max_tokens == 32 else "so 1")
    world.play(spec, world.problems(1), model)
    assert "[1, 2, 3" in (text := world.text_of(model.requests[-1]))
    assert len(text) + 8 <= needed(spec, world)
    default = {"on_parse_failure": "default", "default": "x" * 99}
    spec = toy([{**stage, **default}, shown], ["s0", "s1"], agents)
    world.play(spec, world.problems(1), model := world.Model(say=lambda request, draw: "hm"))
    assert len(model.requests[-1].prompt_ids) + 8 <= needed(spec, world)


def test_headers_are_those_of_the_readers_chat(world):
    class Wordy(type(world.chat)):
        def message(self, byline):
            return super().message(f"the esteemed {byline}")

    spec = toy(
        [{"name": "s0", "speakers": ["ann"]}, {"name": "s1", "speakers": ["b"]}],
        ["s0", "s1"],
        ({"id": "ann", "sampling": {"max_tokens": 8}},
         {"id": "b", "model": "other", "sampling": {"max_tokens": 8}}),
    )  # fmt: skip
    models = {name: world.Model(say=lambda r, d: "so 12345…") for name in ("policy", "other")}
    voices = {
        "policy": Voice(world.chat, world.tokenizer, "v"),
        "other": Voice(Wordy(), world.tokenizer, "v"),
    }
    teams.play(spec, world.problems(1), models, voices, world.tokenizer, world.grader, None, 0)
    chats = {name: voice.chat for name, voice in voices.items()}
    longest = len(models["other"].requests[-1].prompt_ids) + 8
    assert longest <= needed(spec, world, chats)


def test_stages_that_ask_about_each_others_messages_have_a_bound(world):
    asks = {"each": "message", "view": {"rounds": "last"}}
    spec = toy(
        [{"name": "s0"}, {"name": "s1", **asks}, {"name": "s2", **asks}],
        ["s0", {"repeat": ["s1", "s2"], "max": 2}],
        agents=("ann", "b"),
    )
    # Two messages, then each asks about all there are: 2, 4, 8, 16 of them each.
    assert spec.cost(spec.stage("s1")).calls == 2 * 8
    assert spec.cost(spec.stage("s2")).calls == 2 * 16
    (debate, _) = check_play(spec, world)
    assert collections.Counter(c.round for c in debate.calls) == {0: 2, 1: 4, 2: 8, 3: 16, 4: 32}
    with pytest.raises(ConfigError, match=r"budget\.calls is 40: one pass .* can take 50"):
        dataclasses.replace(spec, budget=dataclasses.replace(spec.budget, calls=40))
