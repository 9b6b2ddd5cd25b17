"""The remote generators of a run, by name: made when they are first needed, closed together."""

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence

from arkjax.errors import ConfigError
from arkjax.sampling.params import Generation, Generator, Request
from arkjax.sampling.remote import RemoteGenerator
from arkjax.sampling.remote_config import RemoteConfig
from arkjax.text.tokenizer import Tokenizer

# Debates that an engine has under way: enough to fill its slots with calls that share prompts.
_MANY = 1024


def max_active(players: Sequence[RemoteConfig | None]) -> int:
    """How many debates shall be under way at once.

    Servers get enough to be busy and no more: debates then end one by one from early on, so that
    progress is seen and a killed run has few of them half-done.

    Args:
      players: the server of each player of a team, None for those that are here.
    """
    if None in players:
        return _MANY
    return 2 * max(player.max_concurrency for player in players)


class Remotes:
    """Generators behind servers.

    Attributes:
      configs: which servers, by name.
    """

    def __init__(self, configs: Mapping[str, RemoteConfig], tokenizer: Tokenizer):
        """Set up; nothing is connected yet.

        Args:
          configs: which servers, by the names that the run gives them.
          tokenizer: of all their models.
        """
        self.configs = configs
        self._tokenizer = tokenizer
        self._open: dict[str, RemoteGenerator] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.configs

    def __getitem__(self, name: str) -> RemoteGenerator:
        """The generator of that name, always the same until `close`.

        Raises:
          ConfigError: if its key is not there, or aiohttp cannot be imported.
        """
        if name not in self._open:
            self._open[name] = RemoteGenerator(self.configs[name], self._tokenizer)
        return self._open[name]

    def check(self, name: str) -> None:
        """See that a server is there, and has the model; errors name the run's own fields.

        Raises:
          ConfigError, DataError: as `RemoteGenerator.check`.
        """
        try:
            self[name].check()
        except ConfigError as error:
            fields = "|".join(field.name for field in dataclasses.fields(RemoteConfig))
            own = rf"config.remotes.{name}.\1"
            raise ConfigError(re.sub(rf"\bremote\.({fields})\b", own, str(error))) from None

    def identity(self, name: str) -> str:
        """What the records call the model by."""
        return self.configs[name].identity(self._tokenizer.hash)

    def close(self) -> None:
        """Forget all calls and close all connections."""
        while self._open:
            self._open.popitem()[1].close()


class Watched:
    """A remote generator that tells how it goes, and waits only where nobody else has work."""

    def __init__(
        self,
        generator: RemoteGenerator,
        beside: Sequence[Generator],
        begin: Callable[[], None],
        tell: Callable[[str], None],
    ):
        """Wrap a generator.

        Args:
          generator: what is watched.
          beside: generators here, which are not to wait for a server while they have calls.
          begin: called when there is a first call to be made.
          tell: given how it goes, at each step.
        """
        self._generator, self._beside = generator, beside
        self._begin, self._tell = begin, tell
        self._began_at: float | None = None
        self._calls = 0

    @property
    def max_context(self) -> int:
        """Largest number of prompt plus generated tokens of one call."""
        return self._generator.max_context

    @property
    def pending(self) -> int:
        """Requests submitted and not yet returned."""
        return self._generator.pending

    def submit(self, request: Request) -> None:
        """Queue a request; see `RemoteGenerator.submit`."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._begin()
        self._generator.submit(request)

    def step(self) -> list[Generation]:
        """The calls that ended; waits a little for them."""
        ended = self._generator.step(wait=not any(other.pending for other in self._beside))
        self._calls += len(ended)
        minutes = (time.monotonic() - (self._began_at or 0)) / 60
        rate = f", {self._calls / minutes:,.0f} a minute" if self._calls else ""
        note = self._generator.note
        self._tell(f"{self._calls:,} calls{rate}" + (f", {note}" if note else ""))
        return ended
