"""How much of a run's time the host takes between the steps of the device.

    python launch/bench/bench_host.py [--problems 512] [--slots 64] [--repeats 3]

The shipped world's debate, four experts and two rounds, on a model of the quickstart's shape with
fresh random weights: about the smallest that anybody runs, which leaves the host the largest share.
Every call has up to 36 tokens, is detokenised as it grows to look for a stop text, parsed, graded,
and recorded in Parquet. The engine is warm.

- overhead: the share of the time that is there because of the host. What the engine handed to the
  device is recorded in a further run of the same debates, and run again without any of the host's
  part: that takes `device_seconds`. On a CPU, where host and device share the cores, this counts
  what the host takes from the device too.
- host: the share of the time in which the host works, most of it while the device does too.
  `engine` is what it does in the engine, namely choosing calls and laying them out, handing
  programs over, and taking tokens in; `team` all else, which is what the team does with answers,
  their grades and their records. In the rest it waits for the device.

Medians of the repeats; there are no peers, so no ratios. The last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import jax
from device_alone import Recording

from arkjax import config
from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights, num_parameters
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.engine_profile import HOST
from arkjax.shipped import shipped_path
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.runner import play
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore
from arkjax.versions import versions

TASK = "embedded_world"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=512)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    run = config.load("quickstart")
    tokenizer = Tokenizer(shipped_path(run.tokenizer))
    chat, task = PlainChat(tokenizer), get_task(TASK)
    model_config = config.build(ModelConfig, run.model)
    model = Transformer(model_config, init_weights(model_config, 0))
    sizes = config.build(EngineConfig, run.engine)
    sizes = dataclasses.replace(sizes, slots=args.slots, admit_rows=min(32, args.slots))
    engine = Engine(model, sizes, tokenizer)
    team = library.debate(max_tokens=36)
    agents = [
        dataclasses.replace(a, sampling=dataclasses.replace(a.sampling, stop=("judge : so",)))
        for a in team.agents
    ]
    team = dataclasses.replace(team, agents=tuple(agents))
    problems = task.load("test", args.problems)

    def debate(seed: int) -> tuple[float, int]:
        """Seconds and calls of all debates."""
        engine.profile.reset()
        with tempfile.TemporaryDirectory(prefix="bench-host-") as folder:
            started = time.perf_counter()
            with CallStore(Path(folder) / "calls") as store:
                models = dict.fromkeys(team.models, engine)
                play(team, problems, models, chat, tokenizer, task.grader, store, seed)
                calls = len(store)
            return time.perf_counter() - started, calls

    print(f"cold: {debate(0)[0]:.1f} s", flush=True)
    repeats = []
    for seed in range(1, args.repeats + 1):
        # Nothing is left over from before, so that the same can be played twice.
        engine.cancel()
        seconds, calls = debate(seed)
        profile = dataclasses.replace(engine.profile)
        engine.cancel()
        recording = Recording()
        with recording.on():
            debate(seed)
        if (profile.steps, profile.tokens) != (engine.profile.steps, engine.profile.tokens):
            raise SystemExit("error: the same debates took other steps when they were recorded")
        alone = recording.seconds()
        shares = {part: getattr(profile, part) / seconds for part in HOST}
        shares["engine"] = (profile.seconds - profile.waiting) / seconds
        shares["team"] = 1 - profile.seconds / seconds
        shares["host"] = shares["engine"] + shares["team"]
        shares["overhead"] = 1 - alone / seconds
        times = {"seconds": seconds, "device_seconds": alone}
        repeats.append(shares | times | {"steps": profile.steps, "programs": len(recording)})
        print(profile.describe())
        print(
            f"{seconds:.2f} s for {calls} calls; {len(recording)} programs of the device take "
            f"{alone:.2f} s alone: overhead {shares['overhead']:.1%}. The host works for "
            f"{shares['host']:.1%}: engine {shares['engine']:.1%}, team {shares['team']:.1%}",
            flush=True,
        )
    medians = {key: statistics.median(r[key] for r in repeats) for key in repeats[0]}
    result = {
        "bench": "host",
        "config": vars(args) | {"parameters": num_parameters(model_config)},
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {key: round(value, 4) for key, value in medians.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
