"""Write a run's table of results into a Markdown file, between two markers.

    python launch/readme_table.py RUN/report/report.json README.md [--block NAME] [--check]

The file must hold `<!-- NAME:begin -->` and `<!-- NAME:end -->` (NAME is `results` by default);
what stands between them is replaced. Running it twice changes nothing. With `--check` nothing is
written, and the exit code is 1 when the file differs from what the report says.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from arkjax.errors import ArkJAXError, DataError
from arkjax.reporting.markdown import results_table
from arkjax.storage import write_atomic


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
        content = results_table(report, args.command)
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
