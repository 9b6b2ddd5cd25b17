"""Agents that call tools in their turns, and tools that speak: what is asked, done and recorded."""

import threading

import pytest

from arkjax.errors import ConfigError
from arkjax.teams.context import check_context
from arkjax.teams.debate import Cost
from arkjax.teams.runner import team_tools
from arkjax.teams.spec import TeamSpec
from arkjax.tools import registry
from arkjax.tools.protocol import ToolResult
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


class Counting:
    """Says how many characters it was given, and keeps account of what it was asked."""

    name, version, description = "counting", "7", "Counts characters."
    asked: list[tuple[str, str]] = []
    meeting: threading.Barrier | None = None

    def run(self, input, problem):
        self.asked.append((problem.id, input))
        if self.meeting is not None:
            self.meeting.wait(timeout=20)
        return ToolResult(f"{len(input)} characters", fields={"n": str(len(input))})


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    """The tool is known in these tests only."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    registry.register_tool("counting", lambda options: Counting())
    monkeypatch.setattr(Counting, "asked", [])
    return Counting


def team(stage=(), agents=("ann",), stages=(), **changes):
    """A team whose first stage, `solve`, has the tools."""
    first = {"name": "solve", "tools": ["calculator", "counting"], **dict(stage)}
    data = {
        "name": "tooled",
        "tools": ["calculator", "counting"],
        "agents": [a if isinstance(a, dict) else {"id": a, "role": a} for a in agents],
        "stages": [first, *stages],
        "schedule": ["solve", *(s["name"] for s in stages)],
    }
    return TeamSpec.from_config({**data, **changes})


def saying(world, *words):
    """A model that says the words one after another in each turn, and the last for ever."""

    def say(request, draw):
        turns = world.text_of(request).rpartition("#what is")[2]
        made = sum(turns.count(f"#{tool}:") for tool in ("calculator", "counting", "tool"))
        return words[min(made, len(words) - 1)]

    return world.Model(say=say)


def test_a_result_is_read_and_the_agent_goes_on(world, tmp_path):
    model = saying(world, "Action: calculator[1+2]", "so 3")
    with CallStore(tmp_path) as store:
        (debate,) = world.play(team(), world.problems(1), model, store)
    first, second = map(world.text_of, model.requests)
    assert "You can use these tools:\n- calculator: " in first and "- counting: Counts" in first
    assert second == first + "Action: calculator[1+2]##calculator:3##ann:"
    words, action, answer = debate.calls
    assert [call.step for call in debate.calls] == [0, 1, 2]
    assert [call.is_action for call in debate.calls] == [False, True, False]
    assert (action.model, action.text, action.finish_reason) == ("tool:calculator/1", "3", "tool")
    assert action.parsed == {"status": "ok", "input": "1+2"}
    assert action.parents == (words.call_id,) and action.prompt_ids == ()
    assert answer.parents == (words.call_id, action.call_id)
    # Only the last word of a turn is an answer, right or wrong.
    assert (words.parsed, words.parse_ok, words.correct) == ({}, True, None)
    assert answer.parsed == {"answer": "3"} and answer.correct is False
    for source, start, end in answer.prompt_segments:
        if source != "template":
            part = {call.call_id: call for call in debate.calls}[source]
            assert answer.prompt_ids[start:end] == part.gen_ids
    assert debate.answer == "3" and not debate.parse_failures
    cost = Cost.of(debate.calls)
    assert (cost.calls, cost.actions) == (2, 1) == (debate.cost.calls, debate.cost.actions)
    assert cost.generated_tokens == len(words.gen_ids) + len(answer.gen_ids)
    recorded = CallStore(tmp_path)
    for call in debate.calls:
        assert recorded.get(call.call_id).parsed == call.parsed
        assert recorded.get(call.call_id).gen_ids == call.gen_ids
        assert recorded.get(call.call_id).step == call.step


def test_other_readers_get_the_whole_turn_in_its_order(world):
    spec = team(
        agents=("ann", {"id": "judge", "role": "judge"}),
        stage={"speakers": ["ann"]},
        stages=[{"name": "verdict", "speakers": ["judge"], "parser": "task"}],
        reducer={"kind": "judge", "agent": "judge"},
    )
    model = saying(world, "Action: calculator[6*7]", "so 42")
    (debate,) = world.play(spec, world.problems(1), model)
    assert world.text_of(model.requests[-1]) == (
        "#what is 0#ann:Action: calculator[6*7]##calculator:42##ann:so 42##judge:"
    )
    assert debate.calls[-1].parents == tuple(call.call_id for call in debate.calls[:3])


def test_a_view_of_less_shows_the_end_of_a_turn(world):
    for show, seen in (("answer", "42"), ("no_think", "so 42")):
        spec = team(
            agents=("ann", {"id": "judge", "role": "judge"}),
            stage={"speakers": ["ann"]},
            stages=[{"name": "verdict", "speakers": ["judge"], "view": {"show": show}}],
        )
        model = saying(world, "Action: calculator[6*7]", "<think>hm</think>so 42")
        world.play(spec, world.problems(1), model)
        assert world.text_of(model.requests[-1]) == f"#what is 0#ann:{seen}##judge:"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("Action: calclator[1]", "there is no tool 'calclator'; there are: calculator, counting"),
        ("Action: calculator[1 +]", "error: "),
        ("<tool_call>{'name': 'calculator'}</tool_call>", "error: "),
        ("<tool_call>calculator(1)</tool_call>", "error: a JSON object must follow"),
        ('<tool_call>{"name": "calculator", "arguments": 3}</tool_call>', "error: "),
        ('<tool_call>{"arguments": {}}</tool_call>', "error: the JSON has no"),
        ('<tool_call>{"name": "x\\n#bob", "arguments": {"input": "1"}}</tool_call>', "no tool 'x"),
        ("Action: counting[" + "x" * 2**16 + "y]", "error: the input has 65537 characters"),
    ],
)
@pytest.mark.parametrize("end", ["", "…"])
def test_what_cannot_be_done_is_said(world, counting, words, answer, end):
    """Also where the stop text ended the generation, which the model is cut off behind."""
    spec = team(agents=({"id": "ann", "sampling": {"max_tokens": 70_000}},))
    model = saying(world, words + end, "so 1")
    model.max_context = 10**6
    (debate,) = world.play(spec, world.problems(1), model)
    assert [call.is_action for call in debate.calls] == [False, True, False]
    action = debate.calls[1]
    assert action.parsed["status"] == "error" and answer in action.text
    assert "\n" not in action.text and not counting.asked
    # What a model makes up as a name heads no message.
    text = world.text_of(model.requests[1])
    assert any(f"##{name}:error: " in text for name in ("tool", "calculator", "counting"))
    assert "##x" not in text
    assert debate.answer == "1"


def test_a_tool_that_the_stage_does_not_have_is_not_run(world, counting):
    spec = team(stage={"tools": ["calculator"]})
    (debate,) = world.play(spec, world.problems(1), saying(world, "Action: counting[x]", "so 1"))
    assert "there is no tool 'counting'" in debate.calls[1].text and not counting.asked


def test_a_tagged_call_is_done_though_its_end_stopped_the_words(world, counting):
    words = '<tool_call>\n{"name": "counting", "arguments": {"input": "abc"}}\n</tool_call>'
    model = saying(world, words + "…", "so 1")
    (debate,) = world.play(team(), world.problems(1), model)
    assert counting.asked == [("p0", "abc")]
    assert debate.calls[0].text.endswith("}}\n") and debate.calls[1].text == "3 characters"
    assert set(debate.calls[0].sampling["stop"]) == {"</tool_call>", "\nObservation"}


def test_nothing_is_done_behind_what_stops_a_model(world, counting):
    words = "Action: calculator[1+1]\nObservation: 5\nAction: counting[x]"
    (debate,) = world.play(team(), world.problems(1), saying(world, words, "so 2"))
    assert debate.calls[0].text == "Action: calculator[1+1]"
    assert debate.calls[1].text == "2" and not counting.asked


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_calls_than_allowed(world, counting, most):
    (debate,) = world.play(
        team(stage={"tool_calls": most}), world.problems(1), saying(world, "Action: counting[x]")
    )
    assert [c.is_action for c in debate.calls] == [False, True] * most + [False]
    assert debate.cost.calls == most + 1 == team(stage={"tool_calls": most}).cost(
        team(stage={"tool_calls": most}).stages[0]
    ).calls  # fmt: skip
    assert debate.answer is None and debate.parse_failures == 1


def test_long_results_are_cut(world, counting):
    spec = team(stage={"result_tokens": 4})
    (debate,) = world.play(spec, world.problems(1), saying(world, "Action: counting[abc]", "so 1"))
    assert debate.calls[1].text == "3 ch" and len(debate.calls[1].gen_ids) == 5


def test_steps_are_drawn_apart_and_samples_act_apart(world, counting):
    spec = team(stage={"n_samples": 3})
    model = saying(world, "Action: counting[x]", "Action: counting[x]", "so 1")
    (debate,) = world.play(spec, world.problems(1), model)
    assert len(debate.calls) == len({call.call_id for call in debate.calls}) == 15
    assert len({request.seed for request in model.requests}) == 9
    assert [call.step for call in debate.calls if call.sample == 2] == [0, 1, 2, 3, 4]


def test_a_turn_that_cannot_be_read_is_taken_again_with_its_tools(world, counting):
    spec = team(stage={"on_parse_failure": "resample", "resamples": 2, "tool_calls": 1})
    attempts = []

    def say(request, draw):
        if "#counting:" not in world.text_of(request):
            attempts.append(request)
            return f"Action: counting[{'x' * len(attempts)}]"
        return "so 1" if "3 characters" in world.text_of(request) else "hm"

    (debate,) = world.play(spec, world.problems(1), world.Model(say=say))
    assert [input for _, input in counting.asked] == ["x", "xx", "xxx"]
    assert [call.sample for call in debate.calls] == [0] * 3 + [1] * 3 + [2] * 3
    assert debate.answer == "1" and debate.parse_failures == 2 and debate.cost.calls == 6
    assert spec.cost(spec.stages[0]).calls == 6


def test_tools_work_at_the_same_time(world, counting, monkeypatch):
    monkeypatch.setattr(counting, "meeting", threading.Barrier(2))
    spec = team(agents=("ann", "bob"))
    model = saying(world, "Action: counting[x]", "so 1")
    (debate,) = world.play(spec, world.problems(1), model)
    assert debate.cost.actions == 2


def test_a_tool_may_be_an_agent(world, counting):
    spec = team(
        agents=("ann", "bob", {"id": "meter", "tool": "counting", "model": "none"}),
        stage={"speakers": ["ann", "bob"], "tools": []},
        stages=[
            {"name": "measure", "speakers": ["meter"], "parser": "fields", "keys": ["n"]},
            {"name": "end", "speakers": ["ann"], "view": {"stages": ["measure"], "show": "n"}},
        ],
        schedule=["solve", {"repeat": ["measure", "end"], "max": 3,
                            "stop": {"when": [{"field": "measure.n", "at_least": 10}]}}],
    )  # fmt: skip
    assert spec.models == ("policy",)
    model = world.Model(say=lambda request, draw: "so 1")
    (debate,) = world.play(spec, world.problems(1), model)
    assert counting.asked == [("p0", "so 1\n\nso 1")]
    assert world.text_of(model.requests[-1]) == "#what is 0#counting:10##ann:"
    assert debate.stopped == "measure.n" and debate.cost.calls == 3 and debate.cost.actions == 1
    assert debate.calls[2].parents == tuple(call.call_id for call in debate.calls[:2])


def test_a_tool_reads_what_its_view_shows(world, counting):
    for show, given in (("answer", "1\n\n2"), ("no_think", "so 1\n\nso 2"), ("full", None)):
        counting.asked = []
        spec = team(
            agents=("ann", "bob", "eve", {"id": "meter", "tool": "counting"}),
            stage={"speakers": ["ann", "bob", "eve"], "tools": []},
            stages=[
                {"name": "measure", "speakers": ["meter"], "parser": "none", "view": {"show": show}}
            ],
        )
        words = {"ann": "<think>x</think>so 1", "bob": "so 2", "eve": ""}
        model = world.Model(say=lambda r, d, w=words: w[world.text_of(r)[-4:-1]])
        (debate,) = world.play(spec, world.problems(1), model)
        assert counting.asked[0][1] == (given or "<think>x</think>so 1\n\nso 2")
        assert len(debate.calls[-1].parents) == 2


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_killed_play_goes_on_and_repeats_no_action(world, tmp_path, counting, steps):
    def model(base=world.Model, **kwargs):
        made = saying(world, "Action: counting[x]", "Action: calculator[2+2]", "so 4")
        return base(say=made.say, delay=lambda request: 1 + request.seed % 3, **kwargs)

    spec, problems = team(agents=("ann", "bob")), world.problems(4)
    with CallStore(tmp_path / "whole") as store:
        whole = world.play(spec, problems, model(), store)
    assert len(counting.asked) == 8

    class Dying(world.Model):
        left = steps

        def step(self):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().step()

    counting.asked = []
    with pytest.raises(KeyboardInterrupt):
        world.play(spec, problems, model(Dying), CallStore(tmp_path / "killed", shard_calls=3))
    resumed = CallStore(tmp_path / "killed")
    done = [call for call in resumed.load() if call.is_action]
    kept = len([call for call in done if call.model.startswith("tool:counting")])
    counting.asked = []
    debates = world.play(spec, problems, model(), resumed)
    assert len(counting.asked) == 8 - kept
    assert resumed.content_hash() == CallStore(tmp_path / "whole").content_hash()
    assert [d.answer for d in debates] == [d.answer for d in whole] == ["4"] * 4
    counting.asked = []
    again = model()
    repeated = world.play(spec, problems, again, CallStore(tmp_path / "killed"))
    for a, b in zip(repeated, debates, strict=True):
        assert [c.call_id for c in a.calls] == [c.call_id for c in b.calls]
        assert (a.answer, a.cost) == (b.answer, b.cost)
    assert not again.requests and not counting.asked


@pytest.mark.parametrize("calls", [1, 2])
def test_the_longest_turns_fit_into_what_is_checked(world, counting, calls):
    """Every generation and result as long as can be, and names that no tool has."""
    spec = team(
        agents=({"id": "ann", "sampling": {"max_tokens": 30}}, "judge"),
        stage={
            "speakers": ["ann"],
            "tool_calls": calls,
            "result_tokens": 40,
            "tools": ["counting"],
        },
        stages=[{"name": "verdict", "speakers": ["judge"]}],
    )
    for name in ("counting", "made_up_by_m"):
        model = world.Model(say=lambda r, d, n=name: f"Action: {n}[{'x' * 20}]"[:29] + "]")
        model.max_context = 10**6
        world.play(spec, world.problems(1), model)
        tools = team_tools(spec)
        longest = max(len(r.prompt_ids) + r.sampling.max_tokens for r in model.requests)
        check_context(spec, world.problems(1), world.chat, 10**6, tools)
        low = needed(spec, world, tools)
        assert longest <= low


def needed(spec, world, tools):
    low, high = 1, 10**6
    while low < high:
        middle = (low + high) // 2
        try:
            check_context(spec, world.problems(1), world.chat, middle, tools)
            high = middle
        except Exception:
            low = middle + 1
    return low


def test_tools_that_are_not_there_are_named(world):
    spec = team(stage={"tools": []}, tools=["calclator"])
    with pytest.raises(ConfigError, match=r"team 'tooled': tools\.calclator: .*'calculator'"):
        world.play(spec, world.problems(1), world.Model())
    spec = team(stage={"tools": []}, tools=[{"name": "calculator", "digits": 3}])
    with pytest.raises(ConfigError, match=r"team 'tooled': tools\.calculator\.digits"):
        world.play(spec, world.problems(1), world.Model())
