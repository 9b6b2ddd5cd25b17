"""When it pays to store shared prefixes once: decode steps with and without `grouped_prefixes`.

    python launch/bench/bench_grouped.py [--slots 32] [--prefixes 256 1024 4096]
        [--shared-by 2 8 32] [--blocks 6] [--quick]

A model with the shape of Qwen3, 30.5M fresh random weights in fp32. All slots are busy with calls
of 16 tokens behind a prefix that some of them share. Two engines, one that copies a call's prefix
into its slot and one that keeps it in the pool for all, decode the same calls in turn, block by
block; measured are whole blocks in which no call begins or ends. Both must generate the same.

Ratios are milliseconds of a decode step that reads copies over one that reads what is shared, of
the medians, and bytes of all caches likewise; above 1 sharing is better. The last line is one JSON
object.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time

import jax
import numpy as np
from peers.shape import MODEL

from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights, num_parameters
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.versions import versions

BLOCK, SUFFIX = 8, 16
# Blocks before calls are all in slots, and before the last, which are not measured.
MARGIN = 3


def make_engine(
    model: Transformer, grouped: bool, args: argparse.Namespace, prefix: int, count: int
):
    """An engine of just the size that the calls need."""
    answer = length_of_answers(args)
    context = prefix + SUFFIX + answer
    return Engine(
        model,
        EngineConfig(
            length_classes=(-(-context // 128) * 128,),
            slots=args.slots,
            prefixes=count,
            admit_rows=min(8, args.slots),
            prefix_rows=1,
            chunk=SUFFIX,
            block_steps=BLOCK,
            max_stop_ids=1,
            prefill_tokens=1024,
            grouped_prefixes=grouped,
            # Slots of a grouped engine hold what follows the prefix: this much at the most.
            least_length=SUFFIX + answer + 2 * BLOCK + 1 if grouped else 0,
        ),
    )


def length_of_answers(args: argparse.Namespace) -> int:
    """So many tokens that no call ends while blocks are measured."""
    return (args.blocks + 2 * MARGIN) * BLOCK


def calls(slots: int, prefix: int, shared_by: int, answer: int, seed: int) -> list[Request]:
    """As many calls as there are slots; every so many share their first tokens."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, MODEL.vocab_size, (-(-slots // shared_by), prefix)).tolist()
    own = random.integers(0, MODEL.vocab_size, (slots, SUFFIX)).tolist()
    sampling = SamplingParams(temperature=1.0, max_tokens=answer)
    return [
        Request(f"{i}", (*ids[i // shared_by], *own[i]), prefix, sampling, i) for i in range(slots)
    ]


def held() -> int:
    """Bytes of all arrays on the device."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def drain() -> None:
    """Wait until the device has nothing to do."""
    jax.block_until_ready([array for array in jax.live_arrays() if not array.is_deleted()])


def compare(
    model: Transformer, args: argparse.Namespace, prefix: int, shared_by: int
) -> dict[str, float]:
    """Milliseconds of a decode step and MiB of the caches, with copies and without."""
    count = -(-args.slots // shared_by)
    requests = calls(args.slots, prefix, shared_by, length_of_answers(args), 0)
    engines: dict[str, Engine] = {}
    done: dict[str, list[Generation]] = {}
    size, taken = {}, {"copied": [], "grouped": []}
    for name in taken:
        before = held()
        engines[name] = make_engine(model, name == "grouped", args, prefix, count)
        done[name] = []
        for request in requests:
            engines[name].submit(request)
        # Blocks are compiled, and all calls come into their slots.
        while engines[name].profile.calls < len(requests) or engines[name].profile.steps < BLOCK:
            done[name] += engines[name].step()
        done[name] += engines[name].step()
        size[name] = (held() - before) / 2**20
    for _ in range(args.blocks):
        for name, engine in engines.items():
            # The block of the step before has ended, and the other engine's: nothing runs beside.
            drain()
            steps = engine.profile.steps
            started = time.perf_counter()
            done[name] += engine.step()
            drain()
            seconds = time.perf_counter() - started
            taken[name].append(seconds / (engine.profile.steps - steps) * 1e3)
    for name, engine in engines.items():
        if done[name]:
            raise SystemExit("error: calls ended while they were measured")
        while engine.pending:
            done[name] += engine.step()
        done[name].sort(key=lambda generation: generation.request_id)
    copied, grouped = ([generation.ids for generation in done[name]] for name in taken)
    if copied != grouped:
        raise SystemExit("error: sharing has changed a token")
    ms = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "prefix": prefix,
        "shared_by": shared_by,
        "copied_ms": round(ms["copied"], 2),
        "grouped_ms": round(ms["grouped"], 2),
        "step": round(ms["copied"] / ms["grouped"], 2),
        "copied_mib": round(size["copied"], 1),
        "grouped_mib": round(size["grouped"], 1),
        "bytes": round(size["copied"] / size["grouped"], 2),
        "step_spread": [
            round(f(a / b for a, b in zip(*taken.values(), strict=True)), 2) for f in (min, max)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--prefixes", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--shared-by", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--blocks", type=int, default=6, help="measured of each engine")
    parser.add_argument("--quick", action="store_true", help="8 slots, prefixes of 64 tokens")
    args = parser.parse_args()
    if args.quick:
        args.slots, args.prefixes, args.shared_by, args.blocks = 8, [64], [2, 8], 2

    model = Transformer(MODEL, init_weights(MODEL, 0))
    cases = []
    for prefix in args.prefixes:
        for shared_by in args.shared_by:
            case = compare(model, args, prefix, shared_by)
            cases.append(case)
            print(
                f"prefix {prefix:5} shared by {shared_by:3}: steps of {case['copied_ms']:7.2f} ms "
                f"with copies, {case['grouped_ms']:7.2f} grouped, ratio {case['step']:.2f}; caches "
                f"have {case['copied_mib']:.0f} and {case['grouped_mib']:.0f} MiB",
                flush=True,
            )
    result = {
        "bench": "grouped",
        "config": vars(args) | {"parameters": num_parameters(MODEL), "block_steps": BLOCK},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": cases,
        "ratios": {f"step_{c['prefix']}_by_{c['shared_by']}": c["step"] for c in cases},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
