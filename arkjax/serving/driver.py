"""The one thread that drives the engine, and what the event loop sees of it."""

import asyncio
import dataclasses
import queue
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

from arkjax.errors import ArkJAXError
from arkjax.sampling.params import Generation, Request
from arkjax.serving.refusals import Refusal, busy, failure, stopping

_FAILED = "the model failed while it answered: try again; the server's own output says more"


class Engine(Protocol):
    """What is driven; see `arkjax.sampling.engine.Engine`."""

    @property
    def pending(self) -> int: ...

    def submit(self, request: Request) -> None: ...

    def step(self) -> list[Generation]: ...

    def partial(self, request_id: str) -> Generation: ...

    def cancel(self, request_id: str | None = None) -> None: ...


class Job:
    """The calls of one order: what they have so far. Belongs to the event loop.

        with driver.submit(requests, live=True) as job:
            async for index, generation in job.updates():
                ...

    Left early, its calls are cancelled.
    """

    def __init__(self, requests: Sequence[Request], live: bool, leave: Callable[["Job"], None]):
        self.requests, self.live = tuple(requests), live
        self.open = len(self.requests)
        self._leave = leave
        self._newest: dict[int, Generation] = {}
        self._refusal: Refusal | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    async def updates(self) -> AsyncIterator[tuple[int, Generation]]:
        """Index of a call and what it has so far, whenever it has more, until all have ended.

        Who is slow misses the steps between: each generation holds all tokens of its call. Unless
        the job is live, calls are seen when they end only.

        Raises:
          Refusal: if a call cannot be served, the engine fails, or the server stops.
        """
        left = len(self.requests)
        while left:
            await self._changed.wait()
            self._changed.clear()
            if self._refusal is not None:
                raise self._refusal
            newest, self._newest = self._newest, {}
            for index, generation in sorted(newest.items()):
                left -= bool(generation.finish_reason)
                yield index, generation

    def take(self, index: int, generation: Generation) -> None:
        """Take in what a call has so far."""
        self._newest[index] = generation
        self.open -= bool(generation.finish_reason)
        self._changed.set()

    def fail(self, refusal: Refusal) -> None:
        """End all calls that have not ended."""
        self._refusal = self._refusal or refusal
        self.open = 0
        self._changed.set()


@dataclasses.dataclass
class _Call:
    """A call in the engine, as the thread knows it."""

    job: Job
    index: int
    seen: int = 0


class Driver:
    """Drives an engine in a thread of its own, which alone touches it.

    Its methods belong to the event loop in which it was started.

    Attributes:
      capacity: calls that may be open at once: in slots or waiting for one.
      ended: calls that were answered to their end.
      tokens: that these have.
    """

    def __init__(self, engine: Engine, slots: int, max_queue: int):
        """Set up a driver.

        Args:
          engine: belongs to the driver from now on.
          slots: calls that the engine decodes at once.
          max_queue: most calls that wait for a slot.
        """
        self.capacity = slots + max_queue
        self.ended = self.tokens = 0
        self._slots, self._engine = slots, engine
        self._jobs: set[Job] = set()
        self._stopping = False
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # What the thread is to do next.
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # What follows belongs to the thread.
        self._ends = False
        self._calls: dict[str, _Call] = {}
        self._news: list[tuple[Job, int, Generation] | tuple[Job, Refusal]] = []
        self._thread = threading.Thread(target=self._work, name="arkjax-engine", daemon=True)

    def start(self) -> None:
        """Start the thread; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def open(self) -> int:
        """Calls that were taken and have not ended."""
        return sum(job.open for job in self._jobs)

    @property
    def waiting(self) -> int:
        """Calls for which there is no slot."""
        return max(self.open - self._slots, 0)

    def check_room(self, count: int) -> None:
        """See whether `count` calls would be taken now.

        Raises:
          Refusal: if the server stops, or too many calls wait.
        """
        if self._stopping:
            raise stopping()
        if self.open + count > self.capacity:
            raise busy(
                f"{self.open} calls are open and {self.capacity} may be, so there is no room for "
                f"{count} more: try again in a while"
            )

    def submit(self, requests: Sequence[Request], live: bool) -> Job:
        """Queue calls: all of them, or none.

        Args:
          requests: the calls, with ids that no others have.
          live: whether they are to be seen while they grow.

        Raises:
          Refusal: as `check_room`.
        """
        self.check_room(len(requests))
        job = Job(requests, live, self._leave)
        self._jobs.add(job)
        self._inbox.put(lambda: self._submit(job))
        return job

    async def drain(self, seconds: float) -> None:
        """Take no more calls, and end those that are open if they do not end within `seconds`."""
        self._stopping = True
        self._idle = asyncio.Event()
        self._look()
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            for job in list(self._jobs):
                job.fail(stopping())
                self._leave(job)
        self._inbox.put(self._end)

    async def join(self, seconds: float) -> bool:
        """Wait for the thread to end, after `drain`; whether it has ended within `seconds`."""
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _leave(self, job: Job) -> None:
        """Forget a job and cancel what is open of it."""
        if job in self._jobs:
            self._jobs.discard(job)
            self._inbox.put(lambda: self._cancel(job))
            self._look()

    def _look(self) -> None:
        if self._idle is not None and not self._jobs:
            self._idle.set()

    def _deliver(self, news: list[tuple]) -> None:
        """In the event loop: hand on what the thread has found out."""
        for job, *said in news:
            if isinstance(said[0], Refusal):
                job.fail(said[0])
                continue
            index, generation = said
            if generation.finish_reason and job in self._jobs:
                self.ended += 1
                self.tokens += len(generation.ids)
            job.take(index, generation)

    # --- in the thread --------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._ends:
            for action in self._actions():
                action()
            if self._engine.pending:
                try:
                    self._step()
                except Exception:
                    self._fail()
            self._tell()

    def _actions(self) -> Iterator[Callable[[], None]]:
        """What is to be done before the next step; waits for something if there is none to do."""
        wait = not self._engine.pending
        while True:
            try:
                yield self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False

    def _end(self) -> None:
        self._ends = True

    def _submit(self, job: Job) -> None:
        try:
            for index, request in enumerate(job.requests):
                self._engine.submit(request)
                self._calls[request.id] = _Call(job, index)
        except ArkJAXError as error:
            self._cancel(job)
            self._news.append((job, Refusal(str(error))))
        except Exception:
            # What the engine was doing then is unknown.
            self._news.append((job, failure(_FAILED)))
            self._fail()

    def _cancel(self, job: Job) -> None:
        for request in job.requests:
            if self._calls.pop(request.id, None) is None:
                continue
            try:
                self._engine.cancel(request.id)
            except Exception:
                self._fail()

    def _step(self) -> None:
        for generation in self._engine.step():
            call = self._calls.pop(generation.request_id)
            self._news.append((call.job, call.index, generation))
        for name, call in self._calls.items():
            if not call.job.live:
                continue
            generation = self._engine.partial(name)
            if len(generation.ids) > call.seen:
                call.seen = len(generation.ids)
                self._news.append((call.job, call.index, generation))

    def _fail(self) -> None:
        """The engine has failed: tell everybody, and empty it for those who come next."""
        traceback.print_exc(file=sys.stderr)
        calls, self._calls = self._calls, {}
        for job in {call.job: None for call in calls.values()}:
            self._news.append((job, failure(_FAILED)))
        try:
            self._engine.cancel()
        except Exception:
            traceback.print_exc(file=sys.stderr)

    def _tell(self) -> None:
        news, self._news = self._news, []
        if not news:
            return
        try:
            self._loop.call_soon_threadsafe(self._deliver, news)
        except RuntimeError:
            # The loop is closed: nobody listens any more.
            self._ends = True
