"""Memory and time of the chunked loss against the dense one: compiled for TPUs, run on the CPU.

    python launch/bench/bench_loss.py [--chips v5p v6e] [--chunks 896 2048] [--tokens 4096]
        [--vocabulary 151936] [--width 4096] [--teacher-width 4096] [--repeats 5] [--quick]
        [--skip-cpu | --skip-tpu]

Compiled ahead of time for one chip, no TPU needed: temporary memory by XLA's own analysis, and the
time that the chip needs at least (`roofline`), for forward KL, reverse KL and JSD with bf16 hidden
states, against the same loss and gradients written by hand with all logits at once, and for the
forward KL against the formula that Tunix publishes. The main variant has a float32 head,
multiplied in bf16, and its gradient in float32; the other has both in bf16. With further sizes of a
chunk the main variant shows what time costs in memory. A tape of 64 tokens stands against the live
teacher: against its head alone, and with its trunk, of the shape of Qwen3-8B, over the same tokens
in rows of 4,096; its attention's loop over keys counts once, so the trunk takes longer than said.

Run on this machine's CPU in float32: the same forms at a size of some seconds, in turn, medians of
so many repeats and the spread of the ratios of neighbours. The trunk there has 28 layers, which are
to its head what an 8B model's are to its.

Ratios are ours over dense, so that less is better; `memory_*` and `*_roofline` are the main
variant on the first chip, `time` the worst divergence on the CPU, `tape` the tape's time on the CPU
over the live teacher's, trunk included, and `tape_head` without it. The last line is one JSON
object.
"""

import os

# Before jax is imported: libtpu would ask a cloud machine's metadata server where it runs.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost")
# Nothing runs on a TPU here, so that other programs' use of the library is no conflict.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from loss_forms import Inputs, chunked, dense, published
from roofline import cost

from arkjax.distillation.targets import HiddenTarget, TapeTarget
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.versions import versions

NAMES = {"fkl": "forward_kl", "rkl": "reverse_kl", "jsd": "jsd"}
SLICES = {"v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
TOP_K = 64


def trunk_config(args: argparse.Namespace, cpu: bool) -> ModelConfig:
    """A teacher: Qwen3-8B (huggingface.co/Qwen/Qwen3-8B, config.json), or a small one as deep."""
    width, vocabulary, heads = args.teacher_width, args.vocabulary, args.teacher_width // 128
    if cpu:
        width, vocabulary, heads = args.cpu_width, args.cpu_vocabulary, args.cpu_width // 64
    return ModelConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_layers=28 if cpu else 36,
        num_heads=heads,
        num_kv_heads=max(1, heads // 4),
        head_dim=64 if cpu else 128,
        d_ff=3 * width,
        rope_theta=1e6,
        qk_norm=True,
        scale_embeddings=False,
        dtype="float32" if cpu else "bfloat16",
        param_dtype="float32" if cpu else "bfloat16",
    )


def trunk(config: ModelConfig) -> Callable:
    """Last hidden states `[T, D]` of one row of T tokens, from (weights, tokens [1, T])."""

    def step(inputs: tuple):
        weights, tokens = inputs
        positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
        read = Transformer(config, weights).forward(tokens, positions, jnp.ones_like(tokens))
        return read.hidden[0]

    return step


def shapes(args: argparse.Namespace, head_dtype, tape: bool = False) -> Inputs:
    """Of bf16 hidden states, without values."""

    def array(dtype, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    tokens, vocabulary, width = args.tokens, args.vocabulary, args.teacher_width
    if tape:
        target = TapeTarget(
            array(jnp.int32, tokens, TOP_K),
            array(jnp.bfloat16, tokens, TOP_K),
            array(jnp.float32, tokens),
        )
    else:
        target = HiddenTarget(
            array(jnp.bfloat16, tokens, width), array(jnp.bfloat16, width, vocabulary)
        )
    return Inputs(
        array(jnp.bfloat16, tokens, args.width),
        array(head_dtype, args.width, vocabulary),
        array(jnp.int32, tokens),
        array(jnp.float32, tokens),
        target,
    )


def compiled(step: Callable, inputs: Inputs | tuple, chip: str, turns: int) -> dict[str, float]:
    """What a compiled step needs of one chip."""
    device = topologies.get_topology_desc(platform="tpu", topology_name=SLICES[chip]).devices[0]
    place = SingleDeviceSharding(device)
    inputs = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), inputs)
    program = jax.jit(step).lower(inputs).compile()
    needed = cost(program.as_text(), chip, turns)
    return {
        "temporary_gib": round(program.memory_analysis().temp_size_in_bytes / 2**30, 3),
        "roofline_ms": round(needed.seconds * 1e3, 1),
        "compiler_ms": round(needed.cycles_seconds * 1e3, 1),
        "tflop": round(needed.flop / 1e12, 2),
        "moved_gib": round(needed.bytes / 2**30, 1),
    }


def on_tpus(args: argparse.Namespace) -> dict[str, dict]:
    """`compiled` of every form on every chip with either head."""
    chunk, *more = args.chunks
    found: dict[str, dict] = {}

    def note(chip: str, kind: str, form: str, row: dict[str, float]) -> None:
        found.setdefault(f"{chip} {kind}", {})[form] = row
        print(f"{chip} {kind:14} {form:16}", *row.items(), flush=True)

    for chip in args.chips:
        for head in (jnp.float32, jnp.bfloat16):
            kind = f"{jnp.dtype(head).name} head"
            live, tape = shapes(args, head), shapes(args, head, tape=True)

            def ours(name: str, size: int, inputs: Inputs, chip: str = chip) -> dict[str, float]:
                return compiled(chunked(name, size), inputs, chip, -(-args.tokens // size))

            for short, name in NAMES.items():
                note(chip, kind, f"dense {short}", compiled(dense(name), live, chip, 1))
                note(chip, kind, f"ours {short}", ours(name, chunk, live))
            note(chip, kind, "published fkl", compiled(published, live, chip, 1))
            note(chip, kind, "tape fkl", ours("forward_kl", chunk, tape))
            if head == jnp.float32:
                for size in more:
                    note(chip, kind, f"ours fkl, {size}", ours("forward_kl", size, live))
                    note(chip, kind, f"ours jsd, {size}", ours("jsd", size, live))
        config = trunk_config(args, cpu=False)
        weights = jax.eval_shape(functools.partial(init_weights, config, 0))
        tokens = jax.ShapeDtypeStruct((1, min(args.tokens, 4096)), jnp.int32)
        # One layer, in which attention's own loop counts once: the least that all can take.
        row = compiled(trunk(config), (weights, tokens), chip, 1)
        times = {"temporary_gib": 1.0}
        rows = config.num_layers * args.tokens / tokens.shape[1]
        row = {name: round(x * times.get(name, rows), 3) for name, x in row.items()}
        note(chip, "teacher", "trunk", row)
    return found


def values(args: argparse.Namespace) -> tuple[Inputs, Inputs]:
    """Random arrays in float32: with a live teacher, and with its tape."""
    random = np.random.default_rng(0)
    tokens, vocabulary = args.cpu_tokens, args.cpu_vocabulary

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32))

    width = args.cpu_width
    hidden, head = normal(tokens, width), normal(width, vocabulary) / width**0.5
    labels = jnp.asarray(random.integers(0, vocabulary, tokens), jnp.int32)
    mask = jnp.full(tokens, 1.0 / tokens)
    live = HiddenTarget(normal(tokens, width), normal(width, vocabulary) / width**0.5)
    log_p = jax.nn.log_softmax(live.hidden @ live.head)
    top, ids = jax.lax.top_k(log_p, TOP_K)
    tail = jnp.log1p(-jnp.exp(top).sum(-1))
    inputs = Inputs(hidden, head, labels, mask, live)
    return inputs, inputs._replace(target=TapeTarget(ids, top, tail))


def on_cpu(args: argparse.Namespace) -> dict[str, dict]:
    """Seconds of every form, measured in turn."""
    live, tape = values(args)
    found = {}
    forms = {
        short: (dense(name), live, chunked(name, args.cpu_chunk), live)
        for short, name in NAMES.items()
    }
    # The live teacher stands where dense does.
    ours = chunked("forward_kl", args.cpu_chunk)
    config = trunk_config(args, cpu=True)
    read = trunk(config)

    def with_trunk(inputs: tuple):
        weights, tokens, live = inputs
        hidden = read((weights, tokens))
        return ours(live._replace(target=HiddenTarget(hidden, live.target.head)))

    tokens = jnp.zeros((1, args.cpu_tokens), jnp.int32)
    whole = (init_weights(config, 0), tokens, live)
    forms["tape_head"] = (ours, live, ours, tape)
    forms["tape"] = (with_trunk, whole, ours, tape)
    for short, (theirs, their_inputs, mine, my_inputs) in forms.items():
        steps = [(jax.jit(theirs), their_inputs), (jax.jit(mine), my_inputs)]
        results = [jax.block_until_ready(step(inputs)) for step, inputs in steps]
        if short in NAMES:
            agree(short, *results)
        taken: tuple[list[float], list[float]] = ([], [])
        for turn in range(args.repeats):
            # First one first, then the other, so that a drift of the machine is on both sides.
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                step, inputs = steps[side]
                started = time.perf_counter()
                jax.block_until_ready(step(inputs))
                taken[side].append(time.perf_counter() - started)
        other, own = (statistics.median(seconds) for seconds in taken)
        ratios = [b / a for a, b in zip(*taken, strict=True)]
        found[short] = {
            "dense_s" if short in NAMES else "live_s": round(other, 3),
            "ours_s": round(own, 3),
            "ratio": round(own / other, 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        }
        print(f"cpu {short}", *found[short].items(), flush=True)
    return found


def agree(short: str, dense_result, our_result) -> None:
    """Stops where the two forms do not give the same loss and gradients."""
    loss, gradients = dense_result
    (our_loss, _), our_gradients = our_result
    for a, b in ((loss, our_loss), *zip(gradients, our_gradients, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not np.abs(a - b).max() <= 1e-4 * np.abs(a).max():
            raise SystemExit(f"error: {short} and its dense form differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", default=["v5p", "v6e"], choices=SLICES)
    parser.add_argument("--chunks", type=int, nargs="+", default=[896, 512, 2048])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--teacher-width", type=int, default=4096)
    parser.add_argument("--cpu-chunk", type=int, default=256)
    parser.add_argument("--cpu-tokens", type=int, default=1024)
    parser.add_argument("--cpu-vocabulary", type=int, default=16_384)
    parser.add_argument("--cpu-width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-cpu", action="store_true")
    parser.add_argument("--skip-tpu", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one chip, small shapes")
    args = parser.parse_args()
    if args.quick:
        args.chips, args.tokens, args.vocabulary, args.width = args.chips[:1], 512, 8192, 512
        args.teacher_width, args.chunks, args.repeats = 512, [128], 2
        args.cpu_tokens, args.cpu_vocabulary, args.cpu_width = 512, 8192, 128

    tpu = {} if args.skip_tpu else on_tpus(args)
    cpu = {} if args.skip_cpu else on_cpu(args)
    ratios: dict[str, float] = {}
    if tpu:
        table = tpu[f"{args.chips[0]} float32 head"]

        def ratio(a: str, b: str, key: str) -> float:
            return round(table[a][key] / table[b][key], 3)

        for short in NAMES:
            ratios[f"memory_{short}"] = ratio(f"ours {short}", f"dense {short}", "temporary_gib")
        of_time = [ratio(f"ours {short}", f"dense {short}", "roofline_ms") for short in NAMES]
        ratios["time_roofline"] = max(of_time)
        head_only, of_tape = (table[form]["roofline_ms"] for form in ("ours fkl", "tape fkl"))
        whole = head_only + tpu[f"{args.chips[0]} teacher"]["trunk"]["roofline_ms"]
        ratios["tape_roofline"] = round(of_tape / whole, 3)
        ratios["tape_head_roofline"] = round(of_tape / head_only, 3)
        ratios["memory_published"] = ratio("ours fkl", "published fkl", "temporary_gib")
    if cpu:
        ratios["time"] = max(cpu[short]["ratio"] for short in NAMES)
        ratios |= {name: cpu[name]["ratio"] for name in ("tape", "tape_head")}
    result = {
        "bench": "loss",
        "config": vars(args),
        "device": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "tpu": tpu,
        "cpu": cpu,
        "ratios": ratios,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
