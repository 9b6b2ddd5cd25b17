"""Tools by name: what configs may say, and what every tool keeps to."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.problems import Problem
from arkjax.tools import registry
from arkjax.tools.protocol import ToolResult, bounded, failed
from arkjax.tools.python_runner import IsolationError
from arkjax.tools.registry import make_tools, register_tool, tool_names

pytestmark = pytest.mark.fast

PROBLEM = Problem("p", "question", "gold", "t", "d", {"passages": ["some text", "and more"]})


@pytest.mark.parametrize(
    ("configs", "complaint"),
    [
        ({"calclator": {}}, r"^tools\.calclator: unknown tool \(did you mean 'calculator'\?\)"),
        ({"zzz": {}}, r"^tools\.zzz: unknown tool: there are calculator, lookup, python, tests"),
        ({"lookup": {"tpo": 3}}, r"^tools\.lookup\.tpo: unknown option \(did you mean 'top'\?\)"),
        ({"calculator": {"digits": 3}}, r"^tools\.calculator\.digits: unknown option: there"),
        ({"python": {"seconds": "5"}}, r"^tools\.python\.seconds is '5': expected a whole number"),
        ({"python": {"seconds": True}}, r"^tools\.python\.seconds is True: expected a whole"),
        ({"python": {"seconds": 0}}, r"^tools\.python\.seconds is 0: expected 1 to 600"),
        ({"lookup": {"top": 10**9}}, r"^tools\.lookup\.top is 1000000000: expected 1 to 100"),
        ({"lookup": {"table": 3}}, r"^tools\.lookup\.table is 3: expected a text"),
        ({"calculator": None}, r"^tools\.calculator is None: expected its options"),
        (["calculator"], r"^tools is \['calculator'\]: expected names"),
    ],
)  # fmt: skip
def test_mistakes_in_a_config_name_their_place(configs, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make_tools(configs)


def test_the_place_can_be_said_and_files_are_read_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"^config\.team\.tools\.x: unknown tool"):
        make_tools({"x": {}}, "config.team.tools")
    with pytest.raises(DataError, match="missing.jsonl"):
        make_tools({"lookup": {"passages": tmp_path / "missing.jsonl"}})


def test_nothing_is_made_where_programs_cannot_be_isolated(monkeypatch):
    monkeypatch.setattr(registry, "can_isolate", lambda: "no Landlock here")
    for name in ("python", "tests"):
        with pytest.raises(IsolationError, match=rf"^tools\.{name}: no Landlock here"):
            make_tools({"calculator": {}, name: {}})
    assert set(make_tools({"calculator": {}, "lookup": {}})) == {"calculator", "lookup"}


def test_tools_have_names_versions_and_descriptions():
    made = make_tools({"calculator": {}, "lookup": {}})
    assert set(made) < set(tool_names())
    for name, tool in made.items():
        assert tool.name == name and tool.version and "Input:" in tool.description
        assert "\n" not in tool.description
    assert make_tools({"lookup": {"top": 2}})["lookup"].version != made["lookup"].version


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("0123456789.+-*/%^(), esqrtpilogcomb=;", max_size=200))
def test_no_input_raises_and_every_result_is_the_same_again(input):
    for tool in make_tools({"calculator": {}, "lookup": {}}).values():
        result = tool.run(input, PROBLEM)
        assert result.text and result.status in ("ok", "error")
        assert result == tool.run(input, PROBLEM)
        if result.status == "error":
            assert "\n" not in result.text and result.text.startswith("error: ")


def test_the_calculator():
    calculator = make_tools({"calculator": {}})["calculator"]
    assert calculator.run("3/4 + sqrt(16)", PROBLEM) == ToolResult("4.75")
    assert "division by zero" in calculator.run("1/0", PROBLEM).text


def test_a_tool_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))

    @dataclasses.dataclass(frozen=True)
    class Options:
        times: int = 2
        share: float = 0.5

    class Echo:
        name, version, description = "echo", "1", "Repeats. Input: any text."

        def __init__(self, options):
            self.options = options

        def run(self, input, problem):
            return ToolResult(input * self.options.times)

    register_tool("echo", Echo, Options)
    tools = make_tools({"echo": {"times": 3, "share": 1}})
    assert tools["echo"].run("a", PROBLEM).text == "aaa"
    assert tools["echo"].options.share == 1.0
    with pytest.raises(ConfigError, match="already"):
        register_tool("echo", Echo)


def test_results_are_texts_that_can_be_stored():
    result = ToolResult("a\ud800", fields={"x": "\udfff"})
    assert (result.text, dict(result.fields)) == ("a?", {"x": "?"})
    assert ToolResult("").text
    assert failed("two\nlines").text == "error: two lines"
    assert bounded("x" * 100, 100) == "x" * 100
    assert len(bounded("x" * 10**6, 100)) < 200
