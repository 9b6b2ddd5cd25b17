"""What to read behind the figures: debates call by call, and where each number was recorded."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from arkjax.reporting import systems
from arkjax.reporting.page import esc, folded, table

_SHOWN_PATHS = 24
_UNFOLDED = 3  # debates that are shown at once


def _mark(correct: bool) -> str:
    word, look = ("✓ right", " right") if correct else ("✗ wrong", "")
    return f'<span class="mark{look}">{word}</span>'


def _call(agent: Any, call: Mapping[str, Any], ids: Sequence[Any] = ()) -> str:
    # A critic states no answer: that is neither right nor wrong.
    stated = call["answer"] is not None
    said = "states no answer"
    if stated:
        said = f"answers {esc(call['answer'])} {_mark(call['correct'])}"
    look = (" right" if call["correct"] else " wrong") if stated else ""
    given = ", ".join(str(one) for one in ids if one)
    ident = f'<code class="soft id">call {esc(given)}</code>' if given else ""
    return (
        f'<div class="call{look}"><b>{esc(agent)}</b> <span class="soft">{said}</span>'
        f"<pre>{esc(call['text'])}</pre>{ident}</div>"
    )


def _show(store: str, problem: str) -> str:
    place = f"RUN/{shlex.quote(store) if shlex.quote(store) != store else store}"
    return f"arkjax trajectories show {place} --problem {shlex.quote(str(problem))}"


def debates(chosen: Sequence[Mapping[str, Any]]) -> str:
    """Debates call by call, each with why it was chosen and what reads it from the records."""
    articles = []
    for debate in chosen:
        ids = [call.get("call_id") for call in debate["calls"]]
        if not any(ids):
            ids = list(debate.get("call_ids") or [])
        ids += [None] * (len(debate["calls"]) - len(ids))
        rounds: dict[tuple, list[str]] = {}
        for call, ident in zip(debate["calls"], ids, strict=False):
            key = (call.get("stage") or "", call["round"])
            rounds.setdefault(key, []).append(_call(call["agent"], call, [ident]))
        body = "".join(
            f'<h4>{esc(_round_name(*key))}</h4><div class="calls">{"".join(cards)}</div>'
            for key, cards in rounds.items()
        )
        verdict = "no answer" if debate["answer"] is None else debate["answer"]
        body += (
            f"<p><b>The team answers {esc(verdict)}</b> {_mark(debate['correct'])}, "
            f"the right answer is {esc(debate['gold'])}.</p>"
        )
        for key, title in (("student", "one call of a student"), ("base", "one call of the base")):
            alone = debate.get(key)
            if alone:
                card = _call(systems.label(alone["system"]), alone, alone.get("call_ids") or ())
                body += f"<h4>{title}</h4>{card}"
        if debate.get("store"):
            command = _show(debate["store"], debate["problem_id"])
            body += f'<p class="soft">To read it in the records: <code>{esc(command)}</code></p>'
        seed = f", seed {debate['seed']}" if "seed" in debate else ""
        articles.append(
            f'<article class="debate"><h3>{esc(debate["why_chosen"])}</h3>'
            f'<p class="soft">Problem {esc(debate["problem_id"])} of {esc(debate["split"])}'
            f"{esc(seed)}:</p><pre>{esc(debate['problem'])}</pre>{body}</article>"
        )
    if not articles:
        return ""
    text = "<p>Chosen by rule, not by hand.</p>" + "".join(articles[:_UNFOLDED])
    rest = articles[_UNFOLDED:]
    return text + (folded(f"{len(rest)} more", "".join(rest)) if rest else "")


def _round_name(stage: str, number: int) -> str:
    return f"{number + 1}. {stage or 'round'}"


def records(report: Mapping[str, Any], split: str) -> str:
    """For each kind of number the file that it is made from, and the command that reads it."""
    found = report["splits"][split]["systems"]
    seed = report["seeds"][0]
    named = "team" if "team" in found else systems.of_run(next(iter(systems.ordered(found))))[0]
    store = f"seed-{seed}/evaluate/{split}/{named}"
    answer = shlex.quote(f"{store}")
    sources = [
        (
            "accuracy, intervals, costs, domains, difficulty, comparisons, pool, flips",
            "seed-N/evaluate/outcomes.parquet: a row for each seed, split, system and problem",
            "arkjax report --config CONFIG --workdir RUN",
        ),
        (
            "each answer, with its prompt, tokens and probabilities",
            "seed-N/evaluate/SPLIT/SYSTEM/calls-*.parquet",
            f"arkjax trajectories show RUN/{answer} --problem ID",
        ),
        (
            "one call by its id",
            "the same files",
            f"arkjax trajectories show RUN/{answer} --call ID",
        ),
        ("all debates, to search and filter", "seed-N/sample, seed-N/evaluate", "arkjax view RUN"),
        ("that no record is damaged", "the same", "arkjax trajectories verify RUN"),
        ("what was kept and dropped", "seed-N/synthesize/stage.json", ""),
        ("learning curves", "metrics.jsonl in seed-N/base and seed-N/distill/STUDENT", ""),
        ("config, and what each stage was made from", "config.json, seed-N/STAGE/stage.json", ""),
    ]
    rows = [
        [esc(what), f"<code>{esc(where)}</code>", f"<code>{esc(how)}</code>" if how else "–"]
        for what, where, how in sources
    ]
    runs = report.get("runs")
    place = (
        "RUN is the directory of the run that a system's name ends in."
        if runs
        else "RUN is the run directory: the one above the folder of this page."
    )
    text = f"<p>Paths lie in the run directory. {esc(place)}</p>"
    text += table("Sources", ["number", "file", "how to read it"], rows, ())
    return text + _stores(report.get("records") or {})


def _stores(recorded: Mapping[str, Any]) -> str:
    rows = [
        [
            esc(f"{systems.label(system)} on {split}"),
            *(f"<td><code>{esc(one['path'])}</code></td>",),
            f'<td class="n">{one["calls"]:,}</td>',
        ]
        for split, by_system in recorded.items()
        for system, stores in by_system.items()
        for one in stores
    ]
    if not rows:
        return ""
    more = len(rows) - _SHOWN_PATHS
    text = table(
        "Stores of recorded calls", ["what", "path", "calls"], rows[:_SHOWN_PATHS], range(2, 3)
    )
    if more > 0:
        text += f"<p>And {more:,} more: `records` in report.json names them all.</p>"
    return folded(f"Every store ({len(rows):,})", text)
