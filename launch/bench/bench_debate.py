"""What shared prefixes save in a debate: tokens prefilled, and time.

    python launch/bench/bench_debate.py [--problems 32] [--question 1024] [--repeats 1] [--quick]

Five agents with roles of their own debate each problem for three rounds; in the second and third
they read what all said in the round before. Questions have 1,024 tokens, answers up to 32. The
model has the shape of Qwen3, 3.3M fresh random weights in fp32. Three ways of the same debate, each
on a warm engine, in turn:

- shared: transcript first, roles last, prefixes prefilled once; what `arkjax` does.
- alone: the same prompts, each prefilled whole.
- role_first: the role before the transcript, each prompt prefilled whole; what most teams do.

The first two generate the same answers, which is checked. The ratio `prefill_tokens` is tokens
prefilled by role_first over those of shared, `wall` the time of alone over that of shared, medians
of the repeats; above 1 sharing is better. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence

import jax

from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights, num_parameters
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generation, Request
from arkjax.shipped import shipped_path
from arkjax.tasks.problems import Problem
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.runner import play
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.versions import versions

TASK = "embedded_world"
WORDS = (
    "The surveyor walked from the harbour to the mill and wrote down what she saw there . ".split()
)
ROLES = [f"{role}, who answers with care" for role in ("guide", "baker", "pilot", "nurse", "clerk")]


class Counted:
    """An engine that counts what it prefills, and may be kept from sharing any of it."""

    def __init__(self, engine: Engine, *, share: bool):
        self._engine, self._share = engine, share
        self._prompts: dict[str, int] = {}
        self.max_context = engine.max_context
        self.prompt_tokens = self.prefilled = self.generated = self.calls = 0

    @property
    def pending(self) -> int:
        return self._engine.pending

    def submit(self, request: Request) -> None:
        if not self._share:
            request = dataclasses.replace(request, prefix_len=0, shared=())
        self._prompts[request.id] = len(request.prompt_ids)
        self._engine.submit(request)

    def step(self) -> list[Generation]:
        ended = self._engine.step()
        for generation in ended:
            prompt = self._prompts.pop(generation.request_id)
            self.calls += 1
            self.prompt_tokens += prompt
            self.prefilled += prompt - generation.cached_len
            self.generated += len(generation.ids)
        return ended


def make_problems(count: int, tokens: int, chat: PlainChat) -> list[Problem]:
    """Problems whose opening has this many tokens, no two alike."""
    problems = []
    for i in range(count):
        words = [str(i)]
        while len(chat.question(" ".join([*words, WORDS[len(words) % len(WORDS)]]))) <= tokens:
            words.append(WORDS[(len(words) * (i + 7)) % len(WORDS)])
        problems.append(Problem(f"p{i}", " ".join(words), "none", TASK, "bench"))
    return problems


def with_layout(spec: TeamSpec, layout: str) -> TeamSpec:
    stages = tuple(
        dataclasses.replace(stage, view=dataclasses.replace(stage.view, layout=layout))
        for stage in spec.stages
    )
    return dataclasses.replace(spec, stages=stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--question", type=int, default=1024, help="tokens of a question")
    parser.add_argument("--answer", type=int, default=32, help="most tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="4 problems, 128 tokens a question")
    args = parser.parse_args()
    if args.quick:
        args.problems, args.question = 4, 128

    tokenizer = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
    chat, grader = PlainChat(tokenizer), get_task(TASK).grader
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=256,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        d_ff=768,
        qk_norm=True,
    )
    model = Transformer(config, init_weights(config, 0))
    problems = make_problems(args.problems, args.question, chat)
    team = library.debate(roles=ROLES, rounds=args.rounds, temperature=1.0, max_tokens=args.answer)
    # Twice the transcript: every message has its header.
    context = args.question + len(ROLES) * (args.answer + 24) + 64 + args.answer
    context = -(-context // 128) * 128
    engine = Engine(
        model,
        EngineConfig(
            length_classes=(context,),
            slots=args.slots,
            prefixes=2 * args.problems,
            admit_rows=16,
            prefix_rows=4,
            chunk=32,
            block_steps=16,
            max_stop_ids=1,
            prefill_tokens=2048,
        ),
    )
    ways = {
        "shared": (with_layout(team, "transcript_first"), True),
        "alone": (with_layout(team, "transcript_first"), False),
        "role_first": (with_layout(team, "role_first"), False),
    }

    def debate(name: str, problems: Sequence[Problem]) -> tuple[float, Counted, list]:
        spec, share = ways[name]
        counted = Counted(engine, share=share)
        models = dict.fromkeys(spec.models, counted)
        started = time.perf_counter()
        debates = play(spec, problems, models, chat, tokenizer, grader, None, 0)
        seconds = time.perf_counter() - started
        said = [[call.gen_ids for call in debate.calls] for debate in debates]
        return seconds, counted, said

    for name in ways:
        seconds, *_ = debate(name, problems[: max(2, args.problems // 8)])
        print(f"warm-up of {name}: {seconds:.1f} s", flush=True)
    runs: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, Counted] = {}
    for repeat in range(args.repeats):
        answers = {}
        for name in ways:
            # Other questions each time, so that nothing is left over from before.
            fresh = [
                dataclasses.replace(p, id=f"{p.id}-{repeat}", question=f"{repeat} {p.question}")
                for p in problems
            ]
            engine.cancel()
            seconds, counts[name], answers[name] = debate(name, fresh)
            runs[name].append(seconds)
            c = counts[name]
            print(
                f"{name:10} {seconds:6.1f} s, {c.calls} calls, {c.prompt_tokens} prompt tokens, "
                f"{c.prefilled} prefilled, {c.generated} generated",
                flush=True,
            )
        if answers["shared"] != answers["alone"]:
            raise SystemExit("error: sharing has changed an answer")
    seconds = {name: statistics.median(values) for name, values in runs.items()}
    pairs = list(zip(runs["alone"], runs["shared"], strict=True))
    result = {
        "bench": "debate",
        "config": vars(args) | {"agents": len(ROLES), "parameters": num_parameters(config)},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {
            name: {"seconds": round(seconds[name], 2), "prefilled": counts[name].prefilled}
            for name in ways
        },
        "ratios": {
            "prefill_tokens": round(counts["role_first"].prefilled / counts["shared"].prefilled, 2),
            "wall": round(seconds["alone"] / seconds["shared"], 2),
        },
        "spread": {"wall": [round(f(a / b for a, b in pairs), 2) for f in (min, max)]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
