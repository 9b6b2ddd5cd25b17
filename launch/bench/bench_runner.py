"""What a team's runner costs beside its engine, and that kills cost nothing but time.

    python launch/bench/bench_runner.py [--model runs/quickstart/seed-0/base/model]
        [--problems 2000] [--kills 20] [--repeats 3] [--quick]

The model of the quickstart plays the debate of `configs/teams/agentark.py`, five agents for three
rounds without its synthesiser, on problems of the embedded world, all at once, every call recorded.
The overhead is the share of the wall time that is not spent in the engine's `step`, `submit` and
`cancel`: scripts, prompts, parsers, graders, views and the record. Medians of the repeats, warm.

Then a process that plays the same is killed (SIGKILL) at random moments and started again, and at
last left alone: its record must have the content hash of one that was never interrupted.
`bash launch/quickstart.sh` makes the model. The last line is one JSON object.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from arkjax import config
from arkjax.models.placement import load_model
from arkjax.models.weights import num_parameters
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generation, Request
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.runner import play
from arkjax.teams.spec import TeamSpec
from arkjax.text.chat import BylineChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore
from arkjax.versions import versions

TASK = "embedded_world"
ROOT = Path(__file__).resolve().parents[2]


class Timed:
    """An engine that adds up the time which is spent in it, and tells of the first answer."""

    def __init__(self, engine: Engine, begun: Callable[[], None] | None = None):
        self._engine, self._begun = engine, begun
        self.max_context = engine.max_context
        self.seconds = 0.0

    @property
    def pending(self) -> int:
        return self._engine.pending

    @contextlib.contextmanager
    def _clock(self):
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def submit(self, request: Request) -> None:
        with self._clock():
            self._engine.submit(request)

    def step(self) -> list[Generation]:
        with self._clock():
            generations = self._engine.step()
        if generations and self._begun:
            self._begun()
            self._begun = None
        return generations


def debate() -> TeamSpec:
    """Five agents who all speak three times."""
    team = library.load("agentark:agents=5,rounds=3,max_tokens=36")
    opening, rebuttal, _ = team.stages
    repeat = dataclasses.replace(team.schedule[1], min=2)
    return dataclasses.replace(
        team,
        name="debate",
        agents=team.agents[:5],
        stages=(opening, rebuttal),
        schedule=("opening", repeat),
        stop=type(team.stop)(),
        reducer=type(team.reducer)("vote"),
    )


class Table:
    """The model, the problems, and a place to debate."""

    def __init__(self, model: Path, problems: int):
        run = config.load("quickstart")
        sizes = config.build(EngineConfig, run.engine)
        self.tokenizer = Tokenizer(shipped_path(run.tokenizer))
        loaded = load_model(model, make_mesh(), ShardingRules())
        self.parameters = num_parameters(loaded.config)
        # Enough for a whole transcript, and no more positions than that.
        sizes = dataclasses.replace(sizes, length_classes=(56, 296))
        self.engine = Engine(loaded, sizes, self.tokenizer)
        self.task = get_task(TASK)
        self.problems = self.task.load("train", problems, seed=0)

    def play(
        self, folder: Path, seed: int, begun: Callable[[], None] | None = None, **shards: float
    ) -> tuple[float, float, int]:
        """Seconds in all and in the engine, and calls; `shards` are options of the store."""
        engine, team = Timed(self.engine, begun), debate()
        started = time.perf_counter()
        with CallStore(folder, **shards) as store:
            play(
                team,
                self.problems,
                dict.fromkeys(team.models, engine),
                BylineChat(self.tokenizer),
                self.tokenizer,
                self.task.grader,
                store,
                seed,
            )
            calls = len(store)
        return time.perf_counter() - started, engine.seconds, calls


def killed(arguments: argparse.Namespace, folder: Path, longest: float) -> tuple[int, str]:
    """How often a process could be killed before it was done, and its record's content hash."""
    command = [sys.executable, __file__, "--model", arguments.model, "--child", folder]
    command += ["--problems", str(arguments.problems)]
    # Programs are compiled once, so that most kills meet the play and not the compiler.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs")}
    cache |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | cache
    draw, kills = random.Random(arguments.seed), 0
    while kills < arguments.kills:
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, text=True, env=environment
        )
        # Loading and compiling are no part of the play: the clock starts with its first answer.
        assert process.stdout.readline() == "playing\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, longest))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        with CallStore(folder) as store:
            print(f"killed {kills} times, {len(store):,} calls are recorded", flush=True)
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, env=environment)
    with CallStore(folder) as store:
        return kills, store.content_hash()


def main() -> None:
    default = ROOT / "runs" / "quickstart" / "seed-0" / "base" / "model"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=default, help="made by the quickstart")
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--quick", action="store_true", help="100 problems, 3 kills, 1 repeat")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.problems, arguments.kills, arguments.repeats = 100, 3, 1
    if not arguments.model.is_dir():
        raise SystemExit(
            f"error: there is no model at {arguments.model}: make it with bash "
            "launch/quickstart.sh, or say with --model where one is"
        )
    table = Table(arguments.model, arguments.problems)
    if arguments.child:

        def begun() -> None:
            print("playing", flush=True)

        # Often, so that there is something to go on from after every kill.
        table.play(arguments.child, 0, begun, flush_seconds=0.25)
        return
    repeats = []
    with tempfile.TemporaryDirectory(prefix="bench-runner-") as scratch:
        for repeat in range(arguments.repeats + 1):
            table.engine.cancel()
            # The first is the record that the killed process must end with.
            seconds, inside, calls = table.play(Path(scratch) / str(repeat), repeat)
            label = f"repeat {repeat}" if repeat else "cold"
            share = 1 - inside / seconds
            print(f"{label}: {calls:,} calls in {seconds:.1f} s, overhead {share:.1%}", flush=True)
            if repeat:
                repeats.append({"seconds": seconds, "overhead": share})
        with CallStore(Path(scratch) / "0") as store:
            whole = store.content_hash()
        longest = 1.5 * statistics.median(r["seconds"] for r in repeats) / max(1, arguments.kills)
        kills, found = killed(arguments, Path(scratch) / "killed", longest)
    if found != whole:
        raise SystemExit("error: the record of the killed process is another one")
    overhead = [r["overhead"] for r in repeats]
    result = {
        "bench": "runner",
        "config": {
            "problems": arguments.problems,
            "calls": calls,
            "repeats": arguments.repeats,
            "seed": arguments.seed,
            "parameters": table.parameters,
        },
        "device": {
            "kind": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
        },
        "versions": versions(),
        "arkjax": {
            "overhead": round(statistics.median(overhead), 4),
            "seconds": round(statistics.median(r["seconds"] for r in repeats), 2),
            "kills": kills,
            "same_content": True,
        },
        "spread": {"overhead": [round(f(overhead), 4) for f in (min, max)]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
