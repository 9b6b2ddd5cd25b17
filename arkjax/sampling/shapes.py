"""The few shapes in which the prompts of one context length are computed."""

from arkjax.sampling.engine_config import EngineConfig


class Shapes:
    """Widths that tokens are padded to, and numbers of positions that are computed with.

    Attributes:
      widths: what prompts are padded to, ascending.
      lives: numbers of positions that are computed with where there is a prefix.
    """

    def __init__(self, config: EngineConfig, length: int):
        """Those of contexts of `length` positions."""
        self._length = length
        self.widths = config.widths(length)
        # A call without a prefix needs as many positions as its prompt; one with a prefix takes
        # one of a few lengths.
        self.lives = [
            length >> i for i in range(length.bit_length()) if length >> i >= config.chunk
        ] or [length]

    def width(self, tokens: int) -> int:
        """What so many tokens are padded to."""
        return next(width for width in self.widths if width >= tokens)

    def live(self, end: int) -> int:
        """The positions that are computed with where tokens behind a prefix reach to `end`."""
        return min(n for n in self.lives if n >= min(end, self._length))
