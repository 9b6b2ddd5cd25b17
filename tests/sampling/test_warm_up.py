"""After `warm_up` nothing is compiled, whatever calls come; and what an engine says of its time."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS
from arkjax.sampling import decode
from arkjax.sampling.params import Request, SamplingParams
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def _compiled() -> Iterator[list[str]]:
    """What is compiled in a `with` block, by anything: an entry for each program."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **about) -> None:
        if event == COMPILED:
            seen.append(str(about.get("fun_name", event)))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _mixed(count: int, seed: int) -> list[Request]:
    """Calls of every length, rule and kind of prefix, some with stop texts and top logprobs."""
    rng = np.random.default_rng(seed)
    system = tuple(rng.integers(3, 40, 8).tolist())
    debates = [system + tuple(rng.integers(3, 40, n).tolist()) for n in (3, 6, 9, 12)]
    requests = []
    for i in range(count):
        prefix, shared = ((), ()), (debates[rng.integers(4)], (len(system),))
        prefix, shared = shared if rng.random() < 0.6 else prefix
        suffix = tuple(rng.integers(3, 40, rng.integers(1, 12)).tolist())
        sampling = SamplingParams(
            temperature=float(rng.choice([0.0, 0.7, 1.0, 2.0])),
            top_k=int(rng.choice([0, 5])),
            top_p=float(rng.choice([1.0, 0.8])),
            min_p=float(rng.choice([0.0, 0.05])),
            max_tokens=int(rng.integers(1, 9)),
            stop_ids=((), (1, 5), (2, 7, 11, 13))[rng.integers(3)],
            top_logprobs=int(rng.choice([0, 0, 3])),
        )
        request = Request(f"r{i}", prefix + suffix, len(prefix), sampling, int(rng.integers(2**40)))
        requests.append(dataclasses.replace(request, shared=shared))
    return requests


# Lanes of two sizes and lengths, prompts of four widths.
SIZES = {
    "length_classes": (40,),
    "chunk": 8,
    "least_slots": 5,
    "least_length": 30,
    "prefill_tokens": 24,
    "max_top_logprobs": 4,
}


@pytest.fixture(scope="module")
def shallow(model) -> Transformer:
    """The tiny model's first layer alone: which programs there are does not depend on more."""
    config = dataclasses.replace(model.config, num_layers=1)
    weights = {
        name: array[:1] if name.startswith(LAYERS) else array
        for name, array in model.arrays().items()
    }
    return Transformer(config, weights)


def test_nothing_is_compiled_in_a_thousand_calls_after_the_warm_up(shallow, make_engine):
    engine = make_engine(shallow, **SIZES)
    with _compiled() as warming:
        engine.warm_up()
    assert len(warming) > 20
    requests = _mixed(1000, seed=1)
    with _compiled() as seen:
        # In two parts: the second meets prefixes that are there, and lanes that have shrunk.
        for part in (requests[:600], requests[600:]):
            assert len(engine.generate(part)) == len(part)
    assert seen == []


def test_nothing_is_compiled_on_a_mesh_either(shallow, make_engine):
    mesh = make_mesh(MeshConfig(2, 2, 2))
    weights = jax.device_put(shallow.arrays(), shardings(shallow.config, mesh, ShardingRules()))
    sizes = {"length_classes": (40,), "slots": 8, "admit_rows": 8, "chunk": 20}
    engine = make_engine(Transformer(shallow.config, weights), **sizes)
    engine.warm_up(top_logprobs=False)
    requests = [
        dataclasses.replace(r, sampling=dataclasses.replace(r.sampling, top_logprobs=0))
        for r in _mixed(60, seed=2)
    ]
    with _compiled() as seen:
        engine.generate(requests)
    assert seen == []


def test_a_warm_engine_generates_what_a_cold_one_does(shallow, make_engine, make_requests):
    requests = make_requests(12, seed=3)
    warm = make_engine(shallow)
    told = []
    warm.warm_up(progress=lambda done, of: told.append((done, of)))
    assert told == [(i + 1, len(told)) for i in range(len(told))] != []
    cold = make_engine(shallow)
    for a, b in zip(warm.generate(requests), cold.generate(requests), strict=True):
        assert (a.ids, a.logprobs) == (b.ids, b.logprobs)


def test_an_engine_counts_what_it_does(shallow, make_engine, make_requests):
    engine = make_engine(shallow)
    engine.warm_up(top_logprobs=False)
    profile = engine.profile
    assert profile == type(profile)()
    requests = [dataclasses.replace(r, prefix_len=0) for r in make_requests(30, seed=4)]
    generations = engine.generate(requests)
    assert profile.calls == len(requests)
    assert profile.prompt_tokens == sum(len(r.prompt_ids) for r in requests)
    assert profile.prompt_tokens < profile.padded_tokens
    # The first token of a call is drawn as it is prefilled, all others by steps.
    assert profile.tokens == sum(len(g.ids) - 1 for g in generations)
    assert profile.tokens <= profile.slot_steps == profile.steps * engine.config.slots
    parts = [profile.scheduling, profile.handing_over, profile.reading, profile.waiting]
    assert min(parts) > 0
    assert sum(parts) <= profile.seconds
    assert 0 < profile.host_share < 1
    assert f"{profile.steps:,} decode steps" in profile.describe()
    profile.reset()
    assert profile.seconds == profile.steps == 0


def test_shared_prefixes_count_once(make_engine):
    engine = make_engine()
    sampling = SamplingParams(temperature=0.0, max_tokens=2)
    requests = [Request(f"s{i}", (*range(4, 14), 20 + i), 10, sampling, i) for i in range(4)]
    engine.generate(requests)
    assert engine.profile.prompt_tokens == 10 + 4


def test_a_warm_up_for_calls_without_prefixes_compiles_less(shallow, make_engine):
    sizes = {"length_classes": (32,), "chunk": 16, "slots": 3}
    with _compiled() as fewer:
        make_engine(shallow, **sizes).warm_up(prefixes=False, top_logprobs=False)
    with _compiled() as others:
        make_engine(shallow, **sizes).warm_up(top_logprobs=False)
    # The second finds what the first compiled.
    assert 0 < len(fewer) < len(fewer) + len(others)


def test_lanes_of_many_shapes_need_programs_for_steps_between_neighbours_only(shallow, make_engine):
    sizes = {"length_classes": (48,), "slots": 8, "least_slots": 3, "least_length": 12}
    engine = make_engine(shallow, **sizes)
    before = decode.resize._cache_size()
    engine.warm_up(prefixes=False, top_logprobs=False)
    slots, lengths = len(engine.config.sizes()), len(engine.config.lengths(48))
    assert slots * lengths > 15
    most = 2 * (slots * (lengths - 1) + lengths * (slots - 1))
    assert 0 < decode.resize._cache_size() - before <= most
    with _compiled() as compiled:
        # From the smallest shape to the largest, and back.
        engine.generate([Request("one", (4,), 0, SamplingParams(max_tokens=2), 0)])
        sampling = SamplingParams(temperature=0.0, max_tokens=30)
        engine.generate([Request(f"m{i}", (*range(4, 18),), 0, sampling, i) for i in range(8)])
        engine.generate([Request("last", (4,), 0, SamplingParams(max_tokens=2), 0)])
    assert compiled == []
