"""Sizes of the sampling engine."""

import dataclasses
import numbers
from typing import get_args

from arkjax.errors import ConfigError
from arkjax.models.cache import Precision


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine; few, so that few shapes are compiled.

    Attributes:
      length_classes: context lengths of the lanes, ascending; a call goes into the shortest that
        holds its prompt and its longest answer.
      slots: calls that one lane decodes at once.
      prefixes: shared prefixes that one lane keeps.
      admit_rows: most calls that are prefilled together.
      prefix_rows: most prefixes that are prefilled together; fewer than calls, which share them.
      chunk: prompts are padded to this many tokens, or to 1.5, 2, 3, 4, 6, 8, ... times as many;
        from 32 on, also to the quarters between.
      block_steps: most decode steps between two looks by the host.
      max_stop_ids: most stop ids of a call.
      prefill_tokens: most tokens that are prefilled at once, those of `admit_rows` prompts together
        or of one; longer prompts are prefilled in pieces.
      waiting_rows: calls that are prefilled ahead and enter slots in the midst of a block; 0 means
        as many as `admit_rows`.
      least_slots: down to how many slots a lane shrinks when no more calls wait; 0: it never does.
      least_length: how few positions its slots have until a call needs more; 0: all.
        With either, the shape in which a call is computed depends on its company, and the last bit
        of its numbers with it.
      max_top_logprobs: most of the most probable tokens that a call may ask for at each step.
      grouped_prefixes: whether prefixes are stored once, in the lane's pool, and attended to for
        all calls together that share them; slots then hold what follows, and `least_length` counts
        that alone. A call keeps its prefix in the pool until it ends: while all `prefixes` are in
        use, calls with others wait. On a mesh with data or fsdp axes this takes `Replicas`.
        It pays where many calls share much: measured on two CPU cores, a step over prefixes of
        1,024 tokens takes 0.62 of the time where 8 calls share each, and 1.3 times as long where
        two do; the caches are smaller either way (launch/bench/RESULTS.md).
      cache: keys and values are kept as the model computes them, or in int8 with one scale for
        each slot, key head and position (`arkjax.models.cache.KVCache`). What a token was drawn
        from then differs from what `Engine.score` says of it.
      weights: the layers' matrices are kept as the model has them, or in int8 with one scale for
        each output (`arkjax.sampling.precision`), for generating and scoring alike.
        Either in int8 needs the extra `lora`, and changes tokens: README.md says by how much.
    """

    length_classes: tuple[int, ...]
    slots: int
    prefixes: int
    admit_rows: int
    prefix_rows: int
    chunk: int
    block_steps: int
    max_stop_ids: int
    prefill_tokens: int = 4096
    waiting_rows: int = 0
    least_slots: int = 0
    least_length: int = 0
    max_top_logprobs: int = 20
    grouped_prefixes: bool = False
    cache: Precision = "model"
    weights: Precision = "model"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == Precision:
                if value not in get_args(Precision):
                    choices = " or ".join(map(repr, get_args(Precision)))
                    raise ConfigError(f"engine.{field.name} is {value!r}: expected {choices}")
                continue
            if field.type is bool:
                continue
            least = int(field.default is dataclasses.MISSING or field.name == "prefill_tokens")
            several = field.name == "length_classes"
            if several and isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            values = value if several and isinstance(value, tuple) else (value,)
            if several is not isinstance(value, tuple) or not _are_whole(values):
                rule = "a tuple of whole numbers" if several else "a whole number"
                raise ConfigError(f"engine.{field.name} is {value!r}: expected {rule}")
            if not values or min(values) < least:
                rule = "must be positive" if least else "must not be negative"
                raise ConfigError(f"engine.{field.name} is {value!r}: it {rule}")
        if list(self.length_classes) != sorted(set(self.length_classes)):
            raise ConfigError(
                f"engine.length_classes is {self.length_classes}: list each length once, ascending"
            )

    @property
    def waiting(self) -> int:
        """N, rows where calls wait for a slot."""
        return self.waiting_rows or self.admit_rows

    def sizes(self) -> list[int]:
        """Numbers of slots that a lane may have, ascending."""
        return _halved(self.slots, self.least_slots)

    def lengths(self, length: int) -> list[int]:
        """Numbers of positions that the slots of a lane may have, ascending."""
        return _halved(length, self.least_length)

    def widths(self, length: int) -> list[int]:
        """The few widths that prompts of a lane are computed in, ascending."""
        quarters = (4, 5, 6, 7) if self.chunk >= 32 else (4, 6)
        most = min(length, self.prefill_tokens)
        doubled = [self.chunk << i for i in range(length.bit_length())]
        return sorted({min(width * q // 4, most) for width in doubled for q in quarters})

    def rows(self, width: int, most: int) -> int:
        """How many rows of this width are computed together: it depends on the width alone."""
        return max(1, min(most, self.prefill_tokens // width))


def _are_whole(values: tuple) -> bool:
    return all(isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in values)


def _halved(most: int, least: int) -> list[int]:
    """`most`, and its three quarters, half, ... down to `least` if that is given."""
    quarters = {-(-(most * q) >> i + 2) for i in range(most.bit_length()) for q in (3, 4)}
    return sorted({most} | {n for n in quarters if least and n >= least})
