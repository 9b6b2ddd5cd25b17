"""The decoder: one set of layers that trains, scores and samples."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from arkjax.models.attention import attend, cache_mask, packed_mask
from arkjax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class WeightSpec:
    """One weight, described before it exists.

    Attributes:
      shape: its shape.
      axes: the logical axis of each dimension, None where it is never sharded.
      fan_in: values are drawn with variance 1 / fan_in; 0 for norm scales, which start at one.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    fan_in: int


def weight_specs(config: ModelConfig) -> dict[str, WeightSpec]:
    """Every weight of the model by name; initial values, shardings and checkpoints derive from it.

    The weights of the layers (names that begin with "layers_") are stacked along a leading axis.
    Projections back into the residual stream start smaller by sqrt(2 L), as in GPT-2.
    """
    D, H, K, h, F, L = (
        config.d_model,
        config.num_heads,
        config.num_kv_heads,
        config.head_dim,
        config.d_ff,
        config.num_layers,
    )
    layer = {
        "attn_norm": WeightSpec((D,), (None,), 0),
        "q": WeightSpec((D, H, h), ("embed", "heads", None), D),
        "k": WeightSpec((D, K, h), ("embed", "kv_heads", None), D),
        "v": WeightSpec((D, K, h), ("embed", "kv_heads", None), D),
        "o": WeightSpec((H, h, D), ("heads", None, "embed"), H * h * 2 * L),
        "mlp_norm": WeightSpec((D,), (None,), 0),
        "gate": WeightSpec((D, F), ("embed", "mlp"), D),
        "up": WeightSpec((D, F), ("embed", "mlp"), D),
        "down": WeightSpec((F, D), ("mlp", "embed"), F * 2 * L),
    }
    if config.qk_norm:
        layer |= {"q_norm": WeightSpec((h,), (None,), 0), "k_norm": WeightSpec((h,), (None,), 0)}
    specs = {"embedding": WeightSpec((config.vocab_size, D), ("vocab", "embed"), D)}
    specs |= {
        f"layers_{name}": WeightSpec((L, *s.shape), ("layers", *s.axes), s.fan_in)
        for name, s in layer.items()
    }
    specs["final_norm"] = WeightSpec((D,), (None,), 0)
    if not config.tie_embeddings:
        specs["head"] = WeightSpec((D, config.vocab_size), ("embed", "vocab"), D)
    return specs


class KVCache(NamedTuple):
    """Keys and values of past tokens: one array [S, K, M, h] for each layer.

    One array a layer, not one stacked array: a decode loop then updates each in place, where a
    slice of a stacked array is copied at every step.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @property
    def max_len(self) -> int:
        """M, the most tokens that a slot holds."""
        return self.keys[0].shape[2]


def init_cache(config: ModelConfig, slots: int, max_len: int) -> KVCache:
    """An empty cache for `slots` sequences of up to `max_len` tokens."""
    shape = (slots, config.num_kv_heads, max_len, config.head_dim)

    def zeros() -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(shape, config.dtype) for _ in range(config.num_layers))

    return KVCache(zeros(), zeros())


def _store(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
    """Put `new` [S, T, K, h] at `positions` [S, T] of each slot of `cache` [S, K, M, h]."""

    def slot(cache: jax.Array, new: jax.Array, positions: jax.Array) -> jax.Array:
        return cache.at[:, positions].set(new.swapaxes(0, 1), mode="drop")

    # Slot by slot, so that slots on different devices need nothing of each other.
    return jax.vmap(slot)(cache, new, positions)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation over the last axis, computed in fp32 (arXiv 1910.07467)."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def rope(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding (RoFormer, arXiv 2104.09864, eq. 34), halves layout.

    Args:
      x: [B, T, heads, h].
      positions: [B, T] int32.
      theta: base of the frequencies.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    x1, x2 = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)


class Transformer(nnx.Module):
    """Decoder with RMSNorm, RoPE, grouped-query attention and SwiGLU.

    `weights` holds one `nnx.Param` for each entry of `weight_specs`. The layers are scanned when
    whole sequences are read, so that compile time does not grow with depth.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, jax.Array]):
        """Wrap weights, named and shaped as `weight_specs` says; traced ones too."""
        self.config = config
        self.weights = nnx.Dict({name: nnx.Param(weights[name]) for name in weight_specs(config)})

    def arrays(self) -> dict[str, jax.Array]:
        """The weights as plain arrays by name: what is differentiated, sharded and stored."""
        return {name: param[...] for name, param in self.weights.items()}

    @property
    def head(self) -> jax.Array:
        """[D, V]; logits are hidden states times this."""
        if self.config.tie_embeddings:
            return self.weights["embedding"][...].T
        return self.weights["head"][...]

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array
    ) -> jax.Array:
        """Hidden states after the final norm, for training and scoring.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, counted from the start of each segment.
          segment_ids: [B, T] int32; tokens look at earlier ones of their segment; 0 is padding.

        Returns:
          [B, T, D].
        """
        mask = packed_mask(segment_ids)

        def body(x: jax.Array, layer: dict[str, jax.Array]) -> tuple[jax.Array, None]:
            def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                return attend(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask)

            return self._layer(layer, x, positions, attention), None

        if self.config.remat:
            body = jax.checkpoint(body)
        x, _ = jax.lax.scan(
            body, self._embed(tokens), self._layers(), unroll=self.config.scan_unroll
        )
        return self._final_norm(x)

    def extend(
        self, tokens: jax.Array, positions: jax.Array, cache: KVCache
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states of new tokens that follow cached ones, for prefill and decoding.

        Args:
          tokens: [S, T] int32, the next tokens of every slot.
          positions: [S, T] int32, where they stand in their sequence; a position at or beyond the
            cache's length is not stored.
          cache: keys and values of the tokens before them.

        Returns:
          hidden [S, T, D] and the cache with the new tokens in it.
        """
        mask = cache_mask(positions, cache.max_len)
        x, keys, values = self._embed(tokens), list(cache.keys), list(cache.values)
        layers = self._layers()
        for i in range(self.config.num_layers):

            def attention(q: jax.Array, k: jax.Array, v: jax.Array, i: int = i) -> jax.Array:
                keys[i] = _store(keys[i], k, positions)
                values[i] = _store(values[i], v, positions)
                return attend(q, keys[i], values[i], mask)

            x = self._layer({name: w[i] for name, w in layers.items()}, x, positions, attention)
        return self._final_norm(x), KVCache(tuple(keys), tuple(values))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., V] in fp32, for the few positions where a dense row is wanted."""
        head = self.head.astype(self.config.dtype)
        return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)

    def _layers(self) -> dict[str, jax.Array]:
        prefix = "layers_"
        return {n[len(prefix) :]: w[...] for n, w in self.weights.items() if n.startswith(prefix)}

    def _embed(self, tokens: jax.Array) -> jax.Array:
        # Rows have variance 1/D, as the tied head wants; the residual stream starts at variance 1.
        scale = self.config.d_model**0.5
        return (self.weights["embedding"][...][tokens] * scale).astype(self.config.dtype)

    def _final_norm(self, x: jax.Array) -> jax.Array:
        return rms_norm(x, self.weights["final_norm"][...], self.config.norm_eps)

    def _layer(
        self,
        layer: dict[str, jax.Array],
        x: jax.Array,
        positions: jax.Array,
        attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        """One layer on x [B, T, D]; `attention` maps q, k, v [B, T, heads, h] to [B, T, H, h]."""
        config = self.config
        w = {name: value.astype(config.dtype) for name, value in layer.items()}
        y = rms_norm(x, layer["attn_norm"], config.norm_eps)
        q, k, v = (jnp.einsum("btd,dnh->btnh", y, w[name]) for name in "qkv")
        if config.qk_norm:
            q = rms_norm(q, layer["q_norm"], config.norm_eps)
            k = rms_norm(k, layer["k_norm"], config.norm_eps)
        q, k = rope(q, positions, config.rope_theta), rope(k, positions, config.rope_theta)
        x = x + jnp.einsum("btnh,nhd->btd", attention(q, k, v), w["o"])
        y = rms_norm(x, layer["mlp_norm"], config.norm_eps)
        return x + (jax.nn.silu(y @ w["gate"]) * (y @ w["up"])) @ w["down"]


def init_weights(config: ModelConfig, seed: int | jax.Array) -> dict[str, jax.Array]:
    """Fresh weights: each drawn with its own key, so that adding one changes no other."""
    key = jax.random.key(seed)
    weights = {}
    for name, spec in weight_specs(config).items():
        if spec.fan_in == 0:
            weights[name] = jnp.ones(spec.shape, config.param_dtype)
            continue
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        values = jax.random.truncated_normal(own, -3.0, 3.0, spec.shape, jnp.float32)
        weights[name] = (values * spec.fan_in**-0.5).astype(config.param_dtype)
    return weights
