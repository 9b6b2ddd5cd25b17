"""Figures of a store against a plain count over its calls; text that a terminal may see."""

import dataclasses

import pytest

from arkjax.trajectories.statistics import statistics
from arkjax.trajectories.transcript import messages, parts, printable, question

pytestmark = pytest.mark.fast


def test_figures_are_those_of_a_plain_count(debate, store_of):
    calls = [c for n in range(10) for c in debate(n, tool=n % 3 == 0)]
    calls[5] = dataclasses.replace(calls[5], parse_ok=False, finish_reason="length", cached_len=4)
    calls[6] = dataclasses.replace(calls[6], correct=None)
    path = store_of(calls, shard_calls=9)
    told = []
    found = statistics(path, told.append)
    spoken = [c for c in calls if not c.is_action]
    assert sum(told) == len(calls)
    expected = {
        "problems": 10,
        "calls": len(spoken),
        "actions": 4,
        "systems": ["debate"],
        "prompt_tokens": sum(len(c.prompt_ids) for c in calls),
        "prefill_tokens": sum(len(c.prompt_ids) for c in calls) - 4,
        "generated_tokens": sum(len(c.gen_ids) for c in calls),
        "finish_reasons": {"length": 1, "stop": len(spoken) - 1, "tool": 4},
        "parse_failures": 1,
        "graded": sum(c.correct is not None for c in calls),
        "right": sum(bool(c.correct) for c in calls),
        "bytes": sum(p.stat().st_size for p in path.iterdir()),
    }
    assert expected.items() <= found.items()
    assert found["seconds"] == pytest.approx(sum(c.seconds for c in calls))
    assert found["bytes_per_call"] == found["bytes"] / len(calls)
    assert len(found["agents"]) == 6
    for row in found["agents"]:
        own = [c for c in calls if (c.agent, c.round) == (row["agent"], row["round"])]
        graded = [c for c in own if c.correct is not None]
        assert row["calls"] + row["actions"] == len(own)
        assert row["right_share"] == sum(c.correct for c in graded) / len(graded)


def test_text_that_a_terminal_would_obey_is_spelled_out():
    wild = "a\x1b[2Jb\x07c\x9bd\u202ee\u2066f\rg\x00h\u2028i\ud800j\ufeffk"
    shown = printable(wild)
    assert shown == ("a\\x1b[2Jb\\x07c\\x9bd\\u202ee\\u2066f\\rg\\x00h\\u2028i\\ud800j\\ufeffk")
    assert shown.isprintable() and printable(shown) == shown
    kept = "naïve “數” \n\tمی‌خواهم 👩‍🔬 \\x1b"
    assert printable(kept) == kept


def test_a_prompt_is_told_apart_by_its_segments(debate, tokenizer):
    calls = debate(3)
    call = calls[4]
    assert "".join(p.text for p in parts(call, tokenizer)).count("</s>") == 4
    assert [(m.kind, m.source) for m in messages(call, tokenizer)] == [
        ("question", ""),
        *[("said", parent) for parent in call.parents],
        ("header", ""),
    ]
    assert question(calls, tokenizer) == "question: coins 3 4 , gap 3 3"
    assert question([], tokenizer) == ""


def test_a_message_that_its_limit_cut_off_and_a_shown_answer_are_messages(debate, tokenizer):
    call = debate(3)[0]
    end = (tokenizer.eos_id,)
    cut, shown = tuple(tokenizer.encode("so 4 ; so")), tuple(tokenizer.encode("a2: 7"))
    first, turn = tuple(tokenizer.encode("question: gap 3 3")), tuple(tokenizer.encode("a0:"))
    ids = (*first, *end, *turn, *cut, *end, *shown, *end, *turn)
    at = len(first) + 1 + len(turn)
    segments = (
        ("template", 0, at),
        ("x", at, at + len(cut)),
        ("template", at + len(cut), len(ids)),
    )
    call = dataclasses.replace(call, prompt_ids=ids, prompt_segments=segments)
    assert [(m.kind, m.text) for m in messages(call, tokenizer)] == [
        ("question", "question: gap 3 3"),
        ("said", "so 4 ; so"),
        ("shown", tokenizer.decode(shown)),
        ("header", "a0:"),
    ]
