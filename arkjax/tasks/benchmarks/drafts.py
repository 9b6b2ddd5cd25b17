"""What a reader makes of a record, checked: mistakes are told with their line and the record's."""

import dataclasses
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from arkjax.errors import ArkJAXError, DataError
from arkjax.tasks.benchmarks.records import Record
from arkjax.tasks.problems import Grader, Problem

_FLAWS_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class Draft:
    """A problem before it has its id.

    Attributes:
      question: what the model reads, without the sentence that says how to answer.
      answer, domain, meta: as of `Problem`; `meta` must be what JSON can hold.
    """

    question: str
    answer: str
    domain: str = ""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Reader = Callable[[Record], Iterable[Draft]]


def drafts_of(record: Record, read: Reader, several: bool) -> Iterator[tuple[Draft, str]]:
    """The drafts of a record, each with the line of code that made it, as "units.py:7".

    Args:
      record: what is read.
      read: the reader.
      several: whether it may make more than one.

    Raises:
      DataError: if the reader fails or makes something else; names its line and the record.
    """
    made = guarded(read, record, record)
    at = record_name(record)
    if isinstance(made, (str, bytes, Mapping)) or not isinstance(made, Iterable):
        wrong = f"{_code(read)}: {_called(read)} returned {_shown(made)} for {at}"
        raise DataError(f"{wrong}: it must yield drafts, as in: yield Draft(question, answer)")
    drafts = iter(made)
    count = 0
    while True:
        try:
            draft = next(drafts, None)
        except ArkJAXError:
            raise
        except Exception as error:
            raise _failed(read, at, error) from error
        if draft is None:
            return
        count += 1
        # A generator stands still where it has yielded.
        frame = getattr(made, "gi_frame", None)
        line = _code(read, frame.f_lineno if frame else None)
        if not isinstance(draft, Draft):
            wrong = f"{line}: {_called(read)} made {_shown(draft)} of {at}"
            raise DataError(f"{wrong}: it must yield drafts, as in: yield Draft(question, answer)")
        if count > 1 and not several:
            raise DataError(
                f"{line}: {_called(read)} made a second problem of {at}: give the Benchmark "
                "several=True if that is meant"
            )
        _check(draft, line, record)
        yield draft, line


def guarded(read: Callable[[Any], Any], given: Any, record: Record) -> Any:
    """What a function of a task's author returns.

    Raises:
      DataError: in place of what it raises, unless that is clear already; names its line and the
        record.
    """
    try:
        return read(given)
    except ArkJAXError:
        raise
    except Exception as error:
        raise _failed(read, record_name(record), error) from error


def check_gold(grader: Grader, problem: Problem, line: str, record: Record) -> None:
    """A gold answer that its own grader does not accept would make every answer wrong.

    Args:
      grader: of the task; what it has as `expects(problem)`, if anything, says which answers can
        be right.
      problem: whose answer is looked at.
      line: of the code that made it.
      record: of which it was made.

    Raises:
      DataError: if it does not accept it; names the line and the record.
    """
    name, at = type(grader).__name__, record_name(record)
    expects = getattr(grader, "expects", None)
    try:
        accepted = grader.accepts(problem, problem.answer)
        wanted = f"expected {expects(problem)}" if expects and not accepted else ""
    except ArkJAXError:
        raise
    except Exception as error:
        raise DataError(
            f"{line}: {name} failed on the answer of {at}: {_reason(error)}; mend the grader or "
            "the answer"
        ) from error
    if not accepted:
        wanted = wanted or "mend the answer, or give the Benchmark another grader"
        raise DataError(
            f"{line}: the answer {_shown(problem.answer)} of {at} is none that {name} accepts: "
            f"{wanted}"
        )


def record_name(record: Record) -> str:
    """Where a record stands, for people: "test.jsonl, line 7"."""
    return f"{record.file}, {record.place}"


def _check(draft: Draft, line: str, record: Record) -> None:
    for name in ("question", "answer", "domain"):
        value = getattr(draft, name)
        wrong = f"{line}: the {name} of {record_name(record)}"
        if not isinstance(value, str):
            remedy = "record.number(FIELD)" if isinstance(value, (int, float)) else "record.text(…)"
            raise DataError(f"{wrong} is {_shown(value)}, not text: give text, as {remedy} does")
        if not value.strip() and name != "domain":
            raise DataError(f"{wrong} is empty: mend the record, or what is made of it")
    if not isinstance(draft.meta, Mapping):
        wrong = f"{line}: the meta of {record_name(record)}"
        raise DataError(f"{wrong} is {_shown(draft.meta)}: give a mapping")
    try:
        json.dumps(draft.meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise record.wrong(
            "meta", f"the reader made of it what JSON cannot hold ({error})"
        ) from error


def _failed(read: Callable, at: str, error: Exception) -> DataError:
    own = getattr(getattr(read, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    line = _code(read, frames[-1].lineno if frames else None)
    called = _called(read)
    return DataError(f"{line}: {called} failed on {at}: {_reason(error)}; mend {called}")


def _code(read: Callable, line: int | None = None) -> str:
    """File and line of a function's code; its name where it has none."""
    code = getattr(read, "__code__", None)
    if code is None:
        return repr(read)[:_FLAWS_SHOWN]
    path = Path(code.co_filename)
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{here}:{line or code.co_firstlineno}"


def _called(read: Callable) -> str:
    return f"{getattr(read, '__name__', 'read')}()"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _shown(value: Any) -> str:
    """A value for people: its kind, and how it begins."""
    if value is None or isinstance(value, str):
        return f"{value!r:.{_FLAWS_SHOWN}}" if value is not None else "None"
    return f"{type(value).__name__} {value!r:.{_FLAWS_SHOWN}}"
