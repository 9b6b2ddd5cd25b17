"""A list of calls from the first to the last, by anything that generates."""

from collections.abc import Sequence
from typing import Protocol

from arkjax.sampling.params import Generation, Generator, Request


class Cancelling(Generator, Protocol):
    """A generator that can forget its calls."""

    def cancel(self) -> None:
        """Forget all pending calls."""


def refuse_pending(generator: Generator) -> None:
    """Raise RuntimeError if calls are pending: what comes next would lose them."""
    if generator.pending:
        raise RuntimeError(f"{generator.pending} calls are pending: step until they have ended")


def generate_all(generator: Cancelling, requests: Sequence[Request]) -> list[Generation]:
    """Generate all requests; returns the generations in the order of the requests.

    Raises:
      DataError, ConfigError: as the generator's `submit` and `step`; no request of the list stays
        behind then.
      RuntimeError: if calls are pending that `submit` took: this would lose them.
    """
    refuse_pending(generator)
    done: dict[str, Generation] = {}
    try:
        for request in requests:
            generator.submit(request)
        while generator.pending:
            done.update((generation.request_id, generation) for generation in generator.step())
    except BaseException:
        generator.cancel()
        raise
    return [done[request.id] for request in requests]
