"""What a tape keeps of each predicted position, and how it looks on the disk.

Only positions that predict something, and whose gate is not 0, are written, one after the other.
In a shard of n rows with P such positions:

    predicted.npy     [n, ceil(T / 8)] uint8, a bit a position, the lowest first
    starts.npy        [n + 1] int64, row r has the positions starts[r] to starts[r + 1]
    gate.npy          [P] float32, where the teacher gives one

    top_k:    top_ids.npy       [P, ceil(k * bits / 8)] uint8, ids as `bits.pack` writes them
              top_logprobs.npy  [P, k]
              log_tail.npy      [P] float32
    sampled:  distinct.npy      [P] uint8 or uint16, how many different ids were drawn
              draw_starts.npy   [n + 1] int64, the same for rows, rounded up to eight
              ids.npy           bytes of all rows' packed ids
              counts.npy        uint8 or uint16, how often each was drawn, 0 in what rounds up
    hidden:   hidden.npy        [P, Dt]

NumPy files know no bfloat16: its bits stand there as uint16.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np

from arkjax.distillation.bits import bits_for, pack, unpack
from arkjax.distillation.targets import HiddenTarget, SampledTarget, TapeTarget
from arkjax.errors import ConfigError, DataError

TapeKind = Literal["top_k", "sampled", "hidden"]
Recorded = TapeTarget | SampledTarget | HiddenTarget

KINDS: dict[str, type] = {"top_k": TapeTarget, "sampled": SampledTarget, "hidden": HiddenTarget}
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
MOST_DRAWS = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class TapeFormat:
    """What a tape keeps.

    Attributes:
      kind: "top_k", the most probable tokens and the mass of all others: the exact divergence of
        the coarsened distributions, any objective. "sampled", tokens drawn from it: an
        unbiased gradient of the forward KL at few bytes. "hidden", the last hidden states: the
        whole distribution, any objective, at 2 or 4 bytes a unit of width; the teacher's head is
        needed again when a student is trained.
      k: tokens of "top_k".
      draws: N, draws of "sampled", with repetition.
      seed: of the draws.
      dtype: of log-probabilities or hidden states: "float16" (log-probabilities are off by less
        than .004 nat down to p = 3e-4), "bfloat16" or "float32". "sampled" holds neither.
      kd_temperature: at which probabilities are taken; hidden states serve any.

    Raises:
      ConfigError: a field does not fit the kind.
    """

    kind: TapeKind = "top_k"
    k: int = 0
    draws: int = 0
    seed: int = 0
    dtype: str = "float16"
    kd_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"tape kind is {self.kind!r}; expected one of {', '.join(KINDS)}")
        if self.dtype not in DTYPES:
            raise ConfigError(f"tape dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if self.kind == "top_k" and self.k < 1:
            raise ConfigError(f"tape k is {self.k}; expected at least one token")
        if self.kind == "sampled" and not 1 <= self.draws <= MOST_DRAWS:
            raise ConfigError(f"tape draws are {self.draws}; expected 1 to {MOST_DRAWS}")
        if self.seed < 0:
            raise ConfigError(f"tape seed is {self.seed}; expected 0 or more")
        if not self.kd_temperature > 0:
            raise ConfigError(f"tape kd_temperature is {self.kd_temperature}; expected above 0")

    def meta(self, vocab_size: int) -> dict[str, Any]:
        """What `meta.json` says of it: only what changes the tape."""
        common = {"tape_kind": self.kind, "vocab_size": vocab_size}
        if self.kind == "hidden":
            return {**common, "dtype": self.dtype}
        common |= {"kd_temperature": float(self.kd_temperature), "id_bits": bits_for(vocab_size)}
        if self.kind == "sampled":
            return {**common, "draws": self.draws, "seed": self.seed}
        if self.k > vocab_size:
            raise ConfigError(
                f"tape k is {self.k}; expected 1 to the vocabulary's {vocab_size} tokens"
            )
        return {**common, "k": self.k, "dtype": self.dtype}


def encode(
    meta: Mapping[str, Any], target: Recorded, valid: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A batch as the columns of its shard, and what the shard's meta keeps of it.

    Args:
      meta: of the tape.
      target: of at least B rows; rows beyond B are left out.
      valid: `[B, T]` bool, the positions to keep.

    Returns:
      Columns by name, without `predicted`, `starts` and `gate`; `draw_starts [B]` holds the end of
      each row, from the batch's own start on. And `slots`, the most different ids of a position
      ("sampled"), or `width` and `soft_cap` ("hidden").

    Raises:
      DataError: the target is no distribution, of another kind, or of other shapes.
    """
    kind = meta["tape_kind"]
    if not isinstance(target, KINDS[kind]):
        raise DataError(
            f"the teacher returned a {type(target).__name__}; "
            f"a tape of kind {kind!r} is written from a {KINDS[kind].__name__}"
        )
    count = valid.shape[0]
    if kind == "top_k":
        arrays = (target.top_ids, target.top_logprobs, target.log_tail)
        return _encode_top_k(meta, *(np.asarray(x)[:count] for x in arrays), valid), {}
    if kind == "sampled":
        return _encode_sampled(
            meta, np.asarray(target.ids)[:count], np.asarray(target.weights)[:count], valid
        )
    hidden = _encode_hidden(meta, np.asarray(target.hidden)[:count], valid)
    return {"hidden": hidden}, {"width": hidden.shape[-1], "soft_cap": target.soft_cap}


def decode(
    meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray], row: int, slots: int
) -> dict[str, np.ndarray]:
    """The columns of one row of a shard, `[P, ...]` for its P predicted positions.

    By their names in the target: `top_ids`, `top_logprobs`, `log_tail`; or `ids [P, slots]` and
    `weights`; or `hidden`; and `gate` where the shard has it.
    """
    here = slice(int(arrays["starts"][row]), int(arrays["starts"][row + 1]))
    columns = {"gate": np.asarray(arrays["gate"][here])} if "gate" in arrays else {}
    if meta["tape_kind"] == "top_k":
        dtype = DTYPES[meta["dtype"]]
        return columns | {
            "top_ids": unpack(arrays["top_ids"][here], meta["id_bits"], meta["k"]),
            "top_logprobs": np.asarray(arrays["top_logprobs"][here]).view(dtype),
            "log_tail": np.asarray(arrays["log_tail"][here]),
        }
    if meta["tape_kind"] == "hidden":
        hidden = np.asarray(arrays["hidden"][here]).view(DTYPES[meta["dtype"]])
        return columns | {"hidden": hidden}
    distinct, bits = np.asarray(arrays["distinct"][here]), meta["id_bits"]
    first, total = int(arrays["draw_starts"][row]), int(distinct.sum(dtype=np.int64))
    packed = arrays["ids"][first // 8 * bits : -(-(first + total) // 8) * bits]
    used = np.arange(slots) < distinct[:, None]
    ids, weights = np.zeros(used.shape, np.int32), np.zeros(used.shape, np.float32)
    ids[used] = unpack(packed, bits, total)
    weights[used] = arrays["counts"][first : first + total] / np.float32(meta["draws"])
    return columns | {"ids": ids, "weights": weights}


def empty_columns(
    meta: Mapping[str, Any], shape: tuple[int, int], slots: int, width: int
) -> dict[str, np.ndarray]:
    """Zeros for rows and positions `[B, T]`, by the names that `decode` gives."""
    if meta["tape_kind"] == "top_k":
        return {
            "top_ids": np.zeros((*shape, meta["k"]), np.int32),
            "top_logprobs": np.zeros((*shape, meta["k"]), DTYPES[meta["dtype"]]),
            "log_tail": np.zeros(shape, np.float32),
        }
    if meta["tape_kind"] == "hidden":
        return {"hidden": np.zeros((*shape, width), DTYPES[meta["dtype"]])}
    return {
        "ids": np.zeros((*shape, slots), np.int32),
        "weights": np.zeros((*shape, slots), np.float32),
    }


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """x in a tape's dtype as a NumPy file can hold it: of bfloat16 its bits.

    What is not finite stays so; what is too large becomes infinite.
    """
    if dtype != "bfloat16":
        # An overflow is for the caller to find.
        with np.errstate(over="ignore"):
            return x.astype(DTYPES[dtype], copy=False)
    if x.dtype == ml_dtypes.bfloat16:
        return x.view(np.uint16)
    # To the nearest, ties to even, by whole numbers: ml_dtypes takes ten times as long.
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    up = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    return np.where(np.isnan(x), np.uint16(0x7FC0), (up >> 16).astype(np.uint16))


def widened(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Numbers of a tape in another dtype, of the head that they are multiplied with."""
    if x.dtype == ml_dtypes.bfloat16 and dtype == np.float32:
        return (x.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return x.astype(dtype, copy=False)


def _encode_top_k(
    meta: Mapping[str, Any],
    ids: np.ndarray,
    logprobs: np.ndarray,
    tail: np.ndarray,
    valid: np.ndarray,
) -> dict[str, np.ndarray]:
    shape, k = valid.shape, meta["k"]
    if ids.shape != (*shape, k) or logprobs.shape != (*shape, k) or tail.shape != shape:
        raise DataError(
            f"the teacher returned {ids.shape}, {logprobs.shape} and {tail.shape} for {shape} "
            f"positions and k = {k}; expected [B, T, k], [B, T, k] and [B, T]"
        )
    ids, logprobs, tail = ids[valid], logprobs[valid].astype(np.float32), tail[valid]
    _check_ids(ids, meta)
    mass = np.exp(logprobs, dtype=np.float64).sum(-1) + np.exp(tail, dtype=np.float64)
    if not np.all(np.abs(mass - 1.0) < 0.05):
        raise DataError(
            f"the teacher's probabilities sum to {mass[np.argmax(np.abs(mass - 1.0))]:.3g}, not 1: "
            "its weights may be damaged, or its vocabulary padded"
        )
    lowest = float(ml_dtypes.finfo(DTYPES[meta["dtype"]]).min)
    return {
        "top_ids": pack(ids, meta["id_bits"]),
        "top_logprobs": rounded(np.maximum(logprobs, lowest), meta["dtype"]),
        "log_tail": tail.astype(np.float32),
    }


def _encode_sampled(
    meta: Mapping[str, Any], ids: np.ndarray, weights: np.ndarray, valid: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    draws = meta["draws"]
    if ids.shape != weights.shape or ids.shape[:-1] != valid.shape:
        raise DataError(
            f"the teacher returned {ids.shape} and {weights.shape} for {valid.shape} positions; "
            "expected ids and weights [B, T, n]"
        )
    scaled = weights[valid].astype(np.float64) * draws
    counts = np.rint(scaled)
    if not (np.abs(scaled - counts) < 0.01).all() or not (counts.sum(-1) == draws).all():
        raise DataError(
            f"the teacher's weights are not those of {draws} draws: times {draws} they must be "
            "whole numbers whose sum that is"
        )
    if not (counts >= 0).all():
        raise DataError("the teacher's weights are negative; expected counts over draws")
    used = counts > 0
    ids = ids[valid]
    _check_ids(ids[used], meta)
    small = np.uint8 if draws < 2**8 else np.uint16
    distinct = used.sum(-1)
    ends = np.cumsum(valid.sum(-1))
    packed, kept, totals = [], [], []
    for here in map(slice, [0, *ends[:-1]], ends):
        total = int(distinct[here].sum())
        room = (0, -total % 8)
        packed.append(pack(np.pad(ids[here][used[here]], room), meta["id_bits"]))
        kept.append(np.pad(counts[here][used[here]].astype(small), room))
        totals.append(total + room[1])
    columns = {
        "distinct": distinct.astype(small),
        "draw_starts": np.cumsum(totals, dtype=np.int64),
        "ids": np.concatenate(packed),
        "counts": np.concatenate(kept),
    }
    return columns, {"slots": int(distinct.max(initial=0))}


def _encode_hidden(meta: Mapping[str, Any], hidden: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if hidden.shape[:-1] != valid.shape:
        raise DataError(
            f"the teacher returned hidden states {hidden.shape} for {valid.shape} positions; "
            "expected [B, T, Dt]"
        )
    kept = rounded(hidden[valid], meta["dtype"])
    if meta["dtype"] == "bfloat16":
        finite = (kept & np.uint16(0x7F80)) != np.uint16(0x7F80)
    else:
        finite = np.isfinite(kept)
    if not finite.all():
        raise DataError(
            f"the teacher's hidden states are not finite in {meta['dtype']}: "
            "its weights may be damaged, or the tape's dtype too narrow (take bfloat16 or float32)"
        )
    return kept


def _check_ids(ids: np.ndarray, meta: Mapping[str, Any]) -> None:
    if ids.size and not (0 <= ids.min() and ids.max() < meta["vocab_size"]):
        raise DataError(f"the teacher returned token ids outside 0 to {meta['vocab_size'] - 1}")
