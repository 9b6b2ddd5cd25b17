"""Recorded prompts with messages left out are those that would have been built without them."""

import dataclasses
import itertools
import random

import pytest

from arkjax import teams
from arkjax.synthesis.transcripts import transcript
from arkjax.teams.prompts import Shown, build_prompt, transcribe
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast
ROLES = ["x", "yy", "x", "z of few words"]
VIEWS = [
    {},
    {"rounds": "all"},
    {"rounds": "window", "window": 2, "own": False},
    {"graph": "ring", "order": "shuffled"},
    {"graph": "star", "hub": "agent-1", "rounds": "all"},
    {"graph": "chain"},
    {"graph": "self", "rounds": "all"},
    {"layout": "role_first"},
    {"layout": "role_first", "rounds": "all", "order": "shuffled"},
]


def changed(spec, instruction="", order="parallel", **view):
    """The team with the view of every stage changed, and more said to those who speak again."""
    stages = [
        dataclasses.replace(
            stage,
            view=dataclasses.replace(stage.view, **view),
            order=order,
            instruction=instruction if stage.name != "opening" else "",
        )
        for stage in spec.stages
    ]
    return dataclasses.replace(spec, stages=tuple(stages))


def assert_as_built(world, spec, seed=0):
    """Leaves out some messages of every prompt; returns how many prompts were compared."""
    rng, compared = random.Random(seed), 0
    end = world.end if world.chat.keeps_end else None
    # Some messages are cut off by their limit, and closed by the template.
    model = world.Model(say=lambda request, draw: f"so {draw % 3}" + "…" * (draw % 2))
    for debate in world.play(spec, world.problems(3), model):
        calls = {call.call_id: call for call in debate.calls}
        question = world.chat.question(debate.problem.question)
        for call in debate.calls:
            taken = transcript(call, debate.calls, end)
            assert taken is not None and taken.without(()) == call.prompt_ids
            assert tuple(taken.messages) == call.parents
            subsets = [{name} for name in call.parents] + [set(call.parents)]
            subsets += [{n for n in call.parents if rng.random() < 0.5} for _ in range(4)]
            for removed in subsets:
                shown = [calls[name] for name in call.parents if name not in removed]
                stage, agent = spec.stage(call.stage), spec.agent(call.agent)
                told = agent.name, agent.role, stage.instruction
                first = stage.view.layout == "role_first"
                read = transcribe(
                    world.chat,
                    world.tokenizer,
                    question,
                    [Shown(spec.agent(other.agent).name, other) for other in shown],
                    stage.view.show,
                    world.chat.announce(*told) if first else (),
                )
                built = build_prompt(read, world.chat.turn(*told))
                assert taken.without(removed) == built.ids
                compared += bool(removed)
    return compared


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("instruction", ["", "be brief"])
def test_all_views(world, view, instruction):
    spec = changed(teams.debate(roles=ROLES, rounds=3), instruction, **view)
    assert assert_as_built(world, spec) > 20


@pytest.mark.parametrize(
    "spec",
    [
        teams.debate(),
        teams.debate_judge(rounds=3),
        teams.judge(),
        changed(teams.debate(roles=ROLES), order="sequential", rounds="all"),
    ],
    ids=lambda spec: spec.name,
)
def test_shipped_teams_and_those_who_speak_in_turn(world, spec):
    assert assert_as_built(world, spec) > 20


@pytest.mark.parametrize("view", VIEWS[:-2], ids=str)
def test_all_views_of_chats_that_keep_no_end(world, view):
    """As in a checkpoint's own template, where an end token would close the user's turn."""
    world.chat.keeps_end = False
    assert (
        assert_as_built(world, changed(teams.debate(roles=ROLES, rounds=3), "brief", **view)) > 20
    )


def test_who_was_shown_nothing_loses_nothing(world):
    (debate,) = world.play(teams.roles(), world.problems(1), world.Model())
    for call in debate.calls:
        taken = transcript(call, debate.calls, world.end)
        assert not taken.messages and taken.without({"other"}) == call.prompt_ids


def test_where_it_cannot_be_told_nothing_is_said(world):
    answers_only = changed(teams.debate(), show="answer")
    (debate,) = world.play(answers_only, world.problems(1), world.Model())
    told = [transcript(call, debate.calls, world.end) for call in debate.calls]
    assert [taken is None for taken in told] == [bool(call.parents) for call in debate.calls]
    # Without the call that was shown nothing, the question could end anywhere.
    (debate,) = world.play(teams.debate(), world.problems(1), world.Model())
    later = [call for call in debate.calls if call.parents]
    assert transcript(later[0], later, world.end) is None
    # A message without a single token has no span of its own.
    segments = [s for s in later[0].prompt_segments if s[0] != later[0].parents[0]]
    silent = dataclasses.replace(later[0], prompt_segments=tuple(segments))
    assert transcript(silent, debate.calls, world.end) is None


def test_headers_that_depend_on_their_neighbours_are_noticed(world):
    """As chat templates may have it: messages between which something else stands."""
    (debate,) = world.play(teams.debate(), world.problems(1), world.Model())
    call = debate.calls[-1]
    name, start, end = next(s for s in call.prompt_segments if s[0] != "template")
    end_of_last = max(b for s, _, b in call.prompt_segments if s != "template")
    # Something closes the last message that closes no other.
    ids = (*call.prompt_ids[:end_of_last], 99, *call.prompt_ids[end_of_last:])
    odd = dataclasses.replace(call, prompt_ids=ids, prefix_len=call.prefix_len + 1)
    assert transcript(odd, debate.calls, world.end) is None


def test_a_team_of_one_word_per_turn_is_taken_apart_too(world):
    spec = TeamSpec.from_config(
        {
            "name": "retries",
            "agents": [{"id": n, "role": n} for n in "ab"],
            "stages": [
                {"name": "opening", "n_samples": 2},
                {"name": "again", "n_samples": 2, "view": {"rounds": "all"}},
            ],
            "schedule": ["opening", "again"],
        }
    )
    assert assert_as_built(world, spec) > 20
    (debate,) = world.play(spec, world.problems(1), world.Model())
    call = debate.calls[-1]
    taken = transcript(call, debate.calls, world.end)
    for pair in itertools.combinations(call.parents, 2):
        assert len(taken.without(pair)) == len(call.prompt_ids) - sum(
            len(taken.messages[name]) for name in pair
        )
