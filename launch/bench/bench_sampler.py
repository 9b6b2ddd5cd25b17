"""What it costs to draw a token per row from its logits, beside the usual ways to do so.

    python launch/bench/bench_sampler.py [--rows 64] [--vocabulary 151936] [--repeats 5]

Logits are made as in a decode step: inside the same program, by a product with a head, one step
after another; hidden states are narrow (--width), so that the product takes little of the time.
Every way gives tokens, their log-probabilities, and those in the distribution drawn from. Ways:

- arkjax: `arkjax.sampling.sampler.sample`;
- argmax, for temperature 0, with a log-softmax;
- gumbel, for temperature 0.7: `jax.random.categorical`, one random number a token;
- sort, for top-p 0.95 at temperature 0.7: sorts each row, then cuts its cumulative sum;
- bisection, likewise: halves an interval of logits 40 times, then draws with one random number.

Top-p is measured on logits of two spreads: from those that are peaked few tokens are kept, from
those that are flat thousands. What the fastest step takes that makes logits and reads the largest
is subtracted from all. Runs take turns; figures are medians, of which the ratios are made. The last
line is one JSON object; ratios are milliseconds of another way over those of ArkJAX, more than 1 is
better.
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

from arkjax.models.linear import product
from arkjax.sampling.sampler import RowSampling, lowest_kept, sample
from arkjax.versions import versions

TEMPERATURE, TOP_P = 0.7, 0.95
# Standard deviations of logits.
SPREADS = {"peaked": 6.0, "flat": 2.0}
Way = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def arkjax_sample(
    logits: jax.Array, step: jax.Array, *, temperature: float, top_p: float = 1.0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return sample(logits, rules(len(logits), temperature, top_p), jnp.full(len(logits), step))


def rules(S: int, temperature: float, top_p: float) -> RowSampling:
    seeds = jnp.stack([jnp.arange(S, dtype=jnp.uint32), jnp.zeros(S, jnp.uint32)], axis=1)
    full = functools.partial(jnp.full, S)
    return RowSampling(full(temperature), full(0), full(top_p), full(0.0), seeds)


def pick(x: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, tokens[:, None], axis=1)[:, 0]


def with_logprobs(logits: jax.Array, scaled: jax.Array, tokens: jax.Array) -> tuple:
    return (
        tokens,
        pick(jax.nn.log_softmax(logits), tokens),
        pick(jax.nn.log_softmax(scaled), tokens),
    )


def argmax(logits: jax.Array, step: jax.Array) -> tuple:
    tokens = jnp.argmax(logits, axis=1)
    return tokens, pick(jax.nn.log_softmax(logits), tokens), jnp.zeros(len(logits))


def gumbel(logits: jax.Array, step: jax.Array) -> tuple:
    scaled = logits / TEMPERATURE
    return with_logprobs(logits, scaled, jax.random.categorical(jax.random.key(step), scaled))


def sort(logits: jax.Array, step: jax.Array) -> tuple:
    scaled = logits / TEMPERATURE
    falling = -jnp.sort(-scaled, axis=1)
    reached = jnp.cumsum(jax.nn.softmax(falling), axis=1) >= TOP_P
    lowest = pick(falling, jnp.argmax(reached, axis=1))
    scaled = jnp.where(scaled >= lowest[:, None], scaled, -jnp.inf)
    return with_logprobs(logits, scaled, jax.random.categorical(jax.random.key(step), scaled))


def bisection(logits: jax.Array, step: jax.Array) -> tuple:
    scaled = logits / TEMPERATURE
    probabilities = jax.nn.softmax(scaled)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        mass = jnp.where(scaled >= middle[:, None], probabilities, 0.0).sum(axis=1)
        return jnp.where(mass >= TOP_P, middle, low), jnp.where(mass >= TOP_P, high, middle)

    low, _ = jax.lax.fori_loop(0, 40, halve, (scaled.min(axis=1), scaled.max(axis=1) + 1e-3))
    scaled = jnp.where(scaled >= low[:, None], scaled, -jnp.inf)
    mass = jnp.cumsum(jnp.exp(scaled - scaled.max(axis=1, keepdims=True)), axis=1)
    target = jax.random.uniform(jax.random.key(step), (len(logits),)) * mass[:, -1]
    return with_logprobs(logits, scaled, jnp.argmax(mass > target[:, None], axis=1))


def logits_only(logits: jax.Array, step: jax.Array) -> tuple:
    largest = logits.max(axis=1)
    return (largest > 0).astype(jnp.int32), largest, largest


def decode(way: Way, steps: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A program of some steps, each of which needs the tokens of the one before."""

    def run(hidden: jax.Array, head: jax.Array) -> jax.Array:
        def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            hidden, total = carry
            tokens, logprob, sampling_logprob = way(product(hidden, head, 1, jnp.float32), i)
            sign = jnp.where(tokens % 2 == 0, 1.0, -1.0)
            return hidden * sign[:, None], total + logprob + sampling_logprob

        return jax.lax.fori_loop(0, steps, step, (hidden, jnp.zeros(len(hidden))))[1]

    return jax.jit(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of one run; a sort takes one")
    arguments = parser.parse_args()
    S, V, D = arguments.rows, arguments.vocabulary, arguments.width

    # Rows of one length, so that their logits are spread alike.
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(S, D))
    hidden = jnp.asarray(hidden / np.linalg.norm(hidden, axis=1, keepdims=True), jnp.float32)
    unit = rng.normal(size=(V, D)).astype(np.float32)
    heads = {name: jnp.asarray(spread * unit) for name, spread in SPREADS.items()}

    ours = functools.partial(arkjax_sample, temperature=TEMPERATURE)
    nucleus = functools.partial(ours, top_p=TOP_P)
    # What is drawn: by which way, from which logits.
    cases: dict[str, dict[str, tuple[Way, str]]] = {
        "logits": {"arkjax": (logits_only, "peaked")},
        "greedy": {
            "arkjax": (functools.partial(arkjax_sample, temperature=0.0), "peaked"),
            "argmax": (argmax, "peaked"),
        },
        "temperature": {"arkjax": (ours, "peaked"), "gumbel": (gumbel, "peaked")},
    }
    for name in SPREADS:
        ways = {"arkjax": nucleus, "sort": sort, "bisection": bisection}
        cases[f"top_p_{name}"] = {way: (function, name) for way, function in ways.items()}
    kept = check(hidden, heads)

    programs = {
        (case, way): (
            decode(function, steps := 1 if way == "sort" else arguments.steps),
            name,
            steps,
        )
        for case, ways in cases.items()
        for way, (function, name) in ways.items()
    }
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    for repeat in range(arguments.repeats + 1):
        for key, (program, name, steps) in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(hidden, heads[name]))
            if repeat:  # the first one compiles
                taken[key].append((time.perf_counter() - started) / steps * 1e3)
    report(arguments, taken, kept)


def check(hidden: jax.Array, heads: dict[str, jax.Array]) -> dict[str, int]:
    """All ways must agree; returns the median number of tokens that top-p keeps of a row."""
    kept = {}
    for name, head in heads.items():
        logits = product(hidden, head, 1, jnp.float32)
        rows = rules(len(hidden), TEMPERATURE, TOP_P)
        mask = np.asarray(logits >= lowest_kept(logits, rows)[:, None])
        falling = -np.sort(-np.asarray(logits, np.float64) / TEMPERATURE, axis=1)
        mass = np.exp(falling - falling[:, :1])
        needed = (mass.cumsum(axis=1) < TOP_P * mass.sum(axis=1, keepdims=True)).sum(axis=1) + 1
        # Sums of a whole vocabulary in fp32 are off by some 1e-6.
        if not np.allclose(mask.sum(axis=1), needed, rtol=1e-4, atol=1):
            raise SystemExit(
                f"top-p keeps {mask.sum(axis=1)} tokens of {name} logits, not {needed}"
            )
        greedy = arkjax_sample(logits, jnp.int32(0), temperature=0.0)
        for a, b in zip(greedy, argmax(logits, jnp.int32(0)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        kept[name] = int(np.median(needed))
    return kept


def report(
    arguments: argparse.Namespace,
    taken: dict[tuple[str, str], list[float]],
    kept: dict[str, int],
) -> None:
    """Print medians, and the JSON line."""
    logits = min(taken.pop(("logits", "arkjax")))
    medians = {key: statistics.median(times) - logits for key, times in taken.items()}
    print(f"{arguments.rows} rows, {arguments.vocabulary} tokens; logits take {logits:.2f} ms")
    print("tokens that top-p keeps: " + ", ".join(f"{n} of {name}" for name, n in kept.items()))
    ratios: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    by_way: dict[str, dict[str, float]] = {}
    for (case, way), median in medians.items():
        by_way.setdefault(way, {})[f"{case}_ms"] = round(median, 3)
        print(f"{case:16}{way:12}{median:10.2f} ms")
        if way == "arkjax":
            continue
        name = f"{case}_{way}"
        ratios[name] = round(median / medians[case, "arkjax"], 2)
        pairs = zip(taken[case, way], taken[case, "arkjax"], strict=True)
        each = [(theirs - logits) / (ours - logits) for theirs, ours in pairs]
        spread[name] = [round(min(each), 2), round(max(each), 2)]
    result = {
        "bench": "sampler",
        "config": vars(arguments) | {"temperature": TEMPERATURE, "top_p": TOP_P, "kept": kept},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {"logits_ms": round(logits, 3), **by_way.pop("arkjax")},
        "peers": by_way,
        "ratios": ratios,
        "spread": spread,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
