"""Intervals and tests for systems that answered the same problems under the same seeds.

Everything is paired: one draw of problems and seeds serves all systems, so what is hard for all
of them cancels in their differences. Fixed resampling seed, NumPy only: same cells, same figures.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arkjax.errors import DataError

RESAMPLES = 10_000
"""Draws of which intervals are made; p values of many comparisons may take more."""
_BLOCK_BYTES = 16 * 2**20  # of resampling weights held at a time


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    ci95: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Accuracy of a minus accuracy of b, its 95% interval and two-sided bootstrap p."""

    value: float
    ci95: tuple[float, float]
    p: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero lies in the interval: then neither system is shown to be better."""
        return self.ci95[0] <= 0.0 <= self.ci95[1]


@dataclasses.dataclass(frozen=True)
class CapturedGain:
    """How much of the team's gain over base a system shows; None with a reason if undefined."""

    value: float | None
    ci95: tuple[float, float] | None
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class McNemar:
    """Problems that only a or only b solved, and the exact two-sided p."""

    only_a: int
    only_b: int
    p: float


def _draws(rng: np.random.Generator, rows: int, count: int, draws: int) -> np.ndarray:
    """How often each of `count` things is drawn with replacement, [rows, count]."""
    picks = rng.integers(count, size=(rows, draws))
    picks += np.arange(rows)[:, None] * count
    times = np.bincount(picks.ravel(), minlength=rows * count)
    return times.reshape(rows, count).astype(np.float32)


def resampled_means(cells: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of K systems over resampled problems and seeds: [K, S, P] -> [R, K].

    Crossed ("pigeonhole") bootstrap: problems and seeds are drawn independently, and a cell
    counts as often as its problem times its seed was drawn (Owen 2007, Ann. Appl. Stat. 1(2):
    no bootstrap of crossed factors is exact; this one errs on the safe side, as it counts the
    noise of single cells more than once). Seeds are few, and plain resampling of S of them would
    shrink their variance by (S-1)/S: S-1 are drawn, which undoes it (Rao and Wu 1988, JASA 83,
    sec. 2). One seed is always drawn once: then the interval
    says nothing about variation between runs.

    Draws beyond the first `RESAMPLES` are of streams of their own: asking for more changes none of
    those, and so no interval.
    """
    if resamples > RESAMPLES:
        starts = range(0, resamples, RESAMPLES)
        parts = [
            resampled_means(cells, min(RESAMPLES, resamples - start), seed + number)
            for number, start in enumerate(starts)
        ]
        return np.concatenate(parts)
    systems, seeds, problems = cells.shape
    rng = np.random.default_rng(seed)
    kind = np.float32 if cells.dtype == bool else np.float64
    flat = cells.reshape(systems * seeds, problems).astype(kind)
    drawn_seeds = max(seeds - 1, 1)
    block = max(1, _BLOCK_BYTES // (8 * problems))
    means = np.empty((resamples, systems))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        problem_times = _draws(rng, rows, problems, problems)
        seed_times = _draws(rng, rows, seeds, drawn_seeds)
        # Counts are integers below 2^24: float32 products of counts and 0/1 cells are exact.
        # Other cells are multiplied in float64.
        by_seed = (problem_times @ flat.T).reshape(rows, systems, seeds).astype(np.float64)
        totals = (by_seed * seed_times[:, None, :]).sum(axis=-1)
        means[start : start + rows] = totals / (problems * drawn_seeds)
    return means


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5% and 97.5% quantiles of replicates [R] (Efron 1979: percentile interval).

    Quantiles are replicates themselves, never averages of two, so infinite ones do no harm.
    """
    low, high = np.quantile(replicates, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def exact_interval(share: float, count: int) -> tuple[float, float]:
    """Interval of a share of `count` that is 0 or 1 (Clopper and Pearson 1934)."""
    return (0.025 ** (1 / count), 1.0) if share == 1.0 else (0.0, 1 - 0.025 ** (1 / count))


class PairedBootstrap:
    """The resampled accuracies of several systems on the same problems and seeds.

    Args:
      cells: for each system, whether it was correct: bool [S, P], all of one shape and order.
      resamples: how many draws.
      seed: of the draws.

    Raises:
      DataError: if there is no cell, or the shapes differ.
    """

    def __init__(
        self, cells: Mapping[str, np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        shapes = {name: np.shape(cell) for name, cell in cells.items()}
        shape = next(iter(shapes.values()), ())
        if len(shape) != 2 or 0 in shape:
            raise DataError(f"bootstrap: expected cells [seeds, problems], got shapes {shapes}")
        if len(set(shapes.values())) > 1:
            raise DataError(
                f"bootstrap: systems have different seeds or problems {shapes}; "
                "evaluate all of them on the same ones"
            )
        stacked = np.stack([np.asarray(cell, dtype=bool) for cell in cells.values()])
        self.problems = shape[1]
        self._cells = stacked
        self._sums = stacked.sum(axis=(1, 2))
        self._occurs = stacked.any(axis=1).sum(axis=1)
        self._index = {name: k for k, name in enumerate(cells)}
        self._points = stacked.mean(axis=(1, 2))
        self._replicates = resampled_means(stacked, resamples, seed)

    def _of(self, name: str) -> tuple[float, np.ndarray]:
        """The point, and the replicates of which intervals are made."""
        k = self._index[name]
        return float(self._points[k]), self._replicates[:RESAMPLES, k]

    def accuracy(self, name: str) -> Estimate:
        """Share of correct answers, averaged over seeds.

        Where all answers are right, or all wrong, resampling finds no spread; the interval is
        then the exact binomial one over problems (Clopper and Pearson 1934).
        """
        point, replicates = self._of(name)
        if point in (0.0, 1.0):
            return Estimate(point, exact_interval(point, self.problems))
        return Estimate(point, percentile_interval(replicates))

    def share(self, part: str, whole: str) -> Estimate | None:
        """Which share of the cells of `whole` are cells of `part`, which holds no others.

        The ratio of two means, resampled as a ratio; draws that hold no cell of `whole` say
        nothing about it and are left out. Where the share is 0 or 1 the interval is the exact
        binomial one over the problems that have such a cell. None where none has.
        """
        cells = int(self._sums[self._index[whole]])
        if not cells:
            return None
        point = int(self._sums[self._index[part]]) / cells
        if point in (0.0, 1.0):
            return Estimate(point, exact_interval(point, int(self._occurs[self._index[whole]])))
        (_, parts), (_, wholes) = self._of(part), self._of(whole)
        held = wholes > 0
        return Estimate(point, percentile_interval(parts[held] / wholes[held]))

    def difference(self, a: str, b: str) -> Difference:
        """Accuracy of `a` minus accuracy of `b`.

        Where no answer of one is right and the other's wrong, resampling finds no spread; the
        interval then reaches as far on either side as so many problems allow that only one of the
        two would solve (`exact_interval` of none).

        p is twice the smaller share of replicates on either side of zero, the observation
        counted as one of them (Davison and Hinkley 1997, eq. 4.11), so it is never below
        2/(R+1). It is of all replicates, the interval of the first `RESAMPLES`.
        """
        (point_a, _), (point_b, _) = self._of(a), self._of(b)
        columns = self._replicates
        replicates = columns[:, self._index[a]] - columns[:, self._index[b]]
        below = (1 + np.count_nonzero(replicates <= 0)) / (len(replicates) + 1)
        above = (1 + np.count_nonzero(replicates >= 0)) / (len(replicates) + 1)
        p = float(min(1.0, 2 * min(below, above)))
        if self._alike(a, b):
            return Difference(0.0, (-self._unseen, self._unseen), p)
        return Difference(point_a - point_b, percentile_interval(replicates[:RESAMPLES]), p)

    def _alike(self, a: str, b: str) -> bool:
        """Whether two systems, which need not be alike, were right in the very same cells."""
        return a != b and np.array_equal(self._cells[self._index[a]], self._cells[self._index[b]])

    @property
    def _unseen(self) -> float:
        """How large a share of problems may be none of which is among these."""
        return exact_interval(0.0, self.problems)[1]

    def captured_gain(self, name: str, base: str = "base", team: str = "team") -> CapturedGain:
        """(name - base) / (team - base), 1 when `name` shows the whole gain of the team.

        Where the interval of team - base reaches zero the ratio divides by what may be nothing
        and its interval is unbounded (Fieller 1954): the value is then None, with a reason. It
        is None too where the team is worse than base: there is no gain to capture. Otherwise
        fewer than 2.5% of the replicates have a denominator that is not positive; they count as
        infinite on the side of their numerator. Of a system that answered all as `base` did, or
        the team, the interval is that of their difference over the team's gain.
        """
        gain = self.difference(team, base)
        if gain.ci95[0] <= 0.0:
            shown = f"{100 * gain.value:+.1f} points [{100 * gain.ci95[0]:+.1f}, "
            shown += f"{100 * gain.ci95[1]:+.1f}]"
            why = "is not above zero" if gain.ci95[1] < 0 else "cannot be told from zero"
            return CapturedGain(
                None, None, f"{team} minus {base} is {shown}: it {why}, so no share is defined"
            )
        for other, share in ((base, 0.0), (team, 1.0)):
            if self._alike(name, other):
                unseen = self._unseen / gain.value
                return CapturedGain(share, (share - unseen, share + unseen))
        (point, replicates), (base_point, base_replicates) = self._of(name), self._of(base)
        _, team_replicates = self._of(team)
        numerator = replicates - base_replicates
        denominator = team_replicates - base_replicates
        positive = denominator > 0
        ratios = np.where(numerator > 0, np.inf, -np.inf)
        ratios[positive] = numerator[positive] / denominator[positive]
        return CapturedGain((point - base_point) / gain.value, percentile_interval(ratios))


class PairedRatios:
    """Resampled ratios of sums, such as log-probability by token, on the same problems and seeds.

    A ratio is the sum of `values` over the sum of `weights`; both are resampled together, by one
    draw of problems and seeds for all ratios (see `resampled_means`). Cells of weight 0 count for
    nothing, so that a ratio may be about some of the problems only.

    Args:
      cells: for each ratio, values and weights: float [S, P] each, all of one shape and order.
      resamples: how many draws.
      seed: of the draws.

    Raises:
      DataError: if there is no cell, the shapes differ, or a value is not finite.
    """

    def __init__(
        self,
        cells: Mapping[Any, tuple[np.ndarray, np.ndarray]],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        shapes = {np.shape(part) for pair in cells.values() for part in pair}
        if len(shapes) != 1 or len(shape := next(iter(shapes))) != 2 or 0 in shape:
            raise DataError(f"ratios: expected cells [seeds, problems] of one shape, got {shapes}")
        # Many ratios have one and the same weights: those are resampled once.
        rows: dict[bytes, int] = {}
        parts: list[np.ndarray] = []

        def row(part: np.ndarray) -> int:
            part = np.asarray(part, np.float64)
            if not np.isfinite(part).all():
                raise DataError("ratios: a value or a weight is no finite number")
            if (key := part.tobytes()) not in rows:
                rows[key] = len(parts)
                parts.append(part)
            return rows[key]

        self._rows = {
            name: (row(values), row(weights)) for name, (values, weights) in cells.items()
        }
        stacked = np.stack(parts)
        self._points = stacked.mean(axis=(1, 2))
        self._replicates = resampled_means(stacked, resamples, seed)

    def value(self, name: Any) -> float | None:
        """The ratio; None if all its weights are zero."""
        values, weights = (float(self._points[row]) for row in self._rows[name])
        return values / weights if weights else None

    def replicates(self, name: Any) -> np.ndarray:
        """The ratio in each draw [R]; NaN where nothing of weight was drawn."""
        values, weights = (self._replicates[:, row] for row in self._rows[name])
        return np.divide(values, weights, out=np.full(len(values), np.nan), where=weights > 0)


def finite_interval(replicates: np.ndarray) -> tuple[float, float] | None:
    """The percentile interval of the finite replicates; None if over 2.5% of them are not."""
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 0.975 * len(replicates):
        return None
    return percentile_interval(finite)


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """Exact McNemar test of two systems on the same problems in one run: bool [P], bool [P].

    Given the n problems that only one of them solved, a's share is Binomial(n, 1/2) if neither
    is better; p = min(1, 2 P(X <= min)) (McNemar 1947; exact form: Liddell 1983, JECH 37).

    Raises:
      DataError: if the two are not aligned.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(
            f"mcnemar: expected two arrays [problems] of one length, got {a.shape} and {b.shape}"
        )
    return _sign_test(int((a & ~b).sum()), int((b & ~a).sum()))


def mcnemar_over_seeds(a: np.ndarray, b: np.ndarray) -> McNemar:
    """McNemar's test over several runs: bool [S, P], bool [S, P].

    The answers of several seeds to one problem are not independent, so each problem counts once:
    for the system that solved it under more seeds, and for neither where both did equally often.
    What is left is a sign test over problems; with one seed it is McNemar's. It speaks of these
    runs: the variation between runs is in the bootstrap alone.

    Raises:
      DataError: if the two are not aligned.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape or a.ndim != 2:
        raise DataError(
            f"mcnemar: expected two arrays [seeds, problems] of one shape, got {a.shape} and "
            f"{b.shape}"
        )
    lead = a.sum(axis=0) - b.sum(axis=0)
    return _sign_test(int((lead > 0).sum()), int((lead < 0).sum()))


def _sign_test(only_a: int, only_b: int) -> McNemar:
    discordant = only_a + only_b
    # Python's integers keep the tail exact for any number of problems.
    term, tail = 1, 0
    for k in range(min(only_a, only_b) + 1):
        tail += term
        term = term * (discordant - k) // (k + 1)
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**discordant))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in the order given (Holm 1979, Scand. J. Stat. 6)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[int(index)] = largest
    return adjusted
