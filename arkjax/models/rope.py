"""Rotary position embedding, and its stretched forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from arkjax.models.config import RopeScaling


def rope_frequencies(
    head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[np.ndarray, float]:
    """Angle per position of each pair of dimensions, and what multiplies sine and cosine.

    RoFormer (arXiv 2104.09864, section 3.2.2); the stretched forms as in `RopeScaling`.

    Args:
      head_dim: h.
      theta: base.
      scaling: how the frequencies are stretched.

    Returns:
      [h / 2] fp32 in radians a token, and the factor, 1 except under "yarn".
    """
    half = head_dim // 2
    plain = theta ** (-np.arange(half, dtype=np.float64) / half)
    if scaling is None:
        return plain.astype(np.float32), 1.0
    stretched = plain / scaling.factor
    if scaling.kind == "linear":
        return stretched.astype(np.float32), 1.0
    if scaling.kind == "llama3":
        rotations = scaling.original_context * plain / (2 * np.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((rotations - low) / (high - low), 0.0, 1.0)
        return (kept * plain + (1 - kept) * stretched).astype(np.float32), 1.0

    def dimension(rotations: float) -> float:
        """Where in the pairs a frequency turns this often in the original context (eq. 18)."""
        turns = scaling.original_context / (rotations * 2 * math.pi)
        return half * math.log(turns) / math.log(theta)

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), head_dim - 1)
    kept = 1 - np.clip((np.arange(half) - low) / max(high - low, 1e-3), 0.0, 1.0)
    factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0
    return (kept * plain + (1 - kept) * stretched).astype(np.float32), factor


def rope_tables(
    positions: jax.Array, frequencies: np.ndarray, factor: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Sine and cosine of each position's angles.

    Args:
      positions: [B, T] int32.
      frequencies: [h / 2], of `rope_frequencies`.
      factor: multiplies both.

    Returns:
      Two arrays [B, T, 1, h / 2] fp32.
    """
    angles = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return jnp.sin(angles) * factor, jnp.cos(angles) * factor


def rotate(x: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
    """Turn each pair (i, i + h / 2) of x [B, T, heads, h] by its angle (eq. 34), in fp32."""
    x1, x2 = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)
