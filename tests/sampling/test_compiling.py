"""Time of the compiler is counted, and is no part of what calls took."""

import dataclasses
import time

import jax
import jax.numpy as jnp

from arkjax.models.transformer import Transformer
from arkjax.sampling.compiling import compile_seconds
from arkjax.sampling.params import Request, SamplingParams


def test_what_is_compiled_is_counted_and_what_is_there_is_not():
    x = jax.block_until_ready(jnp.arange(7.0))
    before = compile_seconds()
    step = jax.jit(lambda x: jnp.sin(x) @ x)
    started = time.monotonic()
    step(x)
    compiled = compile_seconds() - before
    assert 0 < compiled <= time.monotonic() - started
    before = compile_seconds()
    step(x)
    assert compile_seconds() == before


def test_the_first_call_takes_no_longer_for_having_been_compiled_for(make_engine, model):
    # A config that no other test has: programs are compiled once in a process, for all engines.
    config = dataclasses.replace(model.config, norm_eps=1.25e-5)
    engine = make_engine(Transformer(config, model.weights))
    before, started = compile_seconds(), time.monotonic()
    request = Request("first", (3, 4, 5), 0, SamplingParams(max_tokens=4), 0)
    (generation,) = engine.generate([request])
    compiled, taken = compile_seconds() - before, time.monotonic() - started
    assert compiled > 0
    assert 0 < generation.seconds <= taken - compiled + 1e-3
