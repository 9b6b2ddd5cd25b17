"""When a call to a server may begin: limits that it keeps, waits that the server asks for."""

import asyncio
import contextlib
import dataclasses
import email.utils
import heapq
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is not waited for."""

_LONGEST_BACKOFF = 30.0
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)?")
# A limit that is used up is refilled little by little: no need to wait for all of it.
_LONGEST_HOLD = 60.0
# Seconds that sums of floats may be off: a wait as short might not move the clock.
_ROUNDING = 1e-6


class Pace:
    """Lets calls begin one by one, in the order of arrival, as fast as the limits allow.

    A token bucket for requests and one for tokens. That for requests holds one, so that no minute
    has more than the limit; that for tokens holds a second's worth, and a call that needs more
    leaves a debt behind.
    """

    def __init__(
        self,
        requests_per_minute: float,
        tokens_per_minute: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Set up; a limit of 0 is none."""
        self._clock = clock
        self._requests = _bucket(requests_per_minute / 60, 1.0, clock())
        self._tokens = _bucket(tokens_per_minute / 60, max(1.0, tokens_per_minute / 60), clock())
        self._held_until = 0.0
        self._queue = asyncio.Lock()

    async def turn(self, tokens: int) -> None:
        """Wait until a call of `tokens` tokens may begin, and count it."""
        async with self._queue:
            while (wait := self._wait(tokens)) > _ROUNDING:
                # In pieces: tokens may come back meanwhile.
                await asyncio.sleep(min(wait, 1.0))
            for bucket, cost in ((self._requests, 1), (self._tokens, tokens)):
                if bucket:
                    bucket.level -= cost

    def give_back(self, tokens: int) -> None:
        """Return tokens that a call was counted with and did not use."""
        if self._tokens:
            self._tokens.level += tokens

    def hold(self, seconds: float) -> None:
        """Let no call begin for some time."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    @property
    def held(self) -> float:
        """Seconds for which no call begins."""
        return max(0.0, self._held_until - self._clock())

    def _wait(self, tokens: int) -> float:
        now = self._clock()
        waits = [self._held_until - now]
        waits += [self._requests.wait(1, now)] if self._requests else []
        waits += [self._tokens.wait(tokens, now)] if self._tokens else []
        return max(waits)


class Window:
    """How many attempts are under way at once: fewer while the server refuses some as too many.

    Servers count what they refuse, so that all who come back at once are refused again. A refusal
    halves the window, an answer adds a share of one to it (additive increase, multiplicative
    decrease: Chiu and Jain 1989). Whoever came first goes first, so that no call is forgotten.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        """Set up, as wide as it gets."""
        self._most, self._clock = most, clock
        self._size, self._open, self._narrowed_at = float(most), 0, -1.0
        self._waiting: list[tuple[int, asyncio.Future]] = []

    @property
    def size(self) -> int:
        """Attempts that may be under way at once."""
        return int(self._size)

    @contextlib.asynccontextmanager
    async def place(self, rank: int) -> AsyncIterator[None]:
        """Hold a place for an attempt; waits for one, the lowest ranks first."""
        place = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, place))
        self._admit()
        try:
            await place
            yield
        finally:
            # Cancelled while it waited, it holds none.
            if place.done() and not place.cancelled():
                self._leave()

    def narrow(self, began: float) -> None:
        """An attempt that began at this time was one too many.

        Those that were under way beside it may be refused with it, and count once.
        """
        if began > self._narrowed_at:
            self._size, self._narrowed_at = max(1.0, self._size / 2), self._clock()

    def widen(self) -> None:
        """An attempt was answered."""
        self._size = min(float(self._most), self._size + 1 / self._size)
        self._admit()

    def _leave(self) -> None:
        self._open -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._open < self.size:
            _, place = heapq.heappop(self._waiting)
            if not place.done():
                self._open += 1
                place.set_result(None)


@dataclasses.dataclass
class _Bucket:
    per_second: float
    capacity: float
    level: float
    filled_at: float

    def wait(self, cost: float, now: float) -> float:
        self.level += (now - self.filled_at) * self.per_second
        self.level, self.filled_at = min(self.level, self.capacity), now
        return (min(cost, self.capacity) - self.level) / self.per_second


def _bucket(per_second: float, capacity: float, now: float) -> _Bucket | None:
    return _Bucket(per_second, capacity, capacity, now) if per_second > 0 else None


def backoff(attempt: int, first: float, draw: float) -> float:
    """Seconds before attempt 1, 2, ... after the first: doubling, and between half and all of it.

    Args:
      attempt: number of the attempt, 0 the first of all.
      first: longest wait before attempt 1.
      draw: random number in [0, 1), lest all calls come back at the same moment.
    """
    return min(first * 2.0 ** min(attempt - 1, 32), _LONGEST_BACKOFF) * (0.5 + 0.5 * draw)


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a reply asks to wait with `Retry-After`: a number or a date; 0 if it does not.

    Source: RFC 9110, section 10.2.3.
    """
    milliseconds = _seconds(headers.get("Retry-After-Ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    asked = headers.get("Retry-After", "")
    if (seconds := _seconds(asked)) is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def used_up(headers: Mapping[str, str]) -> float:
    """Seconds until a limit of which `x-ratelimit-remaining-*` says that nothing is left."""
    waits = [
        _seconds(headers.get(f"x-ratelimit-reset-{what}", "")) or 0.0
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return min(max(waits, default=0.0), _LONGEST_HOLD)


def _seconds(text: str) -> float | None:
    """Seconds of "20", "1.5", "6m0s" or "20ms"."""
    text = text.strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    if len(parts) > 1 and any(not unit for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
