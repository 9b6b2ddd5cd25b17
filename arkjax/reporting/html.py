"""The report as one page to read: self-contained, no scripts, every word of a model escaped."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arkjax.reporting import plots, systems
from arkjax.reporting.headline import best_student, interval, percent, points
from arkjax.reporting.page import esc, page, table

Report = Mapping[str, Any]

_LIMITS = (
    "What is shown is elicitation and composition: a team draws out of a model what one plain "
    "call does not show, and a student learns to say it in one call. No new knowledge enters.",
    "A student can beat its team because only right answers were kept to learn from, and because "
    "it answers greedily where the team samples; its twin without gold answers shows what the "
    "filter did.",
    "The result holds for this model, these problems and these seeds. By itself it says nothing "
    "about large models, or about tasks that are not checked by a grader.",
)


def render_html(
    report: Report,
    curves: plots.Curves | None = None,
    debates: Sequence[Mapping[str, Any]] = (),
    *,
    figures: Mapping[str, str] | None = None,
) -> str:
    """The page of a report.

    Args:
      report: of `build_report`, or read back from `report.json`.
      curves: training loss by name: lists of (step, loss).
      debates: of `choose_debates`.
      figures: of `plots.all_plots`, when they are drawn already.
    """
    figures = plots.all_plots(report, curves) if figures is None else figures
    sections = [
        _opening(report),
        _systems_table(report),
        _figures(report, figures),
        _comparisons(report),
        _debates(debates),
        _process_rewards(report.get("process_rewards", {})),
        _counts(report["counts"]),
        _reproduce(report),
        "<h2>Limits</h2>" + "".join(f"<p>{esc(text)}</p>" for text in _LIMITS),
    ]
    return page("ArkJAX report", "\n".join(section for section in sections if section))


def _opening(report: Report) -> str:
    line, found = report["first_line"], list(report["headline"])
    warned = bool(report["missing"] or report["oracle"])
    first = f'<p class="warning">{esc(line)}</p>' if warned else ""
    says = "".join(f'<p class="lead">{esc(sentence)}</p>' for sentence in found)
    return (
        f"{first}<h1>What the team added, and what one model kept of it</h1>{says}{_facts(report)}"
    )


def _facts(report: Report) -> str:
    split = systems.ordered_splits(report["splits"])[0]
    found = report["splits"][split]["systems"]
    best = best_student(report, split)
    shown = [n for n in ("base", "self_consistency", "team", best) if n and n in found]
    items = [
        f"<li>{esc(systems.label(n))}<b>{percent(found[n]['accuracy'])}%</b>"
        f'<span class="soft">{interval(found[n]["ci95"])}</span>'
        f'<span class="soft">{found[n]["generated_tokens"]:,.0f} tokens</span></li>'
        for n in shown
    ]
    gain = report["captured_gain"].get(best or "")
    if gain and gain["value"] is not None:
        share = interval(gain["ci95"], lambda value: f"{100 * value:.0f}")
        items.append(
            f"<li>captured gain<b>{100 * gain['value']:.0f}%</b>"
            f'<span class="soft">{share}</span><span class="soft">of team − base</span></li>'
        )
    caption = f"Right answers on {split}, 95% interval, generated tokens per problem."
    return f'<ul class="facts">{"".join(items)}</ul><p class="soft">{esc(caption)}</p>'


def _name(system: str, oracle: bool = False) -> str:
    mark = ' <span class="mark">oracle stop</span>' if oracle else ""
    return f"{esc(systems.label(system))}{mark}<code>{esc(system)}</code>"


def _accuracy(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return '<td class="n">–</td>'
    return (
        f'<td class="n bar" style="--w: {percent(entry["accuracy"])}%">'
        f"{percent(entry['accuracy'])}<small>{interval(entry['ci95'])}</small></td>"
    )


def _systems_table(report: Report) -> str:
    splits = systems.ordered_splits(report["splits"])
    sections = report["splits"]
    names = systems.ordered({name for split in splits for name in sections[split]["systems"]})
    hard = [split for split in splits if "multi" in sections[split]["parts"]]
    rows = []
    for name in names:
        entries = {split: sections[split]["systems"].get(name) for split in splits}
        cost = next(entry for entry in entries.values() if entry)
        cells = [_accuracy(entries[split]) for split in splits]
        for split in hard:
            entry = entries[split]
            cells.append(_accuracy(entry["by_part"].get("multi") if entry else None))
        cells += [
            f'<td class="n">{cost["calls"]:.1f}</td>',
            f'<td class="n">{cost["prompt_tokens"]:,.0f}</td>',
            f'<td class="n">{cost["generated_tokens"]:,.0f}</td>',
            f'<td class="n">{cost["seconds"]:.3g}</td>',
        ]
        rows.append([_name(name, cost["oracle"]), *cells])
    head = ["system", *(f"{split}, %" for split in splits)]
    head += [f"{split}, multi, %" for split in hard]
    head += ["calls", "prompt tokens", "generated tokens", "seconds"]
    sizes = ", ".join(f"{split} {sections[split]['n']:,} problems" for split in splits)
    caption = f"Right answers with 95% intervals ({sizes}); cost per problem on the first split."
    text = table(caption, head, rows, range(1, len(head)))
    if hard:
        text += (
            '<p class="soft">multi: problems that no single role can solve, '
            "so that only a team that shares its results can be right by skill.</p>"
        )
    meanings = {systems.kind(name): None for name in names}
    items = "".join(
        f"<li>{esc(', '.join(systems.label(n) for n in names if systems.kind(n) == kind))}: "
        f"{esc(systems.MEANINGS[kind])}</li>"
        for kind in meanings
    )
    text += f"<details><summary>What each of them is</summary><ul>{items}</ul></details>"
    return f"<h2>All systems</h2>{text}"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{esc(caption)}</figcaption></figure>"


def _figures(report: Report, figures: Mapping[str, str]) -> str:
    split = systems.ordered_splits(report["splits"])[0]
    captions = {
        "accuracy_by_part": (
            f"Where the gain comes from, on {split}: a panel for each part, its number of problems "
            "in brackets. Bars are right answers in per cent, lines their 95% intervals. What "
            "talking adds is the distance between team and role vote on the hardest part."
        ),
        "captured_gain_by_domain": (
            f"How much of the team's gain one call shows, on {split}: 0 is the base model, 100 the "
            "team. Where the team's own gain cannot be told from zero there is no share. "
            "Intervals that leave the picture go on."
        ),
        "learning_curves": "Training loss. A smaller loss alone does not make a better answer.",
    }
    cost = (
        "Higher is better, further left is cheaper; the vertical lines are 95% intervals. A "
        "student high on the left gives the team's answers at the price of one call."
    )
    items = [
        f"<figure>{svg}<figcaption>{esc(captions.get(name, cost))}</figcaption></figure>"
        for name, svg in figures.items()
    ]
    return f'<h2>Pictures</h2><div class="figures">{"".join(items)}</div>' if items else ""


def _comparisons(report: Report) -> str:
    groups: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for entry in report["comparisons"]:
        groups.setdefault((entry["split"], entry["part"]), []).append(entry)
    text = ""
    for (split, part), entries in groups.items():
        where = f"{split}, {part} problems" if part else split
        opened = "" if text else " open"
        text += f"<details{opened}><summary>On {esc(where)} ({entries[0]['n']:,})</summary>"
        text += f"{_comparison_table(entries, where)}</details>"
    if text:
        text = (
            '<p class="soft">Differences of right answers in percentage points with 95% intervals. '
            "Adjusted p allows for the number of all comparisons below "
            f"({len(report['comparisons'])}, Holm).</p>{text}"
        )
    for entry in report["not_compared"]:
        pair = f"{systems.label(entry['a'])} and {systems.label(entry['b'])} on {entry['split']}"
        pair += f", {entry['part']}" if entry["part"] else ""
        text += f"<p>Not compared: {esc(pair)}: {esc(entry['reason'])}.</p>"
    return f"<h2>Comparisons</h2>{text}" if text else ""


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


def _mark(correct: bool) -> str:
    word, look = ("✓ right", " right") if correct else ("✗ wrong", "")
    return f'<span class="mark{look}">{word}</span>'


def _call(agent: Any, call: Mapping[str, Any]) -> str:
    # A critic states no answer: that is neither right nor wrong.
    stated = call["answer"] is not None
    said = "states no answer"
    if stated:
        said = f"answers {esc(call['answer'])} {_mark(call['correct'])}"
    look = (" right" if call["correct"] else " wrong") if stated else ""
    return (
        f'<div class="call{look}"><b>{esc(agent)}</b> <span class="soft">{said}</span>'
        f"<pre>{esc(call['text'])}</pre></div>"
    )


def _debates(debates: Sequence[Mapping[str, Any]]) -> str:
    articles = []
    for debate in debates:
        rounds: dict[tuple, list[str]] = {}
        for call in debate["calls"]:
            key = (call.get("stage") or "", call["round"])
            rounds.setdefault(key, []).append(_call(call["agent"], call))
        body = "".join(
            f'<h4>{esc(_round_name(*key))}</h4><div class="calls">{"".join(cards)}</div>'
            for key, cards in rounds.items()
        )
        verdict = "no answer" if debate["answer"] is None else debate["answer"]
        body += (
            f"<p><b>The team answers {esc(verdict)}</b> {_mark(debate['correct'])}, "
            f"the right answer is {esc(debate['gold'])}.</p>"
        )
        if debate.get("student"):
            student = debate["student"]
            body += f"<h4>one call</h4>{_call(systems.label(student['system']), student)}"
        articles.append(
            f'<article class="debate"><h3>{esc(debate["why_chosen"])}</h3>'
            f'<p class="soft">A problem of {esc(debate["split"])}:</p>'
            f"<pre>{esc(debate['problem'])}</pre>{body}</article>"
        )
    if not articles:
        return ""
    return "<h2>Debates to read</h2><p>Chosen by rule, not by hand.</p>" + "".join(articles)


def _round_name(stage: str, number: int) -> str:
    return f"{number + 1}. {stage or 'round'}"


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        for key in value:
            yield from _flat(value[key], (*path, str(key)))
    else:
        yield path, value


def _counts(counts: Mapping[str, Any]) -> str:
    """Nested counts as a table: the innermost keys are columns where rows share them."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, value in _flat(counts):
        rows.setdefault(path[:-1], {})[path[-1]] = value
    tables: dict[tuple[str, ...], list[tuple[tuple[str, ...], dict[str, Any]]]] = {}
    for path, cells in rows.items():
        tables.setdefault(tuple(cells), []).append((path, cells))
    text = ""
    for columns, entries in tables.items():
        lines = [
            [
                esc(" · ".join(path) or "all"),
                *(f'<td class="n">{_count(v)}</td>' for v in cells.values()),
            ]
            for path, cells in entries
        ]
        text += table("Counts", ["what", *columns], lines, range(1, 1 + len(columns)))
    return f"<h2>What was kept and what was dropped</h2>{text}" if text else ""


def _process_rewards(rewards: Mapping[str, Any]) -> str:
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
            esc(student),
            *(f'<td class="n">{_count(figures.get(name, "–"))}</td>' for name in columns),
        ]
        for student, figures in rewards.items()
    ]
    if not lines:
        return ""
    of_all = table("Reward models", ["student", *columns.values()], lines, range(1, 8))
    return f"<h2>Process rewards</h2>{of_all}"


def _count(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return esc(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _reproduce(report: Report) -> str:
    facts = {
        "config": report["config_hash"],
        "seeds": ", ".join(map(str, report["seeds"])),
        **{f"version of {name}": version for name, version in sorted(report["versions"].items())},
        **{f"device, {name}": value for name, value in sorted(report["device"].items())},
        **{f"wall time of {name}": f"{s:,.1f} s" for name, s in report["wall_seconds"].items()},
    }
    command = f"<pre>{esc(report['command'])}</pre>" if report.get("command") else ""
    rows = [[esc(name), f"<code>{esc(value)}</code>"] for name, value in facts.items()]
    notes = "".join(f"<li>{esc(note)}</li>" for note in report["notes"])
    return (
        f"<h2>How to make this again</h2>{command}"
        f"{table('The run', ['what', 'value'], rows, ())}<h2>Notes</h2><ul>{notes}</ul>"
    )
