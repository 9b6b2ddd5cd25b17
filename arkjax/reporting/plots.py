"""The report's pictures: what each system costs, where it is right, and how it was trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import evidence_plots, labels, systems
from arkjax.reporting.domains import by_gain
from arkjax.reporting.drawing import (
    COLORS,
    DASHES,
    INK,
    LINES,
    TEXT,
    Report,
    clipped,
    draw,
    finite,
    grid,
    legend,
    log_ticks,
    point,
    standalone,
    wrapped,
)
from arkjax.reporting.front import COSTS, costs, front
from arkjax.reporting.headline import best_student, percent

__all__ = ["INK", "Curves", "all_plots", "standalone"]

Curves = Mapping[str, Sequence[tuple[float, float]]]
_NAMED = 60  # names that a scatter can hold, which grows with them
_USUAL = 8  # names that it holds without growing
_DOMAINS = 24  # rows of a picture that still fits a page
_PARTS = 12


def all_plots(report: Report, curves: Curves | None = None) -> dict[str, str]:
    """Every picture that the report has figures for, by name."""
    figures = {}
    splits = systems.ordered_splits(report["splits"])
    main = splits[0]
    # One system alone is neither dear nor cheap.
    compared = [split for split in splits if len(report["splits"][split]["systems"]) > 1]
    for cost in costs(report["splits"][main]["systems"]) if main in compared else ():
        name = "accuracy_cost_0" if cost == "generated_tokens" else f"accuracy_{cost}"
        figures[name] = accuracy_against_cost(report, main, cost, name.replace("_", "-"))
    for number, split in enumerate(splits[1:], start=1):
        if split not in compared:
            continue
        figures[f"accuracy_cost_{number}"] = accuracy_against_cost(
            report, split, "generated_tokens", f"accuracy-cost-{number}"
        )
    if len(report["splits"][main]["parts"]) > 1:
        figures["accuracy_by_part"] = accuracy_by_part(report, main)
    if by_gain(report, main) and any(report["captured_gain_by_domain"][main].values()):
        figures["captured_gain_by_domain"] = captured_gain_by_domain(report, main)
    figures.update(evidence_plots.evidence_plots(report, main))
    if curves and any(finite(line) for line in curves.values()):
        figures["learning_curves"] = learning_curves(curves)
    return figures


def _named(report: Report, split: str, on_front: Sequence[str]) -> list[str]:
    """The systems that get their name in a scatter, the most telling first."""
    found = report["splits"][split]["systems"]
    best = best_student(report, split)
    wanted = ["base", "team", best, *on_front, "self_consistency", "role_vote"]
    wanted += [name for name in systems.ordered(found) if systems.kind(name) == "control"]
    wanted += systems.ordered(found)
    return [name for name in dict.fromkeys(wanted) if name in found][:_NAMED]


def accuracy_against_cost(report: Report, split: str, cost: str, name: str) -> str:
    """Accuracy in per cent against a cost per problem (log), with 95% intervals and the front."""
    found = report["splits"][split]["systems"]
    names = systems.ordered(found)
    least = min((found[n][cost] for n in names if found[n][cost] > 0), default=1.0)
    spent = {n: max(found[n][cost], least / 10) for n in names}
    values = {n: 100 * found[n]["accuracy"] for n in names}
    ends = {n: [100 * end for end in found[n]["ci95"]] for n in names}
    on_front = front(report, split, cost)
    unit = {"generated_tokens": "tokens", "calls": "calls"}.get(cost, "s")
    shown = (lambda x: f"{x:.0f}") if cost == "generated_tokens" else (lambda x: f"{x:.3g}")
    described = (
        f"Accuracy in per cent against {COSTS[cost]} per problem, on a logarithmic axis, of "
        f"{len(names)} systems. On the Pareto front: "
        f"{', '.join(systems.label(n) for n in on_front)}. All of them"
    )
    for n in names:
        described += f"; {systems.label(n)} {values[n]:.1f}% at {shown(found[n][cost])} {unit}"

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        low, high = min(spent.values()) / 1.9, max(spent.values()) * 1.9
        steps = [*((spent[n], values[n]) for n in on_front), (high, values[on_front[-1]])]
        flat = [((a[0], a[1]), (b[0], a[1])) for a, b in zip(steps, steps[1:], strict=False)]
        axes.step(
            *zip(*steps, strict=True), where="post", color=INK, linewidth=1.0, alpha=0.7,
            linestyle=(0, (4, 2)),
        )  # fmt: skip
        for n in names[::-1]:  # students over controls
            kind = systems.kind(n)
            axes.plot([spent[n]] * 2, ends[n], color=COLORS[kind], linewidth=1.6)
            point(axes, spent[n], values[n], n)
        axes.set_xlim(low, high)
        bottom, top = min(e[0] for e in ends.values()), max(e[1] for e in ends.values())
        room = 0.07 * max(top - bottom, 5)
        axes.set_ylim(bottom - room, top + room)
        axes.minorticks_off()
        ticks = log_ticks(low, high)
        axes.set_xticks(ticks, [f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in ticks])
        grid(axes)
        axes.set_xlabel(f"{COSTS[cost]} per problem (log)")
        axes.set_ylabel("accuracy, %")
        size = report["splits"][split]["n"]
        axes.set_title(f"{clipped(split)}: {size:,} problem{'s' * (size != 1)}", loc="left")
        chosen = _named(report, split, on_front)
        ranked = chosen + [n for n in names if n not in chosen]
        labels.place(
            axes,
            [(spent[n], values[n]) for n in ranked],
            [ends[n] for n in ranked],
            [clipped(systems.label(n)) for n in chosen],
            flat,
        )

    title = f"Accuracy against {COSTS[cost]} on {split}"
    height = 4.4 + 0.16 * max(min(len(names), _NAMED) - _USUAL, 0)
    return draw(name, title, described, height, paint)


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
    parts = systems.ordered_parts(section["parts"])[:_PARTS]

    def figures(n: str, part: str) -> tuple[float, list[float]]:
        entry = section["systems"][n]["by_part"][part]
        return 100 * entry["accuracy"], [100 * end for end in entry["ci95"]]

    described = "Accuracy of each system, a panel for each part of the problems: "
    described += "; ".join(
        f"{systems.label(n)}: " + ", ".join(f"{part} {figures(n, part)[0]:.1f}%" for part in parts)
        for n in names
    )
    columns = len(parts) if len(parts) <= 3 else 2
    lines = -(-len(parts) // columns)

    def paint(figure: Any) -> None:
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        rows = list(range(len(names)))[::-1]
        for axes in panels[len(parts) :]:
            axes.set_visible(False)
        for axes, part in zip(panels, parts, strict=False):
            for row, n in zip(rows, names, strict=True):
                value, (low, high) = figures(n, part)
                axes.barh(
                    row, value, height=0.62, color=COLORS[systems.kind(n)], alpha=0.8,
                    edgecolor=INK, linewidth=0.5,
                )  # fmt: skip
                axes.plot([low, high], [row, row], color=INK, linewidth=1.2)
                axes.text(max(high, value) + 9, row, f"{value:.0f}", va="center")
            axes.set_xlim(0, 155)
            axes.set_xticks([0, 100])
            axes.set_yticks(rows, [wrapped(systems.label(n), 14) for n in names])
            axes.tick_params(axis="y", length=0)
            title = wrapped(part, 12) + f"\n({section['parts'][part]:,})"
            axes.set_title(title, loc="left", linespacing=1.1)
            grid(axes, "x")
        figure.supxlabel("accuracy, %", fontsize=TEXT)

    height = 0.6 + lines * (0.6 + 0.44 * len(names))
    return draw("parts", f"Accuracy by part of {split}", described, height, paint)


def captured_gain_by_domain(report: Report, split: str) -> str:
    """Share of the team's gain that votes and the best student show, by domain.

    0 is the base model, 100 the team; the domain where the team adds most comes first.
    """
    gains = {d: g for d, g in report["captured_gain_by_domain"][split].items() if g}
    best = best_student(report, split)
    rows = [row for row in by_gain(report, split) if row["domain"] in gains][:_DOMAINS]
    domains = [row["domain"] for row in rows]
    wanted = ("self_consistency", "role_vote", best, "control_no_debate")
    names = [n for n in wanted if n and any(n in gains[d] for d in domains)]

    def value(domain: str, n: str) -> float | None:
        return gains[domain].get(n, {}).get("value")

    def said(domain: str, n: str) -> str:
        share = value(domain, n)
        return f"{systems.label(n)} {'not defined' if share is None else percent(share) + '%'}"

    described = "Share of the team's gain over base by domain, largest gain first: "
    described += "; ".join(f"{d}: {', '.join(said(d, n) for n in names)}" for d in domains)
    step = 0.8 / max(len(names), 1)

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for place, text in ((0, "base"), (100, "team")):
            axes.axvline(place, color=INK, linewidth=0.8, alpha=0.6, linestyle=(0, (4, 3)))
            axes.text(place, len(domains) - 0.45, text, ha="center", va="bottom")
        ends = [0.0, 100.0]
        for row, domain in enumerate(domains[::-1]):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color=INK, alpha=0.05, linewidth=0)
            if all(value(domain, n) is None for n in names):
                axes.text(50, row, "no gain to share", ha="center", va="center")
            for number, n in enumerate(names):
                share = value(domain, n)
                if share is None:
                    continue
                at = row + step * ((len(names) - 1) / 2 - number)
                low, high = (100 * end for end in gains[domain][n]["ci95"])
                ends += [100 * share, *(end for end in (low, high) if abs(end) < 1e6)]
                kind = systems.kind(n)
                axes.plot([low, high], [at, at], color=COLORS[kind], linewidth=1.8)
                point(axes, 100 * share, at, n, label=clipped(systems.label(n)))
        # A domain with hardly any gain has an interval that would squeeze all the others.
        axes.set_xlim(max(min(ends) - 12, -100), min(max(ends) + 12, 300))
        axes.set_ylim(-0.55, len(domains) - 0.1)
        ticks = [
            f"{wrapped(row['domain'], 16)}\nteam {100 * row['gain']:+.0f}".replace("-", "−")
            for row in rows[::-1]
        ]
        axes.set_yticks(range(len(domains)), ticks, linespacing=1.05)
        axes.tick_params(axis="y", length=0)
        grid(axes, "x")
        axes.set_xlabel("share of the team's gain, %")
        legend(figure, axes)

    height = 1.4 + max(0.62, 0.17 * len(names)) * len(domains)
    return draw("domains", f"Captured gain by domain on {split}", described, height, paint)


def learning_curves(curves: Curves) -> str:
    """Training loss against step: base in one panel, the students in another."""
    lines = {name: finite(line) for name, line in curves.items()}
    lines = {name: lines[name] for name in systems.ordered(lines) if lines[name]}
    panels = [
        ("base", [name for name in lines if name.startswith("base")]),
        ("students", [name for name in lines if not name.startswith("base")]),
    ]
    panels = [(title, names) for title, names in panels if names]
    described = "Training loss by step: "
    described += "; ".join(
        f"{systems.label(name)}: {line[0][1]:.3g} at step {line[0][0]:.0f}, "
        f"{line[-1][1]:.3g} at step {line[-1][0]:.0f}"
        for name, line in lines.items()
    )
    named = max(len(names) for _, names in panels)

    def paint(figure: Any) -> None:
        columns = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, (title, names) in zip(columns, panels, strict=True):
            for number, name in enumerate(names):
                axes.plot(
                    *zip(*lines[name], strict=True),
                    label=clipped(systems.label(name)),
                    color=LINES[number % len(LINES)],
                    linestyle=DASHES[number % len(DASHES)],
                    linewidth=1.7,
                )
            axes.set_title(title, loc="left")
            axes.set_ylabel("loss")
            grid(axes)
            if len(names) > 1:
                axes.legend(
                    frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.34),
                    handlelength=2.4, columnspacing=1.0,
                )  # fmt: skip
        columns[-1].set_xlabel("step")

    height = 0.5 + 2.0 * len(panels) + (0.22 * ((named + 1) // 2) if named > 1 else 0)
    return draw("curves", "Learning curves", described, height, paint)
