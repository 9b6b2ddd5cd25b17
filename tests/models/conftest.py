"""A decoder small enough to be compiled many times."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from arkjax.models.config import ModelConfig
from arkjax.models.transformer import Transformer, weight_specs

TINY = ModelConfig(
    vocab_size=48,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    qk_norm=True,
)


@pytest.fixture(scope="session")
def make_model():
    """A function that makes a tiny model, with some fields of its config replaced."""

    def make(seed: int = 0, **changes) -> Transformer:
        config = dataclasses.replace(TINY, **changes)
        rng = np.random.default_rng(seed)
        # As `init_weights`, but drawn by NumPy: that compiles nothing.
        weights = {
            name: jax.numpy.asarray(
                rng.normal(0, spec.fan_in**-0.5, spec.shape)
                if spec.fan_in
                else np.ones(spec.shape),
                config.param_dtype,
            )
            for name, spec in weight_specs(config).items()
        }
        return Transformer(config, weights)

    return make


@pytest.fixture(scope="session")
def model(make_model) -> Transformer:
    return make_model()


@pytest.fixture
def tokens() -> np.ndarray:
    """[3, 12] int32."""
    return np.random.default_rng(0).integers(1, TINY.vocab_size, (3, 12), dtype=np.int32)


@pytest.fixture(scope="session")
def read():
    """A function that reads whole sequences: hidden states [B, T, D] of tokens [B, T]."""

    def hidden(model: Transformer, tokens: np.ndarray, segments=None) -> np.ndarray:
        tokens = np.asarray(tokens, np.int32)
        if segments is None:
            segments = np.ones_like(tokens)
        # Counted anew where another segment begins.
        starts = np.concatenate([segments[:, :1] * 0 + 1, np.diff(segments, axis=1) != 0], axis=1)
        index = np.arange(tokens.shape[1], dtype=np.int32)[None]
        positions = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
        return np.asarray(_hidden(model.config, model.arrays(), tokens, positions, segments))

    return hidden


@functools.partial(jax.jit, static_argnums=0)
def _hidden(config, weights, tokens, positions, segments):
    return Transformer(config, weights)(tokens, positions, segments)
