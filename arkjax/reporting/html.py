"""The report as one page to read: self-contained, no scripts, every word of a model escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import (
    evidence_plots,
    evidence_tables,
    headline,
    plots,
    readings,
    systems,
    tables,
)
from arkjax.reporting.domains import domain_sentence
from arkjax.reporting.front import front_sentence
from arkjax.reporting.headline import best_student, interval, percent
from arkjax.reporting.page import esc, figure, page, section

Report = Mapping[str, Any]

_ENDS = ("base", "self_consistency", "team")
_FACTS = 6
_TEAM_TITLE = "What the team added, and what one model kept of it"
_OF_TEAMS = (
    "What is shown is elicitation and composition: a team draws out of a model what one plain "
    "call does not show, and a student learns to say it in one call. No new knowledge enters.",
    "A student can beat its team because only right answers were kept to learn from, and because "
    "it answers greedily where the team samples; its twin without gold answers shows what the "
    "filter did.",
)
_OF_ALL = (
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
      report: of `build_report`, or read back from `report.json`; what an older one lacks, its page
        leaves out.
      curves: training loss by name: lists of (step, loss).
      debates: of `choose_debates`.
      figures: of `plots.all_plots`, when they are drawn already.
    """
    figures = plots.all_plots(report, curves) if figures is None else figures
    split = systems.ordered_splits(report["splits"])[0]
    alone = len(_names(report)) == 1
    team = "team" in {systems.of_run(name)[0] for name in _names(report)}
    what = "What was evaluated, and on what" if alone else "What was compared, and on what"
    cost_title = "Cost of a right answer" if alone else "Accuracy against cost"
    domains_title = "Where the team matters" if team else "By domain and part"
    parts = [
        ("systems", what, _compared(report)),
        ("figures", "Figures of the grader", evidence_tables.grader_figures(report)),
        ("cost", cost_title, _cost(report, split, figures)),
        ("domains", domains_title, _domains(report, split, figures)),
        ("difficulty", "By difficulty", _difficulty(report, split, figures)),
        ("talk", "What talking did", _talk(report, split, figures)),
        ("calibration", "How sure, and how often right", _calibration(report, split, figures)),
        ("quality", "Quality of the reasoning", evidence_tables.quality(report.get("quality"))),
        (
            "published",
            "Beside the published numbers",
            evidence_tables.published(report.get("published")),
        ),
        ("comparisons", "Comparisons", tables.comparisons(report)),
        ("debates", "Debates to read", readings.debates(debates)),
        ("curves", "Learning curves", _figures(figures, _CURVES)),
        ("rewards", "Process rewards", tables.process_rewards(report.get("process_rewards", {}))),
        ("counts", "What was kept and what was dropped", tables.counts(report["counts"])),
        ("records", "Where each number comes from", readings.records(report, split)),
        ("again", "How to make this again", tables.run_facts(report)),
        ("limits", "Limits and notes", _limits(report)),
    ]
    parts = [part for part in parts if part[2]]
    contents = "".join(f'<li><a href="#{ident}">{esc(title)}</a></li>' for ident, title, _ in parts)
    body = (
        f"<header>{_opening(report)}</header>\n"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n<main>\n'
        + "\n".join(section(*part) for part in parts)
        + f"\n</main>\n<footer><p class='soft'>Made by ArkJAX; report.json beside this page holds "
        f"every figure (schema {esc(report['schema'])}).</p></footer>"
    )
    return page(_title(report), body)


def _names(report: Report) -> set[str]:
    return {name for section in report["splits"].values() for name in section["systems"]}


def _title(report: Report) -> str:
    """The run and its task; of several runs, what they are called."""
    if report.get("title"):
        return report["title"]
    known = [report[key] for key in ("name", "task") if report.get(key)]
    return ": ".join(known) or "ArkJAX report"


def _sizes(report: Report) -> str:
    sections = report["splits"]
    return ", ".join(
        f"{split} ({sections[split]['n']:,} problem{'s' * (sections[split]['n'] != 1)})"
        for split in systems.ordered_splits(sections)
    )


def _opening(report: Report) -> str:
    """Title, problems, findings, and behind them what is not known."""
    about = f"{_sizes(report)}; seed{'s' * (len(report['seeds']) > 1)} "
    about += ", ".join(map(str, report["seeds"]))
    names = {systems.of_run(name)[0] for name in _names(report)}
    if "team" in names and systems.verified_students(names):
        about = f"{_TEAM_TITLE}: on {about}"
    # Not a word of what was found before it is said that the gold answer was looked at.
    oracle, lacking = headline.oracle_warning(report), headline.missing_warning(report)
    says = "".join(f'<p class="lead finding">{esc(line)}</p>' for line in report["headline"])
    return (
        f"<h1>{esc(_title(report))}</h1><p>{esc(about)}.</p>{_warning(oracle)}{says}"
        f"{_warning(lacking)}{_facts(report)}"
    )


def _warning(text: str) -> str:
    return f'<p class="warning">{esc(text)}</p>' if text else ""


def _facts(report: Report) -> str:
    split = systems.ordered_splits(report["splits"])[0]
    found = report["splits"][split]["systems"]
    best = best_student(report, split)
    # Where runs are compared, each may have a base and a team of its own.
    ends = [n for n in systems.ordered(found) if systems.of_run(n)[0] in _ENDS][:_FACTS]
    shown = [*ends, best] if best else ends
    rivals = len(systems.verified_students(found))
    named = {best: f"{systems.label(best)}, best of {rivals}"} if best and rivals > 1 else {}
    items = [
        f"<li>{esc(named.get(n) or systems.label(n))}<b>{percent(found[n]['accuracy'])}%</b>"
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


def _compared(report: Report) -> str:
    sizes = [
        f"{split} ({section['n']:,} problems in {len(section['domains'])} "
        f"domain{'s' * (len(section['domains']) != 1)})"
        for split in systems.ordered_splits(report["splits"])
        if (section := report["splits"][split])
    ]
    device = report["device"]
    runs_on = " ".join(str(device[name]) for name in ("count", "kind") if name in device)
    seeds = ", ".join(map(str, report["seeds"]))
    lines = [
        (f"Task: {report['task']}. " if report.get("task") else "")
        + f"Problems: {', '.join(sizes)}. Seeds: {seeds}."
        + (f" Device: {runs_on}." if runs_on else "")
        + f" Config: {report['config_hash'][:12]}."
    ]
    text = "".join(f"<p>{esc(line)}</p>" for line in lines)
    if report.get("command"):
        text += f"<p>An equivalent command: <code>{esc(report['command'])}</code></p>"
    return text + tables.runs(report.get("runs", ())) + tables.all_systems(report)


_FRONT = (
    "Higher is better, further left is cheaper; vertical lines are 95% intervals, the dashed steps "
    "the Pareto front. A student high on the left gives the team's answers at the price of one "
    "call."
)
_CURVES = {"learning_curves": "Training loss. A smaller loss alone makes no better answer."}


def _figures(figures: Mapping[str, str], captions: Mapping[str, str]) -> str:
    """The pictures that are there, in the order of their captions."""
    items = [figure(figures[name], text) for name, text in captions.items() if name in figures]
    return f'<div class="figures">{"".join(items)}</div>' if items else ""


def _starting(figures: Mapping[str, str], start: str, caption: str) -> dict[str, str]:
    return {name: caption for name in figures if name.startswith(start)}


def _cost(report: Report, split: str, figures: Mapping[str, str]) -> str:
    captions = {
        "accuracy_cost_0": _FRONT,
        "accuracy_calls": "The same by calls, whatever their length.",
        "accuracy_device_seconds": "The same by the time that the devices were held.",
        "accuracy_seconds": "The same by wall time.",
    }
    others = systems.ordered_splits(report["splits"])[1:]
    for number, other in enumerate(others, start=1):
        captions[f"accuracy_cost_{number}"] = f"The same by generated tokens on {other}."
    price = tables.per_correct(report, split)
    if len(report["splits"][split]["systems"]) == 1:
        return price  # A front takes two.
    said = f'<p class="finding">{esc(front_sentence(report, split))}</p>'
    return f"{said}{_figures(figures, captions)}{price}"


def _domains(report: Report, split: str, figures: Mapping[str, str]) -> str:
    captions = {
        "captured_gain_by_domain": (
            f"Shares of the team's gain on {split}: 0 is the base model, 100 the team. Under each "
            "domain stands what the team adds, in points. A vote near 100 gains there what the "
            "team gains, one near 0 nothing of it. Intervals that leave the picture go on."
        ),
        "accuracy_by_part": (
            "Bars are right answers, lines their 95% intervals; numbers of problems in brackets."
        ),
    }
    if {"team", "role_vote"} <= report["splits"][split]["systems"].keys():
        captions["accuracy_by_part"] += (
            " What talking adds is the distance between team and role vote on the hardest part."
        )
    sentence = domain_sentence(report, split)
    said = f'<p class="finding">{esc(sentence)}</p>' if sentence else ""
    drawn = _figures(figures, captions)
    table = tables.domains(report, split, evidence_plots.chosen(report, split))
    return said + drawn + table if drawn or said else table


def _difficulty(report: Report, split: str, figures: Mapping[str, str]) -> str:
    caption = f"Right answers on {split} by how hard a problem is said to be, with 95% intervals."
    drawn = _figures(figures, {"accuracy_by_difficulty": caption})
    return drawn + evidence_tables.difficulty(report, split)


def _talk(report: Report, split: str, figures: Mapping[str, str]) -> str:
    captions = _starting(
        figures,
        "flips_",
        "From what the first answers alone would have given to what the team says last; a band "
        "is as thick as its answers are many.",
    )
    captions["oracle_gap"] = (
        "From how often a system is right to how often the right answer had been stated by "
        "someone: what a perfect choice among its own answers would add. The thin line is the 95% "
        "interval of the latter."
    )
    said = evidence_tables.talk_sentences(report, split)
    text = "".join(f'<p class="finding">{esc(sentence)}</p>' for sentence in said)
    table = evidence_tables.talk(report, split)
    return f"{text}{_figures(figures, captions)}{table}" if table else ""


def _calibration(report: Report, split: str, figures: Mapping[str, str]) -> str:
    caption = (
        "On the dashed line a system is right as often as it is sure; above it is too modest, "
        "below it too sure. Bars: how many answers were how sure."
    )
    captions = _starting(figures, "calibration_", "The same of another system.")
    drawn = _figures(figures, captions | {"calibration_0": caption})
    return drawn + evidence_tables.calibration(report, split)


def _limits(report: Report) -> str:
    names = {systems.of_run(name)[0] for name in _names(report)}
    taught = _OF_TEAMS if "team" in names and systems.verified_students(names) else ()
    text = "".join(f"<p>{esc(limit)}</p>" for limit in (*taught, *_OF_ALL))
    notes = "".join(f"<li>{esc(note)}</li>" for note in report["notes"])
    return f"{text}<h3>Notes</h3><ul>{notes}</ul>" if notes else text
