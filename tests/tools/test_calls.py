"""Reading calls of tools out of what a model wrote, which may be anything."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.tools.calls import ToolCall, describe, find_call, stop_texts
from arkjax.tools.protocol import MAX_INPUT
from arkjax.tools.registry import make_tools

pytestmark = pytest.mark.fast

NAMES = ("calculator", "python", "lookup")


def tagged(body) -> str:
    return f"<tool_call>\n{body if isinstance(body, str) else json.dumps(body)}\n</tool_call>"


def call(name, arguments) -> str:
    return tagged({"name": name, "arguments": arguments})


@pytest.mark.parametrize(
    ("text", "name", "input"),
    [
        (call("calculator", {"input": "12*7"}), "calculator", "12*7"),
        # Hermes writes the arguments first.
        (tagged({"arguments": {"input": "1"}, "name": "calculator"}), "calculator", "1"),
        (call("python", {"code": "print(']')\n", "timeout": 3}), "python", "print(']')\n"),
        (call("lookup", {"what": "cats"}), "lookup", "cats"),
        (call("lookup", {"title": "a", "query": "b"}), "lookup", "b"),
        (call("calculator", {"x": 12}), "calculator", "12"),
        (call("calculator", '{"expression": "2+2"}'), "calculator", "2+2"),
        (call("calculator", "2+2"), "calculator", "2+2"),
        (tagged({"name": "lookup", "parameters": {"query": "b"}}), "lookup", "b"),
        (call("python", {}), "python", ""),
        (call("python", {"code": "print('</tool_call>')"}), "python", "print('</tool_call>')"),
        (call("Calculator", {"input": "1"}), "calculator", "1"),
        (call("browser", {"url": "x"}), "browser", "x"),
        ("Action: calculator[12*7]", "calculator", "12*7"),
        ("Action 2: Lookup[High Plains (US)]", "lookup", "High Plains (US)"),
        ("**Action:** calculator[1]  ", "calculator", "1"),
        ("Action: python[a = [1, [2]]\nprint(a[0])]", "python", "a = [1, [2]]\nprint(a[0])"),
        ("Action: python[```python\nprint('[')\n```]", "python", "```python\nprint('[')\n```"),
        ("Action: python[\n```\nx[0]\n```\n]", "python", "```\nx[0]\n```"),
        ("Action: teleport[home]", "teleport", "home"),
    ],
)
def test_both_forms_are_read_wherever_they_stand(text, name, input):
    for before, after in (
        ("", ""),
        ("Thought: I [think] so.\n", "\nObservation: 84\nAction: b[2]"),
    ):
        found = find_call(before + text + after, NAMES)
        assert (found.name, found.input, found.error) == (name, input, "")
        assert found.start == len(before)
        assert (before + text + after)[found.start : found.end] == text.rstrip(" ")


def test_the_first_call_counts():
    text = "Action: lookup[a]\n" + call("calculator", {"input": "1"})
    assert find_call(text, NAMES).name == "lookup"
    text = call("calculator", {"input": "1"}) + "\nAction: lookup[a]\n"
    assert find_call(text, NAMES).name == "calculator"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Action: calculator",
        "Action: calculator[1 + [2]",
        "The Action: calculator[1]",
        "Action: see[1] for the rest",
        "Reaction: calculator[1]",
        "<tool_call>",
        '<tool_call>{"name": "calculator", "arguments": {"input": "1',
        "</tool_call>",
        "Action: python[```python\nprint('[",
    ],
)
def test_what_is_unfinished_or_no_call_is_none(text):
    assert find_call(text, NAMES) is None


def test_a_call_whose_stop_text_was_cut_off_is_complete():
    text = 'So. <tool_call>{"name": "calculator", "arguments": {"input": "1"}}\n'
    assert find_call(text, NAMES) == ToolCall("calculator", "1", 4, len(text))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("12*7", "JSON object must follow"),
        ("{'name': 'calculator'}", "damaged"),
        ('{"name": "calculator", "arguments": {"input": NaN}}', "NaN"),
        ('{"name": "calculator", "arguments": {"x": 1%s}}' % ("0" * 5000), "1000 digits"),
        ('{"name": "a", "arguments": ' + "[" * 100_000, "nested too deep"),
        ('{"name": "a", "arguments": ' + '{"a":' * 100_000, "nested too deep"),
        ('{"name": 3, "arguments": {}}', '"name"'),
        ('{"arguments": {"input": "1"}}', '"name"'),
        ('{"name": "a", "arguments": [1]}', '"arguments" must be an object'),
        ('{"name": "a", "arguments": {"b": "1", "c": "2"}}', "must have one text"),
        ('{"name": "a", "arguments": {}} {}', "more than one"),
        (json.dumps({"name": "a", "arguments": {"input": "x" * (MAX_INPUT + 1)}}), "at most"),
    ],
)
def test_a_malformed_call_says_what_is_wrong(body, complaint):
    text = "x " + tagged(body) + " y"
    found = find_call(text, NAMES)
    assert complaint in found.error and found.input == ""
    assert (found.start, found.end) == (2, len(text) - 2)


def test_half_characters_do_not_reach_the_record():
    found = find_call('<tool_call>{"name": "a", "arguments": {"b": "\\ud800"}}</tool_call>', NAMES)
    assert found.input == "?"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<tool_call>",
                "</tool_call>",
                "Action: ",
                "\nAction 1: python[",
                "[",
                "]",
                "```",
                "\n",
            ]
            + ['{"name": "python", "arguments": ', '{"input": "', '"}', "}", "\\", "x", " ", "é"]
        )
        | st.text(max_size=5),
        max_size=40,
    ).map("".join)
)
def test_any_text_is_read_without_an_exception(text):
    found = find_call(text, NAMES)
    if found is not None:
        assert 0 <= found.start < found.end <= len(text)
        assert text[found.start : found.end].lstrip(" \t*").startswith(("<tool_call>", "Action"))
        assert not (found.error and found.input)


@given(st.text(), st.sampled_from(NAMES))
def test_any_input_comes_through_json(input, name):
    found = find_call("a\n" + call(name, {"input": input}), NAMES)
    assert (found.name, found.input) == (name, input)


@given(st.text().filter(lambda t: "[" not in t and "]" not in t and "```" not in t))
def test_any_input_without_brackets_comes_through_an_action(input):
    assert find_call(f"Action: lookup[{input}]", NAMES).input == input.strip()


def _steps(text: str) -> int:
    """Lines of Python that reading a text takes, as a measure that no other work disturbs."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        find_call(text, NAMES)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit",
    ["Action: a[\n", "Action: a[```\n", "Action: a[x] y\n", "<tool_call>{", "[", "]", "```\n"],
)
def test_work_grows_with_the_length_only(unit):
    assert _steps(unit * 800) < 3 * _steps(unit * 400) + 100


def test_what_is_described_is_what_is_understood():
    tools = make_tools({"calculator": {}, "lookup": {}})
    text = describe(tools)
    assert all(tool.name in text and tool.description in text for tool in tools.values())
    assert find_call(text, tools) == ToolCall(
        "calculator", "input", text.index("Action:"), text.index("[input]") + len("[input]")
    )
    assert describe({}) == ""
    assert describe(list(tools.values())) == text
    assert "</tool_call>" in stop_texts()
    assert any("\nObservation 1: 5".startswith(stop) for stop in stop_texts())
