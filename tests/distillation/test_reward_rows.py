"""Batches of judged answers: all of them, once an epoch, each where its steps say it is."""

import collections
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.distillation.reward_rows import fill, length, plan_batches, scoring_batches
from arkjax.errors import DataError
from arkjax.synthesis.judged_answers import UNKNOWN, Judged, JudgedAnswer, Step, StepSet

pytestmark = pytest.mark.fast

ROWS, ROW_LENGTH = 4, 24


def make(seed=0, problems=9):
    """Problems with a few answers of several lengths; some unlabelled, some sets."""
    rng = np.random.default_rng(seed)
    answers, sets = [], []
    for p in range(problems):
        first, count = len(answers), int(rng.integers(1, 5))
        for _ in range(count):
            size = int(rng.integers(2, 12))
            ends = tuple(sorted({*rng.integers(1, size + 1, 3).tolist()}))
            labels = tuple(rng.choice([0, 0.5, 1, UNKNOWN], len(ends)).tolist())
            prompt = tuple(rng.integers(1, 90, rng.integers(1, 6)).tolist())
            ids = tuple(rng.integers(1, 90, size).tolist())
            outcome = float(rng.choice([0, 1, UNKNOWN]))
            answers.append(
                JudgedAnswer(f"p{p}", f"c{len(answers)}", prompt, ids, ends, labels, outcome)
            )
        for _ in range(int(rng.integers(0, 4)) if count > 1 else 0):
            members = rng.permutation(np.arange(first, first + count))[: rng.integers(2, count + 1)]
            steps = [Step(int(a), int(rng.integers(len(answers[a].step_ends)))) for a in members]
            sets.append(StepSet(steps[0], tuple(steps[1:])))
    return Judged(tuple(answers), tuple(sets))


def read(batch):
    """The answers of a batch: (prompt and answer ids, columns of the answer's predictions)."""
    found = []
    for row in range(batch.tokens.shape[0]):
        for segment in range(1, batch.segment_ids[row].max() + 1):
            at = np.flatnonzero(batch.segment_ids[row] == segment)
            assert (np.diff(at) == 1).all()
            assert (batch.positions[row, at] == np.arange(len(at))).all()
            predicts = at[batch.answer_mask[row, at] > 0]
            assert (batch.targets[row, predicts] == batch.tokens[row, predicts + 1]).all()
            found.append((row, segment, tuple(batch.tokens[row, at].tolist()), predicts))
    outside = batch.segment_ids == 0
    for name in ("tokens", "positions", "targets", "answer_mask", "reference"):
        assert (getattr(batch, name)[outside] == 0).all()
    return found


@pytest.mark.parametrize("loss", ["contrastive", "bce", "implicit"])
def test_every_epoch_has_everything_once(loss):
    judged = make()
    batches = plan_batches(judged, loss, ROWS, ROW_LENGTH, epochs=3, seed=1)
    bounds = [0, *batches.epochs]
    orders = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        units = [unit for group in batches.groups[start:end] for unit in group]
        orders.append(units)
        answers = collections.Counter(i for unit in units for i in unit.answers)
        if loss == "contrastive":
            assert sorted(i for unit in units for i in unit.sets) == list(range(len(judged.sets)))
            assert set(answers) == {
                s.answer for one in judged.sets for s in (one.positive, *one.negatives)
            }
        else:
            known = {
                "bce": lambda a: not all(map(math.isnan, a.labels)),
                "implicit": lambda a: not math.isnan(a.outcome),
            }[loss]
            expected = {i for i, answer in enumerate(judged.answers) if known(answer)}
            assert set(answers) == expected and set(answers.values()) == {1}
    assert bounds[-1] == len(batches.groups)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    again = plan_batches(judged, loss, ROWS, ROW_LENGTH, epochs=3, seed=1)
    assert again == batches
    assert plan_batches(judged, loss, ROWS, ROW_LENGTH, 3, seed=2).groups != batches.groups


@pytest.mark.parametrize("loss", ["contrastive", "bce", "implicit"])
def test_batches_hold_what_was_judged(loss):
    judged = make()
    batches = plan_batches(judged, loss, ROWS, ROW_LENGTH, epochs=1, seed=1)
    by_ids = {(*a.prompt_ids, *a.answer_ids): i for i, a in enumerate(judged.answers)}
    assert len(by_ids) == len(judged.answers)
    shapes, met = set(), collections.Counter()
    for number, group in enumerate(batches.groups):
        batch = batches.batch(number, lambda i: np.arange(len(judged.answers[i].answer_ids)) - 99)
        shapes.add(tuple(array.shape for array in batch))
        cell = {}
        for row, segment, ids, predicts in read(batch):
            index = by_ids[ids]
            met[index] += 1
            answer = judged.answers[index]
            assert (batch.reference[row, predicts] == np.arange(len(predicts)) - 99).all()
            assert len(predicts) == len(answer.answer_ids)
            known = not math.isnan(answer.outcome)
            assert batch.outcome_weights[row, segment - 1] == known
            assert not known or batch.outcomes[row, segment - 1] == answer.outcome
            # The hidden state of a step's last token: one column after the one that predicts it.
            columns = predicts[np.array(answer.step_ends) - 1] + 1
            own = [np.flatnonzero(batch.step_columns[row] == c).tolist() for c in columns]
            for step, places in enumerate(own):
                place = places[0]
                label = answer.labels[step]
                assert batch.label_weights[row, place] == (not math.isnan(label))
                assert math.isnan(label) or batch.labels[row, place] == label
                cell[index, step] = row * batch.step_columns.shape[1] + place
        wanted = [judged.sets[i] for unit in group for i in unit.sets]
        assert batch.set_mask[:, 0].sum() == len(wanted)
        for got, mask, one in zip(batch.sets, batch.set_mask, wanted, strict=False):
            steps = (one.positive, *one.negatives)
            assert got[mask].tolist() == [cell[step] for step in steps]
    assert len(shapes) == 1
    assert set(met) == {i for group in batches.groups for unit in group for i in unit.answers}


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(17, 40))
def test_no_batch_is_ever_too_full(seed, rows, row_length):
    judged = make(seed, problems=4)
    batches = (
        plan_batches(judged, "implicit", rows, row_length, 1, seed)
        if any(not math.isnan(a.outcome) for a in judged.answers)
        else None
    )
    for number in range(len(batches.groups) if batches else 0):
        tokens = batches.batch(number).segment_ids > 0
        wanted = [judged.answers[i] for u in batches.groups[number] for i in u.answers]
        assert tokens.sum() == sum(map(length, wanted))


def test_sets_of_one_problem_share_a_batch_as_far_as_there_is_room():
    answers = tuple(
        JudgedAnswer("p", f"c{i}", (1, 2), (3 + i,) * 8, (4, 8), (1.0, 0.0), 1.0) for i in range(6)
    )
    sets = tuple(StepSet(Step(0, 0), (Step(i, 0),)) for i in range(1, 6))
    judged = Judged(answers, sets)
    # Two answers a row, four a batch: sets (1, 2, 3) of answers 0 to 3, then 4, 5 with 0 again.
    batches = plan_batches(judged, "contrastive", 2, 20, epochs=1, seed=0)
    assert sorted(unit for group in batches.groups for unit in group) == [
        ((0, 1, 2, 3), (0, 1, 2)),
        ((0, 4, 5), (3, 4)),
    ]
    with pytest.raises(DataError, match="problem p: a set of 2 answers does not fit into 1 r"):
        plan_batches(judged, "contrastive", 1, 10, epochs=1, seed=0)
    with pytest.raises(DataError, match="has 8 tokens after a prompt of 2, but a row .* holds 9"):
        plan_batches(judged, "bce", 2, 9, epochs=1, seed=0)


def test_data_without_anything_to_learn_is_refused():
    judged = make()
    bare = [dataclasses.replace(a, labels=(UNKNOWN,) * len(a.labels)) for a in judged.answers]
    with pytest.raises(DataError, match="what the reward model's bce loss learns from"):
        plan_batches(Judged(tuple(bare)), "bce", ROWS, ROW_LENGTH, 1, 0)


def test_answers_are_scored_in_few_shapes():
    answers = make(problems=30).answers
    seen, shapes = [], set()
    for places, shape in scoring_batches(answers, ROWS, ROW_LENGTH):
        batch = fill(places, answers, shape)
        assert len(read(batch)) == len(places)
        seen += places
        shapes.add(shape)
    assert sorted(seen) == list(range(len(answers)))
    assert all(n & (n - 1) == 0 for shape in shapes for n in (shape.steps, shape.answers))
    with pytest.raises(DataError, match="raise its row_length"):
        list(scoring_batches(answers, ROWS, 5))
