"""Recorded debates to look at, and the page's data read back."""

import base64
import dataclasses
import gzip
import hashlib
import json
import random
import re

import numpy as np

from arkjax.evaluation.outcomes import Outcome, Outcomes
from arkjax.reporting.viewer.sources import find_sources
from arkjax.reporting.viewer.write import write_page
from arkjax.shipped import shipped_path
from arkjax.storage import write_atomic
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import Call
from arkjax.trajectories.store import CallStore

TOKENIZER = shipped_path("data/embedded_world/tokenizer.model")
SAMPLING = {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 36}
HOSTILE = (
    "</script><script>window.ran = 1</script><!-- <img src=x onerror='window.ran = 2'> -->"
    '<a href="javascript:window.ran = 3">go</a> \u2028\u2029 \x1b[31mred\x1b[0m \u202egnp \x00 '
    "${window.ran = 4} {{7*7}} ]]> &lt;b&gt; 🦊 \U0001f468\u200d\U0001f469"
)


def say(problem, agent, round, text, answer=None, correct=None, parents=(), **fields) -> Call:
    """A recorded call, with ids and log-probabilities that follow from its text."""
    key = hashlib.sha256(f"{problem}/{agent}/{round}/{text}/{fields}".encode()).hexdigest()
    ids = fields.pop("gen_ids", None)
    if ids is None:
        ids = (*Tokenizer(TOKENIZER).encode(text), 2) if text.isascii() else (5, 6, 2)
    draw = random.Random(key)
    logprobs = tuple(float(np.float32(-draw.expovariate(3))) for _ in ids)
    made = Call(
        call_id=key[:32], problem_id=problem, system="debate", stage="talk" if round else "opening",
        round=round, agent=agent, sample=0, parents=tuple(parents), prompt_segments=(),
        prompt_ids=(3, 4, 5), prefix_len=2, cached_len=1, gen_ids=tuple(ids), logprobs=logprobs,
        sampling_logprobs=logprobs, text=text, parsed={} if answer is None else {"answer": answer},
        parse_ok=answer is not None, finish_reason="stop", sampling=SAMPLING,
        seed=draw.randrange(2**31), model="base-1", correct=correct, seconds=0.25,
    )  # fmt: skip
    return dataclasses.replace(made, **fields)


def debate(problem, kind="corrected") -> list[Call]:
    """Two agents, two rounds: in the second, one goes over to what the other has said."""
    right = say(problem, "ann", 0, "gap 4 7 makes 3 ; so 3", "3", True)
    wrong = say(problem, "bob", 0, "gap 4 7 is 7 ; so 7", "7", False)
    heard = (right.call_id, wrong.call_id)
    if kind == "corrected":
        last = [("ann", "so 3", "3", True), ("bob", "gap 4 7 makes 3 ; so 3", "3", True)]
    else:
        last = [("ann", "gap 4 7 is 7 ; so 7", "7", False), ("bob", "so 7", "7", False)]
    return [right, wrong, *(say(problem, a, 1, t, s, c, heard) for a, t, s, c in last)]


def record(folder, calls, shard_calls=3):
    """A store of calls in an order in which no debate is together."""
    calls = list(calls)
    random.Random(0).shuffle(calls)
    with CallStore(folder, shard_calls=shard_calls, flush_seconds=1e9) as store:
        store.append(calls)
    return folder


def view(folder, path, **options):
    """Write the page of a run or a store; what is in it, unpacked."""
    sources = find_sources(folder, tokenizer=options.pop("tokenizer", TOKENIZER))
    write_page(path, sources, **options)
    return unpack(path)


def unpack(path) -> dict:
    """The page's data by name."""
    found = re.findall(
        r'<script type="text/plain" id="(\w+)">([\w+/=]*)</script>', path.read_text()
    )
    return {name: json.loads(gzip.decompress(base64.b64decode(packed))) for name, packed in found}


def debates(data, group=0):
    """Every debate of a play: its words, its figures with the common ones put back, its row."""
    facts = data["facts"]["groups"][group]
    rows = data[f"d{facts['index']}"]
    number = 0
    for size, words, figures in facts["parts"]:
        held = data[f"d{figures}"]
        assert len(held["debates"]) == size
        for (question, texts), one in zip(data[f"d{words}"], held["debates"], strict=True):
            row = {
                name: column[number] if isinstance(column, list)
                else column["words"][column["codes"][number]]
                for name, column in rows.items()
            }  # fmt: skip
            calls = [
                {**call, "text": text, **{k: held[k][call[k]] for k in ("sampling", "model")}}
                for call, text in zip(one["calls"], texts, strict=True)
            ]
            yield {**one, "calls": calls, "question": question, "row": row}
            number += 1


def hostile_store(folder):
    """A store in which every text that a stranger writes is hostile."""
    calls = [
        say(HOSTILE, HOSTILE, 0, HOSTILE, HOSTILE, False, model=HOSTILE, stage=HOSTILE),
        say(HOSTILE, "bob", 0, "</script>" * 1000, gen_ids=(5, 2)),
        say("q", "bob", 0, "a" * 1_000_000, gen_ids=(5, 2)),
    ]
    return record(folder, calls)


def small_run(root, finished=True):
    """A run directory of two seeds: sampled debates, and on the first seed evaluated ones."""
    for seed in (0, 1):
        calls = debate("p-0") + debate("p-1", "misled") + debate("p-2")
        record(root / f"seed-{seed}" / "sample" / "team", calls)
        state = {
            "status": "done" if finished else "running",
            "inputs": {"task": "mine", "team": {"agents": [{"id": "bob"}, {"id": "ann"}]}},
        }
        if finished:
            answers = {"p-0": "3", "p-1": "7", "p-2": None}
            state |= {"files": {}, "summary": {"team_answers": answers}}
        write_atomic(root / f"seed-{seed}" / "sample" / "stage.json", json.dumps(state))
    if finished:
        evaluate = root / "seed-0" / "evaluate"
        facts = dict(
            seed=0, split="test", part="multi", domain="gap", calls=1, prompt_tokens=3,
            generated_tokens=3, seconds=0.5, difficulty="", in_pool=True, opening_correct=True,
            confidence=0.5, rounds=1,
        )  # fmt: skip
        outcomes = []
        for system in ("team", "base"):
            calls = debate("t-0") if system == "team" else debate("t-0")[:1]
            record(evaluate / "test" / system, calls)
            outcomes.append(
                Outcome(system=system, problem_id="t-0", correct=True, answer="3", **facts)
            )
        Outcomes.from_records(outcomes).save(evaluate / "outcomes.parquet")
    return root
