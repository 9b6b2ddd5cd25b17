"""Arrays on a mesh that are filled from files, piece by piece."""

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Sharding

from arkjax.models.huggingface.safetensors_files import Box, StoredTensor, read_into

# Reads from a warm cache are bound by memory: few threads reach its speed.
_THREADS = 2 if (os.cpu_count() or 1) < 8 else 4
_PIECE_BYTES = 64 * 2**20
_ALIGNMENT = 64  # bytes; XLA adopts host memory that is aligned so, and copies any other


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some rows of a tensor, to be read.

    Attributes:
      size: of what is read, in bytes.
      read: reads it; pieces may be read side by side.
      store: then puts it where it belongs; pieces are stored one after another.
    """

    size: int
    read: Callable[[], None]
    store: Callable[[], None]


class Filled(Protocol):
    """An array that is being filled."""

    def pieces(self, index: tuple[int, ...], tensor: StoredTensor) -> Iterator[Piece]:
        """What this process has to read of a tensor that is the part `index` of the array."""

    def array(self) -> jax.Array:
        """The filled array."""


def empty(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Filled:
    """An array to be filled, of the kind that suits its devices."""
    on_host = all(device.platform == "cpu" for device in sharding.addressable_devices)
    return (HostArray if on_host else DeviceArray)(shape, dtype, sharding)


def fill(pieces: Iterable[Piece], room: int, advance: Callable[[int], None]) -> None:
    """Read and store all pieces, with threads that read ahead.

    Args:
      pieces: to be read in this order.
      room: bytes that may be read and not yet stored; a larger piece is read alone.
      advance: told the bytes of each piece that is stored.
    """
    waiting: collections.deque[tuple[Piece, Future]] = collections.deque()
    held = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for piece in pieces:
                while waiting and held + piece.size > room:
                    held -= _finish(*waiting.popleft(), advance)
                waiting.append((piece, pool.submit(piece.read)))
                held += piece.size
            while waiting:
                _finish(*waiting.popleft(), advance)
        finally:
            pool.shutdown(cancel_futures=True)


def _finish(piece: Piece, reading: Future, advance: Callable[[int], None]) -> int:
    reading.result()
    piece.store()
    advance(piece.size)
    return piece.size


class HostArray:
    """On CPU devices: read into host memory that XLA then adopts as the shards, without a copy.

    Devices that hold the same part share its memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding):
        self._shape, self._sharding = shape, sharding
        self._shards = _shards(shape, sharding)
        self._memory = {box: _aligned(_extent(box), dtype) for box in self._shards}

    def pieces(self, index: tuple[int, ...], tensor: StoredTensor) -> Iterator[Piece]:
        """See `Filled`."""
        shape = self._shape[len(index) :]
        for size, cuts in _cuts(self._shards, shape, index, tensor):
            targets = []
            for cut in cuts:
                rows = self._memory[cut.shard][cut.starts[: len(index)]]
                first = cut.starts[len(index)]
                targets.append((cut.box, rows[first : first + _extent(cut.box)[0]]))
            yield Piece(size, functools.partial(read_into, tensor, shape, targets), _nothing)

    def array(self) -> jax.Array:
        """See `Filled`."""
        placed = [
            jax.device_put(self._memory[shard], device)
            for shard, devices in self._shards.items()
            for device in devices
        ]
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, placed)


class DeviceArray:
    """On other devices: shards that start as zeros there, and are overwritten in place."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding):
        self._shape, self._dtype, self._sharding = shape, dtype, sharding
        self._shards = _shards(shape, sharding)
        self._arrays = {
            device: jax.numpy.zeros(_extent(shard), dtype, device=device)
            for shard, devices in self._shards.items()
            for device in devices
        }

    def pieces(self, index: tuple[int, ...], tensor: StoredTensor) -> Iterator[Piece]:
        """See `Filled`."""
        shape = self._shape[len(index) :]
        for size, cuts in _cuts(self._shards, shape, index, tensor):
            staged: list[np.ndarray] = []

            def read(cuts: list[_Cut] = cuts, staged: list[np.ndarray] = staged) -> None:
                staged.extend(np.empty(_extent(cut.box), self._dtype) for cut in cuts)
                boxes = [cut.box for cut in cuts]
                read_into(tensor, shape, list(zip(boxes, staged, strict=True)))

            def store(cuts: list[_Cut] = cuts, staged: list[np.ndarray] = staged) -> None:
                for cut, part in zip(cuts, staged, strict=True):
                    part = part.reshape((1,) * len(index) + part.shape)
                    starts = np.array(cut.starts, np.int32)
                    for device in self._shards[cut.shard]:
                        there = jax.device_put(part, device)
                        self._arrays[device] = _overwrite(self._arrays[device], there, starts)
                # The transfer reads from this memory until it ends.
                jax.block_until_ready(
                    [self._arrays[d] for c in cuts for d in self._shards[c.shard]]
                )
                staged.clear()

            yield Piece(size, read, store)

    def array(self) -> jax.Array:
        """See `Filled`."""
        placed = list(self._arrays.values())
        return jax.make_array_from_single_device_arrays(self._shape, self._sharding, placed)


@functools.partial(jax.jit, donate_argnums=0)
def _overwrite(array: jax.Array, part: jax.Array, starts: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(array, part, [starts[i] for i in range(array.ndim)])


def _nothing() -> None:
    pass


def _shards(shape: tuple[int, ...], sharding: Sharding) -> dict[Box, list[jax.Device]]:
    """The parts that this process's devices hold, and which devices hold each."""
    shards: dict[Box, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        box = tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
        shards.setdefault(box, []).append(device)
    return shards


class _Cut(NamedTuple):
    """What one shard wants of some rows of a tensor: a box of the tensor, and where it goes."""

    shard: Box
    box: Box
    starts: tuple[int, ...]


def _cuts(
    shards: Iterable[Box], shape: tuple[int, ...], index: tuple[int, ...], tensor: StoredTensor
) -> Iterator[tuple[int, list[_Cut]]]:
    """Bytes of some rows of a tensor, taken as of this shape, and what is wanted of these rows."""
    row = tensor.size // shape[0]
    step = max(1, _PIECE_BYTES // row)
    lead = len(index)
    holding = [s for s in shards if all(a <= i < b for i, (a, b) in zip(index, s, strict=False))]
    for first in range(0, shape[0], step):
        last, cuts = min(first + step, shape[0]), []
        for shard in holding:
            (low, high), *columns = shard[lead:]
            begin, end = max(low, first), min(high, last)
            if begin < end:
                outer = (i - a for i, (a, _) in zip(index, shard, strict=False))
                starts = (*outer, begin - low, *(0 for _ in columns))
                cuts.append(_Cut(shard, ((begin, end), *columns), starts))
        if cuts:
            read = max(c.box[0][1] for c in cuts) - min(c.box[0][0] for c in cuts)
            yield read * row, cuts


def _extent(box: Box) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in box)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory that XLA can adopt."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
