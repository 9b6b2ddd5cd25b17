"""A call on the device, as the host knows it."""

import dataclasses
from typing import NamedTuple

import numpy as np

from arkjax.sampling.params import Generation, Request
from arkjax.sampling.stopping import StopTexts


class Steps(NamedTuple):
    """What was drawn for one call, step by step."""

    ids: list[int]
    logprobs: list[float]
    sampling_logprobs: list[float]
    top_ids: np.ndarray
    top_logprobs: np.ndarray


@dataclasses.dataclass
class RunningCall:
    """A call from its prefill to its end.

    Attributes:
      request: the call.
      cached_len: tokens of its prompt that were not computed for it.
      stopping: what looks for its stop texts, if it has any.
      seconds: its share of the time so far.
      ids, logprobs, sampling_logprobs, top: as in `Generation`.
    """

    request: Request
    cached_len: int
    stopping: StopTexts | None
    seconds: float = 0.0
    ids: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    sampling_logprobs: list[float] = dataclasses.field(default_factory=list)
    top: list[tuple[tuple[int, float], ...]] = dataclasses.field(default_factory=list)

    def length(self, grouped: bool) -> int:
        """Tokens of prompt and answer that its slot holds."""
        shared = self.request.prefix_len if grouped else 0
        return len(self.request.prompt_ids) + len(self.ids) - shared

    def add(self, drawn: Steps) -> str | None:
        """Take tokens in, and say why the call ended if it did; what follows its end is dropped."""
        sampling, had = self.request.sampling, len(self.ids)
        count = self.stopping.take(drawn.ids) if self.stopping else len(drawn.ids)
        self.ids += drawn.ids[:count]
        self.logprobs += drawn.logprobs[:count]
        self.sampling_logprobs += drawn.sampling_logprobs[:count]
        if k := sampling.top_logprobs:
            self.top += [
                tuple(zip(ids[:k].tolist(), logprobs[:k].tolist(), strict=True))
                for ids, logprobs in zip(
                    drawn.top_ids[:count], drawn.top_logprobs[:count], strict=True
                )
            ]
        if len(self.ids) > had and self.ids[-1] in sampling.stop_ids:
            return "stop"
        if self.stopping and self.stopping.stopped:
            return "stop"
        return "length" if len(self.ids) >= sampling.max_tokens else None

    def generation(self, reason: str) -> Generation:
        return Generation(
            request_id=self.request.id,
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            sampling_logprobs=tuple(self.sampling_logprobs),
            finish_reason=reason,
            cached_len=self.cached_len,
            seconds=self.seconds,
            top=tuple(self.top),
        )
