"""Writes the page: what is read is written at once, so memory does not grow with the record."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from arkjax.progress import Progress, Task
from arkjax.reporting.page import PALETTE, head
from arkjax.reporting.viewer.partition import parts
from arkjax.reporting.viewer.records import SCALE, Record, Recorder
from arkjax.reporting.viewer.sources import Source, Sources
from arkjax.storage import open_atomic
from arkjax.trajectories.attribution import read_tables
from arkjax.trajectories.store import CallStore

_SCRIPTS = ("data.js", "parts.js", "list.js", "map.js", "debate.js", "main.js")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Columns of the list whose values are few or small; the others are written as they are.
_CODED = ("domain", "part")


def write_page(
    path: str | Path,
    sources: Sources,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the page of a run; whoever opens `path` sees the old page or the whole new one.

    Args:
      path: the HTML file; its folder also takes a temporary file as large as the record.
      sources: of `find_sources`.
      limit: most debates of each play, the first ones by the problem's id; None: all.
      progress: where work is shown.

    Returns:
      `debates`, `calls` and `bytes` written.

    Raises:
      DataError: if a shard, or the record of attributions, is damaged.
      StorageError: if the page cannot be written.
    """
    progress = progress or Progress(enabled=False)
    path = Path(path)
    script = f"(() => {{\n{_text(*_SCRIPTS)}}})();\n"
    style, body = PALETTE + _text("viewer.css"), _text("body.html")
    total = sum(len(CallStore(play.directory)) for play in sources.plays)
    debates = calls = 0
    groups = []
    with (
        open_atomic(path) as file,
        progress.task("page", total=total, unit="calls") as task,
    ):
        page = _Page(file)
        page.text(head(f"{sources.name}: debates", _policy(script, style), style))
        page.text(f"<body>\n{body}\n")
        for play in sources.plays:
            group = _play(page, play, path.parent, limit, task)
            groups.append(group)
            debates, calls = debates + group["debates"], calls + group["calls"]
        notes = list(sources.notes)
        if limit is not None:
            notes.append(f"Of each system at most the first {limit:,} debates are in this page.")
        facts = {"name": sources.name, "notes": notes, "scale": SCALE, "groups": groups}
        page.data("facts", facts)
        page.text(f"<script>{script}</script>\n</body>\n</html>\n")
        size = file.tell()
    return {"debates": debates, "calls": calls, "bytes": size}


class _Page:
    """The file, and the data in it: numbered, inert, compressed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0

    def text(self, text: str) -> None:
        self._file.write(text.encode())

    def data(self, name: str, value: Any) -> None:
        """Write a value as an element that no browser runs: Base64 of gzip of JSON."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        # What is no character cannot be encoded, and means nothing to a reader.
        raw = _SURROGATE.sub("\ufffd", text).encode()
        packed = base64.b64encode(gzip.compress(raw, 6, mtime=0))
        self._file.write(b'<script type="text/plain" id="%s">' % name.encode())
        self._file.write(packed)
        self._file.write(b"</script>\n")

    def next(self, value: Any) -> int:
        """Write a value under the next number, which is returned."""
        number, self._number = self._number, self._number + 1
        self.data(f"d{number}", value)
        return number


def _text(*names: str) -> str:
    folder = resources.files("arkjax.reporting.viewer")
    return "".join(folder.joinpath(name).read_text("utf-8") for name in names)


def _policy(script: str, style: str) -> str:
    """No more than the page's own script and style, which are named by their hashes."""
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    return (
        f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )


def _play(
    page: _Page, play: Source, scratch: Path, limit: int | None, task: Task
) -> dict[str, Any]:
    """Write one play: its parts, and the columns of its list."""
    recorder, credit = Recorder(play), _Credit(play.attribution)
    rows: list[dict[str, Any]] = []
    written: list[list[int]] = []
    calls = 0
    store = CallStore(play.directory)
    task.advance(0, note=f"reading {play.split} {play.label}".replace("  ", " "))
    for part in parts(store, scratch, limit=limit):
        records = []
        for problem_id, of_one in zip(part.problem_ids, part.calls, strict=True):
            messages, agents = credit.of(problem_id)
            records.append(recorder.record(problem_id, of_one, messages, agents))
            calls += len(of_one)
            task.advance(len(of_one))
        rows += [record.row for record in records]
        words, figures = page.next([record.words for record in records]), _figures(page, records)
        written.append([len(records), words, figures])
    if limit is not None:
        task.advance(len(store) - calls)
    return {
        "seed": play.seed,
        "stage": play.stage,
        "split": play.split,
        "system": play.system,
        "label": play.label,
        "debates": len(rows),
        "calls": calls,
        "answered": bool(play.answers),
        "credited": play.attribution is not None,
        "parts": written,
        "index": page.next(_columns(rows)),
    }


def _figures(page: _Page, records: Sequence[Record]) -> int:
    """Write the figures of a part; what most of its calls have in common is written once."""
    tables: dict[str, dict[str, int]] = {"sampling": {}, "model": {}}
    for record in records:
        for call in record.figures["calls"]:
            for name, table in tables.items():
                key = json.dumps(call[name], sort_keys=True)
                call[name] = table.setdefault(key, len(table))
    common = {name: [json.loads(key) for key in table] for name, table in tables.items()}
    return page.next({**common, "debates": [record.figures for record in records]})


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The list's lines as columns; words that come again and again are numbers."""
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if name in _CODED:
            words = sorted(set(values))
            place = {word: number for number, word in enumerate(words)}
            columns[name] = {"words": words, "codes": [place[value] for value in values]}
        else:
            columns[name] = values
    return columns


class _Credit:
    """The record of attributions, looked up debate by debate."""

    def __init__(self, directory: Path | None) -> None:
        self._tables: dict[str, tuple[pa.Table, np.ndarray]] = {}
        for name, table in read_tables(directory).items() if directory else ():
            table = table.take(pc.sort_indices(table.column("problem_id")))
            self._tables[name] = (table, table.column("problem_id").to_numpy(zero_copy_only=False))

    def of(self, problem_id: str) -> tuple[dict | None, dict | None]:
        """Credit of one debate by call id and by agent id; None where none is recorded."""
        if not self._tables:
            return None, None
        messages, agents = (self._rows(name, problem_id) for name in ("messages", "agents"))
        return (
            {row["call_id"]: row for row in messages},
            {row["agent"]: row for row in agents},
        )

    def _rows(self, name: str, problem_id: str) -> list[dict[str, Any]]:
        table, ids = self._tables[name]
        start, end = np.searchsorted(ids, problem_id), np.searchsorted(ids, problem_id, "right")
        return table.slice(int(start), int(end - start)).to_pylist()
