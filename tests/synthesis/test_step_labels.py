"""Labels by peers, sets of steps, and their record."""

import dataclasses
import itertools
import math

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.shipped import shipped_path
from arkjax.synthesis.judged_answers import Judged, JudgedAnswer, Step
from arkjax.synthesis.step_labels import (
    StepLabelConfig,
    judged_answers,
    label_by_peers,
    with_sets,
)
from arkjax.tasks import embedded_world as world
from arkjax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

ITEMS = (("coins", 4, 7), ("gap", 3, 8), ("peak", 6, 1))
TRUE = tuple(world.true_values(ITEMS))
GOLD = str(sum(TRUE) % 10)
CONFIG = StepLabelConfig(steps="clause")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


@pytest.fixture
def said(call, tokenizer):
    """A function that makes a call in which an agent takes the items to have these values."""
    agents = itertools.count()

    def make(values=TRUE, running="total", *, problem="p1", agent=None, correct=None, end=True):
        text = world.solution_text(ITEMS, values, running=running)
        made = call(
            answer := text[-1],
            problem=problem,
            agent=agent or f"agent{next(agents)}",
            correct=answer == GOLD if correct is None else correct,
        )
        ids = tuple(tokenizer.encode(text)) + (tokenizer.eos_id,) * end
        return dataclasses.replace(made, gen_ids=ids, text=text)

    return make


def judge(calls, grader, tokenizer, config=CONFIG, team=None):
    prompts = {call.problem_id: (5, 6) for call in calls}
    return judged_answers(calls, prompts, team or {}, grader, tokenizer, config)


def wrong(step):
    values = list(TRUE)
    values[step] = (values[step] + 1) % 10
    return values


def test_a_step_is_as_right_as_the_others_say(said, grader, tokenizer):
    calls = [said(), said(running="sum"), said(running="sum"), said(wrong(1))]
    judged = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG)
    assert [answer.votes for answer in judged.answers] == [1, 2, 1]
    assert [answer.labels for answer in judged.answers] == [
        (1.0,) * 4,  # two say the same in other words
        (1.0,) * 4,
        (1.0, 0.0, 0.0, 0.0),
    ]
    # Both wordings of each right step from the mistake on, against the one who made it.
    assert [one.positive for one in judged.sets] == [Step(a, s) for a in (0, 1) for s in (1, 2, 3)]
    assert all(one.negatives == (Step(2, one.positive.step),) for one in judged.sets)
    assert judged.counts() == {
        "problems": 1,
        "answers": 3,
        "right_answers": 2,
        "steps": 12,
        "labelled_steps": 12,
        "right_steps": 9,
        "sets": 6,
        "negatives": 6,
    }


def test_an_answer_does_not_vote_for_itself(said, grader, tokenizer):
    # Right at the end by two mistakes that cancel: nobody else says so.
    odd = [(TRUE[0] + 1) % 10, (TRUE[1] - 1) % 10, TRUE[2]]
    calls = [said(odd), said(), said(running="sum")]
    answers = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG).answers
    assert answers[0].labels == (0.0, 0.0, 1.0, 1.0)
    # The odd one counts, being right at its end; one other agrees with the first two steps.
    assert answers[1].labels == (0.5, 0.5, 1.0, 1.0)
    hard = dataclasses.replace(CONFIG, hard=True)
    assert label_by_peers(answers, tokenizer, hard).answers[1].labels == (1.0,) * 4


def test_who_says_nothing_of_a_step_does_not_vote_on_it(said, grader, tokenizer):
    calls = [said(), said(running="sum")]
    longer = said()
    text = "check 1 1 makes 2 total 2 ; " + longer.text
    ids = (*tokenizer.encode(text), tokenizer.eos_id)
    calls.append(dataclasses.replace(longer, gen_ids=ids, text=text))
    answers = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG).answers
    assert math.isnan(answers[2].labels[0])
    assert answers[2].labels[1:] == (1.0,) * 4


def test_one_right_answer_alone_is_not_trusted(said, grader, tokenizer):
    calls = [said(), said(wrong(0)), said(wrong(1))]
    assert label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG) == Judged((), ())
    # But two calls with the very same words are two.
    calls.append(said())
    judged = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG)
    assert judged.answers[0].votes == 2 and judged.answers[0].labels == (1.0,) * 4


def test_without_gold_the_teams_answer_counts(said, grader, tokenizer):
    most = wrong(0)
    calls = [said(most), said(most, "sum"), said()]
    team = {"p1": calls[0].text[-1]}
    config = dataclasses.replace(CONFIG, gate="team")
    # Nobody may look at the verdicts.
    blind = [dataclasses.replace(one, correct=None) for one in calls]
    answers = label_by_peers(
        judge(blind, grader, tokenizer, config, team), tokenizer, config
    ).answers
    assert [answer.outcome for answer in answers] == [1, 1, 0]
    assert [answer.labels[0] for answer in answers] == [1, 1, 0]
    unknown = judge(blind, grader, tokenizer, config, {"p1": None})
    assert all(math.isnan(answer.outcome) for answer in unknown)
    assert not label_by_peers(unknown, tokenizer, config).answers


def test_a_set_has_distinct_negatives_up_to_a_limit(said, grader, tokenizer):
    others = [said([(TRUE[0] + n) % 10, *TRUE[1:]]) for n in range(1, 6)]
    again = dataclasses.replace(others[0], call_id="again")
    calls = [said(), said(running="sum"), *others, again]
    config = dataclasses.replace(CONFIG, negatives=3)
    judged = label_by_peers(judge(calls, grader, tokenizer, config), tokenizer, config)
    assert all(len(one.negatives) == 3 for one in judged.sets)
    for one in judged.sets:
        prefixes = [judged.answers[n.answer].prefix(n.step) for n in one.negatives]
        assert len(set(prefixes)) == 3
        assert all(judged.answers[n.answer].labels[n.step] < 0.5 for n in one.negatives)


def test_what_says_the_same_is_no_negative(said, grader, tokenizer):
    # By its label it is wrong, but it says what the positive says.
    answers = judge([said(), said(running="sum")], grader, tokenizer)
    labelled = [
        dataclasses.replace(answers[0], labels=(1.0,) * 4),
        dataclasses.replace(answers[1], labels=(0.0,) * 4),
    ]
    assert not with_sets(labelled, tokenizer, CONFIG).sets


def test_labels_of_other_origin_make_sets_alike(said, grader, tokenizer):
    calls = [said(), said(running="sum"), said(wrong(2))]
    judged = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG)
    assert with_sets(judged.answers, tokenizer, CONFIG) == judged


def test_problems_stay_apart(said, grader, tokenizer):
    calls = [said(problem=p) for p in "qp"] + [said(wrong(1), problem=p) for p in "qp"]
    calls += [said(running="sum", problem=p) for p in "pq"]
    judged = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG)
    assert [a.problem_id for a in judged.answers] == ["p"] * 3 + ["q"] * 3
    for one in judged.sets:
        own = judged.answers[one.positive.answer].problem_id
        assert {judged.answers[n.answer].problem_id for n in one.negatives} == {own}


def test_actions_and_empty_answers_are_passed_over(said, grader, tokenizer):
    action = dataclasses.replace(said(), model="tool:calculator/1")
    empty = dataclasses.replace(said(), gen_ids=(tokenizer.eos_id,))
    assert judge([action, empty], grader, tokenizer) == []


def test_a_problem_without_a_prompt_is_named(said, grader, tokenizer):
    with pytest.raises(DataError, match="problem p1, for which no prompt is given"):
        judged_answers([said()], {}, {}, grader, tokenizer, CONFIG)


def test_the_record_gives_back_what_was_kept(said, grader, tokenizer, tmp_path):
    calls = [said(), said(running="sum"), said(wrong(1)), said(wrong(1), "sum", end=False)]
    judged = label_by_peers(judge(calls, grader, tokenizer), tokenizer, CONFIG)
    unknown = dataclasses.replace(judged.answers[0], labels=(math.nan, 0.25, 1.0, 0.0))
    judged = Judged((unknown, *judged.answers[1:]), judged.sets)
    judged.save(tmp_path / "judged")
    read = Judged.load(tmp_path / "judged")
    assert repr(read) == repr(judged)  # NaN is not equal to itself

    damaged = (tmp_path / "judged" / "sets.parquet").read_bytes()
    (tmp_path / "judged" / "sets.parquet").write_bytes(damaged[:-1])
    with pytest.raises(DataError, match=r"sets\.parquet is missing or damaged; make the labels"):
        Judged.load(tmp_path / "judged")
    with pytest.raises(DataError, match="holds no judged answers"):
        Judged.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": (0.5,)}, "expected one label"),
        ({"labels": (1.5, 0.0)}, r"expected one label in \[0, 1\]"),
        ({"step_ends": (3, 2)}, "ascending"),
        ({"step_ends": (2, 9)}, "ascending ends in an answer of 4 tokens"),
        ({"step_ends": (), "labels": ()}, "needs a prompt and at least one step"),
    ],
)
def test_impossible_answers_are_refused(change, message):
    fields = {
        "problem_id": "p",
        "call_id": "c",
        "prompt_ids": (1,),
        "answer_ids": (1, 2, 3, 4),
        "step_ends": (2, 4),
        "labels": (1.0, 0.0),
        "outcome": 0.0,
    }
    JudgedAnswer(**fields)
    with pytest.raises(DataError, match=message):
        JudgedAnswer(**{**fields, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "oracle"}, "labels.source is 'oracle': expected 'peers' or 'rollouts'"),
        ({"gate": "none"}, "labels.gate"),
        ({"content": "ids"}, "labels.content"),
        ({"steps": "line"}, "steps of the kind 'line'"),
        ({"min_references": 1}, "at least 2"),
        ({"negatives": 0}, "labels.negatives"),
        ({"rollout_temperature": 0.0}, "all continuations are the same"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        StepLabelConfig(**change)
