"""Where the time of an engine goes: to the device, or to what the host does between its steps."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

HOST = ("scheduling", "handing_over", "reading")
"""What the host does while it does not wait: see `EngineProfile`."""


@dataclasses.dataclass
class EngineProfile:
    """What an engine has done since it was made or `reset`.

    Attributes:
      seconds: in `step` altogether, by the clock.
      scheduling: seconds of the host in choosing calls and laying their batches out.
      handing_over: seconds of the host in handing programs and their arguments to the device, and
        in compiling those that are new: warm the engine up to see the former alone.
      waiting: seconds in which the host had nothing to do until the device was done.
      reading: seconds of the host in taking tokens in, and in looking for stop texts.
      steps: decode steps.
      slot_steps: slots times decode steps; with `tokens` this gives the occupancy.
      tokens: tokens that decode steps drew.
      prompt_tokens: tokens of prompts and of shared prefixes that were computed, without padding.
      padded_tokens: the same with padding.
      calls: that were prefilled; the first token of each was drawn then.
      scored_tokens: tokens of the sequences that were scored, prompts and targets, shared ones
        counted for each.
      scoring_tokens: tokens that were computed for that, without padding.
      scoring_padded: the same with padding.
    """

    seconds: float = 0.0
    scheduling: float = 0.0
    handing_over: float = 0.0
    waiting: float = 0.0
    reading: float = 0.0
    steps: int = 0
    slot_steps: int = 0
    tokens: int = 0
    prompt_tokens: int = 0
    padded_tokens: int = 0
    calls: int = 0
    scored_tokens: int = 0
    scoring_tokens: int = 0
    scoring_padded: int = 0

    @property
    def host_share(self) -> float:
        """Share of the time that is the host's, most of which the device works through."""
        return 1 - self.waiting / self.seconds if self.seconds else 0.0

    @property
    def occupancy(self) -> float:
        """Share of slots times decode steps that drew a token."""
        return self.tokens / self.slot_steps if self.slot_steps else 0.0

    @contextlib.contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Add the time of a `with` block to a field."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.perf_counter() - started)

    def reset(self) -> None:
        """Begin to count anew."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, field.default)

    def describe(self) -> str:
        """Where the time went, as lines of text."""
        parts = [*HOST, "waiting"]
        lines = [f"{'engine':13}{self.seconds:9.3f} s"]
        for part in parts:
            spent = getattr(self, part)
            share = spent / self.seconds if self.seconds else 0.0
            lines.append(f"  {part.replace('_', ' '):13}{spent:7.3f} s {share:6.1%}")
        lines.append(
            f"  {self.steps:,} decode steps, {self.tokens:,} tokens, {self.occupancy:.0%} of slots "
            f"busy; {self.prompt_tokens:,} prompt tokens computed, {self.padded_tokens:,} padded"
        )
        return "\n".join(lines)
