"""The report's pictures: SVG text that is the same for the same figures, light or dark.

Colours are Okabe and Ito's (2008), which the common kinds of colour blindness keep apart; shape
says the same as colour, for print. Ink is `currentColor`, so a page's own text colour rules it.
"""

import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

from arkjax.reporting import labels, systems
from arkjax.reporting.headline import best_student, percent

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
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "arkjax",
    "font.family": "sans-serif",
    "font.size": 10,
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
Curves = Mapping[str, Sequence[tuple[float, float]]]


def _plain(text: str) -> str:
    """Text without the control characters that XML forbids."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", text)


def _draw(name: str, title: str, description: str, size: tuple, paint: Callable) -> str:
    """Let `paint(figure)` draw on a figure of `size` inches; return it as one <svg> element.

    Every id is prefixed by `name`, so that several pictures can share a page.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, dpi=72, layout="constrained")
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
        f'{opening}\n<title id="{name}-title">{html.escape(_plain(title))}</title>\n'
        f'<desc id="{name}-desc">{html.escape(_plain(description))}</desc>{svg[start:]}'
    )


def standalone(svg: str) -> str:
    """A picture as a file of its own: black on white, whoever shows it."""
    start = svg.index(">") + 1
    style = 'style="color: #000; background: #fff" '
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}{svg[: start - 1]} {style.strip()}>{svg[start:]}"


def all_plots(report: Report, curves: Curves | None = None) -> dict[str, str]:
    """Every picture that the report has figures for, by name."""
    figures = {}
    splits = systems.ordered_splits(report["splits"])
    for number, split in enumerate(splits):
        figures[f"accuracy_cost_{number}"] = accuracy_against_cost(report, split, f"cost{number}")
    main = splits[0]
    if len(report["splits"][main]["parts"]) > 1:
        figures["accuracy_by_part"] = accuracy_by_part(report, main)
    if any(report["captured_gain_by_domain"][main].values()):
        figures["captured_gain_by_domain"] = captured_gain_by_domain(report, main)
    if curves and any(_finite(line) for line in curves.values()):
        figures["learning_curves"] = learning_curves(curves)
    return figures


def accuracy_against_cost(report: Report, split: str, name: str = "cost") -> str:
    """Accuracy in per cent against generated tokens per problem (log), with 95% intervals."""
    found = report["splits"][split]["systems"]
    names = systems.ordered(found)
    tokens = [max(found[n]["generated_tokens"], 0.1) for n in names]
    values = [100 * found[n]["accuracy"] for n in names]
    ends = [[100 * end for end in found[n]["ci95"]] for n in names]
    described = "; ".join(
        f"{systems.label(n)} {value:.1f}% at {cost:.0f} tokens"
        for n, value, cost in zip(names, values, tokens, strict=True)
    )

    def paint(figure: Any) -> None:
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes = figure.add_subplot()
        axes.set_xscale("log")
        for n, x, y, (low, high) in zip(names, tokens, values, ends, strict=True):
            kind = systems.kind(n)
            axes.plot([x, x], [low, high], color=COLORS[kind], linewidth=1.4)
            axes.plot(x, y, MARKERS[kind], color=COLORS[kind], markersize=7)
        axes.set_xlim(min(tokens) / 2.2, max(tokens) * 2.2)
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        room = 0.06 * max(max(highs) - min(lows), 5)
        axes.set_ylim(min(lows) - room, max(highs) + room)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(True, color=INK, alpha=0.12, linewidth=0.6)
        axes.set_xlabel("generated tokens per problem (log)")
        axes.set_ylabel("accuracy, %")
        axes.set_title(f"{split}: {report['splits'][split]['n']:,} problems", loc="left")
        labels.place(
            axes, list(zip(tokens, values, strict=True)), ends, list(map(systems.label, names))
        )

    title = f"Accuracy against cost on {_plain(split)}"
    return _draw(name, title, described, (5.4, 4.6), paint)


def accuracy_by_part(report: Report, split: str) -> str:
    """Accuracy in per cent by part of a split: a row for each system, a panel for each part."""
    section = report["splits"][split]
    best = best_student(report, split)
    names = [
        n
        for n in systems.ordered(section["systems"])
        if systems.kind(n) not in ("student", "unverified", "other")
        or n == best
        or (best and n == systems.twin(best))
    ]
    parts = systems.ordered_parts(section["parts"])

    def figures(n: str, part: str) -> tuple[float, list[float]]:
        entry = section["systems"][n]["by_part"][part]
        return 100 * entry["accuracy"], [100 * end for end in entry["ci95"]]

    described = "; ".join(
        f"{systems.label(n)}: " + ", ".join(f"{part} {figures(n, part)[0]:.1f}%" for part in parts)
        for n in names
    )

    def paint(figure: Any) -> None:
        columns = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        rows = list(range(len(names)))[::-1]
        for axes, part in zip(columns, parts, strict=True):
            for row, n in zip(rows, names, strict=True):
                value, (low, high) = figures(n, part)
                color = COLORS[systems.kind(n)]
                axes.barh(row, value, height=0.62, color=color, alpha=0.75, linewidth=0)
                axes.plot([low, high], [row, row], color=INK, linewidth=1.1)
                axes.text(max(high, value) + 3, row, f"{value:.0f}", va="center", fontsize=9)
            axes.set_xlim(0, 122)
            axes.set_xticks([0, 50, 100])
            axes.set_yticks(rows, [systems.label(n) for n in names])
            axes.tick_params(axis="y", length=0)
            axes.set_title(f"{part} ({section['parts'][part]:,})", loc="left", fontsize=10)
            axes.set_axisbelow(True)
            axes.grid(True, axis="x", color=INK, alpha=0.12, linewidth=0.6)
        figure.supxlabel("accuracy, %", fontsize=10)

    title = f"Accuracy by part of {_plain(split)}"
    size = (1.9 + 1.2 * len(parts), 0.9 + 0.34 * len(names))
    return _draw("parts", title, described, size, paint)


def captured_gain_by_domain(report: Report, split: str) -> str:
    """Share of the team's gain that the best student shows, by domain; 0 is base, 100 the team."""
    gains = {d: g for d, g in report["captured_gain_by_domain"][split].items() if g}
    best = best_student(report, split)
    domains = sorted(gains)
    names = [n for n in (best, "control_no_debate") if n and any(n in gains[d] for d in domains)]

    def value(domain: str, n: str) -> float | None:
        return gains[domain].get(n, {}).get("value")

    def said(domain: str, n: str) -> str:
        share = value(domain, n)
        return f"{systems.label(n)} {'not defined' if share is None else percent(share) + '%'}"

    described = "; ".join(f"{d}: {', '.join(said(d, n) for n in names)}" for d in domains)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, text in ((0, "base"), (100, "team")):
            axes.axvline(place, color=INK, linewidth=0.8, alpha=0.6, linestyle=(0, (4, 3)))
            axes.text(place, len(domains) - 0.35, text, ha="center", va="bottom", fontsize=9)
        ends = [0.0, 100.0]
        for row, domain in enumerate(domains[::-1]):
            for number, n in enumerate(names):
                share = value(domain, n)
                at = row + (0.14 - 0.28 * number if len(names) > 1 else 0)
                if share is None:
                    if number == 0:
                        axes.text(
                            50,
                            row,
                            "no gain of the team to share",
                            ha="center",
                            va="center",
                            fontsize=9,
                            alpha=0.7,
                        )
                    continue
                low, high = (100 * end for end in gains[domain][n]["ci95"])
                ends += [100 * share, low, high]
                kind = systems.kind(n)
                axes.plot([low, high], [at, at], color=COLORS[kind], linewidth=1.4)
                axes.plot(
                    100 * share,
                    at,
                    MARKERS[kind],
                    color=COLORS[kind],
                    markersize=7,
                    label=systems.label(n),
                )
        # A domain with hardly any gain has an interval that would squeeze all the others.
        axes.set_xlim(max(min(ends) - 10, -100), min(max(ends) + 10, 300))
        axes.set_ylim(-0.6, len(domains) - 0.3)
        axes.set_yticks(range(len(domains)), domains[::-1])
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x", color=INK, alpha=0.12, linewidth=0.6)
        axes.set_xlabel("share of the team's gain over base, %")
        _legend(figure, axes)

    title = f"Captured gain by domain on {_plain(split)}"
    return _draw("domains", title, described, (5.8, 1.6 + 0.42 * len(domains)), paint)


def _legend(figure: Any, axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    entries = dict(zip(names, handles, strict=True))
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside upper left",
            ncols=2,
            frameon=False,
            fontsize=9,
        )


def _finite(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in line if math.isfinite(x) and math.isfinite(y)]


def learning_curves(curves: Curves) -> str:
    """Training loss against step: base in one panel, the students in another."""
    lines = {name: _finite(line) for name, line in curves.items()}
    lines = {name: lines[name] for name in systems.ordered(lines) if lines[name]}
    panels = [
        ("base", [name for name in lines if name.startswith("base")]),
        ("students", [name for name in lines if not name.startswith("base")]),
    ]
    panels = [(title, names) for title, names in panels if names]
    described = "; ".join(
        f"{systems.label(name)}: {line[0][1]:.3g} at step {line[0][0]:.0f}, "
        f"{line[-1][1]:.3g} at step {line[-1][0]:.0f}"
        for name, line in lines.items()
    )

    def paint(figure: Any) -> None:
        columns = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        styles = ["-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2))]
        palette = [INK, "#E69F00", "#0072B2", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"]
        for axes, (title, names) in zip(columns, panels, strict=True):
            for number, name in enumerate(names):
                axes.plot(
                    *zip(*lines[name], strict=True),
                    label=systems.label(name),
                    color=palette[number % 7],
                    linestyle=styles[number % 4],
                    linewidth=1.5,
                )
            axes.set_title(title, loc="left")
            axes.set_ylabel("loss")
            axes.grid(True, color=INK, alpha=0.12, linewidth=0.6)
            if len(names) > 1:
                axes.legend(frameon=False, fontsize=9, ncols=2)
        columns[-1].set_xlabel("step")

    return _draw("curves", "Learning curves", described, (5.4, 0.6 + 2.2 * len(panels)), paint)
