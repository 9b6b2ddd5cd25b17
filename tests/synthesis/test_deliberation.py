"""Deliberations: whose words they are, in which order, what is learned, what they state."""

import dataclasses

import pytest

from arkjax.errors import ConfigError
from arkjax.shipped import shipped_path
from arkjax.synthesis.deliberation import CUT_OFF, NO_TALK, line_of_talk
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import NOT_RIGHT, Unifier
from arkjax.tasks import search_world
from arkjax.tasks.search_grader import SearchGrader
from arkjax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.fast

TOKENIZER = load_tokenizer(shipped_path("data/search_world/tokenizer.model"))
GRADER = SearchGrader()
ITEMS = (("cap", 3), ("least", 7), ("over", 2))
PROBLEM = search_world.make_problem(ITEMS, 13, "p1")


def check(n, values=None):
    values = search_world.true_values(ITEMS, n) if values is None else values
    return search_world.check_text(ITEMS, 13, n, values)


SAID = ["from 0 to 9 so 4", check(4), "from 5 to 9 so 7", check(7), "from 5 to 6 so 5", check(5)]
WHOLE = [*SAID, "so 5"]


@pytest.fixture
def talk(world):
    """Calls of a solver and a critic, who read all before; the one of round `cut` has no end."""

    def make(texts, cut=None):
        calls = []
        for round, text in enumerate(texts):
            critic = round % 2 == 1
            call = world.said(
                text,
                PROBLEM,
                round=round,
                agent="critic" if critic else "solver",
                parents=tuple(calls),
                tokenizer=TOKENIZER,
                answer=None if critic else GRADER.extract(text),
                finish="length" if round == cut else "stop",
            )
            said = {"verdict": text.rpartition(" ")[2]} if critic else call.parsed
            correct = None if critic else call.correct
            calls.append(dataclasses.replace(call, parsed=said, correct=correct, parse_ok=True))
        return calls

    return make


def unify(calls, votes=None, **changes):
    config = SelectionConfig(2, 1, True, form="deliberation", between=";", fallback=False)
    config = dataclasses.replace(config, **changes)
    unifier = Unifier(config, GRADER, TOKENIZER, {"p1": PROBLEM}, TOKENIZER.encode)
    return unifier([("p1", calls)], votes or {"p1": "5"})


def test_a_search_becomes_one_voice(talk):
    calls = talk(WHOLE)
    (example,), counts = unify(calls)
    text = TOKENIZER.decode(example.target_ids[:-1])
    assert text == " ; ".join(WHOLE) and example.target_ids[-1] == TOKENIZER.eos_id
    assert GRADER.holds(PROBLEM, text)
    assert example.target_ids.count(TOKENIZER.eos_id) == 1
    # Each call's words once, in the order said, up to its end token.
    assert example.provenance["call_ids"] == [call.call_id for call in calls]
    spans = [(name, start, end) for name, start, end, _ in example.provenance["spans"]]
    ends = [len(call.gen_ids) - 1 for call in calls[:-1]] + [len(calls[-1].gen_ids)]
    assert spans == [(c.call_id, 0, end) for c, end in zip(calls, ends, strict=True)]
    assert example.provenance["kind"] == "deliberation" and example.target_weights is None
    assert counts.forms == {"made": 1}


def test_wrong_attempts_can_be_shown_and_not_learned(talk):
    (learned,), _ = unify(talk(WHOLE))
    (shown,), _ = unify(talk(WHOLE), attempts="shown")
    assert shown.target_ids == learned.target_ids
    left_out = [i for i, w in zip(shown.target_ids, shown.target_weights, strict=True) if w == 0.0]
    assert TOKENIZER.decode(left_out) == f"{SAID[0]} {SAID[2]}"
    assert set(shown.target_weights) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["from 0 to 9 so 5"], NO_TALK),
        # The check is wrong in a value, in its verdict, or was not waited for.
        ([SAID[0], check(4, [3, 7, 5]), *SAID[2:], "so 5"], NOT_RIGHT),
        ([*SAID[:3], check(7).replace("high", "low"), *SAID[4:], "so 5"], NOT_RIGHT),
        (SAID[:5], NOT_RIGHT),
    ],
)
def test_what_is_not_right_in_every_step_is_not_made(talk, texts, reason):
    examples, counts = unify(talk(texts))
    assert examples == [] and counts.forms == {reason: 1}
    # In its place, if asked for, the last right answer as it is.
    (whole,), counts = unify(talk(texts), fallback=True)
    assert whole.provenance["kind"] != "deliberation" and counts.forms["fell_back"] == 1


def test_a_line_with_a_message_that_was_cut_off_is_not_made(talk):
    examples, counts = unify(talk(WHOLE, cut=1))
    assert examples == [] and counts.forms == {CUT_OFF: 1}


def test_without_gold_the_teams_answer_decides(talk):
    """Nobody can know then that a check is wrong."""
    texts = [SAID[0], check(4, [3, 7, 3]), "so 4"]
    (example,), _ = unify(talk(texts), {"p1": "4"}, gate="team")
    assert TOKENIZER.decode(example.target_ids[:-1]) == " ; ".join(texts)
    assert unify(talk(texts), {"p1": "5"}, gate="team")[0] == []


def test_messages_may_follow_each_other_directly_or_not_at_all(talk):
    (joined,), _ = unify(talk(WHOLE), between="", gate="team")
    assert TOKENIZER.decode(joined.target_ids[:-1]) == " ".join(WHOLE)
    with pytest.raises(ConfigError, match="synthesis.between is '\u2603'.*has no tokens"):
        unify(talk(WHOLE), between="\u2603")
    with pytest.raises(ConfigError, match="synthesis.attempts is 'hidden': choose one of learned"):
        unify(talk(WHOLE), attempts="hidden")


def test_the_line_goes_through_the_latest_that_each_has_read(call):
    """Others before oneself, those who put somebody right before others."""
    opening = [call("1", agent=name) for name in "abc"]
    second = [call("3", agent=name, round=1, parents=tuple(opening)) for name in "abc"]
    last = call("3", agent="a", round=2, parents=(*opening, *second))
    calls = [*opening, *second, last]
    assert line_of_talk(last, calls) == [opening[1], second[2], last]
    heard = {second[1].call_id, opening[0].call_id}
    assert line_of_talk(last, calls, heard) == [opening[0], second[1], last]
    assert line_of_talk(opening[0], calls) == [opening[0]]
    # What is not among the calls, such as a tool's answer, is passed over.
    assert line_of_talk(last, [*opening, last]) == [opening[2], last]


def test_debates_about_the_embedded_world_become_lines_as_well(world):
    examples, counts = world.unify(form="deliberation", fallback=False)
    assert counts.forms["made"] == len(examples) > 20
    for example in examples:
        said = [world.calls[name] for name in example.provenance["call_ids"]]
        assert [c.round for c in said] == list(range(len(said))) and len(said) > 1
        assert said[-1].correct and world.grader.holds(
            world.problems[said[-1].problem_id], said[-1].text
        )
        for before, after in zip(said, said[1:], strict=False):
            assert before.call_id in after.parents
