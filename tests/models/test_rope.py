"""Rotary frequencies and their stretched forms, against their formulas and their reference."""

import math

import numpy as np
import pytest

from arkjax.models.config import RopeScaling
from arkjax.models.rope import rope_frequencies, rope_tables, rotate

LLAMA3 = RopeScaling("llama3", 8.0, original_context=8192)
YARN = RopeScaling("yarn", 4.0, original_context=32_768)


@pytest.mark.fast
def test_plain_frequencies_are_powers_of_the_base():
    frequencies, factor = rope_frequencies(8, 10_000.0)
    np.testing.assert_allclose(frequencies, [1.0, 0.1, 0.01, 0.001], rtol=1e-6)
    assert factor == 1.0


@pytest.mark.fast
def test_linear_stretching_reads_positions_as_if_they_were_closer():
    frequencies, factor = rope_frequencies(8, 10_000.0, RopeScaling("linear", 8.0))
    np.testing.assert_allclose(frequencies, [0.125, 0.0125, 0.00125, 0.000125], rtol=1e-6)
    assert factor == 1.0


@pytest.mark.fast
def test_llama3_stretches_long_wavelengths_only():
    """Of 8192 tokens: wavelengths below 2048 are kept, above 8192 divided, a ramp lies between."""
    plain, _ = rope_frequencies(128, 5e5)
    stretched, factor = rope_frequencies(128, 5e5, LLAMA3)
    assert factor == 1.0
    wavelengths = 2 * math.pi / plain
    kinds = {"kept": 0, "divided": 0, "between": 0}
    for wavelength, before, after in zip(wavelengths, plain, stretched, strict=True):
        if wavelength < 8192 / 4:
            kinds["kept"] += 1
            expected = before
        elif wavelength > 8192:
            kinds["divided"] += 1
            expected = before / 8
        else:
            kinds["between"] += 1
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * before / 8 + smooth * before
        assert after == pytest.approx(expected, rel=1e-5)
    # By hand: 5e5 ** (-i / 64) is 2 pi / 2048 at i = 28.2 and 2 pi / 8192 at i = 35.0.
    assert kinds == {"kept": 29, "divided": 29, "between": 6}


@pytest.mark.fast
def test_llama3_in_the_middle_of_its_ramp():
    """A frequency of 2.5 turns in the original context is kept by half."""
    context = 1000
    turns = 2.5 / context * 2 * math.pi
    # The second of two frequencies is 1 / sqrt(base).
    theta = turns**-2.0
    scaling = RopeScaling("llama3", 4.0, original_context=context)
    stretched, _ = rope_frequencies(4, theta, scaling)
    np.testing.assert_allclose(stretched, [1.0, turns * (0.5 + 0.5 / 4)], rtol=1e-5)


@pytest.mark.fast
def test_yarn_ramps_between_two_numbers_of_turns():
    """Qwen 3's stretch: by hand, 32 turns in 32768 tokens fall on pair 23.6, one turn on 39.7."""
    plain, _ = rope_frequencies(128, 1e6)
    stretched, factor = rope_frequencies(128, 1e6, YARN)
    turns = 32_768 * plain / (2 * math.pi)
    assert turns[23] > 32 > turns[24] and turns[39] > 1 > turns[40]
    kept = (stretched / plain - 1 / 4) / (1 - 1 / 4)
    expected = 1 - np.clip((np.arange(64) - 23) / (40 - 23), 0, 1)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.fast
def test_yarn_takes_the_factor_that_it_is_given():
    scaling = RopeScaling("yarn", 4.0, original_context=64, attention_factor=1.25)
    frequencies, factor = rope_frequencies(8, 1e4, scaling)
    assert factor == 1.25
    sin, cos = rope_tables(np.array([[0, 3]], np.int32), frequencies, factor)
    angles = np.array([0.0, 3.0])[None, :, None, None] * frequencies[None, None, None, :]
    np.testing.assert_allclose(sin, 1.25 * np.sin(angles), atol=1e-6)
    np.testing.assert_allclose(cos, 1.25 * np.cos(angles), atol=1e-6)


@pytest.mark.fast
def test_a_pair_turns_as_a_complex_number_does():
    """The pairs are (i, i + h / 2), as in published checkpoints, not neighbours."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 2, 8)).astype(np.float32)
    positions = np.array([[0, 1, 2], [700, 3, 41]], np.int32)
    frequencies, _ = rope_frequencies(8, 100.0)
    turn = np.exp(
        1j * positions[:, :, None, None] * frequencies.astype(np.float64)[None, None, None]
    )
    turned = (x[..., :4] + 1j * x[..., 4:]) * turn
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    # fp32 holds the angle at position 700 to 3e-5.
    np.testing.assert_allclose(
        rotate(x, *rope_tables(positions, frequencies)), expected, rtol=0, atol=2e-4
    )


@pytest.mark.parametrize(
    "head_dim, theta, scaling",
    [
        (128, 5e5, None),
        (256, 1e6, RopeScaling("linear", 8.0)),
        (128, 5e5, LLAMA3),
        (64, 5e5, RopeScaling("llama3", 32.0, original_context=8192)),
        (20, 1e4, RopeScaling("llama3", 3.0, 77, low_freq_factor=0.7, high_freq_factor=9.0)),
        (128, 1e6, YARN),
        (64, 1e4, RopeScaling("yarn", 16.0, 4096, beta_fast=20.0, beta_slow=2.0)),
        (16, 1e4, RopeScaling("yarn", 1.5, 100, attention_factor=1.1)),
        # So short a context that the ramp has no length.
        (8, 1e6, RopeScaling("yarn", 2.0, 5)),
    ],
)
def test_frequencies_agree_with_transformers(transformers, head_dim, theta, scaling):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours, factor = rope_frequencies(head_dim, theta, scaling)
    kind = scaling.kind if scaling else "default"
    given = {"rope_theta": theta, "rope_type": kind}
    if scaling:
        given["factor"] = scaling.factor
    if kind in ("llama3", "yarn"):
        given["original_max_position_embeddings"] = scaling.original_context
    if kind == "llama3":
        given["low_freq_factor"] = scaling.low_freq_factor
        given["high_freq_factor"] = scaling.high_freq_factor
    if kind == "yarn":
        given |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        given["attention_factor"] = scaling.attention_factor or None
    config = transformers.LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=int(given.get("original_max_position_embeddings", 4096) * 8),
        rope_parameters=given,
    )
    if kind == "default":
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        theirs, expected = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        theirs, expected = ROPE_INIT_FUNCTIONS[kind](config, device=None)
    # They raise the base to a power in fp32, we in fp64.
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)
    assert factor == pytest.approx(expected)
