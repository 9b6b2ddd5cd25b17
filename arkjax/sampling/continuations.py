"""Log-probabilities of continuations of many prompts, what prompts share computed once.

The prompts are read as a trie. Wherever several of them part, the beginning that they share is
computed into a row of a prefix cache, from the beginning of that beginning, and forked to all of
them: the machinery by which the engine prefills the prompts of a debate.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.errors import DataError
from arkjax.models.cache import KVCache
from arkjax.models.transformer import Transformer, Weight
from arkjax.sampling import layout
from arkjax.sampling.decode import Spec, forked, positions_of
from arkjax.sampling.engine_config import EngineConfig
from arkjax.sampling.engine_profile import EngineProfile
from arkjax.sampling.params import Request, SamplingParams, token_ids
from arkjax.sampling.prefix_cache import PrefixCache, filled_columns
from arkjax.sampling.prefixes import Ids
from arkjax.sampling.scoring import check_ids, own_logprobs
from arkjax.sampling.shapes import Shapes

Pair = tuple[Sequence[int], Sequence[int]]
"""A prompt, and the tokens that are scored as what follows it."""

# Positions whose logits exist at once.
_POSITIONS = 256
_NOTHING_DRAWN = SamplingParams(max_tokens=1)


class _Piece(NamedTuple):
    """A target behind its prompt, with the lengths at which the prompt parts from others."""

    prompt: Ids
    target: Ids
    cuts: tuple[int, ...]


class _Batch(NamedTuple):
    """R continuations that are scored together; those of no use are padding.

    Attributes:
      row: [R] int32, row of the prefix cache.
      start: [R] int32, tokens of the prefix.
      suffix: [R, T] int32, what follows the prefix, without the last token of the target.
      at: [R * T] int32, indices into the flattened suffix after which a target token stands.
      target: [R * T] int32, these tokens.
      count: [] int32, how many there are.
    """

    row: np.ndarray
    start: np.ndarray
    suffix: np.ndarray
    at: np.ndarray
    target: np.ndarray
    count: np.ndarray


def checked_pairs(pairs: Sequence[Pair], longest: int, size: int) -> list[tuple[Ids, Ids]]:
    """The pairs as tuples of token ids.

    Raises:
      DataError: naming a pair whose prompt or target is empty, that has more than `longest` tokens
        together, or ids that are not in a vocabulary of `size`.
    """
    read = []
    for i, (prompt, target) in enumerate(pairs):
        prompt, target = token_ids(prompt, f"prompt {i}"), token_ids(target, f"target {i}")
        if len(prompt) + len(target) > longest:
            raise DataError(
                f"pair {i} has {len(prompt)} prompt and {len(target)} target tokens: expected at "
                f"most {longest} together, the engine's longest context"
            )
        check_ids(prompt, size, f"prompt {i}")
        check_ids(target, size, f"target {i}")
        read.append((prompt, target))
    return read


def score_continuations(
    spec: Spec,
    weights: dict[str, Weight],
    config: EngineConfig,
    pairs: Sequence[Pair],
    profile: EngineProfile,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """Score targets, each after its prompt.

    Args:
      spec, weights: the model.
      config: sizes; prefixes are kept as the model computes them, whatever `config.cache` says.
      pairs: prompts and targets.
      profile: where tokens are counted.
      progress: told how many pairs of the list have been done since it was told last.

    Returns:
      For each pair [T] f32, the log-probability of each of its T target tokens.

    Raises:
      DataError: as `checked_pairs`.
    """
    read = checked_pairs(pairs, config.length_classes[-1], spec.config.vocab_size)
    if not read:
        return []
    longest = max(len(prompt) + len(target) for prompt, target in read)
    length = next(n for n in config.length_classes if n >= longest)
    shapes = Shapes(config, length)
    # What is asked twice is scored once.
    order: dict[tuple[Ids, Ids], list[tuple[Ids, Ids]]] = {}
    for pair in read:
        if pair not in order:
            order[pair] = _pieces(*pair, shapes.widths[-1])
    flat = sorted({piece for pieces in order.values() for piece in pieces})
    cuts = shared_beginnings([prompt[:-1] for prompt, _ in flat], config.chunk)
    pieces = [_Piece(*piece, at) for piece, at in zip(flat, cuts, strict=True)]
    # Of its own: the engine's counts what was read to generate.
    counted = EngineProfile()
    cache = PrefixCache(spec, weights, config, length, counted)
    scores: dict[tuple[Ids, Ids], np.ndarray] = {}
    told = 0
    for group in _groups(cache, pieces, shapes.widths[-1]):
        cache.prepare([request for request, _ in group])
        scores.update(_score_group(spec, weights, config, cache, shapes, group, counted))
        if progress:
            done = len(scores) * len(read) // len(pieces)
            progress(done - told)
            told = done
    profile.scored_tokens += sum(len(prompt) + len(target) for prompt, target in read)
    profile.scoring_tokens += counted.prompt_tokens
    profile.scoring_padded += counted.padded_tokens
    return [np.concatenate([scores[piece] for piece in order[pair]]) for pair in read]


def shared_beginnings(sequences: Sequence[Ids], least: int) -> list[tuple[int, ...]]:
    """Where sequences part: lengths of the beginnings that each shares with others.

    Args:
      sequences: sorted.
      least: tokens that a shared beginning must add to the one before it.

    Returns:
      For each sequence the lengths, ascending, of its beginnings that it shares with another and
      after which not all go on alike: the inner nodes of the compressed trie above it.
    """
    common = [0, *(_common(a, b) for a, b in itertools.pairwise(sequences))]
    cuts: list[list[int]] = [[] for _ in sequences]
    ranges = [(0, len(sequences))]
    # A list of work, not recursion: a trie may be as deep as it has leaves.
    while ranges:
        first, end = ranges.pop()
        if end - first < 2:
            continue
        depth = min(common[first + 1 : end])
        if depth - (cuts[first][-1] if cuts[first] else 0) >= least:
            for i in range(first, end):
                cuts[i].append(depth)
        inner = [i for i in range(first + 1, end) if common[i] == depth]
        ranges += itertools.pairwise([first, *inner, end])
    return [tuple(each) for each in cuts]


def _common(a: Ids, b: Ids) -> int:
    """How many tokens two sequences begin with alike."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _pieces(prompt: Ids, target: Ids, most: int) -> list[tuple[Ids, Ids]]:
    """A long target as several, each after all that stands before it (the chain rule)."""
    whole = prompt + target
    return [(whole[: len(prompt) + i], target[i : i + most]) for i in range(0, len(target), most)]


def _groups(cache: PrefixCache, pieces: Sequence[_Piece], most: int):
    """Requests in order, as many together as the cache holds prefixes of, beside their pieces."""
    group: list[tuple[Request, _Piece]] = []
    needed: frozenset[Ids] = frozenset()
    for i, piece in enumerate(pieces):
        *shared, prefix = piece.cuts or (0,)
        if len(piece.prompt) - prefix + len(piece.target) - 1 > most:
            # Nobody shares the rest, but it is too long to be computed with the target.
            shared, prefix = [n for n in (*shared, prefix) if n], len(piece.prompt) - 1
            shared = [n for n in shared if n < prefix]
        request = Request(str(i), piece.prompt, prefix, _NOTHING_DRAWN, 0, tuple(shared))
        wanted = needed | frozenset(cache.prefixes.chain(request))
        if group and not cache.prefixes.fits(wanted):
            yield group
            group, wanted = [], frozenset(cache.prefixes.chain(request))
        group.append((request, piece))
        needed = wanted
    if group:
        yield group


def _score_group(
    spec: Spec,
    weights: dict[str, Weight],
    config: EngineConfig,
    cache: PrefixCache,
    shapes: Shapes,
    group: Sequence[tuple[Request, _Piece]],
    profile: EngineProfile,
) -> dict[tuple[Ids, Ids], np.ndarray]:
    """The scores of pieces whose prefixes are in the cache."""
    by_shape: dict[tuple[int, int], list[tuple[Request, _Piece]]] = {}
    for request, piece in group:
        width = shapes.width(len(_suffix(request, piece)))
        live = shapes.live(request.prefix_len + width) if request.prefix_len else width
        by_shape.setdefault((width, live), []).append((request, piece))
    handed = []
    for (width, live), members in sorted(by_shape.items()):
        rows = config.rows(width, config.admit_rows)
        for start in range(0, len(members), rows):
            some = members[start : start + rows]
            batch = _batch(cache, some, rows, width)
            placed = layout.place(batch._replace(count=None), spec.mesh)
            scored = _score(spec, weights, cache.pool, placed._replace(count=batch.count), live)
            handed.append((some, scored))
            profile.prompt_tokens += sum(len(_suffix(*each)) for each in some)
            profile.padded_tokens += batch.suffix.size
    # Read only now, so that the device does not wait for the host between the batches.
    scores = {}
    for some, scored in handed:
        flat, at = np.asarray(scored), 0
        for _, piece in some:
            scores[piece.prompt, piece.target] = flat[at : at + len(piece.target)]
            at += len(piece.target)
    return scores


def _suffix(request: Request, piece: _Piece) -> Ids:
    """What is computed behind the prefix: nothing has to follow the last token of a target."""
    return piece.prompt[request.prefix_len :] + piece.target[:-1]


def _batch(
    cache: PrefixCache, members: Sequence[tuple[Request, _Piece]], rows: int, width: int
) -> _Batch:
    where = filled_columns(
        rows,
        row=([cache.prefixes.row(request) for request, _ in members], np.int32, 0),
        start=([request.prefix_len for request, _ in members], np.int32, 0),
    )
    suffix = np.zeros((rows, width), np.int32)
    at: list[int] = []
    targets: list[int] = []
    for i, (request, piece) in enumerate(members):
        ids = _suffix(request, piece)
        suffix[i, : len(ids)] = ids
        first = i * width + len(piece.prompt) - request.prefix_len - 1
        at += range(first, first + len(piece.target))
        targets += piece.target
    flat = filled_columns(rows * width, at=(at, np.int32, 0), target=(targets, np.int32, 0))
    return _Batch(**where, suffix=suffix, **flat, count=np.int32(len(targets)))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _score(
    spec: Spec, weights: dict[str, Weight], pool: KVCache, batch: _Batch, live: int
) -> jax.Array:
    """[R * T] f32 log-probabilities of the targets, in their order; zero behind the last."""
    model = Transformer(spec.config, weights, spec.mesh)
    hidden, _ = model.extend(
        batch.suffix, positions_of(batch.start, batch.suffix), forked(pool, batch.row, live)
    )
    hidden = hidden.reshape(-1, hidden.shape[-1])
    N = hidden.shape[0]
    size = min(_POSITIONS, N)
    padding = [(0, -N % size)]
    at, target = jnp.pad(batch.at, padding), jnp.pad(batch.target, padding)

    def chunk(i: jax.Array, scores: jax.Array) -> jax.Array:
        some = jax.lax.dynamic_slice(at, (i * size,), (size,))
        own = own_logprobs(model, hidden[some], jax.lax.dynamic_slice(target, (i * size,), (size,)))
        return jax.lax.dynamic_update_slice(scores, own, (i * size,))

    # Headers and padding before and between the targets take no logits.
    chunks = -(-batch.count // size)
    return jax.lax.fori_loop(0, chunks, chunk, jnp.zeros(at.shape))
