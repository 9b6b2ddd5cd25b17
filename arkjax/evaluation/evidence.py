"""What talking did: the right answer in the pool, answers turned, and how sure a system may be."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from arkjax.errors import DataError
from arkjax.evaluation.statistics import RESAMPLES, Estimate, PairedBootstrap

BINS = 10
Cells = Mapping[str, np.ndarray]
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Pool:
    """How often the right answer was there to be chosen.

    Attributes:
      accuracy: of an oracle that chooses among all that was stated; with its 95% interval.
      gap: how much of it the system leaves: that accuracy minus the system's own.
    """

    accuracy: Estimate
    gap: Estimate


@dataclasses.dataclass(frozen=True)
class Turned:
    """How many of the openings of one kind talking turned into the other.

    Attributes:
      n: openings of that kind, over problems and seeds.
      count: of them, those that ended otherwise.
      rate: the one by the other with its 95% interval; None if there is no such opening.
    """

    n: int
    count: int
    rate: Estimate | None


@dataclasses.dataclass(frozen=True)
class Flips:
    """What talking did to the answers that a team would have given without it.

    Attributes:
      corrected: of wrong openings, those made right.
      misled: of right openings, those made wrong.
      net: corrected minus misled over all problems: how much accuracy the talk adds.
    """

    corrected: Turned
    misled: Turned
    net: Estimate


@dataclasses.dataclass(frozen=True)
class Bin:
    """Answers with a confidence in (low, high]: their number, mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Whether a system is right as often as it is sure.

    Attributes:
      ece: expected calibration error: the distance between mean confidence and accuracy of each
        bin, averaged over answers (Guo et al. 2017, arXiv 1706.04599, eq. 3).
      brier: mean square of confidence minus correctness (Brier 1950, for one of two events).
      n: answers whose confidence is known.
      bins: of equal width, the empty ones left out.
    """

    ece: float
    brier: float
    n: int
    bins: tuple[Bin, ...]


def pools(correct: Cells, in_pool: Cells, resamples: int = RESAMPLES) -> dict[str, Pool]:
    """The pool of each system.

    Args:
      correct: whether each system was right: bool [S, P], all on the same seeds and problems.
      in_pool: whether the right answer was stated; a right answer counts as stated.
      resamples: draws of the paired bootstrap.
    """
    cells = {}
    for name, right in correct.items():
        cells[f"pool/{name}"] = in_pool[name] | right
        cells[f"gap/{name}"] = in_pool[name] & ~right
    boot = PairedBootstrap(cells, resamples=resamples)
    return {
        name: Pool(boot.accuracy(f"pool/{name}"), boot.accuracy(f"gap/{name}")) for name in correct
    }


def flips(correct: Cells, opening: Cells, resamples: int = RESAMPLES) -> dict[str, Flips]:
    """The flips of each system; arguments as of `pools`, `opening` as `Outcome.opening_correct`."""
    cells = {}
    for name, right in correct.items():
        began = opening[name]
        cells[f"wrong/{name}"], cells[f"corrected/{name}"] = ~began, ~began & right
        cells[f"right/{name}"], cells[f"misled/{name}"] = began, began & ~right
    boot = PairedBootstrap(cells, resamples=resamples)

    def turned(part: str, whole: str) -> Turned:
        n, count = int(cells[whole].sum()), int(cells[part].sum())
        return Turned(n, count, boot.share(part, whole))

    found = {}
    for name in correct:
        corrected = turned(f"corrected/{name}", f"wrong/{name}")
        misled = turned(f"misled/{name}", f"right/{name}")
        net = boot.difference(f"corrected/{name}", f"misled/{name}")
        ci95 = net.ci95
        if not corrected.count and not misled.count:
            # Resampling finds no spread in what never happened: as far off zero as either rate is.
            most = boot.accuracy(f"corrected/{name}").ci95[1]
            ci95 = (-most, most)
        found[name] = Flips(corrected, misled, Estimate(net.value, ci95))
    return found


def calibration(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> Calibration | None:
    """How well confidence foretells correctness.

    Args:
      confidence: [N] in [0, 1]; NaN where it is not known, and such answers are left out.
      correct: bool [N].
      bins: how many of equal width; each holds its upper edge, the first one zero as well.

    Returns:
      None if no confidence is known.

    Raises:
      DataError: if a confidence is not within [0, 1], or the two differ in length.
    """
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, bool)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise DataError(
            f"calibration: expected two arrays of one length, got {confidence.shape} and "
            f"{correct.shape}"
        )
    known = ~np.isnan(confidence)
    sure, right = confidence[known], correct[known]
    if not sure.size:
        return None
    if sure.min() < 0 or sure.max() > 1:
        wrong = sure[(sure < 0) | (sure > 1)][0]
        raise DataError(f"calibration: a confidence is {wrong}, expected a number within [0, 1]")
    # Edges k / bins: a share of votes that lies on one is the very same number.
    edges = np.arange(bins + 1) / bins
    place = np.maximum(np.searchsorted(edges, sure, side="left") - 1, 0)
    found = []
    for k in np.unique(place).tolist():
        held = place == k
        found.append(
            Bin(
                low=float(edges[k]),
                high=float(edges[k + 1]),
                n=int(held.sum()),
                confidence=float(sure[held].mean()),
                accuracy=float(right[held].mean()),
            )
        )
    ece = sum(one.n * abs(one.confidence - one.accuracy) for one in found) / sure.size
    brier = float(np.mean((sure - right) ** 2))
    return Calibration(float(ece), brier, int(sure.size), tuple(found))
