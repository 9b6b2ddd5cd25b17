"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

A record is its length as a 64-bit integer, the masked CRC-32C of those eight bytes, the bytes, and
their masked CRC-32C, all little-endian (tensorflow/core/lib/io/record_writer.h). An example is a
protocol buffer of three levels (tensorflow/core/example/feature.proto).
"""

import functools
import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed.
_MASK_DELTA = 0xA282EAD8


def write_records(file: BinaryIO, records: Sequence[bytes]) -> int:
    """Append records to a file; returns the bytes written."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    checks = masked_crc32c([*lengths, *records])
    n, written = len(records), 0
    for i, (length, record) in enumerate(zip(lengths, records, strict=True)):
        data = b"".join(
            (length, struct.pack("<I", checks[i]), record, struct.pack("<I", checks[n + i]))
        )
        file.write(data)
        written += len(data)
    return written


def masked_crc32c(messages: Sequence[bytes]) -> list[int]:
    """The masked CRC-32C of each message of four bytes or more, many at a time.

    Messages are laid flush right in one array, and eight bytes of all of them go through the tables
    in one step. A register of zeros stays zero over zeros, so that what is laid before a message
    does not count; beginning with ones, as CRC-32C does, is inverting the first four bytes.
    """
    found = np.zeros(len(messages), np.uint32)
    order = sorted(range(len(messages)), key=lambda i: len(messages[i]))
    # Few in one array, of similar lengths: most of it is then messages, and it stays in the cache.
    for start in range(0, len(order), 256):
        some = order[start : start + 256]
        found[some] = _crc32c([messages[i] for i in some])
    turned = (found >> np.uint32(15)) | (found << np.uint32(17))
    return (turned + np.uint32(_MASK_DELTA)).tolist()


def _crc32c(messages: Sequence[bytes]) -> np.ndarray:
    width = -(-max(map(len, messages)) // 8) * 8
    rows = np.zeros((len(messages), width), np.uint8)
    for row, message in zip(rows, messages, strict=True):
        data = np.frombuffer(message, np.uint8)
        row[width - len(data) :] = data
        row[width - len(data) : width - len(data) + 4] ^= 0xFF
    tables = _tables()
    words = np.ascontiguousarray(rows.view("<u4").T)
    register = np.zeros(len(messages), np.uint32)
    for at in range(0, len(words), 2):
        low, high = words[at] ^ register, words[at + 1]
        register = np.zeros_like(low)
        for byte in range(4):
            shift = np.uint32(8 * byte)
            register ^= tables[7 - byte][(low >> shift) & np.uint32(0xFF)]
            register ^= tables[3 - byte][(high >> shift) & np.uint32(0xFF)]
    return ~register


@functools.cache
def _tables() -> np.ndarray:
    """[8, 256]: what a byte does to the register that has k more bytes to pass after it."""
    tables = np.zeros((8, 256), np.uint32)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        tables[0, byte] = value
    for k in range(1, 8):
        before = tables[k - 1]
        tables[k] = tables[0][before & np.uint32(0xFF)] ^ (before >> np.uint32(8))
    return tables


def example(
    texts: Mapping[str, Sequence[bytes]],
    integers: Mapping[str, Sequence[int]],
    floats: Mapping[str, np.ndarray],
) -> bytes:
    """A serialized `tf.train.Example` whose features have these values, none of them or many."""
    features = {
        **{name: _field(1, b"".join(_field(1, v) for v in texts[name])) for name in texts},
        **{name: _field(2, _packed(floats[name].astype("<f4").tobytes())) for name in floats},
        **{name: _field(3, _packed(b"".join(map(_varint, integers[name])))) for name in integers},
    }
    entries = [
        _field(1, _field(1, name.encode()) + _field(2, features[name])) for name in sorted(features)
    ]
    return _field(1, b"".join(entries))


def _packed(data: bytes) -> bytes:
    """Numbers of a list, one after the other; a list of none says so by being there, empty."""
    return _field(1, data) if data else b""


def _field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer whose value has a length."""
    return bytes((number << 3 | 2,)) + _varint(len(data)) + data


@functools.lru_cache(maxsize=2**18)
def _varint(value: int) -> bytes:
    # Negative integers are written as their two's complement in 64 bits.
    value &= 2**64 - 1
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
