"""How long a compiled TPU program must take at least, by what its chip can do.

Each instruction takes the longer of its arithmetic, at the matrix units' peak in bf16, and of its
traffic with the chip's memory (`hbm_bytes`); the sum over all that runs, loops as often as they
turn, is the time here. Nothing overlaps and nothing waits. Beside it stands the compiler's own
estimate of cycles, which also knows what exponentials cost.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from hbm_bytes import Instruction, called, moved, parse, shapes_of

# FLOP a second in bf16, bytes a second, cycles a second: cloud.google.com/tpu/docs, v5p and v6e.
CHIPS = {"v5p": (459e12, 2765e9, 1.75e9), "v6e": (918e12, 1640e9, 1.75e9)}


class Cost(NamedTuple):
    """Seconds of the roofline and of the compiler's cycles, FLOP, and bytes to and from memory."""

    seconds: float
    cycles_seconds: float
    flop: float
    bytes: float


def cost(program: str, chip: str, turns: int) -> Cost:
    """Of a compiled program's text; loops of unknown length turn `turns` times."""
    peak, bandwidth, clock = CHIPS[chip]
    computations, entry = parse(program)
    seconds = cycles = flop = traffic = 0.0
    for times, i, shapes in _executed(computations, entry, turns):
        arithmetic, bytes_moved = _flop(computations, i, shapes), moved(computations, i, shapes)
        seconds += times * max(arithmetic / peak, bytes_moved / bandwidth)
        found = re.search(r'"estimated_cycles":"(\d+)"', i.text)
        cycles += times * (int(found[1]) if found else 0)
        flop += times * arithmetic
        traffic += times * bytes_moved
    return Cost(seconds, cycles / clock, flop, traffic)


def _executed(
    computations: dict[str, list[Instruction]], name: str, turns: int, times: int = 1
) -> Iterator[tuple[int, Instruction, dict[str, str]]]:
    """Every instruction that runs, how often, and the types of what stands around it."""
    shapes = shapes_of(computations, name)
    for i in computations[name]:
        if i.op == "while":
            known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', i.text)
            again = times * (int(known[1]) if known else turns)
            for key in ("body", "condition"):
                yield from _executed(computations, called(i, key)[0], turns, again)
        elif i.op == "call":
            yield from _executed(computations, called(i, "to_apply")[0], turns, times)
        else:
            yield times, i, shapes


def _flop(
    computations: dict[str, list[Instruction]], i: Instruction, shapes: dict[str, str]
) -> float:
    """Of the matrix products in an instruction: [m, k] with [k, n] are 2 m k n."""
    if i.op in ("convolution", "dot"):
        sizes = [_size(shapes[name]) for name in i.operands[:2]] + [_size(i.result)]
        return 2 * math.sqrt(math.prod(sizes))
    if i.op != "fusion":
        return 0.0
    inside = called(i, "calls")[0]
    shapes = shapes_of(computations, inside)
    return sum(_flop(computations, part, shapes) for part in computations[inside])


def _size(shape: str) -> int:
    return math.prod(int(n) for n in re.search(r"\[([\d,]*)\]", shape)[1].split(",") if n)
