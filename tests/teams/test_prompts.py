"""Prompts: transcript first, generated ids word for word, a common prefix for a common view."""

import dataclasses

import pytest

from arkjax import teams
from arkjax.errors import DataError
from arkjax.teams.context import check_context
from arkjax.teams.plans import Voice
from arkjax.teams.spec import TeamSpec

pytestmark = pytest.mark.fast


def with_view(spec, **changes):
    """The team with every stage's view changed."""
    stages = tuple(
        dataclasses.replace(stage, view=dataclasses.replace(stage.view, **changes))
        for stage in spec.stages
    )
    return dataclasses.replace(spec, stages=stages)


def prefill(requests):
    """Prompt tokens to compute when every distinct prefix is computed once."""
    prefixes = {request.prompt_ids[: request.prefix_len] for request in requests}
    own = sum(len(request.prompt_ids) - request.prefix_len for request in requests)
    return sum(map(len, prefixes)) + own


def test_the_transcript_stands_first_and_the_speaker_last(world):
    model = world.Model(say=lambda request, draw: "so 7")
    world.play(teams.debate(roles=["x", "y"]), world.problems(1), model)
    texts = [world.text_of(request) for request in model.requests]
    transcript = "#what is 0#x:so 7##y:so 7#"
    assert texts == ["#what is 0#x:", "#what is 0#y:", transcript + "#x:", transcript + "#y:"]


def test_segments_cover_the_prompt_and_copies_are_exact(world):
    model = world.Model(say=lambda request, draw: "so 7…" if draw % 2 else "so 8")
    debates = world.play(teams.debate_judge(rounds=3), world.problems(5), model)
    reasons = set()
    for debate in debates:
        calls = {call.call_id: call for call in debate.calls}
        for call in debate.calls:
            reasons.add(call.finish_reason)
            edges = [0]
            for source, start, end in call.prompt_segments:
                assert start == edges[-1] and end > start
                edges.append(end)
                if source != "template":
                    assert call.prompt_ids[start:end] == calls[source].gen_ids
            assert edges[-1] == len(call.prompt_ids)
            sources = [s for s, _, _ in call.prompt_segments if s != "template"]
            assert tuple(sources) == call.parents
            # Every message is closed once, by its author or, if it was cut off, by the template.
            assert call.prompt_ids.count(world.end) == len(call.parents)
    assert reasons == {"stop", "length"}


def test_who_is_asked_the_same_shares_the_whole_prompt(world):
    """Agents without a role, and samples of one agent; their calls are recorded as before."""
    model = world.Model()
    (debate,) = world.play(teams.debate(agents=5, rounds=3), world.problems(1), model)
    # 10 of question, 8 of header, 13 a message: all but the last token is paid once.
    assert prefill(model.requests) == (17 + 2 * (10 + 5 * 13 + 7)) + 15
    assert {call.prefix_len for call in debate.calls} == {10, 10 + 5 * 13}
    for request in model.requests:
        assert request.shared[-1] < request.prefix_len == len(request.prompt_ids) - 1
    model = world.Model()
    world.play(teams.load("roles:n=3"), world.problems(1), model)
    assert len({r.prompt_ids[: r.prefix_len] for r in model.requests}) == 4
    assert {len(r.prompt_ids) - r.prefix_len for r in model.requests} == {1}


def test_agents_with_one_view_share_their_prefix(world):
    spec = teams.debate(roles=[f"agent {name}" for name in "abcde"], rounds=3)
    model = world.Model()
    world.play(spec, world.problems(1), model)
    assert len({r.prompt_ids[: r.prefix_len] for r in model.requests}) == 3
    shared = prefill(model.requests)
    role_first = world.Model()
    world.play(with_view(spec, layout="role_first"), world.problems(1), role_first)
    unshared = sum(len(request.prompt_ids) for request in role_first.requests)
    # Others see "agent-1", the speaker also its role: each of the three prefixes is paid once.
    message = len("#agent-1:so 7#")
    header = len("#agent a\nagent-1:")
    assert shared == (10 + 2 * (10 + 5 * message)) + 15 * header
    assert unshared > 3 * shared


def test_role_first_announces_the_role_before_the_transcript(world):
    model = world.Model(say=lambda request, draw: "so 7")
    spec = with_view(teams.debate(roles=["x", "y"]), layout="role_first")
    world.play(spec, world.problems(1), model)
    assert world.text_of(model.requests[3]) == "#what is 0#y:##x:so 7##y:so 7##y:"


def test_answers_only(world):
    model = world.Model(say=lambda request, draw: "long talk so 7" if "x" in world.text_of(request)
                        else "nothing")  # fmt: skip
    spec = with_view(teams.debate(roles=["y", "x"]), show="answer", own=False)
    debates = world.play(spec, world.problems(1), model)
    assert world.text_of(model.requests[2]) == "#what is 0#x:7##y:"
    assert world.text_of(model.requests[3]) == "#what is 0#x:"
    assert {source for call in debates[0].calls for source, _, _ in call.prompt_segments} == {
        "template"
    }


def test_a_round_of_which_nothing_is_shown_shares_nothing(world):
    spec = TeamSpec.from_config(
        {
            "name": "silent",
            "agents": [{"id": name} for name in "xyz"],
            "stages": [
                {"name": "check", "speakers": ["z"], "parser": "none"},
                {
                    "name": "talk",
                    "speakers": ["x", "y"],
                    "view": {"show": "answer", "rounds": "all"},
                },
            ],
            "schedule": ["check", {"repeat": ["talk"], "max": 3}],
        }
    )
    model = world.Model(say=lambda request, draw: "so 7" if draw % 2 else "nothing")
    world.play(spec, world.problems(4), model)
    for request in model.requests:
        assert list(request.shared) == sorted(set(request.shared))
        assert all(0 < length < request.prefix_len for length in request.shared)


def test_an_instruction_is_read_by_the_speaker_only(world):
    spec = teams.debate(roles=["x", "y"])
    stages = (spec.stages[0], dataclasses.replace(spec.stages[1], instruction="be brief"))
    model = world.Model(say=lambda request, draw: "so 7")
    world.play(dataclasses.replace(spec, stages=stages), world.problems(1), model)
    assert world.text_of(model.requests[3]) == "#what is 0#x:so 7##y:so 7##be brief\ny:"


def test_what_cannot_fit_is_refused_before_any_call(world, tmp_path):
    from arkjax.trajectories.store import CallStore

    model = world.Model()
    spec = teams.debate(rounds=3)
    model.max_context = 300
    with pytest.raises(DataError, match=r"'debate', stage 'rebuttal'.*'p1[0-9]' can need \d+ tok"):
        world.play(spec, world.problems(12), model, CallStore(tmp_path / "calls"))
    assert not model.requests
    assert not (tmp_path / "calls").exists()


def test_the_worst_case_is_exact(world):
    """The longest prompt that a play can make fits; one token less does not."""
    spec = teams.debate_judge(rounds=3, max_tokens=8)
    model = world.Model(say=lambda request, draw: "so 12345…")
    world.play(spec, world.problems(3), model)
    longest = max(len(request.prompt_ids) for request in model.requests) + 8
    check_context(spec, world.problems(3), world.chat, longest)
    with pytest.raises(DataError, match=f"can need {longest} tokens"):
        check_context(spec, world.problems(3), world.chat, longest - 1)


def test_a_sequential_stage_hears_who_spoke_before(world):
    spec = TeamSpec.from_config(
        {
            "name": "row",
            "agents": [{"id": name} for name in "xyz"],
            "stages": [{"name": "talk", "order": "sequential", "view": {"graph": "chain"}}],
            "schedule": ["talk"],
        }
    )
    model = world.Model(say=lambda request, draw: "so 7")
    world.play(spec, world.problems(1), model)
    assert [world.text_of(request) for request in model.requests] == [
        "#what is 0#x:",
        "#what is 0#x:so 7##y:",
        "#what is 0#y:so 7##z:",
    ]


def toy(*stages, **view):
    """ann, bob and eve speak in `say`, then ann in `end` with the view."""
    return TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [{"id": name} for name in ("ann", "bob", "eve")],
            "stages": [
                {"name": "say", "parser": "task+json", "keys": ["plan"], **dict(*stages)},
                {"name": "end", "speakers": ["ann"], "view": view},
            ],
            "schedule": ["say", "end"],
            "reducer": "last",
            "stop": {"when": [{"field": "say.plan", "equals": "x"}]},
        }
    )


def last_text(world, spec, words):
    def say(request, draw):
        return words[world.text_of(request).rpartition("#")[2].rstrip(":")]

    model = world.Model(say=say)
    debates = world.play(spec, world.problems(1), model)
    return world.text_of(model.requests[-1]).removeprefix("#what is 0"), debates[0]


WORDS = {"ann": '{"plan": "dig"} so 1', "bob": "<think>a</think>b</think> so 2", "eve": "…"}


@pytest.mark.parametrize(
    ("view", "text"),
    [
        ({"anonymous": True, "authors": ["bob", "eve"]},
         "#agent 2:<think>a</think>b</think> so 2##agent 3:##ann:"),
        ({"show": "no_think"}, '#ann:{"plan": "dig"} so 1##bob:so 2##eve:##ann:'),
        ({"show": "plan"}, "#ann:dig##ann:"),
        ({"show": "answer", "own": False}, "#bob:2##ann:"),
        ({"graph": "none"}, "#ann:"),
        ({"pick": "best", "pick_by": "answer", "show": "answer"}, "#bob:2##ann:"),
        ({"stages": ["end"]}, "#ann:"),
    ],
)  # fmt: skip
def test_what_a_view_shows(world, view, text):
    assert last_text(world, toy(**view), WORDS)[0] == text


def test_parsers_are_joined_and_the_first_that_reads_a_field_counts(world):
    _, debate = last_text(world, toy(), WORDS)
    ann, bob, eve, _ = debate.calls
    assert ann.parsed == {"answer": "1", "plan": "dig"} and ann.parse_ok
    assert bob.parsed == {"answer": "2"} and not bob.parse_ok
    assert eve.parsed == {} and debate.parse_failures == 2
    twice = toy({"parser": "number+json+choice", "keys": ["answer", "plan"]})
    words = {"ann": '{"answer": "B", "plan": 3}', "bob": '{"answer": "C"} 7', "eve": "A"}
    _, debate = last_text(world, twice, words)
    assert [call.parsed.get("answer") for call in debate.calls[:3]] == ["3", "7", "A"]


def test_the_last_word_is_that_of_who_spoke_last(world):
    spec = TeamSpec.from_config(
        {
            "name": "toy",
            "agents": [{"id": name} for name in ("ann", "bob", "eve")],
            "stages": [
                {
                    "name": "say",
                    "order": "graph",
                    "view": {"graph": "edges", "edges": [["eve", "ann"], ["ann", "bob"]]},
                }
            ],
            "schedule": ["say"],
            "reducer": "last",
        }
    )
    words = {"ann": "so 1", "bob": "so 2", "eve": "so 3"}
    assert last_text(world, spec, words)[1].answer == "2"
    row = dataclasses.replace(spec.stages[0], order="sequential", speakers=("eve", "bob", "ann"))
    spec = dataclasses.replace(spec, stages=(row,))
    assert last_text(world, spec, words)[1].answer == "1"


def test_models_of_other_vocabularies_read_words_and_not_ids(world):
    class Shifted(type(world.tokenizer)):
        def encode(self, text):
            return [token + 7 for token in super().encode(text)]

        def decode(self, ids):
            return super().decode([token - 7 for token in ids if token > 9])

    spec = dataclasses.replace(toy(), agents=(
        dataclasses.replace(toy().agents[0], model="other"), *toy().agents[1:]
    ))  # fmt: skip
    here = Voice(world.chat, world.tokenizer, "here")
    for vocabulary, copies in (("here", 2), ("there", 0)):
        other = Voice(world.chat, Shifted(), vocabulary)
        models = {"policy": world.Model(say=lambda r, d: "so 2"), "other": world.Model()}
        voices = {"policy": here, "other": other}
        (debate,) = teams.play(
            spec, world.problems(1), models, voices, world.tokenizer, world.grader, None, 0
        )
        last = debate.calls[-1]
        assert len(last.parents) == 3
        copied = [source for source, _, _ in last.prompt_segments if source != "template"]
        assert len(copied) == copies + 1
        encoded = Shifted().encode("so 2")
        held = any(list(last.prompt_ids[i : i + 4]) == encoded for i in range(len(last.prompt_ids)))
        assert held == (vocabulary == "there")
