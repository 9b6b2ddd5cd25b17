"""Names beside the points of a plot: each nearest to its own point, or led to it by a line."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_MARK = 6.0  # half of a point's mark, in points of print
_GAPS = (3.0, 12.0, 26.0, 44.0, 70.0)  # from a mark to its label
_STEPS = 24  # half lines up and down
_SAME = 5.0  # points as close as this are one to the eye
_SWEEPS = 8
_LOOKED = 64  # places of which is asked what their lines would cross
# What each fault of a place costs; a line's length costs 1 for a point of print.
_OUTSIDE, _COVERS, _MARKED, _STRAY, _CROSSED, _TURNED = 1e4, 40.0, 5.0, 400.0, 250.0, 90.0
_LINE = 1.5


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas that boxes [N, 4] (left, bottom, right, top) share with others [M, 4]: [N, M]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def _distances(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From boxes [N, 4] to points [M, 2]: [N, M]; 0 within."""
    low, high = boxes[:, None, :2] - points, points - boxes[:, None, 2:]
    return np.linalg.norm(np.clip(np.maximum(low, high), 0, None), axis=-1)


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
        c[..., 0] - a[..., 0]
    )


def _cross(lines: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether segments [N, 2, 2] cross others [M, 2, 2]: [N, M]; to touch is not to cross."""
    a, b = lines[:, None, 0], lines[:, None, 1]
    c, d = others[None, :, 0], others[None, :, 1]
    apart = _turn(a, b, c) * _turn(a, b, d) < -1e-6
    return apart & (_turn(c, d, a) * _turn(c, d, b) < -1e-6)


def _near_lines(lines: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far points [M, 2] lie from segments [N, 2, 2]: [N, M]."""
    start, along = lines[:, None, 0], (lines[:, 1] - lines[:, 0])[:, None]
    length = np.maximum((along**2).sum(axis=-1), 1e-9)
    at = np.clip(((points - start) * along).sum(axis=-1) / length, 0, 1)
    return np.linalg.norm(points - (start + at[..., None] * along), axis=-1)


def _sides(boxes: np.ndarray) -> np.ndarray:
    """The edges of boxes [N, 4] as segments [4N, 2, 2]."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    return np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2, 2)


class _Name:
    """One label: its places to choose from, and what is wrong with each whatever others do."""

    def __init__(
        self,
        index: int,
        size: tuple[float, float],
        points: np.ndarray,
        taken: np.ndarray,
        frame: np.ndarray,
    ) -> None:
        own, (width, height) = points[index], size
        self.own = own
        rows = np.arange(-_STEPS, _STEPS + 1) * height / 2
        places = []
        for gap in _GAPS:
            for left in (_MARK + gap, -_MARK - gap - width):
                places += [(own[0] + left, own[1] + row) for row in rows]
        # Above and below, where a point stands alone.
        places += [
            (own[0] - width * shift, own[1] + side * (_MARK + 2 + height / 2))
            for side in (1, -1)
            for shift in (0.5, 0.15, 0.85)
        ]
        low = np.array(places) - (0, height / 2)
        self.boxes = np.concatenate([low, low + (width, height)], axis=1)
        nearest = np.clip(own, self.boxes[:, :2], self.boxes[:, 2:])
        # A line meets its label at the middle of the side that looks at the point.
        beside = nearest[:, 0] != own[0]
        nearest[beside, 1] = self.boxes[beside, 1::2].mean(axis=1)
        self.lines = np.stack([np.broadcast_to(own, nearest.shape), nearest], axis=1)
        others = points[np.linalg.norm(points - own, axis=1) > _SAME]
        away = _distances(self.boxes, own[None])[:, 0]
        beyond = np.clip(frame[:2] - self.boxes[:, :2], 0, None).sum(axis=1)
        beyond += np.clip(self.boxes[:, 2:] - frame[2:], 0, None).sum(axis=1)
        self.cost = _OUTSIDE * beyond
        self.cost += _COVERS * _overlaps(self.boxes, taken[: len(points)]).sum(axis=1)
        self.cost += _MARKED * _overlaps(self.boxes, taken[len(points) :]).sum(axis=1)
        self.cost += _LINE * np.linalg.norm(nearest - own, axis=1)
        if len(others):
            closest = _distances(self.boxes, others).min(axis=1)
            self.cost += np.where(closest < away, _STRAY + 10 * (away - closest), 0)
            # A line past another mark could be that one's.
            self.cost += _CROSSED * (_near_lines(self.lines, others) < _MARK).sum(axis=1)
            self.stray = closest < away
        else:
            self.stray = np.zeros(len(away), bool)
        self.away = away

    def needs_line(self, at: int) -> bool:
        """Whether a place leaves open whose label it has: another point is nearer, or it is off."""
        box = self.boxes[at]
        middle, high = (box[1] + box[3]) / 2, box[3] - box[1]
        beside = not box[0] <= self.own[0] <= box[2]
        off = beside and abs(middle - self.own[1]) > 0.6 * high
        return bool(self.stray[at] or off or self.away[at] > _MARK + _GAPS[0] + 1)

    def among(self, boxes: np.ndarray, lines: np.ndarray) -> np.ndarray:
        """What each place costs beside the labels [M, 4] and lines [M, 2, 2] of the others."""
        cost = self.cost.copy()
        if len(boxes):
            grown = boxes + (-2, 0, 2, 0)
            cost += _OUTSIDE * np.minimum(_overlaps(self.boxes, grown), 50).sum(axis=1)
            # Labels above each other have the order of their points.
            aside = np.minimum(self.boxes[:, None, 2], boxes[:, 2])
            aside = aside > np.maximum(self.boxes[:, None, 0], boxes[:, 0])
            higher = self.boxes[:, None, 1] > boxes[:, 1]
            above = self.own[1] - lines[:, 0, 1]
            cost += _TURNED * (aside & (higher != (above > 0)) & (abs(above) > 1)).sum(axis=1)
            # Lines that cross only add to that: what is dear already need not be looked at.
            few = np.argsort(cost, kind="stable")[:_LOOKED]
            cost[few] += _CROSSED * _cross(self.lines[few], lines).sum(axis=1)
            cost[few] += _CROSSED * _cross(self.lines[few], _sides(boxes)).sum(axis=1)
            mine = _sides(self.boxes[few])
            cost[few] += _CROSSED * _cross(mine, lines).any(axis=1).reshape(-1, 4).sum(axis=1)
        return cost


def place(
    axes: Any,
    points: Sequence[tuple[float, float]],
    intervals: Sequence[Sequence[float]],
    names: Sequence[str],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> None:
    """Write `names` beside the first `points` (data coordinates), with a line where one is needed.

    Points beyond the names have none, and are kept free of those of others. Each name in turn, from
    the highest point down, takes the best place that the others leave it, until none moves any
    more: within the frame, on no other name, mark, interval or `lines` (from, to), nearer to its
    own point than to any other, by a short line that crosses nothing. A name that cannot stand
    beside its own point is led to it by a line. Same points, same places.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # fixes the layout, so that data coordinates have a place
    renderer = figure.canvas.get_renderer()
    extent = axes.get_window_extent(renderer)
    frame = np.array([extent.x0, extent.y0, extent.x1, extent.y1])
    where = np.array([axes.transData.transform(point) for point in points], float)
    marks = np.concatenate([where - _MARK, where + _MARK], axis=1)
    taken = [*marks]
    for (x, _), (low, high), point in zip(where, intervals, points, strict=True):
        ends = [axes.transData.transform((point[0], end))[1] for end in (low, high)]
        taken.append(np.array([x - 1, ends[0], x + 1, ends[1]]))
    for start, end in lines:
        corners = np.array([axes.transData.transform(at) for at in (start, end)])
        taken.append(np.concatenate([corners.min(axis=0) - 1, corners.max(axis=0) + 1]))
    texts = [axes.text(0, 0, name, va="center", transform=None) for name in names]
    sizes = [text.get_window_extent(renderer) for text in texts]
    # Lines of print have leading, which may be shared.
    labels = [
        _Name(index, (size.width, 0.86 * size.height), where, np.array(taken), frame)
        for index, size in enumerate(sizes)
    ]
    down = sorted(range(len(names)), key=lambda i: (-where[i][1], where[i][0]))
    across = sorted(range(len(names)), key=lambda i: (where[i][0], -where[i][1]))
    # Which name comes first decides where the others still can go: the best of some orders.
    tried = [_settled(labels, order) for order in (down, down[::-1], across, across[::-1])]
    _, chosen = min(tried, key=lambda one: one[0])
    for text, label, at in zip(texts, labels, chosen, strict=True):
        box = label.boxes[at]
        text.set_position((box[0], (box[1] + box[3]) / 2))
        if label.needs_line(at):
            _lead(axes, text, *label.lines[at])
    # The layout must not move again: the labels hold places on the page, not in the data.
    figure.set_layout_engine("none")


def _settled(labels: Sequence[_Name], order: Sequence[int]) -> tuple[float, list[int]]:
    """The place of each label when none has a better one, and what all of them cost."""
    chosen: dict[int, int] = {}
    costs: dict[int, float] = {}
    for _ in range(_SWEEPS):
        moved = False
        for index in order:
            others = [i for i in chosen if i != index]
            boxes = np.array([labels[i].boxes[chosen[i]] for i in others]).reshape(-1, 4)
            lines = np.array([labels[i].lines[chosen[i]] for i in others]).reshape(-1, 2, 2)
            # Rounded, so that equal places are taken in one order on every machine.
            found = np.round(labels[index].among(boxes, lines), 3)
            best = int(np.argmin(found))
            moved |= chosen.get(index) != best
            chosen[index], costs[index] = best, float(found[best])
        if not moved:
            break
    return sum(costs.values()), [chosen[index] for index in range(len(labels))]


def _lead(axes: Any, text: Any, start: np.ndarray, end: np.ndarray) -> None:
    """A line from a point's mark to its label."""
    axes.annotate(
        "",
        tuple(end),
        tuple(start),
        xycoords="figure pixels",
        textcoords="figure pixels",
        arrowprops={
            "arrowstyle": "-",
            "linewidth": 0.7,
            "alpha": 0.7,
            "color": text.get_color(),
            "shrinkA": 5,
            "shrinkB": 1,
        },
    )
