"""How fast the engine samples answers of uneven lengths, beside Tunix and Hugging Face `generate`.

    python launch/bench/bench_sampling.py [--repeats 3] [--peers launch/bench/.peers] [--quick]
        [--against hf] [--workloads ragged]

One model with the shape of Qwen3, 30.5M fresh random weights in fp32, exported once and read by
all. 128 requests in order of arrival, prompts of 32 to 256 tokens, answers of log-normal lengths
(mean 64, coefficient of variation 0.8, 8 to 256) that no scheduler can see; at most 32 are decoded
at once, at temperature 1, on the CPU. Three processes, warm all, take turns:

- arkjax: the engine, which is told of every request that its answer has at most 256 tokens. An
  answer ends at its length because the token that it has there is its stop id: tokens depend on
  the seed, so a first run, in a process that ends before any clock starts, finds them.
- tunix, hf: static batches in order of arrival. The last step of a batch is the last one of its
  longest answer, and nothing is spent on finding that out; see `peers/`.

Ratios are useful tokens per second of ArkJAX over those of a peer, medians of the repeats.
`tunix_sorted` and `hf_sorted` tell the peers, and them only, the lengths beforehand: batches of
answers of like length, the most that static batches can reach. In `tunix_fixed` and `hf_fixed` no
schedule wins anything: all prompts have 128 tokens and all answers 64. The first run of each is
cold; `compile_seconds` is how much slower it was than the median of the others. Occupancy is useful
tokens over rows times decode steps, where ArkJAX counts the rows that it has at each step.
All must give the same greedy answers to a few prompts, with the same log-probabilities.

`launch/bench/peers.sh` installs the peers. The last line is one JSON object.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.commands import Process

HERE = Path(__file__).resolve().parent
PEERS = ("tunix", "hf")
# What begins the names of the figures of a workload.
WORKLOADS = {"ragged": "", "sorted": "sorted_", "fixed": "fixed_"}
# Sums of some hundred fp32 products differ by 1e-6 of themselves in another order; logits are ~10.
_LOGPROB_TOLERANCE = 1e-3


def start(name: str, python: Path | str, folder: Path, bench: str = "sampling") -> Process:
    """A process for ArkJAX or a peer: the CPU only, nothing from a hub, nothing compiled before."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key != "JAX_COMPILATION_CACHE_DIR" and (name == "arkjax" or key != "PYTHONPATH")
    }
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return Process(name, [python, HERE / "peers" / f"{bench}_{name}.py", folder], environment)


def measure(processes: dict[str, Process], workload: str, label: str) -> dict[str, dict]:
    """One run of each that has this workload, in turn."""
    results = {}
    for name, process in processes.items():
        if name == "arkjax" and workload == "sorted":
            continue
        result = results[name] = process.ask("run", workload)
        rate = result["tokens"] / result["seconds"]
        print(
            f"{label:9} {workload:7} {name:7} {rate:8.1f} tokens/s {result['seconds']:7.1f} s, "
            f"occupancy {result['occupancy']:.2f}",
            flush=True,
        )
    return results


def check_alike(processes: dict[str, Process]) -> dict[str, float]:
    """See that all compute one model; returns how far log-probabilities differ at most.

    Tokens alone would say little: a model of random weights likes to repeat itself.
    """
    answers = {name: process.ask("greedy") for name, process in processes.items()}
    ours, expected = answers.pop("arkjax")
    apart = {}
    for name, (theirs, logprobs) in answers.items():
        if theirs != ours:
            raise SystemExit(
                f"error: {name} computes another model: its greedy answers are {theirs}, "
                f"those of arkjax {ours}"
            )
        pairs = zip(itertools.chain(*expected), itertools.chain(*logprobs), strict=True)
        apart[name] = max(abs(a - b) for a, b in pairs)
        if not apart[name] < _LOGPROB_TOLERANCE:
            raise SystemExit(
                f"error: {name} computes another model: log-probabilities of the same tokens are "
                f"{apart[name]:.2g} from those of arkjax, {_LOGPROB_TOLERANCE} are allowed"
            )
        print(
            f"{name} computes the same model: the same {sum(map(len, ours))} greedy tokens, "
            f"log-probabilities at most {apart[name]:.1e} apart",
            flush=True,
        )
    return {name: float(f"{value:.2g}") for name, value in apart.items()}


def summary(name: str, cold: dict, runs: dict[str, list[dict]]) -> dict[str, float]:
    """Medians of one contestant, of all its workloads."""
    fields = {}
    for workload in cold:
        if name not in cold[workload]:
            continue
        prefix = WORKLOADS[workload]
        results = [run[name] for run in runs[workload]]
        seconds = statistics.median(result["seconds"] for result in results)
        first = cold[workload][name]["seconds"]
        fields |= {
            prefix + "tokens_per_second": round(results[0]["tokens"] / seconds, 1),
            prefix + "occupancy": round(results[0]["occupancy"], 3),
            prefix + "cold_seconds": round(first, 2),
            prefix + "compile_seconds": round(first - seconds, 2),
        }
    return fields


def compare(
    peers: list[str], runs: dict[str, list[dict]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Ratios of the medians, and the least and the greatest of single repeats."""
    ratios, spread = {}, {}
    for peer in peers:
        for workload, theirs in runs.items():
            ours = runs["ragged" if workload == "sorted" else workload]
            pairs = [
                (a["arkjax"]["seconds"], b[peer]["seconds"])
                for a, b in zip(ours, theirs, strict=True)
            ]
            name = peer if workload == "ragged" else f"{peer}_{workload}"
            mine, its = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
            single = sorted(b / a for a, b in pairs)
            ratios[name] = round(its / mine, 3)
            spread[name] = [round(single[0], 3), round(single[-1], 3)]
    return ratios, spread


def bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; returns what the JSON line says."""
    with start("arkjax", sys.executable, folder) as process:
        made = process.ask("prepare", arguments.requests, arguments.rows, arguments.seed)
    print(
        f"{made['parameters']:,} parameters; {arguments.requests} prompts of "
        f"{made['prompt_tokens']:,} tokens, answers of {made['answer_tokens']:,}, the longest of "
        f"{made['longest_answer']}",
        flush=True,
    )
    with contextlib.ExitStack() as stack:
        pythons = {name: arguments.peers / name / "bin" / "python" for name in arguments.against}
        processes = {
            name: stack.enter_context(start(name, python, folder))
            for name, python in {"arkjax": sys.executable, **pythons}.items()
        }
        processes["arkjax"].ask("load")
        about = {name: process.ask("about") for name, process in processes.items()}
        workloads = arguments.workloads
        cold = {workload: measure(processes, workload, "cold") for workload in workloads}
        apart = check_alike(processes)
        runs: dict[str, list[dict]] = {workload: [] for workload in workloads}
        for repeat in range(1, arguments.repeats + 1):
            for workload, results in runs.items():
                results.append(measure(processes, workload, f"repeat {repeat}"))
    ratios, spread = compare(arguments.against, runs)
    for name, ratio in ratios.items():
        least, most = spread[name]
        print(f"arkjax / {name:12} {ratio:6.2f} (of single repeats {least:.2f} to {most:.2f})")
    ours = about.pop("arkjax")
    return {
        "bench": "sampling",
        "config": {
            "requests": arguments.requests,
            "rows": arguments.rows,
            "repeats": arguments.repeats,
            "seed": arguments.seed,
            "temperature": 1.0,
            **made,
            "logprobs_apart": apart,
        },
        "device": {
            "kind": ours["kind"],
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": ours["versions"] | {"peers": about},
        "arkjax": summary("arkjax", cold, runs),
        "peers": {name: summary(name, cold, runs) for name in arguments.against},
        "ratios": ratios,
        "spread": spread,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--rows", type=int, default=32, help="most that are decoded at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of weights, prompts and lengths")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", help="made by peers.sh")
    parser.add_argument("--against", nargs="+", choices=PEERS, default=[*PEERS], help="which peers")
    parser.add_argument(
        "--workloads",
        nargs="+",
        choices=WORKLOADS,
        default=[*WORKLOADS],
        help="sorted is compared with ragged, and takes it along",
    )
    parser.add_argument("--quick", action="store_true", help="16 requests, 8 rows, 1 repeat")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.requests, arguments.rows, arguments.repeats = 16, 8, 1
    if "ragged" not in arguments.workloads and "sorted" in arguments.workloads:
        arguments.workloads = ["ragged", *arguments.workloads]
    for name in arguments.against:
        if not (arguments.peers / name / "bin" / "python").exists():
            raise SystemExit(
                f"error: {arguments.peers} has no environment of {name}: make it with "
                "launch/bench/peers.sh, or say with --peers where it is"
            )
    # Ends as Ctrl-C does: the processes with it, and no folder stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="bench-sampling-") as folder:
        print(json.dumps(bench(Path(folder), arguments)))


if __name__ == "__main__":
    main()
