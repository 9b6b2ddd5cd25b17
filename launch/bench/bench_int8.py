"""What int8 costs in accuracy and gains in memory: the engine's cache and matrices, by turns.

    python launch/bench/bench_int8.py [--model DIR] [--texts 64] [--slots 32] [--context 512] \\
        [--repeats 7] [--dtype bfloat16]

Two models, each as it is (`model`), with an int8 cache, with int8 matrices, and with both:

- trained: a model of the embedded world, `runs/tiny/seed-0/base/model` unless --model names
  another. `arkjax base --config tiny --workdir runs/tiny` trains it in a minute: 0.54M parameters.
  It reads documents of its world from another seed than training's.
- random: 30.5M fresh random weights with the shape of Qwen3 (`peers/shape.py`), on random
  tokens. Its decode step is large enough to be timed.

Accuracy is of the distributions after every token, read through the cache, beside those of the
model as it is: root mean square and maximum of the differences of the log-probabilities of the
tokens of the text, mean and largest Kullback-Leibler divergence in nats from the model's
distribution, and how often both find the same token the most probable. `scored_rms` and
`scored_max` are the differences between the log-probabilities read through the cache, with which
tokens are drawn, and those of the forward pass over whole sequences with the same weights, which
`Engine.score` gives. Without an int8 cache they are rounding.
Bytes are those of the cache of all slots, and of all weights. Milliseconds are of a step of
`decode_block` of the random model with every slot busy, in the middle of the context, medians over
runs that take turns.
The last line is one JSON object; ratios are those of the model as it is over those in int8, more
than 1 is better.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from peers.shape import MODEL

from arkjax import config as configs
from arkjax.models.cache import init_cache
from arkjax.models.placement import load_model
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.run_config import RunConfig
from arkjax.sampling import decode
from arkjax.sampling.precision import weights_for
from arkjax.sharding import MESH_AXES, ShardingRules
from arkjax.shipped import shipped_path
from arkjax.tasks.world_documents import make_documents
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.base import document_examples
from arkjax.versions import versions

WAYS = {
    "model": ("model", "model"),
    "cache": ("int8", "model"),
    "weights": ("model", "int8"),
    "both": ("int8", "int8"),
}
STEPS = 8
# Documents from this seed; runs take theirs from small ones.
TEXT_SEED = 1_000_003


def texts(count: int, length: int) -> np.ndarray:
    """[count, length] int32, beginnings of documents of the tiny world."""
    run = configs.build(RunConfig, configs.load("tiny"))
    tokenizer = Tokenizer(shipped_path(run.tokenizer))
    examples = document_examples(
        make_documents(run.world, TEXT_SEED), tokenizer, PlainChat(tokenizer)
    )
    rows = (example.prompt_ids + example.target_ids for example in examples)
    long = (row[:length] for row in rows if len(row) >= length)
    return np.array(list(itertools.islice(long, count)), np.int32)


def logprobs(model: Transformer, way: str, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[S, T, V] after every token of [S, T], read through the cache, and by the forward pass."""
    cache, weights = WAYS[way]
    config, arrays = weights_for(model, weights)

    @jax.jit
    def read(arrays: dict, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        decoder = Transformer(config, arrays)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        cached, _ = decoder.extend(tokens, positions, init_cache(config, *tokens.shape, cache))
        whole = decoder(tokens, positions, jnp.ones_like(tokens))
        return tuple(jax.nn.log_softmax(decoder.logits(hidden)) for hidden in (cached, whole))

    return tuple(np.asarray(x, np.float64) for x in read(arrays, tokens))


def accuracy(model: Transformer, tokens: np.ndarray) -> dict[str, dict[str, Any]]:
    """By way, how far what it says is from what the model says."""
    (exact, _), found = logprobs(model, "model", tokens), {}
    own = tokens[:, 1:, None]

    def of_text(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values[:, :-1], own, axis=-1)

    for way in WAYS:
        ours, forward = logprobs(model, way, tokens)
        apart = of_text(ours) - of_text(exact)
        scored = of_text(ours) - of_text(forward)
        kl = (np.exp(exact) * (exact - ours)).sum(axis=-1)
        found[way] = {
            "rms": rms(apart),
            "max": rounded(np.abs(apart).max()),
            "kl_mean": rounded(kl.mean()),
            "kl_max": rounded(kl.max()),
            "greedy_agreement": round(float((ours.argmax(-1) == exact.argmax(-1)).mean()), 5),
            "scored_rms": rms(scored),
            "scored_max": rounded(np.abs(scored).max()),
        }
    return found


def bytes_of(model: Transformer, way: str, slots: int, context: int) -> dict[str, int]:
    """Of the cache of all slots, and of all weights."""
    cache, weights = WAYS[way]
    empty = jax.eval_shape(lambda: init_cache(model.config, slots, context, cache))
    return {"cache_bytes": size(empty), "weight_bytes": size(weights_for(model, weights)[1])}


def step_times(
    model: Transformer, slots: int, context: int, repeats: int
) -> dict[str, list[float]]:
    """By way, milliseconds of a decode step with all slots busy; ways take turns."""
    state: dict[str, tuple[decode.Spec, dict, decode.Rows, decode.Rows]] = {}
    for way, (cache, weights) in WAYS.items():
        config, arrays = weights_for(model, weights)
        rows, waiting = (decode.empty_rows(config, n, context, 1, cache=cache) for n in (slots, 1))
        rows = rows._replace(
            tag=jnp.arange(slots, dtype=jnp.int32), remaining=jnp.full(slots, 2**30, jnp.int32)
        )
        state[way] = decode.Spec(config, None), arrays, rows, waiting
    order, cancelled = np.ones(1, np.int32), np.full(1, decode.NO_CALL, np.int32)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat, way in itertools.product(range(repeats + 1), WAYS):
        spec, arrays, rows, waiting = state[way]
        # The same positions in each run; what is stored there is overwritten.
        rows = rows._replace(position=jnp.full(slots, context // 2, jnp.int32))
        jax.block_until_ready(rows)
        started = time.perf_counter()
        rows, waiting, drawn = decode.decode_block(
            spec, arrays, rows, waiting, order, cancelled, STEPS, 0, np.int32(0)
        )
        jax.block_until_ready(drawn)
        milliseconds = (time.perf_counter() - started) / STEPS * 1e3
        if not (np.asarray(drawn.tag) >= 0).all():
            raise SystemExit(f"error: with {way} in int8 a slot was not busy")
        state[way] = spec, arrays, rows, waiting
        if repeat:  # the first one compiles
            taken[way].append(milliseconds)
    return taken


def rms(apart: np.ndarray) -> float:
    return rounded(np.sqrt((apart**2).mean()))


def size(tree: Any) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in jax.tree.leaves(tree))


def rounded(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="runs/tiny/seed-0/base/model")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()

    one = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES)
    trained = load_model(Path(arguments.model), one, ShardingRules())
    fresh = Transformer(MODEL, init_weights(MODEL, 0))
    rng = np.random.default_rng(0)
    few = max(1, arguments.texts // 8)
    tokens = {
        "trained": texts(arguments.texts, arguments.length),
        "random": rng.integers(1, MODEL.vocab_size, (few, arguments.length), dtype=np.int32),
    }
    contexts = {"trained": trained.config.max_context, "random": arguments.context}
    results: dict[str, dict[str, dict[str, Any]]] = {}
    ratios: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    for name, model in (("trained", trained), ("random", fresh)):
        config = dataclasses.replace(model.config, dtype=arguments.dtype)
        weights = {key: x.astype(arguments.dtype) for key, x in model.arrays().items()}
        model = Transformer(config, weights)
        results[name] = accuracy(model, tokens[name])
        for way, found in results[name].items():
            found |= bytes_of(model, way, arguments.slots, contexts[name])
        if name == "random":
            taken = step_times(model, arguments.slots, arguments.context, arguments.repeats)
            for way, milliseconds in taken.items():
                results[name][way]["step_ms"] = round(statistics.median(milliseconds), 2)
                each = [a / b for a, b in zip(taken["model"], milliseconds, strict=True)]
                spread[f"{name}_{way}_step_ms"] = [round(min(each), 3), round(max(each), 3)]
        exact = results[name]["model"]
        for way, found in results[name].items():
            print(f"{name:8} {way:8} " + json.dumps(found), flush=True)
            for figure in ("cache_bytes", "weight_bytes", "step_ms"):
                if way != "model" and figure in found:
                    ratios[f"{name}_{way}_{figure}"] = round(exact[figure] / found[figure], 3)
    result = {
        "bench": "int8",
        "config": vars(arguments) | {"steps": STEPS},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": results,
        "ratios": ratios,
        "spread": spread,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
