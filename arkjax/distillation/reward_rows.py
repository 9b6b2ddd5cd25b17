"""Judged answers in batches of one shape: which come together, and where each of them lies.

Answers whose steps are told apart must be in one batch. A *unit* is what stays together: for the
contrastive loss the answers of some sets of one problem, else one answer. Units are shuffled anew
in each epoch and put into batches of R rows in that order, a batch being closed when the next unit
finds no room. So the batches are a function of the data, the sizes and the seed, known before the
first step, and all have the shape of the fullest one.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from arkjax.distillation.process_reward import RewardBatch
from arkjax.errors import DataError
from arkjax.synthesis.judged_answers import Judged, Step, StepSet

RewardLoss = Literal["contrastive", "bce", "implicit"]


class Answer(Protocol):
    """What a reward model reads; `JudgedAnswer` is one."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    step_ends: Sequence[int]


class Unit(NamedTuple):
    """What is in one batch or in none: indices of answers and of sets."""

    answers: tuple[int, ...]
    sets: tuple[int, ...] = ()


class Place(NamedTuple):
    """Where an answer lies: row, first column, and which segment of the row it is, from 0."""

    row: int
    start: int
    segment: int


class Shape(NamedTuple):
    """R rows of T tokens, E steps and A answers a row, S sets of `width` steps a batch."""

    rows: int
    row_length: int
    steps: int
    answers: int
    sets: int = 1
    width: int = 2


@dataclasses.dataclass
class _Rows:
    """The rows of one batch while it is being filled."""

    rows: int
    row_length: int

    def __post_init__(self) -> None:
        self.free = np.full(self.rows, self.row_length)
        self.steps = np.zeros(self.rows, int)
        self.answers = np.zeros(self.rows, int)

    def put(self, unit: Unit, answers: Sequence[Answer]) -> dict[int, Place] | None:
        """Places for a unit's answers, the longest first; None, and nothing put, if it has none."""
        before = self.free.copy(), self.steps.copy(), self.answers.copy()
        places = {}
        for index in sorted(unit.answers, key=lambda i: -length(answers[i])):
            need = length(answers[index])
            row = int(np.argmax(self.free >= need))
            if self.free[row] < need:
                self.free, self.steps, self.answers = before
                return None
            start = self.row_length - self.free[row]
            places[index] = Place(row, int(start), int(self.answers[row]))
            self.free[row] -= need
            self.steps[row] += len(answers[index].step_ends)
            self.answers[row] += 1
        return places


def length(answer: Answer) -> int:
    """Tokens of an answer with its prompt."""
    return len(answer.prompt_ids) + len(answer.answer_ids)


@dataclasses.dataclass(frozen=True)
class RewardBatches:
    """The batches of a training, by number.

    Attributes:
      judged: the data.
      groups: the units of each batch, in the order in which they are put into its rows.
      epochs: after how many batches each epoch is over.
      shape: of every batch.
    """

    judged: Judged
    groups: tuple[tuple[Unit, ...], ...]
    epochs: tuple[int, ...]
    shape: Shape

    def batch(
        self, number: int, reference: Callable[[int], np.ndarray] | None = None
    ) -> RewardBatch:
        """A batch.

        Args:
          number: which one.
          reference: for the index of an answer the log-probabilities `[len(answer_ids)]` of its
            tokens by the reference model, if the loss needs them.
        """
        rows = _Rows(self.shape.rows, self.shape.row_length)
        places: dict[int, Place] = {}
        sets: list[StepSet] = []
        for unit in self.groups[number]:
            places |= rows.put(unit, self.judged.answers)
            sets += [self.judged.sets[i] for i in unit.sets]
        return fill(places, self.judged.answers, self.shape, sets, reference)


def plan_batches(
    judged: Judged, loss: RewardLoss, rows: int, row_length: int, epochs: int, seed: int
) -> RewardBatches:
    """Put the data into batches.

    Answers without anything that the loss looks at, a set, a label or an outcome, are left out.

    Args:
      judged: the data.
      loss: says what stays together.
      rows: R.
      row_length: T.
      epochs: how often all of it is seen.
      seed: of the order.

    Raises:
      DataError: if nothing is left, or a set or answer does not fit into a batch.
    """
    units = _units(judged, loss, rows, row_length)
    if not units:
        raise DataError(
            f"no answer has what the reward model's {loss} loss learns from: sample more problems, "
            "or lower labels.min_references"
        )
    groups: list[tuple[Unit, ...]] = []
    ends, steps, answers = [], 1, 1
    for epoch in range(epochs):
        # NumPy promises this old generator's stream for ever; the new ones' shuffle may change.
        bits = np.random.MT19937(np.random.SeedSequence([seed, epoch]))
        filling, group = _Rows(rows, row_length), []
        for number in np.random.RandomState(bits).permutation(len(units)).tolist():
            if filling.put(units[number], judged.answers) is None:
                groups.append(tuple(group))
                steps, answers = _most(filling, steps, answers)
                filling, group = _Rows(rows, row_length), []
                filling.put(units[number], judged.answers)
            group.append(units[number])
        groups.append(tuple(group))
        steps, answers = _most(filling, steps, answers)
        ends.append(len(groups))
    sets = max(sum(len(unit.sets) for unit in group) for group in groups)
    width = max((1 + len(one.negatives) for one in judged.sets), default=2)
    shape = Shape(rows, row_length, steps, answers, max(sets, 1), width)
    return RewardBatches(judged, tuple(groups), tuple(ends), shape)


def _most(filled: _Rows, steps: int, answers: int) -> tuple[int, int]:
    return max(steps, int(filled.steps.max())), max(answers, int(filled.answers.max()))


def _units(judged: Judged, loss: RewardLoss, rows: int, row_length: int) -> list[Unit]:
    if loss == "contrastive":
        return _units_of_sets(judged, rows, row_length)
    units = []
    for index, answer in enumerate(judged.answers):
        known = [answer.outcome] if loss == "implicit" else answer.labels
        if not np.isnan(known).all():
            if length(answer) > row_length:
                raise _too_long(answer, row_length)
            units.append(Unit((index,)))
    return units


def _units_of_sets(judged: Judged, rows: int, row_length: int) -> list[Unit]:
    """Sets of one problem share their answers; as many of them as fit into a batch are a unit."""
    units: list[Unit] = []
    problem = None
    for number, one in enumerate(judged.sets):
        needed = tuple(dict.fromkeys(step.answer for step in (one.positive, *one.negatives)))
        own = judged.answers[one.positive.answer]
        for index in needed:
            if length(judged.answers[index]) > row_length:
                raise _too_long(judged.answers[index], row_length)
        if own.problem_id == problem:
            both = tuple(dict.fromkeys((*units[-1].answers, *needed)))
            joined = Unit(both, (*units[-1].sets, number))
            if _Rows(rows, row_length).put(joined, judged.answers) is not None:
                units[-1] = joined
                continue
        if _Rows(rows, row_length).put(unit := Unit(needed, (number,)), judged.answers) is None:
            raise DataError(
                f"problem {own.problem_id}: a set of {len(needed)} answers does not fit into "
                f"{rows} rows of {row_length} tokens: raise the reward model's batch_rows or "
                "row_length, or lower labels.negatives"
            )
        units.append(unit)
        problem = own.problem_id
    return units


def _too_long(answer: Answer, row_length: int) -> DataError:
    name = getattr(answer, "problem_id", "")
    return DataError(
        f"an answer{f' to problem {name}' if name else ''} has {len(answer.answer_ids)} tokens "
        f"after a prompt of {len(answer.prompt_ids)}, but a row of the reward model holds "
        f"{row_length}: raise its row_length"
    )


def fill(
    places: Mapping[int, Place],
    answers: Sequence[Answer],
    shape: Shape,
    sets: Iterable[StepSet] = (),
    reference: Callable[[int], np.ndarray] | None = None,
) -> RewardBatch:
    """The arrays of answers at given places.

    Args:
      places: by index of the answer.
      answers: all of them; labels and outcomes are read where they have any.
      shape: of the batch.
      sets: steps that are told apart.
      reference: see `RewardBatches.batch`.
    """
    of_tokens = (shape.rows, shape.row_length)
    of_steps, of_answers = (shape.rows, shape.steps), (shape.rows, shape.answers)
    ids = np.zeros((4, *of_tokens), np.int32)
    tokens, segment_ids, positions, targets = ids
    answer_mask, logprobs = np.zeros((2, *of_tokens), np.float32)
    step_columns = np.zeros(of_steps, np.int32)
    labels, label_weights = np.zeros((2, *of_steps), np.float32)
    outcomes, outcome_weights = np.zeros((2, *of_answers), np.float32)
    first_step: dict[int, int] = {}
    used = np.zeros(shape.rows, int)
    # By segment, so that a row's steps stand in the order of its tokens.
    for index, (row, start, segment) in sorted(places.items(), key=lambda item: item[1]):
        answer = answers[index]
        begin, end = start + len(answer.prompt_ids), start + length(answer)
        tokens[row, start:end] = (*answer.prompt_ids, *answer.answer_ids)
        segment_ids[row, start:end] = segment + 1
        positions[row, start:end] = np.arange(end - start)
        targets[row, begin - 1 : end - 1] = answer.answer_ids
        answer_mask[row, begin - 1 : end - 1] = 1.0
        if reference is not None:
            logprobs[row, begin - 1 : end - 1] = reference(index)
        steps = slice(used[row], used[row] + len(answer.step_ends))
        step_columns[row, steps] = begin - 1 + np.asarray(answer.step_ends)
        own = np.asarray(getattr(answer, "labels", np.full(len(answer.step_ends), np.nan)))
        labels[row, steps] = np.nan_to_num(own)
        label_weights[row, steps] = ~np.isnan(own)
        outcome = getattr(answer, "outcome", np.nan)
        outcomes[row, segment] = np.nan_to_num(outcome)
        outcome_weights[row, segment] = not np.isnan(outcome)
        first_step[index] = row * shape.steps + int(used[row])
        used[row] += len(answer.step_ends)
    set_steps = np.zeros((shape.sets, shape.width), np.int32)
    set_mask = np.zeros((shape.sets, shape.width), bool)
    for number, one in enumerate(sets):
        members: list[Step] = [one.positive, *one.negatives]
        set_steps[number, : len(members)] = [first_step[m.answer] + m.step for m in members]
        set_mask[number, : len(members)] = True
    return RewardBatch(
        tokens,
        segment_ids,
        positions,
        targets,
        answer_mask,
        step_columns,
        labels,
        label_weights,
        outcomes,
        outcome_weights,
        set_steps,
        set_mask,
        logprobs,
    )


def scoring_batches(
    answers: Sequence[Answer], rows: int, row_length: int
) -> Iterable[tuple[dict[int, Place], Shape]]:
    """Batches of answers in their order, to be scored; few shapes, as each is compiled.

    Raises:
      DataError: if an answer is longer than a row.
    """
    filling, places = _Rows(rows, row_length), {}
    for index, answer in enumerate(answers):
        if length(answer) > row_length:
            raise _too_long(answer, row_length)
        put = filling.put(Unit((index,)), answers)
        if put is None:
            yield places, _rounded(filling)
            filling, places = _Rows(rows, row_length), {}
            put = filling.put(Unit((index,)), answers)
        places |= put
    if places:
        yield places, _rounded(filling)


def _rounded(filled: _Rows) -> Shape:
    """Room for the steps and answers of the fullest row, rounded up to powers of two."""
    steps, answers = (
        1 << max(int(n.max()) - 1, 0).bit_length() for n in (filled.steps, filled.answers)
    )
    return Shape(filled.rows, filled.row_length, steps, answers)
