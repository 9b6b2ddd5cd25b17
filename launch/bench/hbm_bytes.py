"""Bytes that a compiled TPU program moves between a chip's memory (HBM) and its core.

XLA's own sum, "bytes accessed", also counts what moves to, from and within the memory of the core
(VMEM): a weight that is fetched there ahead of its use is counted five times. In the text of
a compiled program the layout of every array says where it lies: S(1) and above is not HBM. What
is counted here: every operand and result in HBM, once for each instruction that reads or writes it;
of an operand that is only sliced or gathered from, and of a result that is updated in place, the
part; of a kernel, what it says of itself. Of a conditional, the larger branch.
"""

import math
import re
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|bf16|[sufc]\d+\w*)\[([\d,]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota",
    "opt-barrier", "partition-id", "replica-id",
}  # fmt: skip
_PARTS = {"dynamic-slice", "slice", "gather"}
_IN_PLACE = {"dynamic-update-slice": 1, "scatter": 2}


class Instruction(NamedTuple):
    """A line of a program: its name, type, operation, operands, all that follows, whether root."""

    name: str
    result: str
    op: str
    operands: list[str]
    text: str
    root: bool


def step_bytes(program: str) -> tuple[int, int]:
    """What one turn of a program's outermost loop moves, and what the rest moves once.

    Args:
      program: text of a compiled program with one loop at its top. Loops within the loop count as
        one turn.
    """
    computations, entry = parse(program)
    (loop,) = [i for i in computations[entry] if i.op == "while"]
    body, condition = (called(loop, key)[0] for key in ("body", "condition"))
    inside = sum(_total(computations, name) for name in (body, condition))
    return inside, _total(computations, entry) - inside


def parse(program: str) -> tuple[dict[str, list[Instruction]], str]:
    """Instructions of every computation of a program by its name, and the first one's name."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith("HloModule"):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(re.sub(r"/\*.*?\*/", "", line.strip())):
            root, name, result, op, rest = found.groups()
            # Types of operands may stand before them; what follows the parenthesis is attributes.
            names = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            lines.append(Instruction(name, result, op, names, rest, bool(root)))
    return computations, entry


def _bytes(shape: str, everywhere: bool = False) -> int:
    """Of the arrays in a type, those in HBM, filled up to whole tiles as they lie there."""
    total = 0
    for kind, sizes, layout in _ARRAY.findall(shape):
        if not everywhere and re.search(r"S\([1-9]", layout):
            continue
        sizes = [int(size) for size in sizes.split(",") if size]
        order = re.match(r"\{([\d,]+):T\(([\d,]+)\)", layout)
        if order:
            axes = [int(axis) for axis in order[1].split(",")]
            tile = [int(size) for size in order[2].split(",")]
            for axis, size in zip(axes, reversed(tile), strict=False):
                sizes[axis] += -sizes[axis] % size
        bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])
        total += math.prod(sizes) * bits // 8
    return total


def called(instruction: Instruction, key: str) -> list[str]:
    """Names of the computations that an instruction calls by this attribute."""
    found = re.search(key + r"=\{?(%?[\w.\-]+(?:, ?%[\w.\-]+)*)", instruction.text)
    return [name.strip().lstrip("%") for name in found[1].split(",")] if found else []


def _total(computations: dict[str, list[Instruction]], name: str) -> int:
    shapes = shapes_of(computations, name)
    return sum(moved(computations, i, shapes) for i in computations[name])


def shapes_of(computations: dict[str, list[Instruction]], name: str) -> dict[str, str]:
    """The types of a computation's instructions by their names."""
    return {i.name: i.result for i in computations[name]}


def moved(
    computations: dict[str, list[Instruction]], i: Instruction, shapes: dict[str, str]
) -> int:
    """Bytes to and from memory of one instruction; shapes are those around it."""
    if i.op in _FREE or i.op.endswith(("-done", "-update")):
        return 0
    if i.op in ("while", "call"):
        names = called(i, "body") + called(i, "condition") + called(i, "to_apply")
        return sum(_total(computations, name) for name in names)
    if i.op == "conditional":
        names = called(i, "branch_computations") or [
            *called(i, "true_computation"), *called(i, "false_computation")
        ]  # fmt: skip
        return max(_total(computations, name) for name in names)
    estimate = re.search(r'"bytes_accessed":"(\d+)"', i.text)
    if estimate:
        return int(estimate[1])
    operands = [shapes.get(name, "") for name in i.operands]
    if i.op in ("copy-start", "slice-start", "dynamic-slice-start", "async-start"):
        # The result is a tuple of what is read, what is written and a word of state.
        written = _halves(i.result)[1]
        both = (_bytes(operands[0]) > 0) + (_bytes(written) > 0)
        return both * _bytes(written, everywhere=True)
    if i.op in _PARTS:
        return (_bytes(operands[0]) > 0) * _bytes(i.result, True) + _bytes(i.result)
    if i.op in _IN_PLACE:
        part = _bytes(shapes[i.operands[_IN_PLACE[i.op]]], True)
        return part * (1 + (_bytes(i.result) > 0))
    if i.op == "fusion":
        return _fused(computations, i, operands)
    return sum(map(_bytes, operands)) + _bytes(i.result)


def _halves(shape: str) -> list[str]:
    """The entries of the type of a tuple."""
    depth, entries = 0, [""]
    for c in shape[1:-1]:
        depth += (c in "({[") - (c in ")}]")
        if c == "," and depth == 0:
            entries.append("")
        else:
            entries[-1] += c
    return entries


def _fused(
    computations: dict[str, list[Instruction]], fusion: Instruction, operands: list[str]
) -> int:
    inside = computations[called(fusion, "calls")[0]]
    named = {i.name: i for i in inside}
    users: dict[str, list[Instruction]] = {}
    for i in inside:
        for name in set(i.operands):
            users.setdefault(name, []).append(i)

    def read(name: str, whole: int) -> int:
        """Of a value of `whole` bytes, those that its users read."""
        total = 0
        for user in users.get(name, []):
            # A copy between two names of one order in memory is a fusion onto its own operand.
            if user.op in ("bitcast", "reshape") or "output_to_operand_aliasing" in user.text:
                total += read(user.name, whole)
            elif user.op in _PARTS and user.operands[0] == name:
                total += _bytes(user.result, True)
            elif user.op == "fusion":
                into = computations[called(user, "calls")[0]]
                number = user.operands.index(name)
                total += _parameter_read(computations, into, number, whole)
            elif not (user.op in _IN_PLACE and user.operands[0] == name):
                return whole
        return min(total, whole)

    total = 0
    parameters = {_number(i): i.name for i in inside if i.op == "parameter"}
    for number, shape in enumerate(operands):
        whole = _bytes(shape)
        total += read(parameters[number], whole) if whole else 0

    root = next(i for i in inside if i.root)
    results = [named[name] for name in root.operands] if root.op == "tuple" else [root]
    shapes = _halves(fusion.result) if root.op == "tuple" else [fusion.result]
    for result, shape in zip(results, shapes, strict=True):
        while result.op == "bitcast" and result.operands[0] in named:
            result = named[result.operands[0]]
        part = result
        if result.op in _IN_PLACE:
            part = named[result.operands[_IN_PLACE[result.op]]]
        # A part is no larger than what it is written to.
        total += min(_bytes(part.result, True), _bytes(shape))
    return total


def _parameter_read(
    computations: dict[str, list[Instruction]],
    inside: list[Instruction],
    number: int,
    whole: int,
) -> int:
    """As `_fused` counts one operand, of a fusion within a fusion."""
    (name,) = [i.name for i in inside if i.op == "parameter" and _number(i) == number]
    uses = [i for i in inside if name in i.operands]
    if all(i.op in _PARTS and i.operands[0] == name for i in uses):
        return min(whole, sum(_bytes(i.result, True) for i in uses))
    return whole


def _number(parameter: Instruction) -> int:
    return int(parameter.text.split(")")[0])
