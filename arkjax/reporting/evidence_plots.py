"""Pictures of what talking did: by difficulty, what was in the pool, what turned, how sure it was.

Each is drawn where a report has the figures; reports of older schemas lack some of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.drawing import (
    COLORS,
    DASHES,
    INK,
    Report,
    clipped,
    draw,
    grid,
    legend,
    point,
    wrapped,
)
from arkjax.reporting.headline import best_student, percent

Found = Mapping[str, Mapping[str, Any]]
_SHOWN = 6  # systems that a picture of lines can hold
_EACH = 3  # systems that get a picture of their own
_FLOWS = (
    # From, to, colour, hatch, what it is.
    ("wrong", "wrong", "#999999", "---", "stayed wrong"),
    ("wrong", "right", "#009E73", "///", "corrected"),
    ("right", "wrong", "#D55E00", "\\\\\\", "misled"),
    ("right", "right", "#56B4E9", "", "stayed right"),
)


def evidence_plots(report: Report, split: str) -> dict[str, str]:
    """The pictures of one split, by name."""
    found = report["splits"][split]["systems"]
    figures = {}
    names = chosen(report, split)
    if len(levels(found)) > 1:
        figures["accuracy_by_difficulty"] = accuracy_by_difficulty(found, names, split)
    pooled = [n for n in systems.ordered(found) if found[n].get("pool") and found[n]["calls"] > 1]
    if pooled:
        figures["oracle_gap"] = oracle_gap(found, pooled, split)
    turned = [name for name in systems.ordered(found) if found[name].get("flips")]
    for number, name in enumerate(turned[:_EACH]):
        figures[f"flips_{number}"] = flips(found[name], name, split, f"flips-{number}")
    sure = [name for name in systems.ordered(found) if found[name].get("calibration")]
    first = ("team", "self_consistency", best_student(report, split), *sure)
    told = list(dict.fromkeys(name for name in first if name in sure))
    for number, name in enumerate(told[:_EACH]):
        figures[f"calibration_{number}"] = reliability(
            found[name], name, split, f"calibration-{number}"
        )
    return figures


def chosen(report: Report, split: str) -> list[str]:
    """The systems that stand for all in a picture of lines: base, votes, team, best student."""
    found = report["splits"][split]["systems"]
    best = best_student(report, split)
    few = ("base", "self_consistency", "role_vote", "team", best, "control_no_debate")
    names = [name for name in few if name and name in found]
    return names if len(names) > 1 else systems.ordered(found)[:_SHOWN]


def levels(found: Found) -> list[str]:
    """The levels of difficulty that some system has figures for, the lowest number first."""
    names = {level for entry in found.values() for level in entry.get("by_difficulty") or {}}
    return systems.ordered_levels(names)


def accuracy_by_difficulty(found: Found, names: Sequence[str], split: str) -> str:
    """Accuracy in per cent at each level of difficulty, with 95% intervals."""
    steps = levels(found)
    names = [name for name in names if found[name].get("by_difficulty")]

    def entry(name: str, level: str) -> Mapping[str, Any] | None:
        return found[name]["by_difficulty"].get(level)

    described = "Accuracy by difficulty, the easiest problems first: "
    described += "; ".join(
        f"{systems.label(name)} "
        + ", ".join(f"{lv} {percent(e['accuracy'])}%" for lv in steps if (e := entry(name, lv)))
        for name in names
    )

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        spread = 0.5 / max(len(names), 1)
        for number, name in enumerate(names):
            kind = systems.kind(name)
            shift = spread * (number - (len(names) - 1) / 2)
            known = [(at, e) for at, level in enumerate(steps) if (e := entry(name, level))]
            xs = [at + shift for at, _ in known]
            ys = [100 * e["accuracy"] for _, e in known]
            dashes = DASHES[number % len(DASHES)]
            axes.plot(xs, ys, color=COLORS[kind], linewidth=1.2, linestyle=dashes)
            for x, (_, e) in zip(xs, known, strict=True):
                axes.plot([x, x], [100 * end for end in e["ci95"]], color=COLORS[kind], lw=1.6)
            point(axes, xs, ys, name, label=clipped(systems.label(name)))
        sizes = {lv: next(e["n"] for n in names if (e := entry(n, lv))) for lv in steps}
        ticks = [f"{wrapped(level, 9)}\n({sizes[level]:,})" for level in steps]
        axes.set_xticks(range(len(steps)), ticks, linespacing=1.05)
        axes.set_xlim(-0.5, len(steps) - 0.5)
        axes.set_ylim(-4, 104)
        axes.set_ylabel("accuracy, %")
        axes.set_xlabel("difficulty (problems)")
        grid(axes)
        legend(figure, axes)

    return draw("difficulty", f"Accuracy by difficulty on {split}", described, 4.3, paint)


def oracle_gap(found: Found, names: Sequence[str], split: str) -> str:
    """From a system's accuracy to that of an oracle that chooses among all it has stated."""
    described = "Accuracy, and how often the right answer had been stated at all: "
    described += "; ".join(
        f"{systems.label(name)} {percent(found[name]['accuracy'])}% of "
        f"{percent(found[name]['pool']['accuracy'])}%"
        for name in names
    )

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        rows = range(len(names))[::-1]
        for row, name in zip(rows, names, strict=True):
            entry, kind = found[name], systems.kind(name)
            own, best = 100 * entry["accuracy"], 100 * entry["pool"]["accuracy"]
            axes.plot([own, best], [row, row], color=COLORS[kind], linewidth=3, alpha=0.8)
            ends = [100 * end for end in entry["pool"]["ci95"]]
            axes.plot(ends, [row, row], color=INK, linewidth=1.0)
            label = {"label": "in the pool"} if row == rows[0] else {}
            axes.plot(
                best, row, "|", color=INK, markersize=15, markeredgewidth=2, linestyle="none",
                **label,
            )  # fmt: skip
            label = {"label": "answered"} if row == rows[0] else {}
            point(axes, own, row, name, **label)
            gap = f"{best - own:+.1f}"
            near = best > 75
            axes.annotate(
                gap, (min(own, ends[0]) if near else max(best, ends[1]), row),
                xytext=(-9 if near else 9, 0), textcoords="offset points",
                ha="right" if near else "left", va="center",
            )  # fmt: skip
        axes.set_yticks(rows, [wrapped(systems.label(name)) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("right answers, %")
        grid(axes, "x")
        legend(figure, axes)

    title = f"Oracle gap on {split}"
    return draw("pool", title, described, 1.15 + 0.44 * len(names), paint)


def counts_of(flips_of: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """How many answers went from (right or wrong) to (right or wrong)."""
    corrected, misled = flips_of["corrected"], flips_of["misled"]
    return {
        ("wrong", "right"): corrected["count"],
        ("wrong", "wrong"): corrected["n"] - corrected["count"],
        ("right", "wrong"): misled["count"],
        ("right", "right"): misled["n"] - misled["count"],
    }


def flips(entry: Mapping[str, Any], name: str, split: str, ident: str) -> str:
    """Bands from how a team's problems opened to how they ended, as thick as they are many."""
    flows = counts_of(entry["flips"])
    total = max(sum(flows.values()), 1)
    described = f"Of {total:,} answers of {systems.label(name)}: " + ", ".join(
        f"{flows[begin, end]:,} {what}" for begin, end, _, _, what in _FLOWS
    )

    def paint(figure: Any) -> None:
        import numpy as np
        from matplotlib.patches import Polygon

        axes = figure.add_subplot()
        axes.set_axis_off()
        gap = 0.08
        wrong_below = {
            "left": flows["wrong", "right"] + flows["wrong", "wrong"],
            "right": flows["right", "wrong"] + flows["wrong", "wrong"],
        }
        left = {"right": wrong_below["left"] / total + gap, "wrong": 0.0}
        right = {"right": wrong_below["right"] / total + gap, "wrong": 0.0}
        spans: dict[str, dict[str, list[float]]] = {"left": {}, "right": {}}
        for verdict in ("right", "wrong"):
            spans["left"][verdict] = [left[verdict]] * 2
            spans["right"][verdict] = [right[verdict]] * 2
        x = np.linspace(0, 1, 24)
        ease = x * x * (3 - 2 * x)
        # From the bottom up on either side, so that no more bands cross than have to.
        for begin, end, color, hatch, what in _FLOWS:
            high = flows[begin, end] / total
            if not high:
                continue
            a, b = spans["left"][begin][1], spans["right"][end][1]
            spans["left"][begin][1] += high
            spans["right"][end][1] += high
            lower = a + (b - a) * ease
            around = np.concatenate([lower, lower[::-1] + high])
            outline = np.stack([np.concatenate([x, x[::-1]]), around], axis=1)
            band = Polygon(
                outline, facecolor=color, alpha=0.85, hatch=hatch, edgecolor=INK, linewidth=0.5,
                label=f"{what}: {flows[begin, end]:,}",
            )  # fmt: skip
            axes.add_patch(band)
        for side, at, align in (("left", -0.03, "right"), ("right", 1.03, "left")):
            for verdict, (low, high) in spans[side].items():
                if high > low:
                    share = f"{verdict}\n{100 * (high - low):.1f}%"
                    axes.text(at, (low + high) / 2, share, ha=align, va="center")
        axes.text(0, 1.12, "opening", ha="left", va="bottom")
        axes.text(1, 1.12, "last answer", ha="right", va="bottom")
        axes.set_xlim(-0.28, 1.28)
        axes.set_ylim(-0.03, 1.2)
        handles, names = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], names[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2,
            frameon=False, columnspacing=1.2,
        )  # fmt: skip
        axes.set_title(f"{clipped(systems.label(name))}: {total:,} answers", loc="left")

    return draw(ident, f"Answers turned by {systems.label(name)} on {split}", described, 3.3, paint)


def short(number: int) -> str:
    """A count in at most four letters: 999, 1.2k, 34k, 5.6M."""
    for limit, size, letter in ((10**3, 1, ""), (10**6, 10**3, "k"), (10**9, 10**6, "M")):
        if number < limit:
            scaled = number / size
            return f"{scaled:.1f}{letter}" if letter and scaled < 9.95 else f"{scaled:.0f}{letter}"
    return f"{number:.0e}"


def reliability(entry: Mapping[str, Any], name: str, split: str, ident: str) -> str:
    """Accuracy against confidence, and below it how many answers were how sure."""
    found = entry["calibration"]
    bins = found["bins"]
    filled = [one for one in bins if one["n"]]
    kind = systems.kind(name)
    described = (
        f"Calibration of {systems.label(name)}: expected calibration error "
        f"{100 * found['ece']:.1f} points, Brier score {found['brier']:.3f}. "
    )
    described += "; ".join(
        f"sure {percent(one['low'])} to {percent(one['high'])}%: right "
        f"{percent(one['accuracy'])}% of {one['n']:,}"
        for one in filled
    )

    def paint(figure: Any) -> None:
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1]}, squeeze=True
        )
        upper.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
        xs = [100 * one["confidence"] for one in filled]
        ys = [100 * one["accuracy"] for one in filled]
        for x, y in zip(xs, ys, strict=True):
            upper.plot([x, x], [x, y], color=COLORS[kind], linewidth=1.6, alpha=0.8)
        upper.plot(xs, ys, color=COLORS[kind], linewidth=1.2)
        point(upper, xs, ys, name)
        upper.set_xlim(-4, 104)
        upper.set_ylim(-6, 106)
        upper.set_ylabel("right, %")
        upper.set_title(f"{clipped(systems.label(name))}: ECE {100 * found['ece']:.1f}", loc="left")
        grid(upper)
        most = max((one["n"] for one in filled), default=1)
        for one in filled:
            middle = 50 * (one["low"] + one["high"])
            wide = 92 * (one["high"] - one["low"])
            lower.bar(
                middle, one["n"], width=wide, color=COLORS[kind], alpha=0.8, edgecolor=INK,
                linewidth=0.5,
            )  # fmt: skip
            lower.text(middle, one["n"] + 0.05 * most, short(one["n"]), ha="center", va="bottom")
        lower.set_ylim(0, 1.75 * most)
        lower.set_yticks([])
        lower.set_ylabel("answers")
        lower.set_xlabel("confidence, %")

    return draw(ident, f"Calibration of {systems.label(name)} on {split}", described, 4.3, paint)
