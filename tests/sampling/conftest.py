"""A tiny model, and a loop without cache or slots that says what it must generate."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer
from arkjax.models.weights import weight_specs
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sampling.sampler import RowSampling, sample, seed_words

CONFIG = ModelConfig(
    vocab_size=40,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    qk_norm=True,
)
ENGINE = EngineConfig(
    length_classes=(24, 40),
    slots=6,
    prefixes=5,
    admit_rows=4,
    prefix_rows=2,
    chunk=24,  # one width for all prompts here: little to compile
    block_steps=5,
    max_stop_ids=4,
)


@pytest.fixture(scope="session")
def model() -> Transformer:
    rng = np.random.default_rng(0)
    weights = {
        name: jnp.asarray(
            # Twice the usual spread: a model this small would otherwise repeat itself.
            rng.normal(0, 2 * spec.fan_in**-0.5, spec.shape)
            if spec.fan_in
            else np.full(spec.shape, spec.constant),
            jnp.float32,
        )
        for name, spec in weight_specs(CONFIG).items()
    }
    return Transformer(CONFIG, weights)


@pytest.fixture
def make_engine(model):
    """A function that makes an engine with some fields of its config replaced."""

    def make(own_model: Transformer | None = None, tokenizer=None, **changes) -> Engine:
        return Engine(own_model or model, dataclasses.replace(ENGINE, **changes), tokenizer)

    return make


@pytest.fixture(scope="session")
def make_requests():
    """A function that makes calls of mixed lengths, rules and prefixes."""

    def make(count: int, seed: int = 0) -> list[Request]:
        rng = np.random.default_rng(seed)
        shared = [tuple(rng.integers(3, 40, n).tolist()) for n in (9, 5, 13)]
        rules = [
            {"temperature": 0.0},
            {"temperature": 1.0},
            {"temperature": 0.8, "top_k": 8},
            {"temperature": 1.2, "top_p": 0.9, "min_p": 0.01},
        ]
        requests = []
        for i in range(count):
            prefix = shared[rng.integers(3)] if rng.random() < 0.7 else ()
            suffix = tuple(rng.integers(3, 40, rng.integers(1, 11)).tolist())
            sampling = SamplingParams(
                **rules[rng.integers(len(rules))],
                max_tokens=int(rng.integers(1, 14)),
                stop_ids=((), (1, 5), (2, 7, 11, 13))[rng.integers(3)],
            )
            requests.append(
                Request(f"r{i}", prefix + suffix, len(prefix), sampling, int(rng.integers(2**40)))
            )
        return requests

    return make


@functools.partial(jax.jit, static_argnums=0)
def _next(config, weights, tokens, lengths, rows):
    """Draw the next token of each row of tokens [R, T] by reading all of it again."""
    model = Transformer(config, weights)
    T = tokens.shape[1]
    positions = jnp.broadcast_to(jnp.arange(T)[None], tokens.shape)
    segments = (positions < lengths[:, None]).astype(jnp.int32)
    hidden = model(tokens, positions, segments)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
    return sample(model.logits(last), rows, lengths)


@pytest.fixture(scope="session")
def reference(model):
    """A function that generates requests without the engine: the same keys, no cache."""

    def generate(requests: Sequence[Request]) -> list[Generation]:
        # Shapes are rounded up, so that all tests share one compiled program.
        size = -(-len(requests) // 32) * 32
        tokens = np.zeros((size, 40), np.int32)
        lengths = np.ones(size, np.int32)
        rows = RowSampling(
            np.zeros(size, np.float32),
            np.zeros(size, np.int32),
            np.ones(size, np.float32),
            np.zeros(size, np.float32),
            np.zeros((size, 2), np.uint32),
        )
        for i, request in enumerate(requests):
            lengths[i] = len(request.prompt_ids)
            tokens[i, : lengths[i]] = request.prompt_ids
            for name in ("temperature", "top_k", "top_p", "min_p"):
                getattr(rows, name)[i] = getattr(request.sampling, name)
            rows.seed[i] = seed_words(request.seed)
        done: dict[int, str] = {}
        drawn: list[list[tuple[int, float, float]]] = [[] for _ in requests]
        while len(done) < len(requests):
            columns = [np.asarray(x) for x in _next(CONFIG, model.arrays(), tokens, lengths, rows)]
            for i, request in enumerate(requests):
                if i in done:
                    continue
                token, *logprobs = (column[i].item() for column in columns)
                drawn[i].append((token, *logprobs))
                if token in request.sampling.stop_ids:
                    done[i] = "stop"
                elif len(drawn[i]) == request.sampling.max_tokens:
                    done[i] = "length"
                else:
                    tokens[i, lengths[i]] = token
                    lengths[i] += 1
        return [
            Generation(request.id, *zip(*drawn[i], strict=True), done[i], 0, 0.0)
            for i, request in enumerate(requests)
        ]

    return generate
