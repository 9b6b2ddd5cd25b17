"""ArkJAX's engine on the requests of `bench_sampling.py`, which are made here too.

    python sampling_arkjax.py FOLDER

Runs in ArkJAX's own environment.
"""

import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from commands import serve
from shape import MODEL

from arkjax.models.huggingface.reading import load_hf
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.versions import versions

# Tunix masks tokens of a prompt that have this id; no prompt here has one.
PAD_ID = 0
PROMPT = (32, 256)
ANSWER = (8, 256)
MEAN, VARIATION = 64, 0.8
FIXED_PROMPT, FIXED_ANSWER = 128, 64
CHECK_PROMPT, CHECK_ANSWER = (17, 24, 32, 48), 8


def make_engine(model: Transformer, rows: int, context: int) -> Engine:
    """The engine, set up for requests whose prompts and answers have at most `context` tokens."""
    config = EngineConfig(
        length_classes=(context,),
        slots=rows,
        prefixes=1,
        admit_rows=16,
        prefix_rows=1,
        chunk=32,
        block_steps=8,
        max_stop_ids=1,
        prefill_tokens=256,
        # As calls end, fewer slots are decoded; and no more positions than the longest call has.
        least_slots=2,
        least_length=128,
    )
    return Engine(model, config)


def to_request(plain: dict[str, Any], most: int, temperature: float = 1.0) -> Request:
    """What the engine is told: the most tokens that any answer has, not how many this one has."""
    stop_ids = (plain["stop_id"],) if "stop_id" in plain else ()
    sampling = SamplingParams(temperature=temperature, max_tokens=most, stop_ids=stop_ids)
    return Request(str(plain["seed"]), tuple(plain["prompt"]), 0, sampling, plain["seed"])


def drive(engine: Engine, requests: list[Request]) -> list[Generation]:
    """All answers, in the order of the requests, which all arrive at once."""
    done: dict[str, Generation] = {}
    for request in requests:
        engine.submit(request)
    while engine.pending:
        done |= {generation.request_id: generation for generation in engine.step()}
    return [done[request.id] for request in requests]


def occupancy(engine: Engine) -> float:
    """Share of rows times decode steps that were of use, since the profile was reset.

    A call's first token is drawn as its prompt is read, one row for one token.
    """
    profile = engine.profile
    return (profile.tokens + profile.calls) / (profile.slot_steps + profile.calls)


# --- making the requests ------------------------------------------------------------------------


def plain_requests(count: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Prompts and lengths of answers, before anything says where an answer ends."""
    random = np.random.default_rng(seed)
    sigma = math.sqrt(math.log(1 + VARIATION**2))
    drawn = random.lognormal(math.log(MEAN) - sigma**2 / 2, sigma, count)
    lengths = np.clip(np.rint(drawn), *ANSWER).astype(int).tolist()
    prompts = random.integers(PROMPT[0], PROMPT[1] + 1, count).tolist()

    def requests(prompts: list[int], lengths: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "prompt": random.integers(PAD_ID + 1, MODEL.vocab_size, prompt).tolist(),
                "length": length,
                "seed": i,
            }
            for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]

    return {
        "ragged": requests(prompts, lengths),
        "fixed": requests([FIXED_PROMPT] * count, [FIXED_ANSWER] * count),
        "check": requests([*CHECK_PROMPT], [CHECK_ANSWER] * len(CHECK_PROMPT)),
    }


def end_at(answer: tuple[int, ...], wanted: int) -> int:
    """The length nearest to the wanted one whose last token the answer does not have before."""
    first = {token: i for i, token in reversed(list(enumerate(answer, start=1)))}
    return min(first.values(), key=lambda length: abs(length - wanted))


def static_batches(requests: list[dict], rows: int, most: int = 0) -> list[dict[str, Any]]:
    """Batches for a peer, with room for answers of `most` tokens or else for the longest."""
    batches = []
    for start in range(0, len(requests), rows):
        batch = requests[start : start + rows]
        prompts = [plain["prompt"] for plain in batch]
        lengths = [plain["length"] for plain in batch]
        context = max(map(len, prompts)) + (most or max(lengths))
        seed = batch[0]["seed"]
        batches.append({"prompts": prompts, "lengths": lengths, "context": context, "seed": seed})
    return batches


def prepare(folder: Path, count: int, rows: int, seed: int) -> dict[str, Any]:
    """Write the model, and the requests with the stop id of each; returns what was made.

    Tokens depend on the seed of a request, not on where the answer ends. So this lets every answer
    go on for as long as any may, and takes the token at the length wanted for the stop id.
    """
    model = Transformer(MODEL, init_weights(MODEL, seed))
    export_hf(model, folder / "model")
    requests = plain_requests(count, seed)
    ragged = requests["ragged"]
    engine = make_engine(model, rows, PROMPT[1] + ANSWER[1])
    answers = drive(engine, [to_request(plain, ANSWER[1]) for plain in ragged])
    moved = 0
    for plain, answer in zip(ragged, answers, strict=True):
        length = end_at(answer.ids, plain["length"])
        moved += length != plain["length"]
        plain |= {"length": length, "stop_id": answer.ids[length - 1]}
    by_length = sorted(ragged, key=lambda plain: plain["length"])
    work = {
        "pad_id": PAD_ID,
        "rows": rows,
        "requests": requests,
        "batches": {
            "ragged": static_batches(ragged, rows, ANSWER[1]),
            "sorted": static_batches(by_length, rows),
            "fixed": static_batches(requests["fixed"], rows),
        },
        "check": static_batches(requests["check"], len(CHECK_PROMPT))[0],
    }
    (folder / "work.json").write_text(json.dumps(work))
    lengths = [plain["length"] for plain in ragged]
    return {
        "model": dataclasses.asdict(MODEL),
        "parameters": sum(array.size for array in model.arrays().values()),
        "prompt_tokens": sum(len(plain["prompt"]) for plain in ragged),
        "answer_tokens": sum(lengths),
        "longest_answer": max(lengths),
        "lengths_moved": moved,
    }


# --- answering them -----------------------------------------------------------------------------


def main(folder: Path) -> None:
    engines: dict[str, Engine] = {}
    work: dict[str, Any] = {}

    def load() -> None:
        work.update(json.loads((folder / "work.json").read_text()))
        model = load_hf(folder / "model", make_mesh(), ShardingRules())
        engines["ragged"] = make_engine(model, work["rows"], PROMPT[1] + ANSWER[1])
        engines["fixed"] = make_engine(model, work["rows"], FIXED_PROMPT + FIXED_ANSWER)

    def run(name: str) -> dict[str, float]:
        most = {"ragged": ANSWER[1], "fixed": FIXED_ANSWER}[name]
        plain, engine = work["requests"][name], engines[name]
        requests = [to_request(one, most) for one in plain]
        engine.profile.reset()
        started = time.perf_counter()
        answers = drive(engine, requests)
        seconds = time.perf_counter() - started
        wrong = sum(len(a.ids) != one["length"] for a, one in zip(answers, plain, strict=True))
        if wrong:
            raise SystemExit(f"{wrong} of {len(answers)} answers have another length than before")
        tokens = sum(len(answer.ids) for answer in answers)
        return {"seconds": seconds, "tokens": tokens, "occupancy": occupancy(engine)}

    def greedy() -> list[list]:
        check = [to_request(one, CHECK_ANSWER, 0.0) for one in work["requests"]["check"]]
        answers = drive(engines["ragged"], check)
        return [[answer.ids for answer in answers], [answer.logprobs for answer in answers]]

    def about() -> dict[str, Any]:
        return {"kind": jax.devices()[0].device_kind, "versions": versions()}

    def prepared(*sizes: int) -> dict[str, Any]:
        return prepare(folder, *sizes)

    serve({"prepare": prepared, "load": load, "about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
