"""What K roles cost as one teacher: trunk passes that share their transcript, and one head.

    python launch/bench/bench_teacher.py [--contexts 5] [--examples 4] [--transcript 512]
        [--answer 64] [--repeats 5] [--quick]

A model with the shape of Qwen3, 30.5M fresh random weights in fp32, reads each example's answer
behind K prompts, which begin with one transcript and end in the header of a role. Measured in turn,
medians of the repeats:

- the trunk alone, over rows that share transcripts, and over rows that hold every prompt whole;
- one head: log-probabilities of the answers from one hidden state a token;
- the head part of the geometric mixture: K hidden states gathered, averaged, and one head;
- K heads and their mean, as the mixture is defined;
- the whole teacher: trunk with shared transcripts and head part in one program.

First it is checked that the whole teacher says what the definition does, from prompts that were
read whole. The last line is one JSON object; `ratios` has `head`, head part over one head;
`total`, the whole teacher over its trunk; `sharing`, the trunk over whole prompts over the shared
one; and `heads`, K heads over the head part. Each is given of the wall clock and of processor
time, which depends less on what else the machine does.
"""

import argparse
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from peers.shape import MODEL

from arkjax.distillation.chunked import linear_logprobs
from arkjax.distillation.rows import Rows, batch, one_a_row
from arkjax.distillation.teacher import TeacherBatch, gather_hidden, teacher_batch
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights, num_parameters
from arkjax.synthesis.examples import Example
from arkjax.versions import versions

HEADER, QUESTION = 8, 32
# Log-probabilities in nats, computed in fp32 along another order of sums.
TOLERANCE = 1e-5


def make_rows(args: argparse.Namespace) -> tuple[Rows, list[list[tuple[int, ...]]]]:
    """Student rows, one example in each, and K prompts of every example."""
    random = np.random.default_rng(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(random.integers(1, MODEL.vocab_size, count).tolist())

    headers = [ids(HEADER) for _ in range(args.contexts)]
    examples, prompts = [], []
    for i in range(args.examples):
        examples.append(Example(ids(QUESTION), ids(args.answer), 1.0, {"problem_id": f"p{i}"}))
        transcript = ids(args.transcript)
        prompts.append([(*transcript, *header) for header in headers])
    rows = one_a_row(examples, QUESTION + args.answer, args.examples)
    return rows, prompts


@jax.jit
def trunk(weights: dict, contexts: TeacherBatch) -> jax.Array:
    """Hidden states [Bt, Tt, D] of the teacher's rows."""
    model = Transformer(MODEL, weights)
    return model.forward(
        contexts.tokens, contexts.positions, contexts.segment_ids, contexts.parents
    ).hidden


@jax.jit
def one_head(hidden: jax.Array, head: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] log-probabilities of the labels from hidden states [B, T, D]."""
    return linear_logprobs(hidden, head, labels, mask=mask).logprobs


@jax.jit
def head_part(teacher_hidden, contexts: TeacherBatch, head, labels, mask) -> jax.Array:
    """The same of the mixture, from the teacher's hidden states [Bt, Tt, D]."""
    return one_head(gather_hidden(teacher_hidden, contexts), head, labels, mask)


@jax.jit
def whole_teacher(weights, contexts: TeacherBatch, head, labels, mask) -> jax.Array:
    """Trunk and head part."""
    return head_part(trunk(weights, contexts), contexts, head, labels, mask)


@jax.jit
def all_heads(teacher_hidden, contexts: TeacherBatch, head, labels, mask) -> jax.Array:
    """By definition, one row at a time: log softmax of sum_k w_k log p_k, at the labels."""
    flat = teacher_hidden.reshape(-1, teacher_hidden.shape[-1])

    def row(of_row: tuple) -> jax.Array:
        sources, weights, labels = of_row
        mixed = jnp.zeros((labels.shape[0], head.shape[1]))
        for source, weight in zip(sources, weights, strict=True):
            mixed += weight[:, None] * jax.nn.log_softmax(flat[source] @ head)
        return jnp.take_along_axis(jax.nn.log_softmax(mixed), labels[:, None], -1)[:, 0]

    by_row = (contexts.sources.swapaxes(0, 1), contexts.weights.swapaxes(0, 1), labels)
    return jnp.where(mask != 0, jax.lax.map(row, by_row), 0.0)


Times = dict[str, list[float]]


def measure(programs: dict[str, Callable[[], jax.Array]], repeats: int) -> tuple[Times, Times]:
    """Seconds of each program on the clock and of the processors, in turn; compiled before."""
    for program in programs.values():
        jax.block_until_ready(program())
    clock: Times = {name: [] for name in programs}
    processor: Times = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            started, computed = time.perf_counter(), time.process_time()
            jax.block_until_ready(program())
            clock[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - computed)
    return clock, processor


def ratio(seconds: Times, a: str, b: str) -> dict[str, float]:
    """Of the medians, and the least and most of single repeats."""
    single = [x / y for x, y in zip(seconds[a], seconds[b], strict=True)]
    of_medians = statistics.median(seconds[a]) / statistics.median(seconds[b])
    values = {"median": of_medians, "least": min(single), "most": max(single)}
    return {name: round(value, 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, default=5, help="K")
    parser.add_argument("--examples", type=int, default=4)
    parser.add_argument("--transcript", type=int, default=512, help="tokens that prompts share")
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="transcripts of 64 tokens, 2 repeats")
    args = parser.parse_args()
    if args.quick:
        args.transcript, args.answer, args.examples, args.repeats = 64, 16, 2, 2

    rows, prompts = make_rows(args)
    of_batch = batch(rows, np.arange(args.examples))
    labels, mask = jnp.asarray(of_batch.targets), jnp.asarray(of_batch.weights)
    branch = HEADER + args.answer - 1
    # Rows of just the size that an example, or one of its prompts, needs: nothing is padded.
    lengths = {
        True: args.transcript + args.contexts * branch + 1,
        False: args.transcript + branch + 1,
    }
    contexts = {
        share: jax.device_put(
            teacher_batch(
                rows,
                np.arange(args.examples),
                prompts,
                length,
                num_rows=args.examples * (1 if share else args.contexts),
                share=share,
            )
        )
        for share, length in lengths.items()
    }
    model = Transformer(MODEL, init_weights(MODEL, 0))
    weights, head = model.arrays(), jnp.asarray(model.head)

    said = whole_teacher(weights, contexts[True], head, labels, mask)
    whole = trunk(weights, contexts[False])
    defined = all_heads(whole, contexts[False], head, labels, mask)
    error = float(jnp.abs(said - defined).max())
    if not error <= TOLERANCE:
        raise SystemExit(f"error: the teacher is {error:.1e} nats off the mixture")

    hidden = trunk(weights, contexts[True])
    alone = gather_hidden(hidden, contexts[True])
    rest = (contexts[True], head, labels, mask)
    clock, processor = measure(
        {
            "trunk": functools.partial(trunk, weights, contexts[True]),
            "trunk_whole": functools.partial(trunk, weights, contexts[False]),
            "one_head": functools.partial(one_head, alone, head, labels, mask),
            "head_part": functools.partial(head_part, hidden, *rest),
            "all_heads": functools.partial(all_heads, hidden, *rest),
            "teacher": functools.partial(whole_teacher, weights, *rest),
        },
        args.repeats,
    )
    median = {name: statistics.median(values) for name, values in clock.items()}
    pairs = {
        "head": ("head_part", "one_head"),
        "total": ("teacher", "trunk"),
        "sharing": ("trunk_whole", "trunk"),
        "heads": ("all_heads", "head_part"),
    }
    for name, value in median.items():
        print(f"{name:12} {value * 1e3:9.1f} ms")
    result = {
        "bench": "teacher",
        "config": vars(args) | {"parameters": num_parameters(MODEL)},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {
            "ms": {name: round(value * 1e3, 2) for name, value in median.items()},
            "tokens": {"shared": int(contexts[True].used), "whole": int(contexts[True].unshared)},
            "error": error,
        },
        "ratios": {name: ratio(clock, *pair) for name, pair in pairs.items()},
        "processor_ratios": {name: ratio(processor, *pair) for name, pair in pairs.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
