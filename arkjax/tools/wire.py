"""Values and messages between the two programs of `referee.py`.

The code that is tested may write whatever it likes: what is read here is data, and stays data.
"""

import collections
import datetime
import decimal
import fractions
import json
import os

MAX_MESSAGE = 2**22
"""Most bytes of a message."""
MAX_DEPTH = 60
"""How deep containers may be nested that are copied."""
GONE = "the code ended while it was tested, or took too long"


class CodeError(Exception):
    """The code did something that no value can say: it ended, or raised what is no Exception."""


# Types that are written as a name and data; what they are made of is in turn encoded.
_PARTS = {
    tuple: ("tuple", list, tuple),
    set: ("set", list, set),
    frozenset: ("frozenset", list, frozenset),
    collections.deque: ("deque", list, collections.deque),
    dict: ("dict", lambda x: [list(pair) for pair in dict.items(x)], dict),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    bytearray: ("bytearray", bytearray.hex, bytearray.fromhex),
    complex: ("complex", lambda x: [x.real, x.imag], lambda x: complex(*x)),
    range: ("range", lambda x: [x.start, x.stop, x.step], lambda x: range(*x)),
    decimal.Decimal: ("decimal", str, decimal.Decimal),
    fractions.Fraction: ("fraction", str, fractions.Fraction),
    datetime.datetime: ("datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: ("date", datetime.date.isoformat, datetime.date.fromisoformat),
}
_MAKE = {name: make for name, _, make in _PARTS.values()}


def encode(value, refer, depth=0):
    """A value as JSON can say it; `refer(object)` says what is none."""
    if depth > MAX_DEPTH:
        return refer(value)
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return {"int": hex(int(value))}
    if isinstance(value, float):
        return {"float": float.hex(float(value))}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [encode(item, refer, depth + 1) for item in list.__iter__(value)]
    for kind, (name, split, _) in _PARTS.items():
        if isinstance(value, kind):
            return {name: encode(split(value), refer, depth + 1)}
    return refer(value)


def decode(data, resolve):
    """The value of what `encode` wrote; `resolve(name, data)` finds what is none."""
    if isinstance(data, list):
        return [decode(item, resolve) for item in data]
    if not isinstance(data, dict):
        return data
    ((name, inner),) = data.items()
    if name == "int":
        return int(inner, 16)
    if name == "float":
        return float.fromhex(inner)
    if name in _MAKE:
        return _MAKE[name](decode(inner, resolve))
    return resolve(name, inner)


class Wire:
    """Messages of one line of JSON each, between the two programs."""

    def __init__(self, reading, writing):
        self.reading, self.writing = os.fdopen(reading, "rb"), os.fdopen(writing, "wb")

    def send(self, message):
        line = json.dumps(message).encode() + b"\n"
        if len(line) > MAX_MESSAGE:
            raise ValueError(f"a value takes more than {MAX_MESSAGE} bytes")
        try:
            self.writing.write(line)
            self.writing.flush()
        except OSError:
            raise CodeError(GONE) from None

    def receive(self):
        """The next message. Raises CodeError at the end of the stream or if it is no message."""
        try:
            line = self.reading.readline(MAX_MESSAGE + 1)
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise CodeError(GONE)
        return message
