"""Unified traces of any form: whose tokens they are, what they state, and what was counted."""

import dataclasses

import pytest

from arkjax.synthesis.unified import Unifier, synthesizer_of
from arkjax.teams.library import load

from .selecting import select

pytestmark = pytest.mark.fast
FORMS = (
    "none",
    "best",
    "corrective",
    "consolidated",
    "synthesizer",
    "deliberation",
    "answer_only",
)


# --- properties of all forms ----------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["gold", "team"])
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_tokens_are_recorded_ones_or_the_connecting_text(world, form, gate, fallback):
    examples, counts = world.unify(form=form, gate=gate, fallback=fallback)
    assert len(examples) == counts.examples > 5
    for example in examples:
        at = 0
        for name, start, end, place in example.provenance["spans"]:
            between = example.target_ids[at:place]
            assert between in ((), world.no, world.between), "nothing but connecting texts between"
            assert (
                example.target_ids[place : place + end - start]
                == world.calls[name].gen_ids[start:end]
            )
            at = place + end - start
        assert at == len(example.target_ids)
        names = [span[0] for span in example.provenance["spans"]]
        assert example.provenance["call_ids"] == list(dict.fromkeys(names))
        assert {world.calls[n].problem_id for n in names} == {example.provenance["problem_id"]}
        # One end token, at the end.
        assert example.target_ids.index(world.tokenizer.eos_id) == len(example.target_ids) - 1
        question = world.problems[example.provenance["problem_id"]].question
        assert example.prompt_ids == tuple(world.prompt(question))


@pytest.mark.parametrize("form", FORMS)
def test_every_example_states_the_accepted_answer(world, form):
    for gate in ("gold", "team"):
        for example in world.unify(form=form, gate=gate)[0]:
            name = example.provenance["problem_id"]
            stated = world.grader.extract(world.tokenizer.decode(example.target_ids[:-1]))
            assert stated == (world.problems[name].answer if gate == "gold" else world.votes[name])


@pytest.mark.parametrize("form", FORMS)
def test_the_team_gate_never_looks_at_gold(world, form):
    """Other gold answers, other verdicts and other credits change nothing."""
    answers = {n: dataclasses.replace(p, answer="none") for n, p in world.problems.items()}
    other = [
        (n, [dataclasses.replace(c, correct=None) for c in calls]) for n, calls in world.debates
    ]
    expected = world.unify(form=form, gate="team")
    found = world.unify(other, answers, form=form, gate="team", weights="corrected", known=None)
    assert [dataclasses.replace(e, weight=1.0) for e in found[0]] == expected[0]
    assert found[1] == expected[1]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_record_gives_the_same_examples_in_any_order(world, form):
    expected = world.unify(form=form)
    assert world.unify([(n, calls[::-1]) for n, calls in world.debates], form=form) == expected
    # And debate by debate what all of them give together.
    alone = [e for debate in world.debates for e in world.unify([debate], form=form)[0]]
    assert alone == expected[0]


def test_by_default_examples_are_the_recorded_traces(world):
    traces, counted = select(
        world.calls.values(), world.votes, world.grader, world.base, world.credits
    )
    found, counts = world.unify()
    for example, trace in zip(found, traces, strict=True):
        call = trace.call
        question = world.problems[call.problem_id].question
        assert example.target_ids == call.gen_ids and example.target_weights is None
        assert list(example.prompt_ids) == [
            *world.chat.question(question),
            *world.chat.turn("answer"),
        ]
        assert example.weight == 1.0
        assert example.provenance == {
            "problem_id": call.problem_id,
            "call_ids": [call.call_id],
            "kind": trace.kind,
            "agent": call.agent,
            "round": call.round,
            "spans": [[call.call_id, 0, len(call.gen_ids), 0]],
        }
    for name in ("calls_accepted", "repeated", "beyond_limit"):
        assert getattr(counts, name) == getattr(counted, name)
    assert counts.problems_kept == len({trace.call.problem_id for trace in traces})
    assert counts.corrective == sum(trace.kind == "corrective" for trace in traces)
    assert counts.traces == len(traces)


def test_every_filter_counts_what_it_drops(world):
    _, counts = world.unify(
        form="consolidated", near_duplicates=0.8, max_per_difficulty=9, fallback=False
    )
    names = ["gate", "agreement", "finished", "distinct", "limit", "form", "near_duplicates"]
    assert list(counts.filters) == [*names, "difficulty"]
    left = 12 * 60
    problems = 60
    for name in names[:6]:
        passed = counts.filters[name]
        assert passed.calls == left
        assert passed.problems <= problems
        left -= passed.calls_dropped
        problems = passed.problems - passed.problems_dropped
    assert counts.filters["gate"].calls_dropped == 12 * 60 - counts.calls_accepted
    for passed in counts.filters.values():
        assert 0 <= passed.problems_dropped <= passed.problems
        assert passed.problems_dropped <= passed.calls_dropped <= passed.calls
    last = counts.filters["difficulty"]
    assert last.problems - last.problems_dropped == counts.problems_kept


def test_the_synthesizer_is_whose_word_is_the_teams():
    assert synthesizer_of(load("debate_judge")) == "judge"
    assert synthesizer_of(load("agentark")) == "synthesiser"
    assert synthesizer_of(load("debate")) is None


def test_progress_is_told_problem_by_problem(world):
    class Told:
        done = 0

        def advance(self, count):
            self.done += count

    config, told = world.base, Told()
    unifier = Unifier(config, world.grader, world.tokenizer, world.problems, world.prompt)
    unifier(iter(world.debates), world.votes, told)
    assert told.done == len(world.debates)


# --- weights and limits ---------------------------------------------------------------------------


def test_balance_gives_every_problem_the_same_weight(world):
    for weights in ("none", "agreement", "corrected"):
        examples, _ = world.unify(balance="problems", weights=weights)
        totals = {}
        for example in examples:
            name = example.provenance["problem_id"]
            totals[name] = totals.get(name, 0.0) + example.weight
        assert max(totals.values()) == pytest.approx(min(totals.values()))
        assert sum(totals.values()) == pytest.approx(len(examples))


def test_agreement_weighs_more_where_more_agree(world):
    examples, _ = world.unify(weights="agreement")
    agreed = dict(world.debates)
    shares = [
        sum(c.correct for c in agreed[e.provenance["problem_id"]])
        / sum("answer" in c.parsed for c in agreed[e.provenance["problem_id"]])
        for e in examples
    ]
    order = sorted(range(len(examples)), key=lambda i: shares[i])
    weights = [examples[i].weight for i in order]
    assert weights == sorted(weights) and weights[0] < 1 < weights[-1]


def test_no_fifth_of_difficulty_has_more_problems_than_allowed(world):
    few, counts = world.unify(max_per_difficulty=5)
    everything, _ = world.unify()
    assert counts.beyond_difficulty == len(everything) - len(few) > 0
    names = {e.provenance["problem_id"] for e in few}
    assert len(names) <= 25
    assert few == [e for e in everything if e.provenance["problem_id"] in names]


def test_near_duplicates_of_other_problems_are_dropped(world):
    problems = {
        f"p{i}": world.problem_of((("peak", 3, 2), ("peak", 5, 1)), f"p{i}") for i in range(3)
    }
    text = "peak 3 2 makes 3 total 3 ; peak 5 1 makes 5 total 8 ; so 8"
    of = [(n, [world.said(text, p, agent=a) for a in "ab"]) for n, p in problems.items()]
    examples, counts = world.unify(of, problems, near_duplicates=0.9)
    assert [e.provenance["problem_id"] for e in examples] == ["p0"]
    assert counts.near_duplicates == 2 and counts.problems_kept == 1
    assert counts.filters["near_duplicates"].problems_dropped == 2
    assert len(world.unify(of, problems)[0]) == 3
