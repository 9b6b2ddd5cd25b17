"""A record of a million calls: written, verified, opened, and searched by problem.

    python launch/bench/bench_records.py [--calls 1000000] [--question 100] [--answer 40]

Debates of two rounds: in the first every agent is shown the question, in the second also what all
have said in the first. Token ids are drawn evenly from 32,000, so that nothing but what prompts
repeat can be compressed; ids of calls follow from their content, as `verify` demands.

- make: making the calls up. Not counted in `seconds`, which is what the record takes.
- write: `CallStore.append`, shards of 4,096 calls with their checksums, synced to the disk.
- verify: `arkjax.trajectories.consistency.verify`: checksums, and every rule of a record.
- open: `CallStore`, checksums verified, ids indexed.
- problems: the first question after a problem, which reads the column of problems.
- of_problem: the calls of one problem, mean over 200 drawn problems. Beside it PyArrow's scan of
  the same folder for the same problem, `pyarrow.dataset` with a filter, for a few of them, with no
  checksums verified. The ratio is of these two.

Each part runs in a process of its own: `peak_gib` is the largest of their peak memories, and
`cpu_seconds` what all of them computed, making the calls up included. The last line is one JSON
object.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.progress import Progress
from arkjax.sampling.params import SamplingParams
from arkjax.trajectories.schema import TEMPLATE, Call, call_id, sampling_dict
from arkjax.trajectories.store import CallStore

VOCABULARY = 32_000
LOOKED_UP, SCANNED = 200, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--question", type=int, default=100, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=40, help="tokens of an answer")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-records-", dir=args.folder))
    try:
        parts = {}
        for part in (write, verify, search):
            parts |= apart(part, folder, args)
            print(f"{part.__name__}: {parts}", flush=True)
    finally:
        shutil.rmtree(folder)
    took = {name: parts[name] for name in ("write", "verify", "open", "problems", "of_problems")}
    peaks = [value for name, value in parts.items() if name.startswith("peak")]
    result = {
        "bench": "records",
        "config": {key: value for key, value in vars(args).items() if key != "folder"},
        "device": {
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "pyarrow": version("pyarrow")},
        "arkjax": {
            "seconds": round(sum(took.values()), 2),
            **{name: round(seconds, 3) for name, seconds in took.items()},
            "make": round(parts["make"], 2),
            "cpu_seconds": round(sum(v for n, v in parts.items() if n.startswith("cpu")), 1),
            "peak_gib": round(max(peaks), 3),
            "bytes_per_call": round(parts["bytes"] / parts["calls"], 1),
            "tokens_per_call": round(parts["tokens"] / parts["calls"], 1),
            "of_problem": round(parts["of_problems"] / LOOKED_UP, 5),
        },
        "peers": {"pyarrow": {"of_problem": round(parts["scan"], 4)}},
        "ratios": {"pyarrow": round(parts["scan"] * LOOKED_UP / parts["of_problems"], 2)},
    }
    print(json.dumps(result))


def version(package: str) -> str:
    from importlib.metadata import version as of

    return of(package)


def apart(part: Callable, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a fresh process; what it returns, and the process's peak memory in GiB."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=measured, args=(part, folder, args, queue))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"error: {part.__name__} failed")
    return queue.get()


def measured(part: Callable, folder: Path, args: argparse.Namespace, queue: Any) -> None:
    found = part(folder, args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # All of the process: starting it, and making the calls up, included.
    facts = {f"peak_{part.__name__}": peak, f"cpu_{part.__name__}": time.process_time()}
    queue.put(found | facts)


def write(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    made, tokens, seconds = 0, 0, 0.0
    started = time.perf_counter()
    with (
        Progress().task("write", total=args.calls, unit="calls") as task,
        CallStore(folder, flush_seconds=float("inf")) as store,
    ):
        stretch: list[Call] = []
        for call in debates(args):
            stretch.append(call)
            tokens += len(call.prompt_ids) + len(call.gen_ids)
            made += 1
            if len(stretch) == 4096 or made == args.calls:
                before = time.perf_counter()
                store.append(stretch)
                seconds += time.perf_counter() - before
                task.advance(len(stretch))
                stretch = []
        before = time.perf_counter()
    seconds += time.perf_counter() - before
    size = sum(path.stat().st_size for path in folder.iterdir())
    whole = time.perf_counter() - started
    return {
        "write": seconds,
        "make": whole - seconds,
        "calls": made,
        "tokens": tokens,
        "bytes": size,
    }


def verify(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    from arkjax.trajectories.consistency import verify as check

    started = time.perf_counter()
    with Progress().task("verify", total=args.calls, unit="calls") as task:
        faults = list(check(folder, task.advance))
    if faults:
        raise SystemExit(f"error: {len(faults)} faults, the first: {faults[0]}")
    return {"verify": time.perf_counter() - started}


def search(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.dataset

    times = {}
    started = time.perf_counter()
    store = CallStore(folder)
    times["open"] = time.perf_counter() - started
    started = time.perf_counter()
    problems = store.problems()
    times["problems"] = time.perf_counter() - started
    drawn = random.Random(0).choices(problems, k=LOOKED_UP)
    started = time.perf_counter()
    found = [store.of_problem(problem) for problem in drawn]
    times["of_problems"] = time.perf_counter() - started
    data = pyarrow.dataset.dataset([str(path) for path in sorted(folder.glob("*.parquet"))])
    scans = []
    for problem, calls in list(zip(drawn, found, strict=True))[:SCANNED]:
        started = time.perf_counter()
        table = data.to_table(filter=pyarrow.dataset.field("problem_id") == problem)
        scans.append(time.perf_counter() - started)
        if set(table["call_id"].to_pylist()) != {call.call_id for call in calls}:
            raise SystemExit(f"error: other calls were found for {problem}")
    return times | {"scan": statistics.median(scans)}


def debates(args: argparse.Namespace) -> Iterator[Call]:
    """The calls of as many debates as are needed, the last one cut short."""
    rng = np.random.default_rng(0)
    sampling = sampling_dict(SamplingParams(temperature=0.7, max_tokens=64, stop_ids=(2,)))
    agents = [f"agent{i}" for i in range(args.agents)]
    made = 0
    for number in range(-(-args.calls // (2 * args.agents))):
        question = tuple(rng.integers(3, VOCABULARY, args.question).tolist())
        answers = rng.integers(3, VOCABULARY, (2, args.agents, args.answer)).tolist()
        drawn = rng.standard_exponential((2, args.agents, args.answer), np.float32)
        logprobs = (-drawn).tolist()
        said: list[Call] = []
        for r, stage in enumerate(("opening", "rebuttal")):
            shown = said[: args.agents * r]
            prefix, segments = question, [(TEMPLATE, 0, len(question))]
            for call in shown:
                end = len(prefix) + len(call.gen_ids)
                segments.append((call.call_id, len(prefix), end))
                prefix += call.gen_ids
            end = len(prefix)
            segments.append((TEMPLATE, end, end + 2))
            for a, agent in enumerate(agents):
                prompt, own = (*prefix, 3, 4 + a), tuple(logprobs[r][a])
                identity = {
                    "problem_id": f"train-0-{number:06d}",
                    "model": "base-0123456789abcdef",
                    "stage": stage,
                    "round": r,
                    "agent": agent,
                    "sample": 0,
                    "prompt_ids": prompt,
                    "sampling": sampling,
                    "seed": (number * 31 + r * 7 + a) & 0x7FFFFFFF,
                }
                call = Call(
                    **identity,
                    call_id=call_id(**identity),
                    system="debate",
                    parents=tuple(call.call_id for call in shown),
                    prompt_segments=tuple(segments),
                    prefix_len=end,
                    cached_len=end if a else 0,
                    gen_ids=tuple(answers[r][a]),
                    logprobs=own,
                    sampling_logprobs=own,
                    text=f"the sum of {number} and {a} makes {number + a} ; so {a}",
                    parsed={"answer": str(a)},
                    parse_ok=True,
                    finish_reason="stop",
                    correct=number % args.agents == a,
                    seconds=0.01,
                )
                said.append(call)
                yield call
                made += 1
                if made == args.calls:
                    return


if __name__ == "__main__":
    main()
