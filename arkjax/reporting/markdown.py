"""A report as Markdown: the table of all systems, and the card of a model that a run made."""

import json
from collections.abc import Mapping
from typing import Any

from arkjax.reporting import lessons, systems
from arkjax.reporting.headline import interval, percent


def _cell(entry: Mapping[str, Any] | None) -> str:
    return f"{percent(entry['accuracy'])} {interval(entry['ci95'])}" if entry else "–"


def _text(value: Any) -> str:
    """A value that cannot end a table cell or open a tag."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def results_table(report: Mapping[str, Any], command: str | None = None) -> str:
    """The table of all systems, and the line that says how it was made.

    Where a report has published figures (see `reporting.published`), they stand in columns of their
    own, which say so.
    """
    splits = systems.ordered_splits(report["splits"])
    sections = report["splits"]
    main = splits[0]
    hard = systems.hardest(sections[main].get("parts", ()))
    paper = {}
    for row in report.get("published", {}).get("rows", ()):
        paper.setdefault(row["split"], {})[row["system"]] = percent(row["paper"])
    compared = [split for split in splits if split in paper]
    head = ["system", *(f"{split}, %" for split in splits)]
    head += [f"paper: {split}, %" for split in compared]
    head += [f"{main}, {hard}, %"] if hard else []
    head += ["calls", "generated tokens"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in systems.ordered({n for split in splits for n in sections[split]["systems"]}):
        entries = [sections[split]["systems"].get(name) for split in splits]
        cost = next(entry for entry in entries if entry)
        row = [_text(systems.label(name)), *map(_cell, entries)]
        row += [paper[split].get(name, "–") for split in compared]
        if hard:
            row.append(_cell(entries[0]["by_part"].get(hard) if entries[0] else None))
        lines.append([*row, f"{cost['calls']:.1f}", f"{cost['generated_tokens']:,.0f}"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    sizes = ", ".join(f"{split} {sections[split]['n']:,}" for split in splits)
    seeds = ", ".join(map(str, report["seeds"]))
    command = command or report.get("command")
    made = f"made by `{_text(command)}`, " if command else ""
    quoted = ""
    if compared:
        published = report["published"]
        quoted = f" Columns “paper”: {_text(published['source'])}. {_text(published['note'])}"
    warning = f"**{_text(report['first_line'])}**\n\n" if report.get("missing") else ""
    return (
        f"{warning}{text}\n\nRight answers with 95% intervals over problems ({sizes}) and seeds "
        f"({seeds}); cost per problem on {main}; {made}config `{report['config_hash'][:12]}`."
        f"{quoted}"
    )


def model_card(report: Mapping[str, Any], system: str, base: str | None) -> str:
    """The README of an exported student: what it is, its figures, and those of every control.

    Args:
      report: a run's `report.json`.
      system: the student's name in it; "base" is the model that students start from.
      base: the name under which the base model is published, if it is.
    """
    front = ["---", "library_name: transformers", "tags: [arkjax, distillation, multi-agent]"]
    front += [f"base_model: {_scalar(base)}"] if base else []
    seeds = ", ".join(map(str, report["seeds"]))
    meaning = lessons.what(system)
    if filtered := lessons.kept(system):
        meaning = f"one greedy call, trained on {meaning} (filter: {filtered})"
    lines = [
        *front,
        "---",
        "",
        f"# {_text(systems.label(system))}",
        "",
        f"{meaning[0].upper()}{meaning[1:]}. From a study of distilling a team of language-model "
        "agents into one model, made with ArkJAX after AgentArk (https://arxiv.org/abs/2602.03955).",
        "",
        "## Results",
        "",
        f"The table has every system of the run; this model is **{_text(systems.label(system))}**.",
        "",
        results_table(report),
        "",
        *(f"- {_text(sentence)}" for sentence in report["headline"]),
        "",
        "`self-consistency` votes over samples of the base model at the team's budget, `role vote` "
        "over the team's roles without communication; the controls are students of the same size "
        "that never saw a debate.",
        "",
        "## How it was made",
        "",
        f"- seeds: {seeds}; these weights are of one of them",
        f"- versions: {', '.join(f'{_text(k)} {_text(v)}' for k, v in report['versions'].items())}",
        f"- config: `{report['config_hash']}`",
    ]
    if report.get("command"):
        lines.append(f"- command: `{_text(report['command'])}`")
    return "\n".join(lines) + "\n"


def _scalar(value: str) -> str:
    """A name as YAML that can be nothing but a string."""
    return json.dumps(value)
