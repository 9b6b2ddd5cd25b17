"""Progress for people: live bars on a terminal, a plain line now and then anywhere else."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 15.0


def colours(stream: TextIO) -> bool:
    """Whether colours may be written to `stream`: a capable terminal, and NO_COLOR is not set."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at `stream` through a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console_for(stream: TextIO, width: int) -> "Console":
    """A console for tables and texts of others, in which nothing is read as markup.

    Args:
      stream: where it writes.
      width: in characters, where nobody looks through a terminal that has one.
    """
    from rich.console import Console

    return Console(
        file=stream,
        width=None if stream.isatty() else width,
        no_color=not colours(stream),
        highlight=False,
        markup=False,
        emoji=False,
    )


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    if whole >= 60:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole}s"


def _rate(per_second: float, unit: str) -> str:
    if per_second >= 1000:
        return f"{per_second:,.0f} {unit}/s"
    return f"{per_second:.3g} {unit}/s"


class Task:
    """One counted piece of work; made by `Progress.task`. Safe to advance from several threads."""

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str,
        done: int,
        show: Callable[["Task"], None],
        clock: Callable[[], float],
    ) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.note = ""
        self._show, self._clock = show, clock
        self._begin()
        self._lock = threading.Lock()

    def _begin(self) -> None:
        self._first, self._started = self.done, self._clock()
        self._warm: tuple[int, float] | None = None

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more units; `note` (a loss, an accuracy) stays until the next one."""
        with self._lock:
            self.done += n
            if self._warm is None:
                self._warm = self.done, self._clock()
            self.note = note or self.note
            self._show(self)

    def restart(self) -> None:
        """Count rate and time from now on: what was done so far took none, as it was there."""
        with self._lock:
            self._begin()

    def describe(self) -> str:
        """Count, rate of this process, and time left, on one line.

        While it goes on the rate is that since the first units, in which programs are compiled: to
        count them would promise hours for what takes minutes. Of all of it, the rate is over all.
        """
        now = self._clock()
        seconds = now - self._started
        first, started = self._first, self._started
        if self.done != self.total and self._warm is not None:
            first, started = self._warm
        rate = (self.done - first) / (now - started) if now > started else 0.0
        count = f"{self.done:,}"
        if self.total is not None:
            count += f"/{self.total:,}"
        parts = [f"{count} {self.unit}"]
        if rate > 0:
            parts.append(_rate(rate, self.unit))
        if self.total is not None and self.done >= self.total:
            parts.append(f"took {_duration(seconds)}")
        elif self.total is not None and rate > 0:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


class Progress:
    """Shows how far the work is, on stderr.

    Args:
      enabled: False shows nothing at all.
      stream: where to write; stderr if None.
      clock: seconds, monotonic.
    """

    def __init__(
        self,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enabled = enabled
        self._stream = stream or sys.stderr
        self._clock = clock
        self._live = enabled and is_terminal(self._stream)
        self._bars: Any = None
        self._open = 0

    def say(self, text: str) -> None:
        """Write one line, above the bars if there are any."""
        if not self._enabled:
            return
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def task(
        self, name: str, total: int | None = None, unit: str = "items", done: int = 0
    ) -> Iterator[Task]:
        """Show a piece of work for the length of the block.

        Args:
          name: what is being done.
          total: how many units there are; None if unknown.
          unit: what is counted, in the plural.
          done: units that an earlier run has finished; they do not count into the rate.
        """
        if not self._enabled:
            yield Task(name, total, unit, done, lambda task: None, self._clock)
        elif self._live:
            yield from self._bar(name, total, unit, done)
        else:
            yield from self._lines(name, total, unit, done)

    def _lines(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Task]:
        last = self._clock()

        def show(task: Task) -> None:
            nonlocal last
            now = self._clock()
            if now - last >= _SECONDS_BETWEEN_LINES and task.done != total:
                last = now
                self.say(f"{name}: {task.describe()}")

        task = Task(name, total, unit, done, show, self._clock)
        yield task
        if task.total is None:
            task.total = task.done
        self.say(f"{name}: {task.describe()}")

    def _bar(self, name: str, total: int | None, unit: str, done: int) -> Iterator[Task]:
        if self._bars is None:
            self._bars = _bars(self._stream)
            self._bars.start()
        self._open += 1
        bar = self._bars.add_task(name, total=total, completed=done, text="")

        def show(task: Task) -> None:
            self._bars.update(bar, completed=task.done, text=task.describe())

        try:
            task = Task(name, total, unit, done, show, self._clock)
            yield task
            if task.total is None:
                task.total = task.done
            self._bars.update(bar, total=task.total, text=task.describe())
        finally:
            self._open -= 1
            if self._open == 0:
                # Stopping leaves the finished bars on the screen as ordinary lines.
                self._bars.stop()
                self._bars = None


def _bars(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars

    return Bars(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(file=stream, force_terminal=True, no_color=not colours(stream)),
        refresh_per_second=4,
    )
