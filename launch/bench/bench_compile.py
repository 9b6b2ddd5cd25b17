"""How long shapes and programs of the published sizes take: tracing and compiling, no weights.

    python launch/bench/bench_compile.py [--preset qwen3_8b] [--tokens 4096]

For every preset the time that `jax.eval_shape` takes over its fresh weights, in a process that has
traced others before; then the time to trace and compile loss and gradients of one preset's training
forward and backward pass, chunked loss included, for the machine's own device. The last line is one
JSON object; it has no peers, so no ratios.
"""

import argparse
import dataclasses
import json
import os
import platform
import time

import jax
import jax.numpy as jnp

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.models.presets import PRESETS
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.versions import versions


def shape_seconds() -> dict[str, float]:
    """Seconds of `jax.eval_shape` over the weights of each preset."""
    seconds = {}
    for name, preset in PRESETS.items():
        config = preset()
        started = time.perf_counter()
        jax.eval_shape(lambda config=config: init_weights(config, 0))
        seconds[name] = time.perf_counter() - started
    return seconds


def compile_seconds(preset: str, tokens: int) -> tuple[float, float]:
    """Seconds to lower, and to compile, the gradients of one row of `tokens` tokens."""
    config = dataclasses.replace(PRESETS[preset](), remat=True)
    weights = jax.eval_shape(lambda: init_weights(config, 0))
    ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, tokens), jnp.float32)

    def loss(weights, tokens, positions, segment_ids, targets, mask):
        model = Transformer(config, weights)
        hidden, router_loss = model.forward(tokens, positions, segment_ids)
        total, _ = linear_divergence(
            hidden,
            model.head,
            targets,
            mask,
            objective=Objective(cross_entropy=1.0),
            chunk_size=1024,
            soft_cap=config.logit_soft_cap or None,
        )
        return total + router_loss

    started = time.perf_counter()
    lowered = jax.jit(jax.value_and_grad(loss)).lower(weights, ids, ids, ids, ids, mask)
    traced = time.perf_counter()
    lowered.compile()
    return traced - started, time.perf_counter() - traced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="qwen3_8b", choices=sorted(PRESETS))
    parser.add_argument("--tokens", type=int, default=4096, help="T of the row that is compiled")
    arguments = parser.parse_args()
    shapes = shape_seconds()
    slowest = max(shapes, key=shapes.get)
    print(f"eval_shape of {len(shapes)} presets: at most {shapes[slowest]:.3f} s ({slowest})")
    lower, compiled = compile_seconds(arguments.preset, arguments.tokens)
    print(f"{arguments.preset}, T = {arguments.tokens}: traced {lower:.1f} s, {compiled:.1f} s XLA")
    result = {
        "bench": "compile",
        "config": vars(arguments),
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {
            "eval_shape_seconds_max": round(shapes[slowest], 4),
            "trace_seconds": round(lower, 2),
            "compile_seconds": round(compiled, 2),
        },
        "peers": {},
        "ratios": {},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
