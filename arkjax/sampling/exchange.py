"""What processes that share a list of calls tell each other, through the job's key-value store.

The store is the one that `jax.distributed` keeps in its first process. No collective of the devices
is used: it would wait for ever for a process that is gone, and these messages can be looked for.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from arkjax.errors import ProcessError

CHUNK = 1 << 20
"""Most bytes of one message."""

# Messages of a process that may lie in the store before all others have read the first of them.
_WINDOW = 8
_LENGTH = 4

# Exchanges made so far by who takes part: their names, since all make theirs in the same order.
_made: collections.Counter[tuple[int, ...]] = collections.Counter()


@dataclasses.dataclass
class _Heard:
    """What a process said last, and when, by the clock here, it last said something new."""

    text: str = ""
    progress: int = -1
    at: float = dataclasses.field(default_factory=time.monotonic)
    moved: float = dataclasses.field(default_factory=time.monotonic)

    def take(self, text: str, progress: int) -> None:
        now = time.monotonic()
        if text != self.text:
            self.text, self.at = text, now
        if progress != self.progress:
            self.progress, self.moved = progress, now


class Exchange:
    """Rounds in which processes agree on what to do, tell how they get on, and swap what they made.

        with exchange.round():
            told = exchange.begin({"list": digest})
            while working:
                exchange.beat(progress)
            answers = exchange.gather(data)

    Every process enters the same rounds. Each method raises ProcessError once another process has
    failed, and names it; whatever leaves the `with` block as an exception is told to the others.
    """

    def __init__(self, processes: Sequence[int], timeout: float, silence: float):
        """Join an exchange; all of its processes have to.

        Args:
          processes: who takes part, this process too.
          timeout: seconds that a process may go without progress.
          silence: seconds without a sign of life after which a process counts as dead.
        """
        self.me = jax.process_index()
        self.interval = min(1.0, timeout / 8, silence / 8)
        self._others = [process for process in processes if process != self.me]
        self._timeout, self._silence = timeout, silence
        group = tuple(processes)
        name = hashlib.blake2b(repr(group).encode(), digest_size=8).hexdigest()
        self._root = f"arkjax/exchange/{name}/{_made[group]}"
        _made[group] += 1
        self._store = _Store()
        self._round = 0
        self._beats, self._beaten = 0, 0.0
        self._heard: dict[int, _Heard] = {}

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """One round, from its first word to its last."""
        self._round += 1
        self._heard = {process: _Heard() for process in self._others}
        self._beaten = 0.0
        try:
            yield
        except BaseException as error:
            # The error itself matters more than one in telling it.
            with contextlib.suppress(Exception):
                self._tell("failed", **_reason(error, self.me))
            raise
        self._tell("done")

    def begin(self, about: dict[str, str]) -> dict[int, dict[str, str]]:
        """Tell what this process is about to do, and wait for what all others tell.

        Returns:
          The words of each process.
        """
        # Whoever is heard of at all in this round must be known to be alive.
        self._tell("waiting", progress=0)
        self._store.put(self._key("about", self.me), json.dumps(about).encode())
        told: dict[int, dict[str, str]] = {self.me: about}
        pause, trouble = 0.01, None
        while True:
            told |= {process: json.loads(text) for process, text in self._all("about")}
            if len(told) > len(self._others):
                break
            if trouble:
                raise trouble
            time.sleep(pause)
            pause = min(2 * pause, self.interval)
            try:
                self.beat(waits=True, entering=True)
            except ProcessError as error:
                # It may have failed over what all have told, which this process then reads now.
                trouble = error
        # All are here, so all have read what was said before.
        self._store.drop(self._key("", round_=self._round - 1) + f"of/{self.me}")
        for kind in ("about", "state", "read"):
            self._store.drop(self._key(kind, self.me, self._round - 1))
        return dict(sorted(told.items()))

    def beat(self, progress: int = 0, *, waits: bool = False, entering: bool = False) -> None:
        """Give a sign of life, and look for those of the others; cheap if called too often.

        Args:
          progress: a number that changes as long as work goes on.
          waits: this process waits for others, and no progress is expected of it.
          entering: others may not have come to this round yet.

        Raises:
          ProcessError: if a process has failed, or is not waited for any longer.
        """
        now = time.monotonic()
        if now - self._beaten < self.interval:
            return
        self._beaten = now
        self._tell("waiting" if waits else "working", progress=progress)
        here = dict(self._all("state"))
        before = dict(self._all("state", self._round - 1)) if entering else {}
        for process in self._others:
            self._judge(process, here.get(process), before.get(process))

    def gather(self, data: bytes) -> dict[int, bytes]:
        """Swap what each process has made, in messages of at most `CHUNK` bytes.

        A process puts no more than a few messages into the store before the others have read them.

        Args:
          data: of this process.

        Returns:
          The data of each process.
        """
        parts = [data[i : i + CHUNK] for i in range(0, max(len(data), 1), CHUNK)]
        head = len(parts).to_bytes(_LENGTH, "big")
        got: dict[int, list[bytes]] = {process: [] for process in self._others}
        left = dict.fromkeys(self._others, 1)
        sent, dropped, pause, trouble = 0, 0, 0.01, None
        while sent < len(parts) or any(left.values()):
            read = [json.loads(text) for _, text in self._all("read")]
            by_all = 0
            if len(read) >= len(self._others):
                by_all = min(counts.get(str(self.me), sent) for counts in read)
            moved = False
            for i in range(sent, min(by_all + _WINDOW, len(parts))):
                self._store.put(self._part(self.me, i), head + parts[i])
                sent, moved = i + 1, True
            for i in range(dropped, by_all):
                self._store.drop(self._part(self.me, i))
                dropped = i + 1
            for process in self._others:
                while left[process]:
                    message = self._store.get(self._part(process, len(got[process])))
                    if message is None:
                        break
                    got[process].append(message[_LENGTH:])
                    total = int.from_bytes(message[:_LENGTH], "big")
                    left[process] = total - len(got[process])
                    moved = True
            if moved:
                counts = {str(process): len(parts) for process, parts in got.items()}
                self._store.put(self._key("read", self.me), json.dumps(counts).encode())
                pause = 0.01
            elif trouble:
                raise trouble
            else:
                time.sleep(pause)
                pause = min(2 * pause, self.interval)
            try:
                self.beat(waits=True)
            except ProcessError as error:
                # What it had to say may lie in the store all the same.
                trouble = error
        everything = {process: b"".join(parts) for process, parts in got.items()}
        return dict(sorted((everything | {self.me: data}).items()))

    def _judge(self, process: int, here: bytes | None, before: bytes | None) -> None:
        """Raise ProcessError if this process is not to be waited for."""
        heard, now = self._heard[process], time.monotonic()
        text = here if here is not None else before
        state: dict[str, Any] = json.loads(text) if text else {}
        kind = state.get("kind", "absent")
        heard.take(text.decode() if text else "", state.get("progress", -1))
        if here is not None and kind == "failed":
            raise ProcessError(state["process"], state["reason"])
        if here is not None and kind == "done":
            return
        silent, still = now - heard.at, now - heard.moved
        if kind in ("working", "waiting", "failed") and silent > self._silence:
            if kind == "failed":
                raise ProcessError(state["process"], state["reason"])
            raise ProcessError(process, f"has given no sign of life for {silent:.0f} s")
        if kind in ("absent", "done") and silent > self._timeout:
            raise ProcessError(
                process,
                f"has not begun this list for {silent:.0f} s: call `generate` in every process, "
                "or raise `timeout`",
            )
        if kind == "working" and still > self._timeout:
            raise ProcessError(
                process, f"has made no progress for {still:.0f} s: raise `timeout` if it needs more"
            )

    def _tell(self, kind: str, **more: Any) -> None:
        self._beats += 1
        text = json.dumps({"kind": kind, "beat": self._beats, **more})
        self._store.put(self._key("state", self.me), text.encode())

    def _all(self, kind: str, round_: int | None = None) -> list[tuple[int, bytes]]:
        """What the others have under this name, by process."""
        found = self._store.list(self._key(kind, round_=round_))
        told = [(int(key.rpartition("/")[2]), text) for key, text in found]
        return [(process, text) for process, text in told if process != self.me]

    def _part(self, process: int, i: int) -> str:
        return f"{self._key('')}of/{process}/{i}"

    def _key(self, kind: str, process: int | None = None, round_: int | None = None) -> str:
        folder = f"{self._root}/{self._round if round_ is None else round_}/"
        if not kind:
            return folder
        return f"{folder}{kind}/" if process is None else f"{folder}{kind}/{process}"


class _Store:
    """The key-value store of the job."""

    def __init__(self) -> None:
        # JAX has no public name for it; Orbax, which the models are written with, uses this too.
        from jax._src import distributed

        self._client = distributed.global_state.client
        if self._client is None:
            raise RuntimeError("jax.distributed.initialize has not been called")

    def put(self, key: str, value: bytes) -> None:
        self._ask(self._client.key_value_set_bytes, key, value, allow_overwrite=True)

    def get(self, key: str) -> bytes | None:
        """The value; None if there is none."""
        return self._ask(self._client.key_value_try_get_bytes, key)

    def list(self, folder: str) -> list[tuple[str, bytes]]:
        """All keys and values below a folder."""
        return self._ask(self._client.key_value_dir_get_bytes, folder) or []

    def drop(self, key: str) -> None:
        """Delete a key and all below it."""
        self._ask(self._client.key_value_delete, key)

    def _ask(self, call, *arguments, **settings):
        try:
            return call(*arguments, **settings)
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith("NOT_FOUND"):
                return None
            reason = f"keeps the job's store, which does not answer: {error}"
            raise ProcessError(0, reason) from error


def _reason(error: BaseException, me: int) -> dict[str, Any]:
    """Who failed, and why: if it is another's failure that ended this process, that one."""
    if isinstance(error, ProcessError):
        return {"process": error.process, "reason": error.reason}
    return {"process": me, "reason": f"failed: {type(error).__name__}: {error}"}
