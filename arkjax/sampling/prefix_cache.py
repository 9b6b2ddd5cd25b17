"""Shared prefixes on the device: computed once, each from the longest beginning that is there."""

import collections
import functools
from collections.abc import Sequence

import numpy as np

from arkjax.models.cache import Precision, init_cache
from arkjax.models.transformer import Weight
from arkjax.sampling import decode, layout
from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.engine_profile import EngineProfile
from arkjax.sampling.params import Request
from arkjax.sampling.prefixes import Piece, PrefixPool
from arkjax.sampling.shapes import Shapes


class PrefixCache:
    """Keys and values of prefixes, beside the record of where each lies.

    Attributes:
      pool: `config.prefixes` rows of `length` positions.
      prefixes: which row holds what.
    """

    def __init__(
        self,
        spec: decode.Spec,
        weights: dict[str, Weight],
        config: EngineConfig,
        length: int,
        profile: EngineProfile,
        *,
        least: int = 1,
        precision: Precision = "model",
    ):
        """An empty cache.

        Args:
          spec, weights: the model.
          config: sizes.
          length: positions of a row.
          profile: where computed tokens are counted.
          least: tokens that a shared beginning must add to the one before it to be kept.
          precision: how keys and values are kept.
        """
        self._spec, self._weights, self._config = spec, weights, config
        self._profile, self._shapes = profile, Shapes(config, length)
        pool = functools.partial(init_cache, spec.config, config.prefixes, length, precision)
        self.pool = layout.make(pool, spec.mesh)
        self.prefixes = PrefixPool(config.prefixes, least)

    def prepare(self, requests: Sequence[Request]) -> None:
        """Compute what is missing of the prefixes of all these requests, which fit together."""
        for layer in self.prefixes.missing(requests, self._shapes.widths[-1]):
            shapes: dict[tuple[int, int], list[Piece]] = collections.defaultdict(list)
            for piece in layer:
                width = self._shapes.width(len(piece.ids))
                shapes[width, self._shapes.live(piece.start + width)].append(piece)
            for (width, live), pieces in sorted(shapes.items()):
                rows = self.rows(width)
                for i in range(0, len(pieces), rows):
                    self.extend(pieces[i : i + rows], width, live)

    def rows(self, width: int) -> int:
        """How many pieces of this width are computed together."""
        return self._config.rows(width, self._config.prefix_rows)

    def extend(self, pieces: Sequence[Piece], width: int, live: int) -> None:
        """Compute at most `rows(width)` pieces that do not depend on each other, or none at all."""
        rows = self.rows(width)
        tokens = np.zeros((rows, width), np.int32)
        for i, piece in enumerate(pieces):
            tokens[i, : len(piece.ids)] = piece.ids
        where = filled_columns(
            rows,
            parent=([piece.parent for piece in pieces], np.int32, 0),
            row=([piece.row for piece in pieces], np.int32, self._config.prefixes),
            start=([piece.start for piece in pieces], np.int32, 0),
        )
        arrays = (where["parent"], where["row"], where["start"], tokens)
        with self._profile.time("handing_over"):
            self.pool = decode.extend_prefixes(
                self._spec,
                self._weights,
                self.pool,
                *layout.place(arrays, self._spec.mesh),
                live,
            )
        self._profile.prompt_tokens += sum(len(piece.ids) for piece in pieces)
        self._profile.padded_tokens += tokens.size


def filled_columns(size: int, **columns: tuple[Sequence, type, float]) -> dict[str, np.ndarray]:
    """Arrays of one length from (values, dtype, fill)."""
    arrays = {}
    for name, (values, dtype, fill) in columns.items():
        arrays[name] = np.full(size, fill, dtype)
        arrays[name][: len(values)] = values
    return arrays
