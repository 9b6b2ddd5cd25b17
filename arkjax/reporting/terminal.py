"""What a report found, for a terminal: its sentences and its table of systems."""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.headline import interval, percent
from arkjax.trajectories.transcript import printable


def findings(report: Mapping[str, Any]) -> str:
    """The first line, the headline and the table of each split; no control characters.

    Args:
      report: of `build_report`.
    """
    lines = list(dict.fromkeys([report["first_line"], *report["headline"]]))
    tables = [systems_table(report, split) for split in systems.ordered_splits(report["splits"])]
    return "\n\n".join(printable(text) for text in (*lines, *tables))


def systems_table(report: Mapping[str, Any], split: str) -> str:
    """Right answers with 95% intervals, what an answer costs, and what a right one does.

    Args:
      report: of `build_report`; further figures by system in "scores", such as F1, become columns.
      split: which of its splits.
    """
    labels = report.get("labels", {})
    found, scores = report["splits"][split]["systems"], report.get("scores", {})
    extra = list(dict.fromkeys(name for of_system in scores.values() for name in of_system))
    head = ["system", "right, %", "calls", "prompt tokens", "generated", "seconds"]
    head += ["seconds per right answer", *extra]
    rows = []
    for name in systems.ordered(found):
        entry, per_right = found[name], found[name]["per_correct"]["seconds"]
        rows.append(
            [
                labels.get(name) or systems.label(name),
                f"{percent(entry['accuracy'])} {interval(entry['ci95'])}",
                f"{entry['calls']:.1f}",
                f"{entry['prompt_tokens']:,.0f}",
                f"{entry['generated_tokens']:,.0f}",
                f"{entry['seconds']:.3g}",
                "none right" if per_right is None else f"{per_right:.3g}",
                *(f"{scores.get(name, {}).get(figure, 0.0):.3f}" for figure in extra),
            ]
        )
    title = f"{report['splits'][split]['n']:,} problems of split {split}; costs per problem"
    choices = "".join(f"\n{k}: {v:.3f}" for k, v in report.get("choices", {}).items())
    return f"{title}\n{_aligned(head, rows)}{choices}"


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, the first to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
