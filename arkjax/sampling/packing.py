"""Generations as bytes, to be sent to another process: arrays in NumPy's format, and nothing else.

Reading executes nothing: there is no pickled object in it.
"""

import io
import json
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from arkjax.sampling.params import Generation


def pack(generations: Sequence[Generation]) -> bytes:
    """Generations in the order given, every number as exact as it was."""
    names = [(generation.request_id, generation.finish_reason) for generation in generations]
    tops = [step for generation in generations for step in generation.top]
    arrays = {
        "names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "lengths": _ints(len(generation.ids) for generation in generations),
        "ids": _ints(token for generation in generations for token in generation.ids),
        "logprobs": _floats(x for generation in generations for x in generation.logprobs),
        "sampling_logprobs": _floats(
            x for generation in generations for x in generation.sampling_logprobs
        ),
        "cached": _ints(generation.cached_len for generation in generations),
        "seconds": _floats(generation.seconds for generation in generations),
        "top_steps": _ints(len(generation.top) for generation in generations),
        "top_lengths": _ints(map(len, tops)),
        "top_ids": _ints(token for step in tops for token, _ in step),
        "top_logprobs": _floats(x for step in tops for _, x in step),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> list[Generation]:
    """What `pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        names = json.loads(arrays["names"].tobytes())
        columns = {key: arrays[key].tolist() for key in arrays.files if key != "names"}
    pairs = list(zip(columns["top_ids"], columns["top_logprobs"], strict=True))
    steps = [tuple(pairs[a:b]) for a, b in _spans(columns["top_lengths"])]
    return [
        Generation(
            request_id=name,
            ids=tuple(columns["ids"][a:b]),
            logprobs=tuple(columns["logprobs"][a:b]),
            sampling_logprobs=tuple(columns["sampling_logprobs"][a:b]),
            finish_reason=reason,
            cached_len=cached,
            seconds=seconds,
            top=tuple(steps[c:d]),
        )
        for (name, reason), (a, b), (c, d), cached, seconds in zip(
            names,
            _spans(columns["lengths"]),
            _spans(columns["top_steps"]),
            columns["cached"],
            columns["seconds"],
            strict=True,
        )
    ]


def _spans(lengths: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(accumulate(lengths, initial=0)))


def _ints(values) -> np.ndarray:
    wide = np.fromiter(values, np.int64)
    narrow = wide.astype(np.int32)
    return narrow if np.array_equal(narrow, wide) else wide


def _floats(values) -> np.ndarray:
    wide = np.fromiter(values, np.float64)
    # The engine's numbers are fp32.
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return narrow if np.array_equal(narrow, wide, equal_nan=True) else wide
