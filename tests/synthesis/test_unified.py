"""Unified traces: whose tokens they are, what is learned of them, and that they are right."""

import dataclasses
from pathlib import Path

import pytest

from arkjax.errors import ConfigError
from arkjax.synthesis.flips import flips
from arkjax.synthesis.operations import StepReader
from arkjax.synthesis.selection import SelectionConfig, select
from arkjax.synthesis.strategies import to_examples
from arkjax.synthesis.unified import NO_CORRECTION, NO_SYNTHESIZER, NOT_RIGHT, Unifier
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import load_tokenizer
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit
from tests.synthesis.debates import END, GRADER, WORLD, debates, problem_of, said

pytestmark = pytest.mark.fast
CHAT = PlainChat(WORLD)
BASE = SelectionConfig(2, 2, True, correction="no ;")
FORMS = ("none", "best", "corrective", "consolidated", "synthesizer", "answer_only")
PROBLEMS, DEBATES = debates(60)
CALLS = {call.call_id: call for _, calls in DEBATES for call in calls}
VOTES = {name: sorted(c.parsed.get("answer", "?") for c in calls)[6] for name, calls in DEBATES}
NO = tuple(WORLD.encode("no ;"))


def prompt(question):
    return [*CHAT.question(question), *CHAT.turn("answer")]


def credits(of=DEBATES):
    """What the debates' changes of mind say about who put whom right."""
    messages, agents = [], []
    for name, calls in of:
        found = flips(calls, PROBLEMS[name].answer, GRADER.equal)
        for call in calls:
            one = found.messages[call.call_id]
            messages.append(
                MessageCredit(
                    call.call_id,
                    name,
                    call.agent,
                    call.round,
                    one.corrected,
                    one.misled,
                    one.first,
                    one.own,
                )
            )
        for agent, one in found.agents.items():
            agents.append(AgentCredit(name, agent, one.corrected, one.misled, one.first, one.own))
    return Attribution.of(messages, agents)


CREDITS = credits()


def unify(of=DEBATES, problems=PROBLEMS, answers=VOTES, **changes):
    fields = {f.name for f in dataclasses.fields(SelectionConfig)}
    config = dataclasses.replace(BASE, **{k: v for k, v in changes.items() if k in fields})
    given = {"attribution": changes.pop("known", CREDITS), "synthesizer": "d"}
    given |= {k: v for k, v in changes.items() if k not in fields}
    return Unifier(config, GRADER, WORLD, problems, prompt, **given)(of, answers)


# --- properties of all forms ----------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["gold", "team"])
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_tokens_are_recorded_ones_or_the_connecting_text(form, gate, fallback):
    examples, counts = unify(form=form, gate=gate, fallback=fallback)
    assert len(examples) == counts.examples > 5
    for example in examples:
        at = 0
        for name, start, end, place in example.provenance["spans"]:
            between = example.target_ids[at:place]
            assert between in ((), NO), "nothing but the connecting text is between"
            assert example.target_ids[place : place + end - start] == CALLS[name].gen_ids[start:end]
            at = place + end - start
        assert at == len(example.target_ids)
        names = [span[0] for span in example.provenance["spans"]]
        assert example.provenance["call_ids"] == list(dict.fromkeys(names))
        assert {CALLS[n].problem_id for n in names} == {example.provenance["problem_id"]}
        # One end token, at the end.
        assert example.target_ids.index(END) == len(example.target_ids) - 1
        question = PROBLEMS[example.provenance["problem_id"]].question
        assert example.prompt_ids == tuple(prompt(question))


@pytest.mark.parametrize("form", FORMS)
def test_every_example_states_the_accepted_answer(form):
    for gate in ("gold", "team"):
        for example in unify(form=form, gate=gate)[0]:
            name = example.provenance["problem_id"]
            stated = GRADER.extract(WORLD.decode(example.target_ids[:-1]))
            assert stated == (PROBLEMS[name].answer if gate == "gold" else VOTES[name])


@pytest.mark.parametrize("form", FORMS)
def test_the_team_gate_never_looks_at_gold(form):
    """Other gold answers, other verdicts and other credits change nothing."""
    answers = {n: dataclasses.replace(p, answer="none") for n, p in PROBLEMS.items()}
    other = [(n, [dataclasses.replace(c, correct=None) for c in calls]) for n, calls in DEBATES]
    expected = unify(form=form, gate="team")
    found = unify(other, answers, form=form, gate="team", weights="corrected", known=None)
    assert [dataclasses.replace(e, weight=1.0) for e in found[0]] == expected[0]
    assert found[1] == expected[1]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_record_gives_the_same_examples_in_any_order(form):
    expected = unify(form=form)
    assert unify([(n, calls[::-1]) for n, calls in DEBATES], form=form) == expected
    # And debate by debate what all of them give together.
    alone = [e for debate in DEBATES for e in unify([debate], form=form)[0]]
    assert alone == expected[0]


def test_by_default_examples_are_the_recorded_traces():
    traces, counted = select(CALLS.values(), VOTES, GRADER, BASE, CREDITS)
    questions = {name: problem.question for name, problem in PROBLEMS.items()}
    expected = to_examples(traces, questions, CHAT, "answer")
    found, counts = unify()
    for example, wanted in zip(found, expected, strict=True):
        spans = example.provenance["spans"]
        assert example == dataclasses.replace(
            wanted, provenance={**wanted.provenance, "spans": spans}
        )
        assert len(spans) == 1 and spans[0][1:] == [0, len(wanted.target_ids), 0]
    for name in ("calls_accepted", "repeated", "beyond_limit", "corrective", "problems_kept"):
        assert getattr(counts, name) == getattr(counted, name)


def test_every_filter_counts_what_it_drops():
    _, counts = unify(
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


# --- corrective -----------------------------------------------------------------------------------


def test_wrong_words_are_shown_and_not_learned():
    examples, counts = unify(form="corrective", fallback=False)
    assert len(examples) == counts.forms["made"] == counts.corrective > 20
    for example in examples:
        problem = PROBLEMS[example.provenance["problem_id"]]
        spans = example.provenance["spans"]
        after = CALLS[spans[-1][0]]
        (wrong,) = [s for s in spans if not CALLS[s[0]].correct]
        name, start, end, place = wrong
        size = end - start
        assert example.target_weights == tuple(
            float(not place <= i < place + size) for i in range(len(example.target_ids))
        )
        # It is one step, of an earlier round, and the first that is wrong there.
        before = CALLS[name]
        assert before.agent == after.agent and before.round < after.round
        steps = StepReader.of(GRADER, WORLD)(before)
        index = [(s.start, s.end) for s in steps].index((start, end))
        first = GRADER.first_wrong_step(problem, before.text)
        assert index == (len(steps) - 1 if first is None else first)
        # Without it and the connecting text stands the right answer.
        learned = [i for i, w in zip(example.target_ids, example.target_weights, strict=True) if w]
        at = learned.index(NO[0])
        assert tuple(learned[:at] + learned[at + len(NO) :]) == after.gen_ids
        assert GRADER.holds(problem, after.text)


def test_corrections_of_earlier_rounds_are_found_and_lost_with_them():
    """A record of last rounds alone, as AgentArk keeps, holds no correction."""
    assert unify(form="corrective", fallback=False)[1].forms["made"] > 20
    last = [(n, [c for c in calls if c.round == 2]) for n, calls in DEBATES]
    examples, counts = unify(last, form="corrective", fallback=False)
    assert examples == [] and counts.forms == {NO_CORRECTION: counts.filters["form"].problems}


def test_a_correction_that_was_right_by_luck_is_not_made():
    """Two errors that cancel out give the right digit, and a step that is no correction."""
    problem = problem_of((("peak", 3, 2), ("peak", 5, 1)))
    wrong = said("peak 3 2 makes 3 total 3 ; peak 5 1 is 4 total 7 ; so 7", problem)
    other = said("peak 3 2 makes 3 sum 3 ; peak 5 1 makes 5 sum 8 ; so 8", problem, agent="b")
    lucky = said(
        "peak 3 2 is 4 total 4 ; peak 5 1 is 4 total 8 ; so 8",
        problem,
        round=1,
        parents=(wrong, other),
    )
    of, problems = [("p1", [wrong, other, lucky])], {"p1": problem}
    examples, counts = unify(of, problems, form="corrective", fallback=False)
    assert examples == [] and counts.forms == {NOT_RIGHT: 1}
    # Without gold nobody can know.
    assert len(unify(of, problems, {"p1": "8"}, form="corrective", gate="team")[0]) == 1


QWEN = load_tokenizer(Path(__file__).parents[1] / "golden" / "chat" / "qwen")


class Sevens:
    """A grader of free text whose answer stands behind the last colon."""

    def extract(self, text):
        return text.rpartition(":")[2].strip(" .") or None

    def equal(self, a, b):
        return a == b

    def grade(self, problem, text):
        return dataclasses.replace(GRADER.grade(problem, ""), correct=self.extract(text) == "7")


@pytest.mark.parametrize("critic", [True, False])
def test_in_free_text_the_objection_is_in_its_own_words(critic):
    problem = dataclasses.replace(problem_of((("peak", 3, 2),)), question="?", answer="7")

    def says(text, answer, **where):
        return said(text, problem, tokenizer=QWEN, answer=answer, **where)

    wrong = says("We count.\nThen 3 * 2 = 5.\nAnswer: 6", "6")
    other = (
        dataclasses.replace(
            says("You multiply wrongly: 3 * 2 is 6.", None, agent="b"), parse_ok=True
        )
        if critic
        else says("Surely $3*2=6$, I say.\nAnswer: 7", "7", agent="b")
    )
    after = says("We count!\nThen 3 * 2 = 6.\nAnswer: 7", "7", round=1, parents=(wrong, other))
    config = SelectionConfig(1, 1, True, form="corrective", correction="\nNo.\n")
    (example,), _ = Unifier(config, Sevens(), QWEN, {"p1": problem}, QWEN.encode)(
        [("p1", [wrong, other, after])], {}
    )
    objection = other.text if critic else "Surely $3*2=6$, I say.\n"
    expected = [
        ("We count!\n", 1.0),
        ("Then 3 * 2 = 5.\n", 0.0),
        ("\nNo.\n", 1.0),
        (objection, 1.0),
        ("Then 3 * 2 = 6.\nAnswer: 7", 1.0),
    ]
    assert QWEN.decode(example.target_ids) == "".join(text for text, _ in expected)
    shown = [i for i, w in zip(example.target_ids, example.target_weights, strict=True) if not w]
    assert QWEN.decode(shown) == "Then 3 * 2 = 5.\n"


def test_a_connecting_text_without_tokens_is_refused():
    with pytest.raises(ConfigError, match="synthesis.correction is 'n\u2603'.*tokenizer.model has"):
        unify(form="corrective", correction="n\u2603")


# --- consolidated ---------------------------------------------------------------------------------


def test_consolidated_traces_are_right_in_every_step():
    examples, counts = unify(form="consolidated", fallback=False)
    assert counts.forms["made"] == len(examples) > 15
    mixed = 0
    for example in examples:
        problem = PROBLEMS[example.provenance["problem_id"]]
        assert GRADER.holds(problem, WORLD.decode(example.target_ids[:-1]))
        assert example.target_weights is None
        assert all(CALLS[name].correct for name in example.provenance["call_ids"])
        mixed += len(example.provenance["call_ids"]) > 1
    assert mixed > 2
    # What cannot be made is counted, and its place taken by a recorded trace.
    filled, with_fallback = unify(form="consolidated")
    fell_back = with_fallback.forms["fell_back"]
    assert fell_back == counts.filters["form"].problems_dropped > 0
    assert len(filled) == len(examples) + fell_back
    kinds = [e.provenance["kind"] for e in filled]
    assert len(kinds) - kinds.count("consolidated") == fell_back


def test_a_step_comes_from_the_agent_with_the_most_credit_among_those_who_agree():
    problem = problem_of((("peak", 3, 2), ("peak", 5, 1)))
    texts = {
        "a": "peak 3 2 makes 3 total 3 ; peak 5 1 makes 5 total 8 ; so 8",
        "b": "peak 3 2 is 3 sum 3 ; peak 5 1 is 5 sum 8 ; so 8",
        # Right at the end, wrong in its first two steps.
        "c": "peak 3 2 is 5 sum 5 ; peak 5 1 is 3 sum 8 ; so 8",
    }
    calls = [said(text, problem, agent=agent) for agent, text in texts.items()]

    def made(**credit):
        agents = [
            AgentCredit("p1", name, value, 0.0, False, False) for name, value in credit.items()
        ]
        messages = [
            MessageCredit(c.call_id, "p1", c.agent, 0, 0.0, 0.0, False, False) for c in calls
        ]
        known = Attribution.of(messages, agents)
        (example,), _ = unify([("p1", calls)], {"p1": problem}, form="consolidated", known=known)
        return example.provenance["kind"], WORLD.decode(example.target_ids[:-1])

    assert made(a=2.0, b=1.0, c=0.0) == ("consolidated", texts["a"])
    assert made(a=1.0, b=2.0, c=0.0) == ("consolidated", texts["b"])
    # The last step is agreed on by all three, the others are not its author's.
    assert made(a=1.0, b=0.0, c=2.0) == ("consolidated", texts["a"])


def test_what_no_longer_holds_together_is_dropped():
    """Two agree on a pair of errors that cancel out: right to each of them, wrong by the grader."""
    problem = problem_of((("peak", 3, 2), ("peak", 5, 1)))
    text = "peak 3 2 is 4 total 4 ; peak 5 1 is 4 total 8 ; so 8"
    calls = [said(text, problem, agent="a"), said(text.replace("is", "makes"), problem, agent="b")]
    examples, counts = unify([("p1", calls)], {"p1": problem}, form="consolidated", fallback=False)
    assert examples == [] and counts.forms == {NOT_RIGHT: 1}


# --- the synthesiser's text, and bare answers -----------------------------------------------------


def test_the_synthesizers_text_is_its_last_right_message():
    examples, counts = unify(form="synthesizer", fallback=False)
    assert examples and all(e.provenance["agent"] == "d" for e in examples)
    without, counts = unify(form="synthesizer", fallback=False, synthesizer=None)
    assert without == [] and counts.forms == {NO_SYNTHESIZER: counts.filters["form"].problems}


def test_bare_answers_are_the_last_step_alone():
    examples, _ = unify(form="answer_only", near_duplicates=0.5)
    best, _ = unify(form="best")
    assert len(examples) == len(best) > 25
    for bare, whole in zip(examples, best, strict=True):
        answer = PROBLEMS[bare.provenance["problem_id"]].answer
        assert bare.target_ids == (*WORLD.encode(f"so {answer}"), END)
        assert whole.target_ids[-len(bare.target_ids) :] == bare.target_ids


# --- weights and limits ---------------------------------------------------------------------------


def test_balance_gives_every_problem_the_same_weight():
    for weights in ("none", "agreement", "corrected"):
        examples, _ = unify(balance="problems", weights=weights)
        totals = {}
        for example in examples:
            name = example.provenance["problem_id"]
            totals[name] = totals.get(name, 0.0) + example.weight
        assert max(totals.values()) == pytest.approx(min(totals.values()))
        assert sum(totals.values()) == pytest.approx(len(examples))


def test_agreement_weighs_more_where_more_agree():
    examples, _ = unify(weights="agreement")
    agreed = dict(DEBATES)
    shares = [
        sum(c.correct for c in agreed[e.provenance["problem_id"]])
        / sum("answer" in c.parsed for c in agreed[e.provenance["problem_id"]])
        for e in examples
    ]
    order = sorted(range(len(examples)), key=lambda i: shares[i])
    weights = [examples[i].weight for i in order]
    assert weights == sorted(weights) and weights[0] < 1 < weights[-1]


def test_no_fifth_of_difficulty_has_more_problems_than_allowed():
    few, counts = unify(max_per_difficulty=5)
    everything, _ = unify()
    assert counts.beyond_difficulty == len(everything) - len(few) > 0
    names = {e.provenance["problem_id"] for e in few}
    assert len(names) <= 25
    assert few == [e for e in everything if e.provenance["problem_id"] in names]


def test_near_duplicates_of_other_problems_are_dropped():
    problems = {f"p{i}": problem_of((("peak", 3, 2), ("peak", 5, 1)), f"p{i}") for i in range(3)}
    text = "peak 3 2 makes 3 total 3 ; peak 5 1 makes 5 total 8 ; so 8"
    of = [(n, [said(text, p, agent=a) for a in "ab"]) for n, p in problems.items()]
    examples, counts = unify(of, problems, near_duplicates=0.9)
    assert [e.provenance["problem_id"] for e in examples] == ["p0"]
    assert counts.near_duplicates == 2 and counts.problems_kept == 1
    assert counts.filters["near_duplicates"].problems_dropped == 2
    assert len(unify(of, problems)[0]) == 3
