"""Write a run's table of results into a Markdown file, between two markers.

    python launch/readme_table.py RUN/report/report.json README.md [--block NAME] [--check]

The file must hold `<!-- NAME:begin -->` and `<!-- NAME:end -->` (NAME is `results` by default);
what stands between them is replaced. Running it twice changes nothing. With `--check` nothing is
written, and the exit code is 1 when the file differs from what the report says.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError
from arkjax.reporting import systems
from arkjax.reporting.headline import interval, percent
from arkjax.storage import write_atomic


def _cell(entry: Mapping[str, Any] | None) -> str:
    return f"{percent(entry['accuracy'])} {interval(entry['ci95'])}" if entry else "–"


def _text(value: Any) -> str:
    """A value that cannot end a table cell or open a tag."""
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def markdown(report: Mapping[str, Any], command: str | None = None) -> str:
    """The table of all systems, and the line that says how it was made."""
    splits = systems.ordered_splits(report["splits"])
    sections = report["splits"]
    main = splits[0]
    hard = "multi" in sections[main].get("parts", ())
    head = ["system", *(f"{split}, %" for split in splits)]
    head += [f"{main}, multi, %"] if hard else []
    head += ["calls", "generated tokens"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in systems.ordered({n for split in splits for n in sections[split]["systems"]}):
        entries = [sections[split]["systems"].get(name) for split in splits]
        cost = next(entry for entry in entries if entry)
        row = [_text(systems.label(name)), *map(_cell, entries)]
        if hard:
            row.append(_cell(entries[0]["by_part"].get("multi") if entries[0] else None))
        lines.append([*row, f"{cost['calls']:.1f}", f"{cost['generated_tokens']:,.0f}"])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    sizes = ", ".join(f"{split} {sections[split]['n']:,}" for split in splits)
    seeds = ", ".join(map(str, report["seeds"]))
    command = command or report.get("command")
    made = f"made by `{_text(command)}`, " if command else ""
    warning = f"**{_text(report['first_line'])}**\n\n" if report.get("missing") else ""
    return (
        f"{warning}{text}\n\nRight answers with 95% intervals over problems ({sizes}) and seeds "
        f"({seeds}); cost per problem on {main}; {made}config `{report['config_hash'][:12]}`."
    )


def fill(text: str, block: str, content: str) -> str:
    """`text` with `content` between the markers of `block`.

    Raises:
      DataError: if the markers are not there exactly once, in order.
    """
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise DataError(f"expected one {begin!r} and, after it, one {end!r}; add both lines")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{content}\n{end}{after}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _update(args: argparse.Namespace) -> int:
    try:
        report = json.loads(_read(args.report))
        content = markdown(report, args.command)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{args.report}: not a report ({error!r}); make it again with `arkjax report`"
        ) from error
    old = _read(args.file)
    try:
        new = fill(old, args.block, content)
    except DataError as error:
        raise DataError(f"{args.file}: {error}") from error
    if new == old:
        return 0
    if args.check:
        print(f"{args.file}: block {args.block!r} differs from {args.report}", file=sys.stderr)
        return 1
    write_atomic(args.file, new)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Fill or check the block. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="report.json of a run")
    parser.add_argument("file", type=Path, help="Markdown file with the markers")
    parser.add_argument("--block", default="results", help="name in the markers")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on difference")
    parser.add_argument("--command", help="what reproduces the run, if the report does not say")
    try:
        return _update(parser.parse_args(argv))
    except ArkJAXError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
