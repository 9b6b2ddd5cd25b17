"""Several models that take turns on one mesh.

A model works until it has no call left, then the one with the most waiting calls takes its place:
weights are swapped as seldom as the talk allows. Between turns a model holds no device memory.
"""

import collections
import gc
from collections.abc import Callable, Mapping

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Generation, Generator, Request


class Rota:
    """Generators of which a few at a time are there.

    Attributes:
      swaps: how often a model took a place.
    """

    def __init__(
        self,
        open_: Mapping[str, Callable[[], Generator]],
        contexts: Mapping[str, int],
        places: int = 1,
        tell: Callable[[str], None] = lambda text: None,
    ):
        """Set up; nothing is opened before its first call.

        Args:
          open_: makes each generator, again for each of its turns.
          contexts: the `max_context` of each.
          places: how many can be there at once.
          tell: told of each swap, in one line.

        Raises:
          ConfigError: if there is no place.
        """
        if places < 1:
            raise ConfigError(f"places is {places}: at least one model must be there")
        self._open, self._places, self._tell = dict(open_), places, tell
        self._there: dict[str, Generator] = {}
        self._members = {name: _Member(self, name, contexts[name]) for name in open_}
        self.swaps = 0

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> "_Member":
        """The generator of that name, whether it is there or not."""
        return self._members[name]

    def close(self) -> None:
        """Free all models and forget their calls."""
        self._there.clear()
        for member in self._members.values():
            member.queue.clear()
        _free()

    def generator(self, name: str) -> Generator | None:
        """The model of that name if it is there, or can be: if a place is free or its holder idle.

        Of several that wait for a place the one with the most calls gets it.
        """
        if name in self._there:
            return self._there[name]
        waiting = {n: len(m.queue) for n, m in self._members.items() if m.queue}
        if waiting.get(name, 0) < max(waiting.values(), default=1):
            return None
        return self._seat(name)

    def take(self, name: str) -> Generator:
        """The model of that name itself, until another takes its place.

        Raises:
          RuntimeError: if all places are held by models that have calls.
        """
        made = self._there.get(name) or self._seat(name)
        if made is None:
            raise RuntimeError(f"there is no place for {name}: the models there have calls to end")
        return made

    def _seat(self, name: str) -> Generator | None:
        """Open a model in a free place or that of an idle one; None if there is no such place."""
        if len(self._there) >= self._places:
            idle = next((n for n, made in self._there.items() if not made.pending), None)
            if idle is None:
                return None
            # Before the next one is opened: there may be no room for both.
            del self._there[idle]
            _free()
        self.swaps += 1
        calls = len(self._members[name].queue)
        self._tell(f"model {name}: {calls:,} calls wait, it takes its turn")
        self._there[name] = self._open[name]()
        return self._there[name]

    def there(self, name: str) -> Generator | None:
        """The model of that name if it is there now."""
        return self._there.get(name)


def _free() -> None:
    """Give back the memory of what nobody holds, also of what a play has frozen."""
    gc.unfreeze()
    gc.collect()


class _Member:
    """One of the rota's generators, as its callers see it."""

    def __init__(self, rota: Rota, name: str, max_context: int):
        self._rota, self._name = rota, name
        self.max_context = max_context
        self.queue: collections.deque[Request] = collections.deque()

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        made = self._rota.there(self._name)
        return len(self.queue) + (made.pending if made is not None else 0)

    def submit(self, request: Request) -> None:
        """Queue a request. Raises DataError if it cannot fit into `max_context`."""
        made = self._rota.there(self._name)
        if made is not None:
            made.submit(request)
            return
        needed = len(request.prompt_ids) + request.sampling.max_tokens
        if needed > self.max_context:
            raise DataError(
                f"call {request.id} needs {needed} tokens, but model {self._name!r} holds"
                f" {self.max_context}: shorten the prompt or lower max_tokens"
            )
        self.queue.append(request)

    def step(self) -> list[Generation]:
        """Work for a while, if it is this model's turn; the calls that ended."""
        made = self._rota.generator(self._name)
        if made is None:
            return []
        while self.queue:
            made.submit(self.queue.popleft())
        return made.step()
