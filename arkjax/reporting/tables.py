"""The tables of the report's page: systems, costs, domains, comparisons, and how it was made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arkjax.reporting import lessons, systems
from arkjax.reporting.domains import by_gain
from arkjax.reporting.front import listed
from arkjax.reporting.headline import interval, percent, points
from arkjax.reporting.page import esc, folded, table

Report = Mapping[str, Any]
_COSTS = {
    "calls": "calls",
    "prompt_tokens": "prompt tokens",
    "generated_tokens": "generated tokens",
    "seconds": "seconds",
    "device_seconds": "device-seconds",
}


def name(system: str, oracle: bool = False) -> str:
    """A system's name for people and its own, as HTML."""
    mark = ' <span class="mark">oracle stop</span>' if oracle else ""
    label = systems.label(system)
    own = f"<code>{esc(system)}</code>" if label != system else ""
    return f"{esc(label)}{mark}{own}"


def share(value: float | None, ci95: Sequence[float] | None, bar: bool = False) -> str:
    """A share in per cent with its interval as a cell; a dash where there is none."""
    if value is None:
        return '<td class="n">–</td>'
    ends = f"<small>{interval(ci95)}</small>" if ci95 else ""
    look = f'class="n bar" style="--w: {percent(value)}%"' if bar else 'class="n"'
    return f"<td {look}>{percent(value)}{ends}</td>"


def number(value: Any, digits: str = ".3g") -> str:
    """A number as a cell; a dash for None."""
    if value is None:
        return '<td class="n">–</td>'
    return (
        f'<td class="n">{value:,.0f}</td>'
        if value >= 100
        else f'<td class="n">{value:{digits}}</td>'
    )


def _accuracy(entry: Mapping[str, Any] | None) -> str:
    return share(entry["accuracy"], entry["ci95"], bar=True) if entry else share(None, None)


def _cost_fields(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [field for field in _COSTS if all(field in entry for entry in found.values())]


def all_systems(report: Report) -> str:
    """Every system: its accuracy on each split, what an answer of it costs, and what it is."""
    splits = systems.ordered_splits(report["splits"])
    sections = report["splits"]
    names = systems.ordered({n for split in splits for n in sections[split]["systems"]})
    found = {split: systems.hardest(sections[split]["parts"]) for split in splits}
    hard = {split: part for split, part in found.items() if part}
    entries_of = {n: [sections[split]["systems"].get(n) for split in splits] for n in names}
    costs = {n: next(entry for entry in entries if entry) for n, entries in entries_of.items()}
    fields = _cost_fields(costs)
    rows = []
    for n in names:
        cells = [_accuracy(entry) for entry in entries_of[n]]
        for split, part in hard.items():
            entry = sections[split]["systems"].get(n)
            cells.append(_accuracy(entry["by_part"].get(part) if entry else None))
        cells += [number(costs[n][field]) for field in fields]
        rows.append([name(n, costs[n]["oracle"]), *cells])
    head = ["system", *(f"{split}, %" for split in splits)]
    head += [f"{split}, {part}, %" for split, part in hard.items()]
    head += [_COSTS[field] for field in fields]
    caption = "Right answers with 95% intervals; cost per problem on the first split."
    text = table(caption, head, rows, range(1, len(head)))
    for part in dict.fromkeys(hard.values()):
        text += f'<p class="soft">{esc(part)}: {esc(systems.HARDEST[part])}.</p>'
    return text + (what_they_are(report, names) if len(names) > 1 else "")


def what_they_are(report: Report, names: Sequence[str]) -> str:
    """A sentence for each system; of what was trained also the filter and how much it was given."""
    taught = {n: lessons.taught(report, n) for n in names}
    trained = [n for n in names if lessons.kept(n)]
    counted = any(taught.values())
    rows = []
    for n in names:
        cells = [f'<td class="says">{esc(lessons.what(n, names))}</td>']
        if trained:
            cells.append(f'<td class="says">{esc(lessons.kept(n) or "–")}</td>')
        if counted:
            phases = taught[n] or []
            for field in ("examples", "problems"):
                numbers = [lessons.span(getattr(one, field)) if one else "–" for one in phases]
                cells.append(f'<td class="n">{esc(", then ".join(numbers) or "–")}</td>')
        rows.append([name(n), *cells])
    head = ["system", "what it is, or was trained on" if trained else "what it is"]
    head += ["filter"] if trained else []
    head += ["examples", "problems"] if counted else []
    caption = "What each system is" + (", and what it learned from" if trained else "")
    if counted:
        caption += ": examples, and problems that they are of"
        caption += " (fewest to most of a seed)" if len(report["seeds"]) > 1 else ""
    text = table(caption, head, rows, range(3, 5) if counted else ())
    if trained:
        text += (
            '<p class="soft">Students and controls answer in one greedy call, as base does. '
            "What learns from rewards answers all training problems anew and is given no "
            "examples.</p>"
        )
    return text


def runs(compared: Sequence[Mapping[str, Any]]) -> str:
    """The runs that a comparison was made from; "" for a report of one run."""
    rows = [
        [
            esc(run["name"]),
            f"<code>{esc(run['path'])}</code>",
            f"<code>{esc(run['config_hash'][:12])}</code>",
            esc(", ".join(map(str, run["seeds"]))),
            esc(" ".join(str(run["device"][k]) for k in ("count", "kind") if k in run["device"])),
            f"<code>{esc(run['command'] or '–')}</code>",
        ]
        for run in compared
    ]
    head = ["run", "directory", "config", "seeds", "device", "command"]
    return table("The runs", head, rows, ()) if rows else ""


def per_correct(report: Report, split: str) -> str:
    """What a correct answer costs, mistakes paid for."""
    found = report["splits"][split]["systems"]
    prices = {n: entry.get("per_correct") or {} for n, entry in found.items()}
    fields = _cost_fields(prices)
    rows = [[name(n), *(number(prices[n][f]) for f in fields)] for n in systems.ordered(found)]
    if not fields:
        return ""
    caption = f"Cost of a correct answer on {split}: all that was spent by all that was right."
    head = ["system", *(_COSTS[field] for field in fields)]
    return table(caption, head, rows, range(1, len(head)))


def domains(report: Report, split: str, names: Sequence[str]) -> str:
    """Accuracy of the named systems in each domain, the one where the team adds most first."""
    section = report["splits"][split]
    found = section["systems"]
    if len(section["domains"]) < 2:
        return ""
    ranked = by_gain(report, split)
    told = {row["domain"]: row["verdict"] for row in ranked if row["verdict"]}
    rows = [
        [
            esc(domain),
            number(section["domains"][domain]),
            *([f"<td>{esc(told.get(domain, '–'))}</td>"] if told else []),
            *(
                share(
                    found[n]["by_domain"].get(domain),
                    found[n].get("by_domain_ci95", {}).get(domain),
                )
                for n in names
            ),
        ]
        for domain in ([row["domain"] for row in ranked] or sorted(section["domains"]))
    ]
    head = ["domain", "problems", *(["verdict"] if told else []), *map(systems.label, names)]
    numbers = [1, *range(3 if told else 2, len(head))]
    caption = f"Right answers by domain on {split}, %; those of all systems are in report.json"
    return folded("Every domain", table(caption, head, rows, numbers))


def comparisons(report: Report) -> str:
    """What was held against what, with difference, interval, p and a verdict in words."""
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for entry in report["comparisons"]:
        groups.setdefault((entry["split"], entry["part"]), []).append(entry)
    text = ""
    for (split, part), entries in groups.items():
        where = f"{split}, {part} problems" if part else split
        body = _comparison_table(entries, where)
        text += folded(f"On {where} ({entries[0]['n']:,})", body, opened=not text)
    if text:
        text = (
            '<p class="soft">Differences of right answers in percentage points with 95% intervals. '
            "Adjusted p allows for the number of all comparisons below "
            f"({len(report['comparisons'])}, Holm).</p>{text}"
        )
    missing = _not_compared(report["not_compared"])
    if missing:
        count = len(report["not_compared"])
        items = "".join(f"<li>{esc(sentence)}</li>" for sentence in missing)
        text += folded(f"Not compared ({count:,})", f"<ul>{items}</ul>")
    return text


def _not_compared(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each reason, with all that it holds for."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for entry in entries:
        part = f", {entry['part']}" if entry["part"] else ""
        place = f"{entry['split']}{part}"
        places.setdefault((entry["reason"], entry["a"], entry["b"]), []).append(place)
    # Pairs with the same reason in the same places share a sentence, those with one rival a name.
    alike: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for (reason, a, b), where in places.items():
        pairs = alike.setdefault((reason, tuple(where)), {})
        pairs.setdefault(systems.label(b), []).append(systems.label(a))
    return [
        f"{reason}: "
        + "; ".join(f"{listed(names)} against {rival}" for rival, names in pairs.items())
        + f" ({'; '.join(where)})."
        for (reason, where), pairs in alike.items()
    ]


def _comparison_table(entries: Sequence[Mapping[str, Any]], where: str) -> str:
    rows = [
        [
            f"{esc(systems.label(entry['a']))} − {esc(systems.label(entry['b']))}",
            f'<td class="n">{points(entry["difference"])}'
            f"<small>{interval(entry['ci95'], points)}</small></td>",
            f'<td class="n">{_p(entry["p"])}</td>',
            f'<td class="n">{_p(entry["p_holm"])}</td>',
            esc(entry["verdict"]),
        ]
        for entry in entries
    ]
    head = ["pair", "difference", "p", "adjusted p", "verdict"]
    return table(f"Comparisons on {where}", head, rows, range(1, 4))


def _p(p: float) -> str:
    return "&lt; 0.001" if p < 0.001 else f"{p:.3f}"


def flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested mappings, each with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key in value:
            yield from flat(value[key], (*path, str(key)))
    else:
        yield path, value


def counts(nested: Mapping[str, Any]) -> str:
    """Nested counts as tables: the innermost keys are columns where rows share them."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, value in flat(nested):
        rows.setdefault(path[:-1], {})[path[-1]] = value
    alike: dict[tuple[str, ...], list[tuple[tuple[str, ...], dict[str, Any]]]] = {}
    for path, cells in rows.items():
        alike.setdefault(tuple(cells), []).append((path, cells))
    text = ""
    for columns, entries in alike.items():
        lines = [
            [
                esc(" · ".join(path) or "all"),
                *(f'<td class="n">{_count(v)}</td>' for v in cells.values()),
            ]
            for path, cells in entries
        ]
        about = ", ".join(dict.fromkeys(path[-1] if path else "all" for path, _ in entries))
        caption = f"Counts of {about if len(about) < 60 else about[:60] + '…'}"
        text += table(caption, ["what", *columns], lines, range(1, 1 + len(columns)))
    return folded("Counts of every filter", text) if text else ""


def process_rewards(rewards: Mapping[str, Any]) -> str:
    """What each student's reward model is worth, as shares and differences of shares."""
    columns = {
        "step_auroc": "AUROC of steps",
        "first_error_accuracy": "first error found",
        "first_error_f1": "F1 of first errors",
        "majority": "vote",
        "best": "best by reward",
        "lift_over_vote": "best - vote",
        "oracle": "any right",
    }
    lines = [
        [
            esc(systems.label(student)),
            *(f'<td class="n">{_count(figures.get(column, "–"))}</td>' for column in columns),
        ]
        for student, figures in rewards.items()
    ]
    if not lines:
        return ""
    return table("Reward models", ["student", *columns.values()], lines, range(1, 8))


def _count(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return esc(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def run_facts(report: Report) -> str:
    """The command, the versions, the device, and how long each stage took."""
    facts = {
        "config": report["config_hash"],
        "seeds": ", ".join(map(str, report["seeds"])),
        **{f"version of {n}": version for n, version in sorted(report["versions"].items())},
        **{f"device, {n}": value for n, value in sorted(report["device"].items())},
        **{f"wall time of {n}": f"{s:,.1f} s" for n, s in report["wall_seconds"].items()},
    }
    command = report.get("command")
    command = f"<p>An equivalent command:</p><pre>{esc(command)}</pre>" if command else ""
    rows = [[esc(n), f"<code>{esc(value)}</code>"] for n, value in facts.items()]
    return command + folded(
        "Config, seeds, versions, device, wall time", table("The run", ["what", "value"], rows, ())
    )
