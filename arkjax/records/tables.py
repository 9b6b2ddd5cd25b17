"""Records of calls on a terminal: tables of figures, debates as transcripts, calls in full.

What a model wrote is shown by `printable` and never read as markup.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from arkjax.progress import console_for
from arkjax.trajectories.schema import TEMPLATE, Call
from arkjax.trajectories.transcript import Decoder, Lookup, parts, printable, question

_COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "bright_red", "bright_cyan", "white")
_VERDICT = {True: ("right", "green"), False: ("wrong", "red"), None: ("not graded", "dim")}
_WIDTH = 240


def show_statistics(stores: Sequence[Mapping[str, Any]], root: Path, stream: TextIO) -> None:
    """A table of stores, and one of agents and rounds for each team that has several."""
    console = console_for(stream, _WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("store", overflow="fold")
    for name in (
        *("problems", "calls", "actions", "prompt tokens", "prefilled", "generated", "seconds"),
        *("ended", "unread", "right", "bytes/call"),
    ):
        table.add_column(name, justify="left" if name == "ended" else "right")
    for store in stores:
        ended = ", ".join(f"{name} {count:,}" for name, count in store["finish_reasons"].items())
        table.add_row(
            _name(store["store"], root),
            f"{store['problems']:,}",
            f"{store['calls']:,}",
            f"{store['actions']:,}",
            f"{store['prompt_tokens']:,}",
            f"{store['prefill_tokens']:,}",
            f"{store['generated_tokens']:,}",
            f"{store['seconds']:,.1f}",
            printable(ended),
            f"{store['parse_failures']:,}",
            _share(store["right"], store["graded"]),
            f"{store['bytes_per_call']:,.0f}",
        )
    console.print(table)
    for store in stores:
        _show_agents(store, root, console)


def _show_agents(store: Mapping[str, Any], root: Path, console: Console) -> None:
    if len(store["agents"]) < 2:
        return
    rounds = sorted({row["round"] for row in store["agents"]})
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("team", "agent"):
        table.add_column(name)
    for number in rounds:
        table.add_column(f"right, round {number}", justify="right")
    by_agent: dict[tuple[str, str], dict[int, Mapping]] = {}
    for row in store["agents"]:
        by_agent.setdefault((row["system"], row["agent"]), {})[row["round"]] = row
    for (system, agent), cells in by_agent.items():
        shares = [
            _share(cells[number]["right"], cells[number]["graded"]) if number in cells else ""
            for number in rounds
        ]
        table.add_row(printable(system), printable(agent), *shares)
    console.print()
    console.print(Text(_name(store["store"], root), "bold"))
    console.print(table)


def _name(store: str, root: Path) -> str:
    path = Path(store)
    inside = path.is_relative_to(root) and path != root
    return printable(str(path.relative_to(root) if inside else path))


def _share(right: int, graded: int) -> str:
    return f"{right / graded:.1%}" if graded else "-"


def show_debate(
    problem: str, calls: Sequence[Call], tokenizer: Decoder | None, stream: TextIO
) -> None:
    """A debate as a transcript, a colour for each agent; the question if there is a tokenizer."""
    console = console_for(stream, _WIDTH)
    colour: dict[str, str] = {}
    for call in calls:
        colour.setdefault(call.agent, _COLOURS[len(colour) % len(_COLOURS)])
    console.print(Text(f"problem {printable(problem)}", "bold"), soft_wrap=True)
    if tokenizer is not None:
        console.print(
            Padding(Text(printable(question(calls, tokenizer))), (0, 0, 0, 2), expand=False)
        )

    def place(call: Call) -> tuple[str, int, str]:
        return call.system, call.round, call.stage

    for (system, number, stage), several in groupby(sorted(calls, key=place), key=place):
        console.print()
        console.print(Text(printable(f"{system}, {stage}, round {number}"), "dim"), soft_wrap=True)
        for call in several:
            _show_message(call, colour[call.agent], console)
    console.print()


def _show_message(call: Call, colour: str, console: Console) -> None:
    verdict, style = _VERDICT[call.correct]
    who = f"{call.agent} ({call.model})" if call.is_action else call.agent
    sample = f", sample {call.sample}" if call.sample else ""
    line = Text(printable(who), f"bold {colour}")
    line.append(f"{sample}  {len(call.gen_ids)} tokens, {printable(call.finish_reason)}", "dim")
    line.append(f"  {verdict}", style)
    if not call.parse_ok and not call.is_action:
        line.append("  not all that was asked for was read", "yellow")
    line.append(f"  {printable(call.call_id)}", "dim")
    console.print(line, soft_wrap=True)
    console.print(Padding(Text(printable(call.text), colour), (0, 0, 0, 2), expand=False))


def show_call(call: Call, agent: Lookup, tokenizer: Decoder | None, stream: TextIO) -> None:
    """One call: its facts, its prompt part by part, and its answer."""
    console = console_for(stream, _WIDTH)
    facts = {
        "call": call.call_id,
        "problem": call.problem_id,
        "place": f"{call.system}, {call.stage}, round {call.round}, {call.agent}, "
        f"sample {call.sample}, step {call.step}",
        "model": call.model,
        "sampling": f"{dict(call.sampling)}, seed {call.seed}",
        "prompt": f"{len(call.prompt_ids)} tokens, the first {call.prefix_len} shared, "
        f"{call.cached_len} not computed for it",
        "answer": f"{len(call.gen_ids)} tokens, {call.finish_reason}, {call.seconds:.3f} s, "
        f"log-probability {sum(call.logprobs):.2f}",
        "read as": str(dict(call.parsed)) if call.parse_ok else "nothing",
        "graded": _VERDICT[call.correct][0],
    }
    for name, value in facts.items():
        console.print(Text(f"{name:9}", "dim") + Text(printable(value)), soft_wrap=True)
    console.print()
    if tokenizer is None:
        sources = [f"{source} [{start}, {end})" for source, start, end in call.prompt_segments]
        console.print(Text("its prompt, by segments (give --tokenizer to read it):", "bold"))
        console.print(Padding(Text(printable("\n".join(sources))), (0, 0, 0, 2), expand=False))
    else:
        console.print(Text("its prompt:", "bold"))
        colour: dict[str, str] = {}
        for part in parts(call, tokenizer):
            author = TEMPLATE if part.source == TEMPLATE else agent(part.source) or part.source
            style = colour.setdefault(author, _COLOURS[len(colour) % len(_COLOURS)])
            style = "dim" if author == TEMPLATE else style
            console.print(Text(printable(author), f"bold {style}"), soft_wrap=True)
            console.print(Padding(Text(printable(part.text), style), (0, 0, 0, 2), expand=False))
    console.print()
    console.print(Text("its answer:", "bold"))
    console.print(Padding(Text(printable(call.text)), (0, 0, 0, 2), expand=False))
