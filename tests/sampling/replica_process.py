"""One of two processes of a job that generates together; test_replicas.py starts both.

    python replica_process.py PORT PROCESS FOLDER

FOLDER has the weights and the calls; what happened is written there, as OUTCOME-PROCESS.json.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

PORT, ME, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{PORT}", 2, ME)

from arkjax.errors import ArkJAXError  # noqa: E402
from arkjax.models.config import config_from_json  # noqa: E402
from arkjax.models.placement import shardings  # noqa: E402
from arkjax.models.transformer import Transformer  # noqa: E402
from arkjax.sampling.engine_config import EngineConfig  # noqa: E402
from arkjax.sampling.params import Request, SamplingParams  # noqa: E402
from arkjax.sampling.replicas import Replicas  # noqa: E402
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh  # noqa: E402

WORK = json.loads((FOLDER / "work.json").read_text())
CONFIG = config_from_json(WORK["model"])
ENGINE = EngineConfig(
    **WORK["engine"] | {"length_classes": tuple(WORK["engine"]["length_classes"])}
)


def request(id, prompt_ids, prefix_len, sampling, seed, shared) -> Request:
    sampling = SamplingParams(**sampling | {"stop_ids": tuple(sampling["stop_ids"]), "stop": ()})
    return Request(id, tuple(prompt_ids), prefix_len, sampling, seed, tuple(shared))


REQUESTS = [request(**fields) for fields in WORK["requests"]]
OUTCOME = {}
COMPILED = []


def listen(event: str, seconds: float, **about) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(about)


jax.monitoring.register_event_duration_secs_listener(listen)


def placed(data: int, fsdp: int, tensor: int) -> Transformer:
    mesh = make_mesh(MeshConfig(data, fsdp, tensor))
    places = shardings(CONFIG, mesh, ShardingRules())
    with np.load(FOLDER / "weights.npz") as weights:
        arrays = {
            name: jax.make_array_from_callback(
                weights[name].shape, place, weights[name].__getitem__
            )
            for name, place in places.items()
        }
    return Transformer(CONFIG, arrays, mesh)


def told(name: str, work) -> None:
    """Keep what came of it."""
    started = time.monotonic()
    COMPILED.clear()
    try:
        OUTCOME[name] = {g.request_id: [g.ids, g.logprobs, g.finish_reason] for g in work()}
    except ArkJAXError as error:
        OUTCOME[name] = f"{type(error).__name__}: {error}"
    except ValueError as error:
        OUTCOME[name] = f"ValueError: {error}"
    OUTCOME[f"{name} seconds"] = time.monotonic() - started
    OUTCOME[f"{name} compiled"] = len(COMPILED)
    (FOLDER / f"outcome-{ME}.json").write_text(json.dumps(OUTCOME))


def instead(replicas: Replicas, act) -> None:
    """Let process 1 do something else in the third step of an engine."""
    if ME == 0:
        return
    step, steps = replicas.engines[0].step, iter(range(10**9))

    def third():
        if next(steps) == 2:
            replicas.engines[0].step = step
            act()
        return step()

    replicas.engines[0].step = third


def fail():
    raise ValueError("the disk is full")


told("one replica on both", lambda: Replicas(placed(1, 1, 4), ENGINE).generate(REQUESTS))
# "fsdp" divides the weights over both processes.
replicas = Replicas(placed(1, 4, 1), ENGINE)
assert len(replicas.engines) == 2
told("all", lambda: replicas.generate(REQUESTS))
told("own", lambda: replicas.generate(REQUESTS, own_only=True))
told("shorter", lambda: replicas.generate(REQUESTS[: len(REQUESTS) - ME]))
seeds = [
    r if i != 3 or ME == 0 else request(**WORK["requests"][3] | {"seed": 1})
    for i, r in enumerate(REQUESTS)
]
told("other seeds", lambda: replicas.generate(seeds))
long = REQUESTS[:-1] + [request(**WORK["requests"][-1] | {"prompt_ids": [5] * 99})]
told("too long", lambda: replicas.generate(long))
instead(replicas, fail)
told("failed", lambda: replicas.generate(REQUESTS))
told("again", lambda: replicas.generate(REQUESTS))
replicas._exchange._timeout = 3
instead(replicas, lambda: time.sleep(8))
told("stood still", lambda: replicas.generate(REQUESTS))
replicas._exchange._timeout, replicas._exchange._silence = 600, 4
instead(replicas, lambda: os.kill(os.getpid(), signal.SIGKILL))
told("killed", lambda: replicas.generate(REQUESTS))
# JAX would wait for the other process before it lets this one end.
os._exit(0)
