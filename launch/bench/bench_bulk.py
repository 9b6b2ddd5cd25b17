"""Examples of a million recorded calls: one Beam pipeline, beside a unifier in one process.

    python launch/bench/bench_bulk.py [--calls 1000000] [--workers 2]

Debates of four agents and two rounds, of token ids drawn evenly from a small vocabulary; of the
answers one in ten is that of an earlier debate but for a token. Traces are chosen by their 4-grams,
near-duplicates among all problems are left out, problems of each difficulty limited, and what is
left is weighed by agreement: every step that looks at one problem, and every one that looks at all.

- make: making the calls up and recording them. Not counted.
- unifier: `CallStore`, `Unifier`; the examples are held in memory.
- pipeline: `arkjax.beam.pipeline.select` on the DirectRunner, from the same shards to shards of
  examples with checksums.

Both are told by the same digest over every field of every example, in order, and by what each
filter counted; the command fails where these differ. Each part runs in a process of its own:
`peak_gib` is the most memory (RSS) that it and all its children held together, looked at five times
a second. The last line is one JSON object.
"""

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arkjax.progress import Progress
from arkjax.sampling.params import SamplingParams
from arkjax.shipped import shipped_path
from arkjax.synthesis.examples import Example
from arkjax.synthesis.selection import SelectionConfig
from arkjax.tasks import embedded_world
from arkjax.tasks.problems import Problem
from arkjax.tasks.world_grader import WorldGrader
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import TEMPLATE, Call, call_id, sampling_dict
from arkjax.trajectories.store import CallStore

AGENTS, ROLE = ("surveyor", "assayer", "clerk", "judge"), "answer"
TOKENIZER = "data/embedded_world/tokenizer.model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--form", default="none")
    parser.add_argument("--near-duplicates", type=float, default=0.8)
    parser.add_argument("--question", type=int, default=100, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=40, help="tokens of an answer")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-bulk-", dir=args.folder))
    try:
        parts = {}
        for part in (make, pipeline, unifier):
            parts[part.__name__] = apart(part, folder, args)
            print(f"{part.__name__}: {parts[part.__name__]}", flush=True)
    finally:
        shutil.rmtree(folder)
    ours, alone = parts["pipeline"], parts["unifier"]
    for name in ("digest", "counts"):
        if ours[name] != alone[name]:
            raise SystemExit(f"error: {name} differ: {ours[name]} and {alone[name]}")
    figures = ("seconds", "calls_per_second", "peak_gib")
    result = {
        "bench": "bulk",
        "config": {key: value for key, value in vars(args).items() if key != "folder"},
        "device": {
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("apache-beam", "pyarrow")},
        "arkjax": {name: ours[name] for name in figures}
        | {
            "equal": True,
            "examples": ours["counts"]["examples"],
            "records": ours["records"],
            "make": parts["make"]["seconds"],
        },
        "peers": {"unifier": {name: alone[name] for name in figures}},
        "ratios": {"unifier": round(alone["seconds"] / ours["seconds"], 2)},
    }
    print(json.dumps(result))


def version(package: str) -> str:
    from importlib.metadata import version as of

    return of(package)


# --- the parts ------------------------------------------------------------------------------------


def make(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    made = tokens = 0
    with (
        Progress().task("make", total=args.calls, unit="calls") as task,
        CallStore(folder / "calls", flush_seconds=float("inf")) as store,
    ):
        for calls in debates(args):
            calls = calls[: args.calls - made]
            store.append(calls)
            made += len(calls)
            tokens += sum(len(call.prompt_ids) + len(call.gen_ids) for call in calls)
            task.advance(len(calls))
    return {"calls": made, "tokens_per_call": round(tokens / made, 1)}


def pipeline(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    from arkjax.beam.pipeline import select
    from arkjax.beam.recipe import Recipe
    from arkjax.synthesis.example_files import read_examples

    files = {"tokenizer.model": shipped_path(TOKENIZER).read_bytes()}
    recipe = Recipe(config(args), WorldGrader(), files, chat="plain", role=ROLE)
    started = time.perf_counter()
    tally = select(
        folder / "examples",
        [folder / "calls"],
        recipe,
        problems(args.calls),
        {},
        workers=args.workers,
        progress=Progress(),
    )
    took = time.perf_counter() - started
    return {
        **told(args, took, read_examples(folder / "examples"), tally.counts),
        "records": dict(sorted(tally.records.items())),
    }


def unifier(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    from arkjax.synthesis.unified import Unifier

    tokenizer = Tokenizer(shipped_path(TOKENIZER))
    chat = PlainChat(tokenizer)
    started = time.perf_counter()
    of = Unifier(
        config(args),
        WorldGrader(),
        tokenizer,
        {problem.id: problem for problem in problems(args.calls)},
        lambda question: [*chat.question(question), *chat.turn(ROLE)],
        end_ids=chat.end_ids,
    )
    store = CallStore(folder / "calls")
    names = sorted(store.problems())
    with Progress().task("unifier", total=len(names), unit="problems") as task:
        examples, counts = of(store.by_problem(names), {}, task=task)
    return told(args, time.perf_counter() - started, examples, counts)


def told(
    args: argparse.Namespace, seconds: float, examples: Iterable[Example], counts: Any
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for example in examples:
        fields = {f.name: getattr(example, f.name) for f in dataclasses.fields(example)}
        digest.update(json.dumps(fields, sort_keys=True).encode())
    return {
        "seconds": round(seconds, 1),
        "calls_per_second": round(args.calls / seconds),
        "digest": digest.hexdigest(),
        "counts": dataclasses.asdict(counts),
    }


def config(args: argparse.Namespace) -> SelectionConfig:
    return SelectionConfig(
        max_traces=2,
        min_agreeing=2,
        prefer_corrective=True,
        form=args.form,
        correction="no ;",
        weights="agreement",
        balance="problems",
        near_duplicates=args.near_duplicates,
        max_per_difficulty=max(args.calls // 50, 1),
    )


# --- measuring ------------------------------------------------------------------------------------


def apart(part: Callable, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a fresh process; what it returns, and the peak of all its processes."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=timed, args=(part, folder, args, queue))
    process.start()
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, memory(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    process.join()
    done.set()
    watcher.join()
    if process.exitcode:
        raise SystemExit(f"error: {part.__name__} failed")
    return queue.get() | {"peak_gib": round(peak / 2**30, 3)}


def timed(part: Callable, folder: Path, args: argparse.Namespace, queue: Any) -> None:
    started = time.perf_counter()
    found = part(folder, args)
    queue.put({"seconds": round(time.perf_counter() - started, 1)} | found)


def memory(root: int) -> int:
    """RSS in bytes of a process and all below it."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                after = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It has ended.
            parents[int(entry.name)], pages[int(entry.name)] = int(after[1]), int(after[21])
    below, total = [root], 0
    while below:
        one = below.pop()
        total += pages.get(one, 0)
        below += [pid for pid, parent in parents.items() if parent == one]
    return total * os.sysconf("SC_PAGE_SIZE")


# --- debates --------------------------------------------------------------------------------------


def problems(calls: int) -> Iterator[Problem]:
    """As many problems as are needed; what they ask is of no matter to what is measured."""
    items = list(embedded_world.SKILLS)
    for number in range(-(-calls // (2 * len(AGENTS)))):
        asked = ((items[number % len(items)], number % 10, number // 10 % 10),)
        yield embedded_world.make_problem(asked, f"train-0-{number:07d}")


def debates(args: argparse.Namespace) -> Iterator[list[Call]]:
    """Two rounds; in the second everybody is shown what was said in the first, and errs less.

    Of the answers one in ten is that of an earlier debate, with one token in forty another, and one
    in a hundred runs into its limit.
    """
    size = Tokenizer(shipped_path(TOKENIZER)).vocab_size
    rng, count = np.random.default_rng(0), len(AGENTS)
    sampling = sampling_dict(SamplingParams(temperature=0.7, max_tokens=96, stop_ids=(2,)))
    earlier: list[tuple[int, ...]] = []
    for number, problem in enumerate(problems(args.calls)):
        question = tuple(rng.integers(3, size, args.question).tolist())
        answers = rng.integers(3, size, (2 * count, args.answer)).tolist()
        logprobs = (-rng.standard_exponential((2 * count, args.answer), np.float32)).tolist()
        chance = rng.random((2 * count, 3)).tolist()
        said: list[Call] = []
        for place in range(2 * count):
            r, agent = divmod(place, count)
            if agent == 0:
                prompt, segments = question, [(TEMPLATE, 0, len(question))]
                shown = said[: count * r]
                for call in shown:
                    end = len(prompt) + len(call.gen_ids)
                    segments.append((call.call_id, len(prompt), end))
                    prompt += call.gen_ids
                segments.append((TEMPLATE, len(prompt), len(prompt) + 2))
            words, own = answers[place], tuple(logprobs[place])
            if earlier and chance[place][0] < 0.1:
                words = list(earlier[int(chance[place][1] * len(earlier))])
                words[number % args.answer] = 3
            correct = chance[place][1] < (0.5, 0.8)[r]
            stated = problem.answer if correct else f"{chance[place][2] * 9:.0f} wrong"
            identity = {
                "problem_id": problem.id,
                "model": "base-0123456789abcdef",
                "stage": ("opening", "rebuttal")[r],
                "round": r,
                "agent": AGENTS[agent],
                "sample": 0,
                "prompt_ids": (*prompt, 3, 4 + agent),
                "sampling": sampling,
                "seed": number * 8 + place & 0x7FFFFFFF,
            }
            call = Call(
                **identity,
                call_id=call_id(**identity),
                system="debate",
                parents=tuple(call.call_id for call in shown),
                prompt_segments=tuple(segments),
                prefix_len=len(prompt),
                cached_len=0,
                gen_ids=tuple(words),
                logprobs=own,
                sampling_logprobs=own,
                text=f"the sum of {number} and {agent} makes {stated}",
                parsed={"answer": stated},
                parse_ok=True,
                finish_reason="stop" if chance[place][2] > 0.01 else "length",
                correct=correct,
                seconds=0.01,
            )
            said.append(call)
        if number % 7 == 0 and len(earlier) < 20_000:
            earlier.append(said[-1].gen_ids)
        yield said


if __name__ == "__main__":
    main()
