"""Which calls become traces: filters that add up, and a gate that cannot see the gold answer."""

import dataclasses
import itertools
import random

import numpy as np
import pytest

from arkjax.config import to_dict
from arkjax.errors import ConfigError
from arkjax.synthesis.selection import SelectionConfig, difficulty, is_corrective, unlike

from .selecting import select

pytestmark = pytest.mark.fast
DA = SelectionConfig(max_traces=3, min_agreeing=2, prefer_corrective=True)


def chosen(traces):
    return [trace.call.call_id for trace in traces]


@pytest.fixture
def record(call):
    """Debates about many problems, with every kind of call that a filter can meet."""
    rng = random.Random(0)
    calls = []
    for p, r, agent in itertools.product(range(40), range(2), "abcd"):
        calls.append(
            call(
                rng.choice(["3", "3", "4", None]),
                problem=f"p{p:02d}",
                round=r,
                agent=agent,
                words=tuple(rng.choice([(7, 8, 9, 10, 11), tuple(rng.sample(range(50), 6))])),
                finish=rng.choice(["stop"] * 5 + ["length"]),
                parents=tuple(calls[-4:]) if r else (),
            )
        )
    rng.shuffle(calls)
    return calls


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["gold", "team"])
@pytest.mark.parametrize("min_agreeing", [1, 2, 4])
@pytest.mark.parametrize("max_traces", [1, 3])
def test_every_call_is_counted_once(record, grader, gate, min_agreeing, max_traces):
    config = SelectionConfig(max_traces, min_agreeing, True, gate)
    answers = {f"p{p:02d}": "3" if p % 5 else None for p in range(40)}
    traces, counts = select(record, answers, grader, config)
    accepted = [
        c
        for c in record
        if c.parsed.get("answer") == "3" and (gate == "gold" or answers[c.problem_id] == "3")
    ]
    by_problem = {p: [c for c in accepted if c.problem_id == p] for p in answers}
    too_few = {p for p, those in by_problem.items() if 0 < len(those) < min_agreeing}
    assert counts.problems == 40
    assert counts.calls == len(record) == 320
    assert counts.sampled_tokens == sum(len(c.gen_ids) for c in record)
    assert counts.calls_accepted == len(accepted)
    assert counts.too_few_agreeing == len(too_few)
    dropped = sum(len(by_problem[p]) for p in too_few)
    assert traces
    kept = len(traces) + counts.unfinished + counts.repeated + counts.beyond_limit
    assert kept + dropped == counts.calls_accepted
    per_problem = [sum(t.call.problem_id == p for t in traces) for p in answers]
    assert max(per_problem) <= max_traces


def test_the_order_of_the_record_does_not_matter(record, grader):
    first = select(record, {}, grader, DA)
    assert select(record[::-1], {}, grader, DA) == first
    ids = [t.call.problem_id for t in first[0]]
    assert ids == sorted(ids)


def test_only_finished_calls_are_kept_and_none_twice(record, grader):
    traces, counts = select(record, {}, grader, DA)
    assert counts.unfinished and counts.repeated
    assert all(t.call.finish_reason == "stop" and t.call.correct for t in traces)
    said = [(t.call.problem_id, t.call.gen_ids) for t in traces]
    assert len(said) == len(set(said))


def test_a_lone_right_answer_may_be_luck(call, grader):
    calls = [call("3"), call("4", agent="b"), call("5", agent="c")]
    traces, counts = select(calls, {}, grader, DA)
    assert traces == [] and counts.too_few_agreeing == 1
    alone = dataclasses.replace(DA, min_agreeing=1)
    assert chosen(select(calls, {}, grader, alone)[0]) == ["p1/0/a/0"]


def test_of_words_said_twice_the_preferred_call_stays(call, grader):
    words = (7, 8, 9)
    calls = [call(words=words), call(words=words, round=1), call(agent="b", words=(4, 4))]
    one = dataclasses.replace(DA, max_traces=1)
    # Later rounds come first: they know more of the others.
    assert chosen(select(calls, {}, grader, one)[0]) == ["p1/1/a/0"]
    assert select(calls, {}, grader, DA)[1].repeated == 1


def test_what_a_tool_wrote_is_not_learned(call, grader):
    """Whatever was read in its words, and under either gate."""
    calls = [call(agent=agent) for agent in "ab"]
    acted = dataclasses.replace(call(agent="c", correct=True), model="tool:calculator/1")
    for gate in ("gold", "team"):
        config = SelectionConfig(5, 1, False, gate)
        traces, counts = select([*calls, acted], {"p1": "3"}, grader, config)
        assert {trace.call.agent for trace in traces} == {"a", "b"}
        assert counts.calls == 2 and counts.sampled_tokens == sum(len(c.gen_ids) for c in calls)


def test_nothing_recorded_gives_nothing(grader):
    traces, counts = select([], {}, grader, DA)
    assert traces == [] and not any(dataclasses.asdict(counts).values())


@pytest.mark.parametrize("field", ["max_traces", "min_agreeing"])
def test_impossible_filters_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(DA, **{field: 0})


# --- corrective traces ----------------------------------------------------------------------------


def right(call):
    return call.correct


def test_corrected_by_another(call):
    before, other = call("4"), call("3", agent="b")
    after = call("3", round=1, parents=(before, other))
    assert is_corrective(after, [before, other, after], right)


def test_it_is_the_answer_before_that_counts_even_across_a_silent_round(call):
    before, other = call("4"), call("3", agent="b")
    after = call("3", round=2, parents=(other,))
    assert is_corrective(after, [before, other, after], right)
    recovered = call("3", round=1)
    assert not is_corrective(after, [before, recovered, other, after], right)


@pytest.mark.parametrize(
    "why", ["still wrong", "right before", "new", "nobody disagreed", "saw only itself", "unseen"]
)
def test_not_corrective(call, why):
    before = call("3" if why == "right before" else "4")
    other = call("4" if why == "nobody disagreed" else "3", agent="b")
    parents = {"saw only itself": (before,), "unseen": ()}.get(why, (before, other))
    after = call(
        "4" if why == "still wrong" else "3",
        round=1,
        agent="c" if why == "new" else "a",
        parents=parents,
    )
    assert not is_corrective(after, [before, other, after], right)


def test_another_wrong_answer_that_disagrees_is_enough(call):
    before, other = call("4"), call("5", agent="b")
    after = call("3", round=1, parents=(before, other))
    assert is_corrective(after, [before, other, after], right)


def test_an_answer_that_could_not_be_read_was_wrong(call):
    before, other = call(None), call("3", agent="b")
    after = call("3", round=1, parents=(before, other))
    assert is_corrective(after, [before, other, after], right)


def test_corrective_traces_come_first_where_that_is_asked(call, grader):
    wrong, other = call("4", agent="z"), call("3", agent="b")
    same = call("3", agent="b", round=1, parents=(wrong, other))
    corrected = call("3", agent="z", round=1, parents=(wrong, other))
    calls = [wrong, other, same, corrected]
    traces, _ = select(calls, {}, grader, DA)
    assert traces[0].kind == "corrective" and traces[0].call is corrected
    plain = dataclasses.replace(DA, prefer_corrective=False)
    traces, _ = select(calls, {}, grader, plain)
    assert traces[0].call is same
    # Told as it is, preferred or not.
    assert sum(trace.kind == "corrective" for trace in traces) == 1


# --- the gate without gold answers ---------------------------------------------------------------


class Sealed:
    """A recorded call whose verdict must not be read."""

    def __init__(self, call):
        self._call = call

    def __getattr__(self, name):
        if name == "correct":
            raise AssertionError("the verdict was read")
        return getattr(self._call, name)


def test_the_team_gate_never_reads_a_verdict_or_a_gold_answer(record, grader):
    # `grader` raises if it is asked to grade.
    config = dataclasses.replace(DA, gate="team")
    answers = {f"p{p:02d}": "34"[p % 2] for p in range(40)}
    open_traces, open_counts = select(record, answers, grader, config)
    traces, counts = select([Sealed(c) for c in record], answers, grader, config)
    assert chosen(traces) == chosen(open_traces) and counts == open_counts
    assert [t.kind for t in traces] == [t.kind for t in open_traces]
    assert {t.call.parsed["answer"] for t in traces} == {"3", "4"}
    with pytest.raises(AssertionError, match="the verdict was read"):
        select([Sealed(c) for c in record], answers, grader, DA)


def test_without_a_team_answer_nothing_agrees_with_it(record, grader):
    config = dataclasses.replace(DA, gate="team")
    traces, counts = select(record, dict.fromkeys({c.problem_id for c in record}), grader, config)
    assert traces == [] and counts.calls_accepted == 0
    assert select(record, {}, grader, config) == (traces, counts)


# --- diversity, near-duplicates, and configs that came before them --------------------------------


def test_hidden_states_decide_where_that_is_asked(call, grader):
    """And only calls among which there is something to choose are embedded."""
    calls = [call(agent=agent) for agent in "abc"] + [call(agent=a, problem="p2") for a in "ab"]
    asked = []

    def embed(some):
        asked.extend(some)
        return np.array([[{"a": 1.0, "b": -2.0, "c": 0.9}[c.agent], 1.0] for c in some])

    config = dataclasses.replace(DA, max_traces=2, diversity="hidden")
    traces, _ = select(calls, {}, grader, config, embed=embed)
    assert chosen(traces) == ["p1/0/a/0", "p1/0/b/0", "p2/0/a/0", "p2/0/b/0"]
    assert {c.problem_id for c in asked} == {"p1"} and len(asked) == 3


@pytest.mark.parametrize("kind", ["steps", "hidden"])
def test_a_diversity_that_needs_more_than_was_given_is_refused(call, grader, kind):
    config = dataclasses.replace(DA, diversity=kind)
    with pytest.raises(ConfigError, match=f"synthesis.diversity is '{kind}': it needs"):
        select([call()], {}, grader, config)


def test_of_what_is_nearly_the_same_the_first_is_kept():
    words = tuple(range(10, 60))
    alike = [(*words[:-1], last) for last in (3, 4, 5)]
    said = [alike[0], (7, 8, 9), alike[1], (9, 8, 7), alike[2]]
    assert unlike(said, 0.8) == [True, True, False, True, False]
    assert unlike(said, 0.0) == [True] * 5 and unlike([], 0.8) == []


def test_the_filters_of_an_older_config_are_named_as_they_were():
    """So that its hash, and what was made from it, stays what it was."""
    names = set(to_dict(DA))
    new = {"diversity", "form", "fallback", "steps", "correction", "near_duplicates", "balance"}
    assert not names & {*new, "max_per_difficulty"}
    assert to_dict(dataclasses.replace(DA, form="best"))["form"] == "best"


@pytest.mark.parametrize(
    "change",
    [
        {"diversity": "words"},
        {"form": "all"},
        {"steps": "word"},
        {"balance": "yes"},
        {"near_duplicates": 1.5},
        {"near_duplicates": -0.1},
        {"max_per_difficulty": -1},
        {"weights": "influence"},
    ],
)
def test_settings_that_mean_nothing_are_refused(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(DA, **change)
    dataclasses.replace(DA, weights="agreement")


@pytest.mark.parametrize(
    ("share", "fifth"), [(0.0, 0), (0.01, 0), (0.2, 0), (0.21, 1), (0.5, 2), (0.8, 3), (1.0, 4)]
)
def test_difficulty_is_told_in_fifths(share, fifth):
    assert difficulty(share) == fifth
