"""`arkjax view`: the command, where its page goes, and the browser that shows it."""

import argparse
import os
import shutil
import sys
import webbrowser
from pathlib import Path

from arkjax.errors import StorageError
from arkjax.options import positive_count, quiet_option
from arkjax.progress import Progress

PAGE = "debates.html"
_LARGE_BYTES = 512 * 2**20
# Of a page, what certainly holds its title.
_HEAD_BYTES = 4096


def add_parser(commands: argparse._SubParsersAction, name: str) -> argparse.ArgumentParser:
    """Add the command to the command line."""
    does = "read the recorded debates of a run in a browser"
    parser = commands.add_parser(
        name,
        help=does,
        description=f"{does.capitalize()}: one page that needs no network, also of a run at work.",
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a run directory, or a folder of calls-*.parquet"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page (default RUN/{PAGE})")
    parser.add_argument("--no-open", action="store_true", help="write the page, open no browser")
    parser.add_argument("--seed", type=int, help="only this one of the run's seeds")
    parser.add_argument(
        "--limit",
        type=positive_count,
        help="most debates of each system, the first by id (default all)",
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH", help="where the run has none: a file or folder"
    )
    quiet_option(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and open it where a person sits before the machine. Returns the exit code.

    Raises:
      DataError: if there are no calls, or a file is damaged.
      StorageError: if the page cannot be written.
    """
    from arkjax.reporting.viewer.sources import find_sources
    from arkjax.reporting.viewer.write import write_page

    progress = Progress(enabled=not arguments.quiet)
    sources = find_sources(arguments.run, arguments.seed, arguments.tokenizer)
    path = arguments.out or _default(arguments.run)
    if not path.parent.is_dir():
        raise StorageError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise StorageError(f"cannot write {path}: no permission to; give another place with --out")
    if path.is_file() and not _is_page(path):
        raise StorageError(
            f"{path} is there and is no page of debates: give another place with --out, or remove"
            " that file"
        )
    made = write_page(path, sources, limit=arguments.limit, progress=progress)
    for note in sources.notes:
        progress.say(note)
    size = made["bytes"] / 2**20
    progress.say(f"{made['debates']:,} debates, {made['calls']:,} calls, {size:,.1f} MiB")
    if made["bytes"] > _LARGE_BYTES:
        progress.say("this may be too much for a browser: shorten it by --limit N or --seed N")
    print(path)
    if not arguments.no_open:
        sys.stdout.flush()
        _open(path)
    return 0


def _is_page(path: Path) -> bool:
    """Whether a file is a page that was written before, which may be written anew."""
    try:
        with path.open("rb") as file:
            return b": debates</title>" in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _default(run: Path) -> Path:
    """In the run; but nothing may lie among the shards of a bare store."""
    if any(run.glob("calls-*.parquet")):
        return Path(f"{run.resolve().name}-{PAGE}")
    return run / PAGE


def _open(path: Path) -> None:
    """Open the page where there is a screen; a browser in the terminal would take it over."""
    graphical = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform == "darwin" or (graphical and _browser()):
        webbrowser.open(path.resolve().as_uri())


def _browser() -> bool:
    names = ("xdg-open", "firefox", "chromium", "google-chrome", "x-www-browser")
    return bool(os.environ.get("BROWSER")) or any(map(shutil.which, names))
