"""How every picture of a report is drawn: as SVG text, the same for the same figures.

A picture is 340 points wide and its text 12 points high, so that on a phone of 360 pixels, where
it is as wide as the page, no text is below 11 pixels. Colours are Okabe and Ito's (2008), which
the common kinds of colour blindness keep apart; shape says the same as colour, for print. Ink is
`currentColor`, so a page's own text colour rules it, light or dark.
"""

import html
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

from arkjax.reporting import systems

WIDTH = 340 / 72  # inches
TEXT = 12  # points

# A colour that nothing else uses; it becomes `currentColor` in the finished SVG.
INK = "#010203"
COLORS = {
    "base": INK,
    "vote": "#E69F00",
    "team": "#0072B2",
    "student": "#009E73",
    "unverified": "#56B4E9",
    "control": "#D55E00",
    "other": "#CC79A7",
}
MARKERS = {
    "base": "o",
    "vote": "s",
    "team": "D",
    "student": "^",
    "unverified": "v",
    "control": "X",
    "other": "P",
}
# For lines of one kind, which differ by what they are called only.
LINES = (INK, "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "arkjax",
    "font.family": "sans-serif",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "legend.fontsize": TEXT,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
}

Report = Mapping[str, Any]


def plain(text: str) -> str:
    """Text without the control characters that XML forbids."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", text)


def draw(name: str, title: str, description: str, height: float, paint: Callable) -> str:
    """Let `paint(figure)` draw on a figure `height` inches high; return it as one <svg> element.

    Args:
      name: of letters, digits and hyphens; every id begins with "plot-" and it, so that several
        pictures can share a page.
      title: names the picture.
      description: says what it shows, to those who do not see it.
      height: in inches; the width is `WIDTH`.
      paint: is given a matplotlib Figure.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = f"plot-{name}"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        figure.patch.set_alpha(0.0)
        paint(figure)
        out = StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= id=")', f"{name}-", svg)
    svg = re.sub(r'(?<=href="#)', f"{name}-", svg)
    svg = re.sub(r"(?<=url\(#)", f"{name}-", svg)
    svg = svg.replace(INK, "currentColor")
    start = svg.index(">") + 1
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"{svg[4:start]}'
    return (
        f'{opening}\n<title id="{name}-title">{html.escape(plain(title))}</title>\n'
        f'<desc id="{name}-desc">{html.escape(plain(description))}</desc>{svg[start:]}'
    )


def standalone(svg: str) -> str:
    """A picture as a file of its own: black on white, whoever shows it."""
    start = svg.index(">") + 1
    style = 'style="color: #000; background: #fff" '
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}{svg[: start - 1]} {style.strip()}>{svg[start:]}"


def wrapped(text: str, width: int = 17) -> str:
    """A name in at most two lines of `width` letters, as there is room for beside an axis."""
    lines = textwrap.wrap(plain(text), width) or [""]
    if len(lines) > 2:
        lines = [lines[0], lines[1][: width - 1] + "…"]
    return "\n".join(lines)


def clipped(text: str, width: int = 30) -> str:
    """A name in one line that a picture has room for, without control characters."""
    text = " ".join(plain(text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def grid(axes: Any, axis: str = "both") -> None:
    """Faint lines behind what is drawn."""
    axes.set_axisbelow(True)
    axes.grid(True, axis=axis, color=INK, alpha=0.12, linewidth=0.6)


def point(axes: Any, x: Any, y: Any, system: str, **changes: Any) -> None:
    """A system's mark at one or more places, in the shape and colour of its kind.

    The edge is of ink, since some colours are faint on white; the votes of roles are hollow.
    """
    kind = systems.kind(system)
    look = {"color": COLORS[kind], "markersize": 8, "markeredgecolor": INK, "markeredgewidth": 0.6}
    if systems.of_run(system)[0] == "role_vote":
        hollow = {"markerfacecolor": "none", "markeredgecolor": COLORS[kind]}
        look |= {**hollow, "markeredgewidth": 1.8}
    axes.plot(x, y, MARKERS[kind], **{**look, "linestyle": "none", **changes})


def legend(figure: Any, axes: Any, columns: int = 2) -> None:
    """The names of what has a label, above the picture, each once."""
    handles, names = axes.get_legend_handles_labels()
    entries = dict(zip(names, handles, strict=True))
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            handletextpad=0.4,
            columnspacing=1.0,
            borderaxespad=0.1,
        )


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round numbers from low to high: 1, 2 and 5 times powers of ten, else powers.

    There are always two at least, so that a reader sees that the axis is logarithmic.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1,)):
        ticks = [
            step * 10.0**power
            for power in range(first, last + 1)
            for step in steps
            if low <= step * 10.0**power <= high
        ]
        if 2 <= len(ticks) <= most:
            return ticks
        if len(ticks) > most and steps == (1,):
            return ticks[:: math.ceil(len(ticks) / most)]
    fine = [m * 10.0**p for p in range(first, last + 1) for m in (1, 1.5, 2, 3, 4, 5, 7)]
    inside = [tick for tick in fine if low <= tick <= high]
    if len(inside) < 2:
        return [low, high]
    return inside[:: math.ceil(len(inside) / most)]


def finite(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a line that can be drawn."""
    return [(x, y) for x, y in line if math.isfinite(x) and math.isfinite(y)]
