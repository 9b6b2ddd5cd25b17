"""The decoder: one set of layers that trains, scores and samples, for every family."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from arkjax.models.attention import attend, cache_mask
from arkjax.models.cache import KVCache, store
from arkjax.models.config import ModelConfig
from arkjax.models.grouped import Pool, attend_with_prefixes
from arkjax.models.linear import dense, frozen, kept, linear, product
from arkjax.models.moe import RouterLoad, balance_loss, routed_experts
from arkjax.models.prefix_tree import prefix_tree
from arkjax.models.rope import rope_frequencies, rope_tables, rotate
from arkjax.models.self_attention import self_attention
from arkjax.models.weights import LAYERS, weight_specs

_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root-mean-square normalisation over the last axis, computed in fp32 (arXiv 1910.07467)."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (x32 * scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Hidden(NamedTuple):
    """What a forward pass over whole sequences gives.

    Attributes:
      hidden: [B, T, D], after the final norm.
      router_loss: [] fp32, `moe.balance_loss` over all layers; zero without experts.
    """

    hidden: jax.Array
    router_loss: jax.Array


Weight = jax.Array | tuple[jax.Array, ...]
"""A weight as one array, or that of the layers as one array for each layer."""


def unstacked(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights with one array for each layer, as decoding wants them.

    A decode step reads every weight once and does little else. Slices of stacked arrays are copied
    before they are read, at every step: 6 of 35 ms a step of a model of 30M parameters on CPU.
    """
    return {
        name: tuple(jnp.asarray(weight[i]) for i in range(len(weight)))
        if name.startswith(LAYERS)
        else weight
        for name, weight in weights.items()
    }


def _param(weight: Weight) -> nnx.Param | nnx.List:
    if isinstance(weight, tuple):
        return nnx.List([nnx.Param(layer) for layer in weight])
    return nnx.Param(weight)


def _value(param: nnx.Param | nnx.List) -> Weight:
    if isinstance(param, nnx.List):
        return tuple(layer.get_value() for layer in param)
    return param.get_value()


class Transformer(nnx.Module):
    """Decoder with RMSNorm, RoPE, grouped-query attention and a gated feed-forward layer.

    `weights` holds one `nnx.Param` for each entry of `weight_specs`. The layers are scanned when
    whole sequences are read, so that compile time does not grow with depth.
    """

    def __init__(
        self, config: ModelConfig, weights: Mapping[str, Weight], mesh: Mesh | None = None
    ):
        """Wrap weights, named and shaped as `weight_specs` says; traced ones too.

        Args:
          config: the model's shape.
          weights: by name; those of the layers stacked, or as `unstacked` gives them.
          mesh: where the weights lie; kernels that XLA cannot divide by itself are divided over it.
        """
        self.config = config
        self.mesh = mesh
        self.weights = nnx.Dict({name: _param(weights[name]) for name in weight_specs(config)})

    def arrays(self) -> dict[str, Weight]:
        """The weights as plain arrays by name: what is differentiated, sharded and stored."""
        return {name: _value(param) for name, param in self.weights.items()}

    @property
    def head(self) -> jax.Array:
        """[D, V]; logits are hidden states times this, soft-capped if the config says so."""
        name = "embedding" if self.config.tie_embeddings else "head"
        return self.weights[name].get_value().T

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segment_ids: jax.Array
    ) -> jax.Array:
        """Hidden states [B, T, D] after the final norm; see `forward`."""
        return self.forward(tokens, positions, segment_ids).hidden

    def forward(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segment_ids: jax.Array,
        parents: jax.Array | None = None,
    ) -> Hidden:
        """Read whole sequences, for training and scoring.

        Args:
          tokens: [B, T] int32.
          positions: [B, T] int32, counted from the start of each segment.
          segment_ids: [B, T] int32; tokens look at earlier ones of their segment; 0 is padding.
          parents: [B, T] int32, the segment of its row that each token's segment goes on from; 0
            where there is none. Tokens then look at all of that segment too, and at those that it
            goes on from itself; positions go on from it. Segments that go on from one stand
            directly behind it, before any other (see `prefix_tree`).
        """
        config = self.config
        tree = None if parents is None else prefix_tree(segment_ids, parents, positions)
        window = config.sliding_window if config.sliding_window < tokens.shape[1] else 0
        kinds = [config.is_local(i) for i in range(config.num_layers)]
        tables = self._rope_tables(positions)
        counts = segment_ids > 0

        def attention(window: int) -> Callable:
            return functools.partial(
                self_attention,
                segment_ids=segment_ids,
                scale=config.query_scale,
                window=window,
                soft_cap=config.attention_soft_cap,
                implementation=config.attention,
                mesh=self.mesh,
                tree=tree,
            )

        def body(x: jax.Array, scanned: tuple) -> tuple[jax.Array, RouterLoad | None]:
            layer, local = scanned
            if all(kinds) or not any(kinds):
                of_kind = attention(window if kinds[0] else 0)
                sin_cos = tables[kinds[0]]
            else:
                sin_cos = tuple(jnp.where(local, b, a) for a, b in zip(*tables, strict=True))
                of_kind = attention(0)
                if window:
                    of_kind = functools.partial(jax.lax.cond, local, attention(window), of_kind)
            return self._layer(layer, x, sin_cos, of_kind, counts)

        if config.remat:
            body = jax.checkpoint(body, prevent_cse=False)
        stacked = {
            name: jnp.stack(weight) if isinstance(weight, tuple) else weight
            for name, weight in self._layers().items()
        }
        x, loads = jax.lax.scan(
            body, self._embed(tokens), (stacked, jnp.array(kinds)), unroll=config.scan_unroll
        )
        loss = jnp.zeros((), jnp.float32)
        if loads is not None:
            loss = balance_loss(jax.tree.map(lambda per_layer: per_layer.sum(axis=0), loads))
        return Hidden(self._norm(x, self.weights["final_norm"].get_value()), loss)

    def extend(
        self, tokens: jax.Array, positions: jax.Array, cache: KVCache, pool: Pool | None = None
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states of new tokens that follow cached ones, for prefill and decoding.

        Args:
          tokens: [S, T] int32, the next tokens of every slot.
          positions: [S, T] int32, where they stand in their sequence; a position at or beyond the
            cache's length is not stored.
          cache: keys and values of the tokens before them.
          pool: prefixes that the sequences begin with; the cache then has what follows them, and
            nothing of them counts to its length.

        Returns:
          hidden [S, T, D] and the cache with the new tokens in it.
        """
        config = self.config
        x, keys, values = self._embed(tokens), list(cache.keys), list(cache.values)
        layers, tables = self._layers(), self._rope_tables(positions)
        own = positions if pool is None else positions - pool.prefixes.length[:, None]
        masks = {
            local: cache_mask(own, cache.max_len, config.sliding_window if local else 0)
            for local in {config.is_local(i) for i in range(config.num_layers)}
        }
        counts = own < cache.max_len
        for i in range(config.num_layers):
            local = config.is_local(i)

            def attention(
                q: jax.Array, k: jax.Array, v: jax.Array, i: int = i, local: bool = local
            ) -> jax.Array:
                keys[i], values[i] = store(keys[i], values[i], k, v, own, self.mesh)
                form = {"scale": config.query_scale, "soft_cap": config.attention_soft_cap}
                if pool is None:
                    return attend(q, keys[i], values[i], masks[local], **form)
                form["window"] = config.sliding_window if local else 0
                here = keys[i], values[i]
                return attend_with_prefixes(q, here, masks[local], pool, i, positions, **form)

            if config.base_quantization != "none":
                # Else a decode loop dequantises all layers before its first step, and keeps them.
                x, layers = jax.lax.optimization_barrier((x, layers))
            layer = {name: weight[i] for name, weight in layers.items()}
            x, _ = self._layer(layer, x, tables[local], attention, counts)
        hidden = self._norm(x, self.weights["final_norm"].get_value())
        return hidden, KVCache(tuple(keys), tuple(values))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[..., V] in fp32, for the few positions where a dense row is wanted."""
        z = product(hidden, self.head.T, 1, jnp.float32)
        cap = self.config.logit_soft_cap
        return cap * jnp.tanh(z / cap) if cap else z

    def _layers(self) -> dict[str, Weight]:
        """Weights of all layers by their name in a layer."""
        return {
            name.removeprefix(LAYERS): _value(param)
            for name, param in self.weights.items()
            if name.startswith(LAYERS)
        }

    def _embed(self, tokens: jax.Array) -> jax.Array:
        rows = self.weights["embedding"].get_value()[tokens].astype(self.config.dtype)
        # Fresh rows have variance 1/D, as a tied head wants; the residual stream wants variance 1.
        return rows * self.config.d_model**0.5 if self.config.scale_embeddings else rows

    def _rope_tables(self, positions: jax.Array) -> tuple[tuple[jax.Array, jax.Array], ...]:
        """Sines and cosines [B, T, 1, h / 2] of unwindowed layers, and those of windowed ones."""
        config = self.config
        tables = rope_tables(
            positions, *rope_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        )
        if not config.local_rope_theta:
            return tables, tables
        local = rope_frequencies(config.head_dim, config.local_rope_theta)
        return tables, rope_tables(positions, *local)

    def _norm(self, x: jax.Array, scale: jax.Array) -> jax.Array:
        if self.config.zero_centered_norm:
            scale = 1.0 + scale.astype(jnp.float32)
        return rms_norm(x, scale, self.config.norm_eps)

    def _layer(
        self,
        w: dict[str, jax.Array],
        x: jax.Array,
        sin_cos: tuple[jax.Array, jax.Array],
        attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
        counts: jax.Array,
    ) -> tuple[jax.Array, RouterLoad | None]:
        """One layer on x [B, T, D].

        Args:
          w: the layer's weights.
          x: the residual stream.
          sin_cos: of the positions.
          attention: maps q, k, v [B, T, heads, h] to [B, T, H, h].
          counts: [B, T] bool, tokens that a router's load counts.

        Returns:
          The residual stream, and the router's load if there is one.
        """
        config = self.config
        y = self._norm(x, w["attn_norm"])
        q, k, v = (linear(y, w, name, config) for name in "qkv")
        if config.qk_norm:
            q, k = self._norm(q, w["q_norm"]), self._norm(k, w["k_norm"])
        q, k = rotate(q, *sin_cos), rotate(k, *sin_cos)
        y = linear(attention(q, k, v), w, "o", config, inputs=2)
        x = x + (self._norm(y, w["attn_post_norm"]) if config.post_norms else y)

        y = self._norm(x, w["mlp_norm"])
        activation, load = _ACTIVATIONS[config.activation], None
        if config.experts is None:
            y = activation(linear(y, w, "gate", config)) * linear(y, w, "up", config)
            y = linear(y, w, "down", config)
        else:
            names = ("router", "gate", "up", "down")

            def routed(y: jax.Array, layer: dict[str, jax.Array]) -> tuple[jax.Array, RouterLoad]:
                return routed_experts(
                    y,
                    *(dense(layer, name, config).astype(y.dtype) for name in names),
                    counts,
                    experts=config.experts,
                    activation=activation,
                    mesh=self.mesh,
                )

            y, load = frozen(routed, config)(y, kept(w, *names))
        return x + (self._norm(y, w["mlp_post_norm"]) if config.post_norms else y), load
