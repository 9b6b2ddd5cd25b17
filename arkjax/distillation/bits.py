"""Small whole numbers in as few bits as they need: token ids on the disk."""

import numpy as np


def bits_for(count: int) -> int:
    """The fewest bits that hold every number below `count`: 17 up to 131,072, 18 for 151,936."""
    return max(1, (count - 1).bit_length())


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `pack` makes of `count` numbers."""
    return -(-count * bits // 8)


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Numbers below 2^bits, `[..., n]`, to bytes `[..., ceil(n * bits / 8)]`, at most 32 bits each.

    Number i takes the bits from i * bits on, the lowest first; bits of the last byte that are left
    over are 0. So eight numbers always fill `bits` whole bytes.
    """
    values = np.asarray(values)
    n = values.shape[-1]
    groups = -(-n // 8)
    wide = np.zeros((*values.shape[:-1], groups * 8), _word(bits))
    wide[..., :n] = values
    wide = wide.reshape(*values.shape[:-1], groups, 8)
    packed = np.zeros((*values.shape[:-1], groups, bits), np.uint8)
    for place, first, shift, count in _places(bits):
        shifted = wide[..., place] << wide.dtype.type(shift)
        for byte in range(count):
            # The cast keeps the lowest eight bits.
            part = (shifted >> wide.dtype.type(8 * byte)).astype(np.uint8)
            packed[..., first + byte] |= part
    return packed.reshape(*values.shape[:-1], groups * bits)[..., : packed_bytes(n, bits)]


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` numbers that `pack` made `[..., n]` bytes of: `[..., count]` int32."""
    groups = -(-count // 8)
    size = packed_bytes(count, bits)
    if size == groups * bits:
        packed = np.ascontiguousarray(packed[..., :size])
    else:
        whole = np.zeros((*packed.shape[:-1], groups * bits), np.uint8)
        whole[..., :size] = packed[..., :size]
        packed = whole
    packed = packed.reshape(*packed.shape[:-1], groups, bits)
    word = _word(bits)
    values = np.empty((*packed.shape[:-1], 8), np.int32)
    for place, first, shift, number in _places(bits):
        joined = packed[..., first].astype(word)
        for byte in range(1, number):
            joined |= packed[..., first + byte].astype(word) << word(8 * byte)
        values[..., place] = (joined >> word(shift)) & word(2**bits - 1)
    return values.reshape(*values.shape[:-2], groups * 8)[..., :count]


def _word(bits: int) -> type[np.unsignedinteger]:
    """A type that holds a number beside the up to seven bits before it."""
    return np.uint32 if bits + 7 <= 32 else np.uint64


def _places(bits: int) -> list[tuple[int, int, int, int]]:
    """Of each of eight numbers: its place, first byte, first bit in that, and how many bytes."""
    places = []
    for place in range(8):
        first, shift = divmod(place * bits, 8)
        places.append((place, first, shift, -(-(shift + bits) // 8)))
    return places
