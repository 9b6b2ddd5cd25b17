"""How fast a team debates, beside the debate of AgentArk's published code under Hugging Face.

    python launch/bench/bench_teams.py [--questions .../gsm8k/test.jsonl] [--problems 16]
        [--repeats 3] [--peers launch/bench/.peers] [--quick]

Five agents debate real questions of GSM8K for three rounds and read all that was said before; each
answer has 64 tokens, drawn at temperature 1. The model has the shape of Qwen3, 30.5M fresh random
weights in fp32, exported once and read by all; the tokenizer is trained on the questions. Three
ways of it, in processes that take turns, warm all, on the CPU:

- arkjax: the team as a config, all problems at once, transcript first; prefixes are shared.
- sequential: one problem after the other and one call after the other, each agent with a
  conversation of its own, as AgentArk's code does it.
- batched: the same with the five calls of a round as one batch.

Ratios are seconds a problem of a peer over those of ArkJAX, medians of the repeats; the peers play
fewer problems, as their seconds add up. All must give the same greedy answers to a few prompts.
`launch/bench/peers.sh` installs the peers. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_sampling import check_alike, start

HERE = Path(__file__).resolve().parent
WAYS = ("sequential", "batched")


def read_questions(path: Path, count: int) -> list[str]:
    """The first questions of a file of JSON lines."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SystemExit(
            f"error: cannot read {path} ({error.strerror}): say with --questions where GSM8K's "
            "test.jsonl is (https://github.com/openai/grade-school-math)"
        ) from None
    questions = [json.loads(line)["question"] for line in lines[:count]]
    if len(questions) < count:
        raise SystemExit(f"error: {path} has {len(questions)} questions, {count} are needed")
    return questions


def bench(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; returns what the JSON line says."""
    a = arguments
    # Other problems in every repeat: nothing is left over from before.
    runs = a.repeats + 1
    texts = read_questions(a.questions, runs * a.problems)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(start("arkjax", sys.executable, folder, "teams"))
        made = ours.ask("prepare", texts, a.agents, a.rounds, a.answer, a.seed)
        python = a.peers / "hf" / "bin" / "python"
        theirs = stack.enter_context(start("hf", python, folder, "teams"))
        ours.ask("load", a.slots, a.problems)
        print(
            f"{made['parameters']:,} parameters, questions of {made['question_tokens']:.0f} tokens",
            flush=True,
        )
        about = {"arkjax": ours.ask("about"), "hf": theirs.ask("about")}
        apart = check_alike({"arkjax": ours, "hf": theirs})
        results: dict[str, list[dict]] = {name: [] for name in ("arkjax", *WAYS)}
        for repeat in range(runs):
            first = repeat * a.problems
            for name in results:
                if name == "arkjax":
                    result = ours.ask("run", first, a.problems)
                else:
                    result = theirs.ask("run", name, first, a.peer_problems)
                label = f"repeat {repeat}" if repeat else "warm-up"
                tokens = f"{result['prompt_tokens']:,.0f} prompt tokens"
                if "prefilled" in result:
                    tokens += f", {result['prefilled']:,.0f} of them prefilled"
                print(
                    f"{label:9} {name:10} {result['seconds']:6.2f} s a problem, {tokens}",
                    flush=True,
                )
                if repeat:
                    results[name].append(result)
    seconds = {
        name: statistics.median(result["seconds"] for result in several)
        for name, several in results.items()
    }
    pairs = {
        name: [
            b["seconds"] / a["seconds"]
            for a, b in zip(results["arkjax"], results[name], strict=True)
        ]
        for name in WAYS
    }
    last = results["arkjax"][-1]
    kept = ("agents", "rounds", "answer", "problems", "peer_problems", "slots", "repeats", "seed")
    return {
        "bench": "teams",
        "config": {name: getattr(a, name) for name in kept}
        | made
        | {"logprobs_apart": apart["hf"]},
        "device": {
            "kind": about["arkjax"]["kind"],
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": about["arkjax"]["versions"] | {"peers": {"hf": about["hf"]}},
        "arkjax": {
            "seconds_a_problem": round(seconds["arkjax"], 3),
            "tokens_per_second": round(last["generated"] / seconds["arkjax"], 1),
            "prompt_tokens": round(last["prompt_tokens"]),
            "prefilled": round(last["prefilled"]),
        },
        "peers": {
            f"{name}_hf": {
                "seconds_a_problem": round(seconds[name], 3),
                "prompt_tokens": round(results[name][-1]["prompt_tokens"]),
            }
            for name in WAYS
        },
        "ratios": {f"{name}_hf": round(seconds[name] / seconds["arkjax"], 2) for name in WAYS},
        "spread": {f"{name}_hf": [round(f(pairs[name]), 2) for f in (min, max)] for name in WAYS},
    }


def main() -> None:
    datasets = Path(os.environ.get("ARKJAX_DATASETS", "."))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, default=datasets / "gsm8k" / "test.jsonl")
    parser.add_argument("--problems", type=int, default=16, help="that ArkJAX plays in a repeat")
    parser.add_argument("--peer-problems", type=int, default=2, help="that a peer plays")
    parser.add_argument("--agents", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answer", type=int, default=64, help="tokens of every answer")
    parser.add_argument("--slots", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--peers", type=Path, default=HERE / ".peers", help="made by peers.sh")
    parser.add_argument("--quick", action="store_true", help="4 problems, answers of 8 tokens")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.problems, arguments.peer_problems = 4, 1
        arguments.answer, arguments.repeats = 8, 1
    if not (arguments.peers / "hf" / "bin" / "python").exists():
        raise SystemExit(
            f"error: {arguments.peers} has no environment of hf: make it with "
            "launch/bench/peers.sh, or say with --peers where it is"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="bench-teams-") as folder:
        print(json.dumps(bench(Path(folder), arguments)))


if __name__ == "__main__":
    main()
