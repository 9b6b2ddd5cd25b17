"""Whether several processes were given the same list of calls, at the price of a few bytes."""

import array
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from arkjax.errors import DataError
from arkjax.sampling.params import Request

# What makes a call, by the name that a message gives it.
_PARTS = {
    "ids": lambda request: repr(request.id).encode(),
    "prompts": lambda request: array.array("q", request.prompt_ids).tobytes(),
    "prefixes": lambda request: repr((request.prefix_len, request.shared)).encode(),
    "sampling": lambda request: repr(request.sampling).encode(),
    "seeds": lambda request: repr(request.seed).encode(),
}
_SIZE = 8


def digests(requests: Sequence[Request]) -> dict[str, str]:
    """What the list has of each part of a call, in a few letters."""
    made = {"number of calls": str(len(requests))}
    return made | {
        name: _digest(part(request) for request in requests) for name, part in _PARTS.items()
    }


def each_digest(requests: Sequence[Request]) -> bytes:
    """Eight bytes for each call."""
    whole = (_digest(part(request) for part in _PARTS.values()) for request in requests)
    return b"".join(map(bytes.fromhex, whole))


def differing(told: Mapping[int, Mapping[str, str]]) -> tuple[int, list[str]] | None:
    """The first process that says other things than the very first one, and in what; or None."""
    first = next(iter(told.values()))
    for process, about in told.items():
        names = [name for name in first if about.get(name) != first[name]]
        if names:
            return process, names
    return None


def refuse(
    told: Mapping[int, Mapping[str, str]],
    difference: tuple[int, list[str]],
    each: Mapping[int, bytes],
    requests: Sequence[Request],
) -> None:
    """Raise DataError that says where the lists of two processes differ.

    Args:
      told: what `digests`, and more, gave in each process.
      difference: of `differing`.
      each: what `each_digest` gave in each process.
      requests: the list of this process.
    """
    process, names = difference
    first = next(iter(told))
    about = ", ".join(
        f"{name} ({told[process].get(name)} and {told[first][name]})"
        if name == "number of calls"
        else name
        for name in names
    )
    calls = [_cut(each[p]) for p in (process, first)]
    at = next((i for i, (a, b) in enumerate(zip(*calls, strict=False)) if a != b), None)
    where = ""
    if at is not None:
        where = f"; the first call that differs is number {at}, here {requests[at].id}"
    raise DataError(
        f"process {process} and process {first} were asked for different things: they differ in "
        f"{about}{where}. Call `generate` with the same list in every process"
    )


def _cut(data: bytes) -> list[bytes]:
    return [data[i : i + _SIZE] for i in range(0, len(data), _SIZE)]


def _digest(parts: Iterable[bytes]) -> str:
    state = hashlib.blake2b(digest_size=_SIZE)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
