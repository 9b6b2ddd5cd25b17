"""Tables of a grader's figures, of talk, calibration and reasoning, and of published numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.evidence_plots import levels
from arkjax.reporting.headline import interval, percent, points
from arkjax.reporting.page import esc, folded, table
from arkjax.reporting.tables import flat, name, number, share

Report = Mapping[str, Any]


def grader_figures(report: Report) -> str:
    """What the grader measures beside right and wrong; "" for a report without such figures.

    Args:
      report: may hold `scores` ({SYSTEM: {FIGURE: mean over all problems}}) and `choices`
        ({MEASURE: mean}), which is of the model alone.
    """
    scores, choices = report.get("scores") or {}, report.get("choices") or {}
    columns = list(dict.fromkeys(figure for found in scores.values() for figure in found))
    text = ""
    if columns:
        shown = [_column(c, [scores[n].get(c) for n in systems.ordered(scores)]) for c in columns]
        rows = [
            [name(n), *(cells[at] for _, cells in shown)]
            for at, n in enumerate(systems.ordered(scores))
        ]
        head = ["system", *(title for title, _ in shown)]
        text += table("Means over all problems", head, rows, range(1, len(head)))
    if choices:
        shown = [_column(measure, [value]) for measure, value in choices.items()]
        rows = [[esc(title), cell] for title, [cell] in shown]
        text += table("Given choices, by the model's probability", ["measure", "mean"], rows, (1,))
        text += (
            '<p class="soft">Of the model alone, which writes nothing here: MC1 is how often the '
            "best answer is likelier than every false one, MC2 the probability of the true ones "
            "among all.</p>"
        )
    return text


def _column(figure: str, values: Sequence[Any]) -> tuple[str, list[str]]:
    """The head and the cells of one figure: in per cent if all its values are shares."""
    known = [v for v in values if isinstance(v, int | float) and math.isfinite(v)]
    shares = all(0 <= value <= 1 for value in known)
    cells = []
    for value in values:
        if value not in known:
            cells.append(share(None, None))
        elif shares:
            cells.append(share(value, None))
        else:
            cells.append(f'<td class="n">{f"{value:,.3f}".replace("-", "−")}</td>')
    return figure.replace("_", " ") + (", %" if shares else ""), cells


def difficulty(report: Report, split: str) -> str:
    """Accuracy of each system at each level of difficulty."""
    found = report["splits"][split]["systems"]
    steps = levels(found)
    if not steps:
        return ""
    sizes = {
        level: next(
            entry["by_difficulty"][level]["n"]
            for entry in found.values()
            if level in (entry.get("by_difficulty") or {})
        )
        for level in steps
    }
    rows = []
    for n in systems.ordered(found):
        entries = found[n].get("by_difficulty") or {}
        cells = [
            share(entries[level]["accuracy"], entries[level]["ci95"])
            if level in entries
            else share(None, None)
            for level in steps
        ]
        rows.append([name(n), *cells])
    head = ["system", *(f"{level} ({sizes[level]:,})" for level in steps)]
    caption = f"Right answers by difficulty on {split}, %; number of problems in brackets"
    return folded("All systems by difficulty", table(caption, head, rows, range(1, len(head))))


def talk_sentences(report: Report, split: str) -> list[str]:
    """For each system with rounds, how often talking corrected and how often it misled."""
    found = report["splits"][split]["systems"]
    said = []
    for n in systems.ordered(found):
        flips = found[n].get("flips")
        if not flips:
            continue
        label = systems.label(n)
        clauses = []
        for key, opened, did in (
            ("corrected", "wrong", "put right"),
            ("misled", "right", "turned wrong"),
        ):
            turned = flips[key]
            if turned["n"]:
                clauses.append(
                    f"of {turned['n']:,} answers that opened {opened} it {did} {turned['count']:,} "
                    f"({percent(turned['rate'])}% {interval(turned['ci95'])})"
                )
        if clauses:
            text = f"Talking in {label} on {split}: {'; '.join(clauses)}."
            said.append(text + _net(flips))
    return said


def _net(flips: Mapping[str, Any]) -> str:
    net = flips.get("net")
    if not isinstance(net, Mapping) or not net.get("ci95"):
        return ""
    low, high = net["ci95"]
    size = f"{points(net['value'])} points {interval((low, high), points)}"
    if low <= 0 <= high:
        return f" Whether that adds accuracy is open: {size}."
    return f" Together that {'adds' if low > 0 else 'costs'} accuracy: {size}."


def talk(report: Report, split: str) -> str:
    """The pool, the oracle gap and the flips of every system that has them."""
    found = report["splits"][split]["systems"]
    names = [
        n
        for n in systems.ordered(found)
        if found[n].get("flips") or (found[n].get("pool") and found[n]["calls"] > 1)
    ]
    rows = []
    for n in names:
        pool, flips = found[n].get("pool") or {}, found[n].get("flips") or {}
        cells = [
            share(found[n]["accuracy"], found[n]["ci95"]),
            share(pool.get("accuracy"), pool.get("ci95")),
            share(pool.get("gap"), pool.get("gap_ci95")),
        ]
        for key in ("corrected", "misled"):
            turned = flips.get(key)
            cells.append(_turned(turned) if turned else '<td class="n">–</td>')
        rows.append([name(n), *cells])
    head = ["system", "right, %", "right in the pool, %", "oracle gap, points"]
    head += ["corrected of wrong openings", "misled of right openings"]
    caption = f"The pool of answers, and the answers that talking turned, on {split}"
    return table(caption, head, rows, range(1, len(head))) if rows else ""


def _turned(turned: Mapping[str, Any]) -> str:
    rate = f"{percent(turned['rate'])}% {interval(turned['ci95'])}" if turned["n"] else ""
    return f'<td class="n">{turned["count"]:,} of {turned["n"]:,}<small>{rate}</small></td>'


def calibration(report: Report, split: str) -> str:
    """Expected calibration error and Brier score of each system, and the counts of each bin."""
    found = report["splits"][split]["systems"]
    names = [n for n in systems.ordered(found) if found[n].get("calibration")]
    if not names:
        return ""
    rows, bins = [], []
    for n in names:
        entry = found[n]["calibration"]
        answers = entry.get("n", sum(one["n"] for one in entry["bins"]))
        rows.append(
            [
                name(n),
                f'<td class="n">{100 * entry["ece"]:.1f}</td>',
                f'<td class="n">{entry["brier"]:.3f}</td>',
                f'<td class="n">{answers:,}</td>',
            ]
        )
        for one in entry["bins"]:
            bins.append(
                [
                    esc(systems.label(n)),
                    f"{percent(one['low'])} to {percent(one['high'])}",
                    f'<td class="n">{one["n"]:,}</td>',
                    share(one["confidence"] if one["n"] else None, None),
                    share(one["accuracy"] if one["n"] else None, None),
                ]
            )
    head = ["system", "ECE, points", "Brier score", "answers"]
    text = table(f"Calibration on {split}", head, rows, range(1, 4))
    text += (
        '<p class="soft">ECE: the mean distance between how sure a system is and how often it is '
        "right. A vote is as sure as the share of its voters; a single call as the probability of "
        "the words of its answer.</p>"
    )
    head = ["system", "confidence, %", "answers", "mean confidence, %", "right, %"]
    return text + folded("Every bin", table("Bins of confidence", head, bins, range(2, 5)))


def quality(measured: Mapping[str, Any] | None) -> str:
    """How good the reasoning is, by split, system and measure, and what each measure means.

    Args:
      measured: `measures` (a sentence by name), `splits` ({SPLIT: {SYSTEM: {MEASURE: figure}}}) and
        `judge` (facts of the model that judged, or None); without `splits` its other keys are
        systems. A figure has `value`, `ci95` or None, `n`, and it may have `minus_base`.
    """
    if not measured:
        return ""
    meanings = measured.get("measures") or {}
    by_split = measured.get("splits")
    if by_split is None:
        known = ("measures", "judge")
        by_split = {"": {key: figures for key, figures in measured.items() if key not in known}}
    text, shown = "", []
    for split in systems.ordered_splits(by_split):
        found = by_split[split]
        columns = dict.fromkeys([*meanings, *(m for one in found.values() for m in one)])
        columns = [column for column in columns if any(column in one for one in found.values())]
        if not columns:
            continue
        shown += [column for column in columns if column not in shown]
        rows = [
            [name(n), *(_measure(found[n].get(column)) for column in columns)]
            for n in systems.ordered(found)
        ]
        head = ["system", *(column.replace("_", " ") for column in columns)]
        caption = f"Reasoning{' on ' + split if split else ''}, with 95% intervals"
        text += table(caption, head, rows, range(1, len(head)))
    items = "".join(
        f"<li><b>{esc(column.replace('_', ' '))}</b>: {esc(meanings[column])}</li>"
        for column in shown
        if meanings.get(column)
    )
    text += f"<ul>{items}</ul>" if items else ""
    return text + _judge(measured.get("judge")) if text else ""


def _judge(facts: Any) -> str:
    if not isinstance(facts, Mapping) or not facts:
        return ""
    rows = [[esc(" · ".join(path)), esc(value)] for path, value in flat(facts)]
    return folded("The judge", table("What judged, and how", ["what", "value"], rows, ()))


def _measure(entry: Any) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("value"), int | float):
        return '<td class="n">–</td>'
    small = _ends(entry)
    small += f" n = {entry['n']:,}" if isinstance(entry.get("n"), int) else ""
    cell = f'<td class="n">{entry["value"]:.3g}<small>{small}</small>'
    less = entry.get("minus_base")
    if isinstance(less, Mapping) and isinstance(less.get("value"), int | float):
        value = f"{less['value']:+.3g}".replace("-", "−")
        cell += f"<small>{value} to base {_ends(less)}</small>"
    return f"{cell}</td>"


def _ends(entry: Mapping[str, Any]) -> str:
    ends = entry.get("ci95")
    return interval(ends, lambda x: f"{x:.3g}".replace("-", "−")) if ends else ""


def published(numbers: Mapping[str, Any] | None) -> str:
    """Our numbers beside those of a paper, which are marked as such."""
    rows: Sequence[Mapping[str, Any]] = (numbers or {}).get("rows") or ()
    if not numbers or not rows:
        return ""
    fixed = ("name", "ours", "paper")
    more = list(dict.fromkeys(key for row in rows for key in row if key not in fixed))
    head = ["what", "ours", "the paper's", *(key.replace("_", " ") for key in more)]
    lines = [
        [
            esc(row.get("name", "")),
            _value(row.get("ours")),
            _value(row.get("paper"), "paper"),
            *(_value(row.get(key)) for key in more),
        ]
        for row in rows
    ]
    text = table(str(numbers.get("title", "Published numbers")), head, lines, range(1, 3))
    source = f" Source: {numbers['source']}." if numbers.get("source") else ""
    note = f" {numbers['note']}" if numbers.get("note") else ""
    return (
        f'{text}<p class="soft">Numbers in italics are the paper\'s, quoted and not measured here; '
        f"a dash is a number that was not measured.{esc(source)}{esc(note)}</p>"
    )


def _value(value: Any, look: str = "") -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="n {look}">{value:,.4g}</td>' if look else number(value, ".4g")
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    return f'<td class="n {look}">{esc("–" if value is None else value)}</td>'
