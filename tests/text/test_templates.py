"""Chat templates give the texts and ids of `transformers`, and say what is wrong."""

import datetime
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.text.templates import OUTPUT_LIMIT, TEMPLATE_LIMIT, ChatTemplate, load_chat_template

pytestmark = pytest.mark.fast

NAMES = ("gemma2", "gemma3", "llama2", "llama3", "llama31", "mistral", "qwen25", "qwen3")
HELLO = [{"role": "user", "content": "Hello!"}]
# What templates use of jinja2 and of the functions that they are given.
FEATURES = """
{#- a comment -#}
{%- set ns = namespace(found=false, n=0) %}
{%- for message in messages if message.role != 'nobody' %}
    {%- if loop.index0 > 5 %}{% break %}{% endif %}
    {%- if message.content is mapping %}{% continue %}{% endif %}
    {%- set ns.n = ns.n + message.content | length %}
    {{ loop.cycle('a', 'b') }}{{ loop.first }} {{ message['content'] | upper | replace('L', '1') }}
    {%- generation %}{% set inner = 1 %}{{ message.content[::-1] }}{% endgeneration %}
{%- endfor %}
{{ inner is defined }} {{ ns.n }} {{ '%s and %d' % ('x', 3) }} {{ '{} {:>4}'.format(1, 2) }}
{% macro twice(x, y='!') %}{{ x }}{{ x }}{{ y }}{{ caller() if caller }}{% endmacro %}
{{ twice('ab') }}{% call twice('c') %}called{% endcall %}
{% filter upper %}filtered{% endfilter %}
{{ {'b': [1, 2.5, none, true], 'a': '<é "&\\\\' + "'"} | tojson }}
{{ [1, {'z': 2, 'y': 3}] | tojson(indent=2, sort_keys=true) }}
{{ dict(a=1, b=2).items() | list }} {{ dict.fromkeys('ab', 1) }} {{ range(3) | join(', ') }}
{{ strftime_now('%Y') | length }} {{ messages | map(attribute='role') | unique | list }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ undefined_name }}
{{- '  trimmed  ' | trim }} {{ 7 // 2 }} {{ 2 ** 10 }} {{ 'a' ~ 1 ~ none }} {{ [3, 1, 2] | sort }}
    {% if bos_token is defined and eos_token %}{{ eos_token }}{% endif %}
{{ joiner is defined }} {{ messages[-1].missing }} {{ messages[9] is defined }}
  {% raw %}{{ raw }}{% endraw %}
"""


def cases(chats):
    for name in NAMES:
        for case in chats(name)["chats"]:
            yield name, case


def test_texts_and_ids_are_those_of_transformers(chats, templates):
    for name, case in cases(chats):
        template, tokenizer = templates(name)
        messages, options = case["messages"], case["options"]
        if "error" in case:
            for make in (
                template.render,
                lambda *a, t=template, k=tokenizer, **o: t.encode(k, *a, **o),
            ):
                with pytest.raises(DataError) as error:
                    make(messages, **options)
                assert name in str(error.value) and case["error"] in str(error.value)
        else:
            assert template.render(messages, **options) == case["text"], (name, case["case"])
            ids = template.encode(tokenizer, messages, **options)
            assert ids == case["ids"], (name, case["case"])


def test_texts_and_ids_are_those_of_transformers_live(chats, templates, golden, parity):
    for name, case in cases(chats):
        template, tokenizer = templates(name)
        theirs = parity.AutoTokenizer.from_pretrained(golden / chats(name)["tokenizer"])
        text = (golden / "templates" / f"{name}.jinja").read_text("utf-8")
        if "error" not in case:
            options = {"chat_template": text, **case["options"]}
            rendered = theirs.apply_chat_template(case["messages"], tokenize=False, **options)
            assert template.render(case["messages"], **case["options"]) == rendered
            ids = theirs.apply_chat_template(case["messages"], return_dict=False, **options)
            assert template.encode(tokenizer, case["messages"], **case["options"]) == ids


@pytest.mark.parametrize("name", ["gemma2", "llama31", "qwen3"])
def test_any_words_make_the_ids_of_transformers(name, chats, templates, golden, parity):
    theirs = parity.AutoTokenizer.from_pretrained(golden / chats(name)["tokenizer"])
    text = (golden / "templates" / f"{name}.jinja").read_text("utf-8")
    template, tokenizer = templates(name)

    @given(st.lists(st.text(max_size=20), min_size=1, max_size=5))
    @settings(max_examples=40, deadline=None)
    def compare(contents):
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": words} for i, words in enumerate(contents)]
        expected = theirs.apply_chat_template(
            messages, chat_template=text, add_generation_prompt=True, return_dict=False
        )
        assert template.encode(tokenizer, messages) == expected

    compare()


def test_templates_may_use_what_they_may_use_in_transformers(golden, parity):
    theirs = parity.AutoTokenizer.from_pretrained(golden / "gemma")
    tokens = {name: theirs.special_tokens_map[name] for name in theirs.special_tokens_map}
    messages = [*HELLO, {"role": "assistant", "content": "  Well\n"}, *HELLO]
    expected = theirs.apply_chat_template(messages, chat_template=FEATURES, tokenize=False)
    template = ChatTemplate(FEATURES, named_tokens=tokens)
    assert template.render(messages, add_generation_prompt=False) == expected
    assert "<eos>" in expected and "olleH" in expected and "called" in expected


def test_the_time_that_templates_tell_can_be_set():
    text = "{{ strftime_now('%d %b %Y, %H:%M') }}"
    then = datetime.datetime(2024, 7, 26, 8, 5)
    assert ChatTemplate(text, now=then).render(HELLO) == "26 Jul 2024, 08:05"
    year = ChatTemplate("{{ strftime_now('%Y') }}").render(HELLO)
    assert abs(int(year) - datetime.datetime.now().year) <= 1


def test_reasoning_can_be_continued(templates, golden, chats, parity):
    theirs = parity.AutoTokenizer.from_pretrained(golden / "qwen")
    text = (golden / "templates" / "qwen3.jinja").read_text("utf-8")
    last = {"role": "assistant", "reasoning": "So far ", "content": "Paris"}
    options = {"continue_final_message": "reasoning_content", "add_generation_prompt": False}
    expected = theirs.apply_chat_template(
        [*HELLO, {**last, "reasoning_content": "So far "}],
        chat_template=text,
        tokenize=False,
        **options,
    )
    assert templates("qwen3")[0].render([*HELLO, last], **options) == expected
    assert expected.endswith("<think>\nSo far ")


def test_what_cannot_be_continued_is_refused(templates):
    template, _ = templates("qwen3")
    gone = ChatTemplate("{{ messages[0].role }}", source="here")
    for chat, field, part in (
        (template, "reasoning_content", "messages[0] has no text in 'reasoning_content'"),
        (gone, True, "here does not write out 'content' of messages[0]"),
    ):
        with pytest.raises(DataError) as error:
            chat.render(HELLO, continue_final_message=field)
        assert part in str(error.value)


def test_a_generation_prompt_only_follows_a_finished_message(templates):
    for name in NAMES:
        template, _ = templates(name)
        text = template.render(
            [*HELLO, {"role": "assistant", "content": "Well,"}], continue_final_message=True
        )
        assert text.endswith("Well,")


@pytest.mark.parametrize(
    ("messages", "parts"),
    [
        ([], ["no messages"]),
        ("Hello", ["messages is a str"]),
        ({"role": "user", "content": "x"}, ["messages is a dict"]),
        ([*HELLO, "Hello"], ["messages[1] is a str"]),
        ([*HELLO, {"content": "x"}], ["messages[1]", "role is None"]),
        ([{"role": "", "content": "x"}], ["messages[0]", "role is ''"]),
        ([{"role": "user\n<|im_start|>", "content": "x"}], ["messages[0]", "role is"]),
        ([*HELLO, {"role": "user"}], ["messages[1]", "content is missing"]),
        ([*HELLO, {"role": "user", "content": 3}], ["messages[1]", "content is a int"]),
        ([{"role": "user", "content": ["x"]}], ["messages[0]", "content[0] is 'x'"]),
        ([{"role": "user", "content": [{"text": 1}]}], ["messages[0]", "content[0]"]),
        ([{"role": "user", "content": "x", "more": {1, 2}}], ["messages[0]", "no plain data"]),
    ],
)
def test_malformed_messages_are_named_by_index(messages, parts, templates):
    template, tokenizer = templates("qwen3")
    for make in (template.render, lambda m: template.encode(tokenizer, m)):
        with pytest.raises(DataError) as error:
            make(messages)
        for part in parts:
            assert part in str(error.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"tools": {"a": 1}}, "tools is a dict"),
        ({"tools": ["x"]}, "tools[0] is a str"),
        ({"documents": [3]}, "documents[0] is a int"),
        ({"name": "other"}, "no template 'other', only default"),
        ({"flag": object()}, "flag holds what is no plain data"),
    ],
)
def test_malformed_options_are_named(options, part, templates):
    with pytest.raises(DataError) as error:
        templates("qwen3")[0].render(HELLO, **options)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\n{% if x %}", 3),
        ("{{ 'a }}", 1),
        ("a\n{% unknown %}", 2),
        ("{{ }}", 1),
        ("{{ x | no_filter }}", 1),
    ],
)
def test_invalid_templates_are_refused_at_once_with_the_line(text, line):
    with pytest.raises(DataError, match=f"mine, line {line} is no valid template"):
        ChatTemplate(text, source="mine").render(HELLO)


def test_failures_are_named_with_source_and_line(templates):
    text = "{{ messages[0].content }}\n\n{{ messages[0].nothing.more }}"
    with pytest.raises(DataError, match="mine, line 3 fails: UndefinedError"):
        ChatTemplate(text, source="mine").render(HELLO)
    several = ChatTemplate({"default": "x", "odd": text}, source="mine")
    with pytest.raises(DataError, match="mine, template 'odd', line 3"):
        several.render(HELLO, name="odd")


def test_templates_and_texts_have_a_largest_size():
    with pytest.raises(DataError, match=f"mine has {TEMPLATE_LIMIT + 1} characters"):
        ChatTemplate("x" * (TEMPLATE_LIMIT + 1), source="mine")
    flood = "{% for i in range(20) %}{{ messages[0].content }}{% endfor %}"
    long = [{"role": "user", "content": "x" * (OUTPUT_LIMIT // 20 + 1)}]
    with pytest.raises(DataError, match=f"more than {OUTPUT_LIMIT} characters"):
        ChatTemplate(flood).render(long)
    long[0]["content"] = "x" * (OUTPUT_LIMIT // 20)
    assert len(ChatTemplate(flood).render(long)) == OUTPUT_LIMIT // 20 * 20


def test_the_hash_is_of_the_text(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("one")
    assert load_chat_template(tmp_path).hash == ChatTemplate("one").hash
    assert ChatTemplate("one").hash != ChatTemplate("two").hash
    assert ChatTemplate({"default": "one", "b": "x"}).hash != ChatTemplate("one").hash


def test_a_chat_takes_milliseconds(templates, chats):
    template, tokenizer = templates("qwen3")
    messages = [case for case in chats("qwen3")["chats"] if case["case"] == "unicode"][0][
        "messages"
    ]
    template.encode(tokenizer, messages)
    taken = []
    for _ in range(50):
        start = time.perf_counter()
        template.encode(tokenizer, messages)
        taken.append(time.perf_counter() - start)
    # About 0.7 ms on an idle core; the median forgives a busy one.
    assert statistics.median(taken) < 0.02
