"""One engine for each replica: in one process, and in two that share a list of calls."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from arkjax.errors import ConfigError, DataError
from arkjax.models.placement import shardings
from arkjax.models.replication import model_mesh, replica_meshes, replicate
from arkjax.models.transformer import Transformer
from arkjax.sampling.engine import Engine
from arkjax.sampling.packing import pack, unpack
from arkjax.sampling.params import PENDING, Generation
from arkjax.sampling.replicas import Replicas
from arkjax.sharding import MESH_AXES, ShardingRules

from .conftest import CONFIG, ENGINE

# One lane, so that there is little to compile for each of many devices.
SIZES = dataclasses.replace(ENGINE, length_classes=(40,), chunk=40)


@pytest.fixture(scope="module", autouse=True)
def little_optimised():
    """What runs for a moment on many devices is not worth the compiler's time."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def _tokens(generations) -> dict:
    return {g.request_id: (g.ids, g.finish_reason) for g in generations}


@pytest.fixture(scope="module")
def workload(make_requests):
    return make_requests(24, seed=3)


@pytest.fixture(scope="module")
def expected(workload, reference):
    return _tokens(reference(workload))


def _placed(model: Transformer, devices: list[jax.Device], *sizes: int) -> Transformer:
    grid = np.asarray(devices).reshape(sizes)
    mesh = Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    return Transformer(model.config, weights, mesh)


@pytest.fixture(scope="module")
def replicas(model) -> Replicas:
    """Two replicas of two devices; half of their weights comes from the other one."""
    return Replicas(_placed(model, jax.devices()[4:], 1, 2, 2), SIZES)


def _devices(engine: Engine) -> set[jax.Device]:
    """Where the weights of an engine lie, and its slots, all of which lie there."""
    arrays = jax.tree.leaves([engine._weights, [lane._slots for lane in engine._lanes.values()]])
    (devices,) = {frozenset(array.devices()) for array in arrays}
    return set(devices)


def test_generates_what_one_engine_does_on_devices_of_its_own(replicas, workload, expected):
    warm = []
    replicas.warm_up(top_logprobs=False, progress=lambda done, total: warm.append((done, total)))
    assert warm == [(i + 1, len(warm)) for i in range(len(warm))] != []
    compiled = []

    def listen(event: str, seconds: float, **about) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert _tokens(replicas.generate(workload)) == expected
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    first, second = replicas.engines
    assert _devices(first) == set(jax.devices()[4:6])
    assert _devices(second) == set(jax.devices()[6:])
    assert first.profile.calls > 0 and second.profile.calls > 0


def test_a_replica_for_each_place_on_the_data_and_fsdp_axes(model):
    four = Replicas(_placed(model, jax.devices(), 2, 2, 2), SIZES)
    assert [_devices(engine) for engine in four.engines] == [
        set(jax.devices()[i : i + 2]) for i in (0, 2, 4, 6)
    ]
    for engine in four.engines:
        whole, own = Engine(model, SIZES)._weights, engine._weights
        jax.tree.map(np.testing.assert_array_equal, own, whole)
        # Heads are on two devices, and there is no other copy.
        assert own["layers_q"][0].addressable_shards[0].data.shape[0] == CONFIG.num_heads // 2


def test_data_replicas_share_the_weights_of_the_model(model):
    placed = _placed(model, jax.devices()[:2], 2, 1, 1)
    meshes = replica_meshes(model_mesh(placed))
    for one, mesh in zip(replicate(placed, meshes), meshes, strict=True):
        for name, weight in one.arrays().items():
            (device,) = mesh.devices.flat
            there = {s.device: s.data for s in placed.arrays()[name].addressable_shards}
            assert weight.unsafe_buffer_pointer() == there[device].unsafe_buffer_pointer()


def test_calls_that_come_one_by_one(replicas, workload, expected):
    waiting, done = list(workload), []
    while waiting or replicas.pending:
        for request in waiting[:5]:
            replicas.submit(request)
        del waiting[:5]
        done += replicas.step()
    assert _tokens(done) == expected
    with pytest.raises(KeyError):
        replicas.partial(workload[0].id)


def test_a_call_is_seen_cancelled_and_taken_once(replicas, workload, expected):
    first, second = workload[:2]
    replicas.submit(first)
    replicas.submit(second)
    assert replicas.partial(first.id).finish_reason == PENDING
    with pytest.raises(DataError, match="submitted twice"):
        replicas.submit(second)
    with pytest.raises(RuntimeError, match="2 calls are pending"):
        replicas.generate(workload)
    # That would have lost them: they are still there.
    replicas.cancel(first.id)
    done = []
    while replicas.pending:
        done += replicas.step()
    assert _tokens(done) == {second.id: expected[second.id]}


def test_calls_with_one_prefix_are_computed_together(replicas, workload, expected):
    prefix = tuple(range(3, 15))
    calls = [
        dataclasses.replace(
            request,
            id=f"{i}.{request.id}",
            prompt_ids=prefix[i:] + prefix[:i] + (7, i),
            prefix_len=len(prefix),
        )
        for i in range(8)
        for request in workload[:3]
    ]
    for engine in replicas.engines:
        engine.cancel()
        engine.profile.reset()
    replicas.generate(calls)
    # Each of the eight prefixes once, whichever replica, and what follows it three times.
    tokens = sum(engine.profile.prompt_tokens for engine in replicas.engines)
    assert tokens == 8 * len(prefix) + 24 * 2
    assert {engine.profile.calls for engine in replicas.engines} == {12}


def test_scores_as_one_engine_does(replicas, model, workload):
    sequences = [request.prompt_ids for request in workload]
    ours, theirs = replicas.score(sequences, 3), Engine(model, SIZES).score(sequences, 3)
    for a, b in zip(ours, theirs, strict=True):
        # fp32; sums over heads on two devices are added in another order.
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)
        np.testing.assert_array_equal(a.top_ids, b.top_ids)
    with pytest.raises(DataError, match="sequence 1 has .* where token ids are expected"):
        replicas.score([(3, 4), ()])


def test_an_error_in_one_replica_ends_all_and_leaves_them_usable(
    replicas, workload, expected, monkeypatch
):
    def fails():
        raise MemoryError("no room")

    monkeypatch.setattr(replicas.engines[1], "step", fails)
    with pytest.raises(MemoryError, match="no room"):
        replicas.generate(workload)
    assert replicas.pending == 0
    monkeypatch.undo()
    assert _tokens(replicas.generate(workload)) == expected


def test_a_bad_call_is_refused_before_any_work(replicas, workload, monkeypatch):
    long = dataclasses.replace(workload[-1], id="long", prompt_ids=(3,) * 40)
    for engine in replicas.engines:
        monkeypatch.setattr(engine, "submit", None)
    with pytest.raises(DataError, match="call long: 40 prompt tokens"):
        replicas.generate([*workload, long])
    with pytest.raises(DataError, match="call r0 was submitted twice"):
        replicas.generate([*workload, workload[0]])


def test_a_replica_across_processes_is_refused():
    class Device:
        def __init__(self, process_index: int):
            self.process_index = process_index

    class OfMany:
        shape = {"data": 1, "fsdp": 1, "tensor": 4}
        devices = np.array([Device(0), Device(0), Device(1), Device(1)]).reshape(1, 1, 4)

    with pytest.raises(ConfigError, match=r"mesh.tensor is 4.*processes 0, 1.*divides the devices"):
        replica_meshes(OfMany)


def test_packed_generations_come_back_as_they_were():
    generations = [
        Generation("a", (3, 2**40), (-0.5, float("-inf")), (0.0, -0.1), "stop", 7, 0.1),
        Generation("é/\n", (), (), (), "length", 0, 2.0),
        Generation("c", (1,), (-1e-40,), (-1e300,), "length", 0, 0.0, (((5, -0.25), (6, -2.0)),)),
    ]
    assert unpack(pack(generations)) == generations
    assert unpack(pack([])) == []


# --- two processes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(model, workload, tmp_path_factory) -> list[dict]:
    """What two processes with two devices each have told: see replica_process.py."""
    folder = tmp_path_factory.mktemp("processes")
    np.savez(folder / "weights.npz", **{k: np.asarray(v) for k, v in model.arrays().items()})
    work = {
        "model": dataclasses.asdict(CONFIG),
        "engine": dataclasses.asdict(SIZES),
        "requests": [dataclasses.asdict(request) for request in workload],
    }
    (folder / "work.json").write_text(json.dumps(work))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(root),
    }
    script = Path(__file__).with_name("replica_process.py")
    logs = [(folder / f"{i}.txt").open("w+") for i in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(port), str(i), folder],
            env=environment,
            stdout=log,
            stderr=log,
        )
        for i, log in enumerate(logs)
    ]
    try:
        codes = [process.wait(timeout=500) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = [(folder / f"{i}.txt").read_text() for i in range(2)]
    assert codes == [0, -signal.SIGKILL], "\n".join(said)
    return [json.loads((folder / f"outcome-{i}.json").read_text()) for i in range(2)]


def _kept(told: dict) -> dict:
    return {name: (tuple(ids), reason) for name, (ids, _, reason) in told.items()}


@pytest.mark.slow
def test_two_processes_generate_what_one_engine_does(outcomes, expected):
    for outcome in outcomes:
        assert list(outcome["all"]) == list(expected)
        assert _kept(outcome["all"]) == expected
    assert outcomes[0]["all"] == outcomes[1]["all"]


def test_nothing_is_compiled_twice(outcomes):
    for outcome in outcomes:
        assert outcome["all compiled"] > 0
        assert outcome["own compiled"] == 0


def test_each_can_keep_its_own(outcomes, expected):
    own = [_kept(outcome["own"]) for outcome in outcomes]
    assert all(own) and not own[0].keys() & own[1].keys()
    assert own[0] | own[1] == expected


def test_lists_that_differ_are_refused_by_name(outcomes, workload):
    for outcome in outcomes:
        count = len(workload)
        assert outcome["shorter"].startswith("DataError: process 1 and process 0 were asked for")
        assert f"number of calls ({count - 1} and {count})" in outcome["shorter"]
        seeds = outcome["other seeds"]
        assert seeds.startswith("DataError: process 1 and process 0 were asked for different")
        assert "they differ in seeds; the first call that differs is number 3, here r3" in seeds


def test_what_is_wrong_in_all_processes_is_said_in_all(outcomes):
    for outcome in outcomes:
        assert outcome["too long"].startswith("DataError: call r23: 99 prompt tokens")
        assert outcome["one replica on both"].startswith("ConfigError: mesh.tensor is 4")


def test_an_error_of_one_process_ends_the_others_and_is_told(outcomes, expected):
    ours, theirs = outcomes[0]["failed"], outcomes[1]["failed"]
    assert theirs == "ValueError: the disk is full"
    assert ours == "ProcessError: process 1 failed: ValueError: the disk is full"
    for outcome in outcomes:
        assert _kept(outcome["again"]) == expected


def test_a_process_that_stands_still_is_not_waited_for(outcomes):
    for outcome in outcomes:
        assert outcome["stood still"].startswith("ProcessError: process 1 has made no progress")
    assert outcomes[0]["stood still seconds"] < 8


def test_a_process_that_is_killed_is_named(outcomes):
    told = outcomes[0]["killed"]
    assert told.startswith("ProcessError: process 1 has given no sign of life for")
    assert "killed" not in outcomes[1]
    assert outcomes[0]["killed seconds"] < 60
