"""Names beside the points of a plot, placed so that none covers another or a point."""

from collections.abc import Sequence
from typing import Any

_SIDE = 9.0  # from a point's centre to its label, in points of print
_STEPS = (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8, 9, -9, 10, -10)
Box = tuple[float, float, float, float]


def _overlap(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def place(
    axes: Any,
    points: Sequence[tuple[float, float]],
    intervals: Sequence[Sequence[float]],
    names: Sequence[str],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> None:
    """Write `names` beside the first `points` (data coordinates), with a line to those moved away.

    Points beyond the names have none, and are kept free of those of others. Greedy, from the
    highest point down: of all places left and right of the point, near ones first, take the one
    that covers least of the labels, points, intervals and `lines` (from, to) there already.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # fixes the layout, so that data coordinates have a place
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    where = [tuple(axes.transData.transform(point)) for point in points]
    taken: list[Box] = []
    placed: list[Box] = []
    for (x, y), (low, high), point in zip(where, intervals, points, strict=True):
        bottom = axes.transData.transform((point[0], low))[1]
        top = axes.transData.transform((point[0], high))[1]
        taken += [(x - 6, y - 6, x + 6, y + 6), (x - 2, bottom, x + 2, top)]
    for start, end in lines:
        (x0, y0), (x1, y1) = (axes.transData.transform(place) for place in (start, end))
        taken.append((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    for index in sorted(range(len(names)), key=lambda i: (-where[i][1], where[i][0])):
        x, y = where[index]
        text = axes.text(0, 0, names[index], va="center", transform=None)
        extent = text.get_window_extent(renderer)
        width, height = extent.width, extent.height
        best: tuple[float, Box, int, int] | None = None
        for step in _STEPS:
            for side in (1, -1):
                left = x + _SIDE if side > 0 else x - _SIDE - width
                away = 0 if step == 0 else 3
                left += side * away
                middle = y + step * height * 0.55
                box = (left, middle - height / 2, left + width, middle + height / 2)
                outside = max(0.0, frame.x0 - box[0]) + max(0.0, box[2] - frame.x1)
                outside += max(0.0, frame.y0 - box[1]) + max(0.0, box[3] - frame.y1)
                covered = sum(_overlap(box, other) for other in taken)
                # Labels go down as their points do, or their lines would cross.
                crossed = sum(
                    other[0] < box[2] and box[0] < other[2] and box[1] > other[1] + 1
                    for other in placed
                )
                cost = 100 * outside + 20 * covered + 60 * crossed + abs(step) * 6 + (side < 0) * 3
                if best is None or cost < best[0]:
                    best = (cost, box, side, step)
        assert best is not None
        _, box, side, step = best
        taken.append(box)
        placed.append(box)
        text.set_position((box[0], (box[1] + box[3]) / 2))
        if step:
            end = (box[0] - 1 if side > 0 else box[2] + 1, (box[1] + box[3]) / 2)
            start = (x + 5 * side, y)
            axes.annotate(
                "",
                end,
                start,
                xycoords="figure pixels",
                textcoords="figure pixels",
                arrowprops={
                    "arrowstyle": "-",
                    "linewidth": 0.6,
                    "alpha": 0.6,
                    "color": text.get_color(),
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
    # The layout must not move again: the labels hold places on the page, not in the data.
    figure.set_layout_engine("none")
