"""`arkjax compare`: its arguments, the page of several runs, and a table on the terminal."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from arkjax.errors import ConfigError
from arkjax.options import quiet_option
from arkjax.progress import Progress, console_for

_WIDTH = 200


def add_parser(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    """Add the command to the command line."""
    does = "put several finished runs into one report, on the problems and seeds that all have"
    parser = commands.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}. The first run is what the others are held "
        "against: its students, team and base against those of the same name.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run directory")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="RUN=NAME",
        help="what to call a run (default: its folder's name), which is given by its path or its "
        "folder's name; NAME=RUN does as well; may be repeated",
    )
    parser.add_argument(
        "--split", action="append", default=[], help="only this split; may be repeated"
    )
    parser.add_argument(
        "--out", type=Path, help="the folder of the report (default compare/ and the runs' names)"
    )
    quiet_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments of `arkjax compare` say. Returns the exit code.

    Raises:
      ConfigError: if the arguments are wrong.
      DataError: if a run is unfinished or damaged, or they have nothing in common.
      StorageError: if the report cannot be written.
    """
    roots = arguments.runs
    _check_roots(roots)
    given = dict(_given(text, roots) for text in arguments.name)

    from arkjax.comparing.combine import combine
    from arkjax.comparing.runs import label_runs, load_run
    from arkjax.reporting.report import write_report

    names = label_runs(roots, given)
    out = arguments.out or Path("compare") / "-".join(name.replace(" ", "-") for name in names)[:80]
    _check_out(out, roots)
    progress = Progress(enabled=not arguments.quiet)
    runs = []
    with progress.task("read", total=len(roots), unit="runs") as task:
        for root, name in zip(roots, names, strict=True):
            runs.append(load_run(root, name))
            task.advance(1)
    words = ["arkjax", "compare", *map(str, roots)]
    words += [word for text in arguments.name for word in ("--name", text)]
    words += [word for split in arguments.split for word in ("--split", split)]
    report = combine(runs, splits=arguments.split, command=shlex.join(words))
    write_report(out, report)
    show(report, sys.stdout)
    progress.say(f"report: {out / 'report.html'}")
    return 0


def _check_roots(roots: Sequence[Path]) -> None:
    places = [root.resolve() for root in roots]
    for number, (root, place) in enumerate(zip(roots, places, strict=True)):
        if place in places[:number]:
            raise ConfigError(f"run {root} is given twice: give every run once")
    if len(roots) < 2:
        raise ConfigError(f"compare: {roots[0]} is one run; give at least one more")


def _given(text: str, roots: Sequence[Path]) -> tuple[Path, str]:
    """A run and its name, of "RUN=NAME" or "NAME=RUN"."""
    places = {root.resolve(): root for root in roots}
    own = [place.name for place in places]
    # A folder's own name will do, unless several have it; a path that is one of the runs' counts.
    short = {name: root for name, root in zip(own, roots, strict=True) if own.count(name) == 1}
    for at in (index for index, letter in enumerate(text) if letter == "="):
        left, right = text[:at], text[at + 1 :]
        for root, name in ((left, right), (right, left)):
            if root and Path(root).resolve() in places:
                return places[Path(root).resolve()], name
    for at in (index for index, letter in enumerate(text) if letter == "="):
        left, right = text[:at], text[at + 1 :]
        if (left in short) != (right in short):
            return (short[left], right) if left in short else (short[right], left)
    raise ConfigError(
        f"--name {text}: expected RUN=NAME with one of the runs: {', '.join(map(str, roots))}"
    )


def _check_out(out: Path, roots: Sequence[Path]) -> None:
    place = out.resolve()
    for root in roots:
        if place in (root.resolve(), root.resolve() / "report"):
            raise ConfigError(
                f"--out {out} would replace the report of run {root}: give another folder"
            )


def show(report: Mapping[str, Any], stream: TextIO) -> None:
    """The table of all systems and that of all pairs, and what was left out."""
    from rich.table import Table

    from arkjax.reporting import systems
    from arkjax.reporting.headline import interval, percent, points
    from arkjax.trajectories.transcript import printable

    console = console_for(stream, _WIDTH)
    splits = systems.ordered_splits(report["splits"])
    sections = report["splits"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("system")
    for split in splits:
        table.add_column(f"{printable(split)}, %", justify="right")
    for head in ("calls", "generated tokens"):
        table.add_column(head, justify="right")
    for name in systems.ordered({n for split in splits for n in sections[split]["systems"]}):
        entries = [sections[split]["systems"].get(name) for split in splits]
        cells = [f"{percent(e['accuracy'])} {interval(e['ci95'])}" if e else "–" for e in entries]
        cost = next(entry for entry in entries if entry)
        cells += [f"{cost['calls']:.1f}", f"{cost['generated_tokens']:,.0f}"]
        table.add_row(printable(systems.label(name)), *cells)
    console.print(table)
    if report["comparisons"]:
        pairs = Table(box=None, pad_edge=False, header_style="bold")
        for head in ("split", "difference, points", "adjusted p", "verdict"):
            pairs.add_column(head, justify="right" if head[0] in "da" else "left")
        for entry in report["comparisons"]:
            size = f"{points(entry['difference'])} {interval(entry['ci95'], points)}"
            pairs.add_row(
                printable(entry["split"]),
                size,
                f"{entry['p_holm']:.3f}",
                printable(entry["verdict"]),
            )
        console.print()
        console.print(pairs)
    console.print()
    for sentence in (report["headline"][0], *report["left_out"]):
        console.print(printable(sentence))
