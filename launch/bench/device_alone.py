"""What the engine hands to the device, recorded, and run again without the host's part."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from arkjax.sampling import decode

PROGRAMS = ("extend_prefixes", "prefill", "decode_block", "resize")


class Recording:
    """The programs of engines in the order in which they were handed over, with their arguments.

    An argument is a number or an array of the host; or what an earlier program made; or an array
    that was there before, such as weights and empty caches, of which a copy is kept: caches are
    donated.
    """

    def __init__(self) -> None:
        self._programs: list[tuple[Callable, Any, list[tuple[str, Any]]]] = []
        # Arrays by their ids, which stay theirs as long as the arrays are held here.
        self._made: dict[int, int] = {}
        self._before: dict[int, jax.Array] = {}
        self._held: list[jax.Array] = []

    def __len__(self) -> int:
        return len(self._programs)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Record in a `with` block."""
        with contextlib.ExitStack() as stack:
            for name in PROGRAMS:
                recorded = self._recorded(getattr(decode, name))
                stack.enter_context(mock.patch.object(decode, name, recorded))
            yield

    def seconds(self) -> float:
        """Run all again, one right behind the other; returns the seconds until the last is done."""
        before = {key: jnp.copy(array) for key, array in self._before.items()}
        made: list[jax.Array] = []
        kinds = {"made": made.__getitem__, "before": before.__getitem__, "host": lambda x: x}
        jax.block_until_ready(before)
        started = time.perf_counter()
        for program, tree, sources in self._programs:
            arguments = jax.tree.unflatten(tree, [kinds[kind](x) for kind, x in sources])
            made += jax.tree.leaves(program(*arguments))
        jax.block_until_ready([array for array in made if not array.is_deleted()])
        return time.perf_counter() - started

    def _recorded(self, program: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            leaves, tree = jax.tree.flatten(arguments)
            self._programs.append((program, tree, [self._source(leaf) for leaf in leaves]))
            result = program(*arguments)
            for array in jax.tree.leaves(result):
                self._made[id(array)] = len(self._made)
                self._held.append(array)
            return result

        return call

    def _source(self, leaf: Any) -> tuple[str, Any]:
        key = id(leaf)
        if not isinstance(leaf, jax.Array):
            return "host", leaf
        if key in self._made:
            return "made", self._made[key]
        if key not in self._before:
            self._before[key] = jnp.copy(leaf)
            self._held.append(leaf)
        return "before", key
