"""Heads whose columns lie on several devices, inside a caller's shard_map: the unsplit loss."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.objective import DIVERGENCES, Objective
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, SampledTarget, TapeTarget
from arkjax.errors import ConfigError

B, T, D, DT, V, K, REAL = 4, 6, 5, 4, 24, 3, 21
HEAD = PartitionSpec(None, "vocab")

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def inputs():
    rng = np.random.default_rng(0)
    # A device has no valid token in its rows and must not wait for the others.
    mask = jnp.asarray(rng.random((B, T)) < 0.7, jnp.float32).at[2:].set(0.0)
    labels = jnp.asarray(rng.integers(0, REAL, (B, T)), jnp.int32)
    return normal(1, B, T, D), normal(2, D, V), labels, mask


def make_target(kind, kappa=1.0):
    head, hidden = normal(4, DT, V), normal(3, B, T, DT)
    gate = jnp.abs(normal(5, B, T))
    if kind == "none":
        return None
    if kind == "live":
        return HiddenTarget(hidden, head, 3.0, gate)
    if kind == "tape":
        scores = linear_logprobs(
            hidden, head, inputs()[2], top_k=5, kd_temperature=kappa, vocab_size=REAL
        )
        return TapeTarget(scores.top_ids, scores.top_logprobs, scores.log_tail, kappa, gate)
    if kind == "sampled":
        rng = np.random.default_rng(6)
        ids = np.stack([rng.permutation(REAL)[:4] for _ in range(B * T)]).reshape(B, T, 4)
        weights = rng.multinomial(8, [0.4, 0.3, 0.3, 0.0], (B, T)) / 8
        return SampledTarget(jnp.asarray(ids), jnp.asarray(weights, jnp.float32), kappa, gate)
    weights = np.random.default_rng(7).dirichlet(np.ones(K), (B, T))
    return MixtureTarget(
        normal(8, B, T, K, DT), jnp.asarray(weights, jnp.float32), head, 3.0, kind, gate
    )


def gradients(hidden, head, labels, mask, target, **options):
    def loss(hidden, head):
        return linear_divergence(
            hidden, head, labels, mask, target=target, chunk_size=4, vocab_size=REAL,
            label_weights=labels - 3.0, soft_cap=4.0, **options,
        )  # fmt: skip

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, head)


def spec_of(target):
    spec = jax.tree.map(lambda _: HEAD, target)
    return None if target is None else spec.map_tokens(lambda _: PartitionSpec("data"))


def make_mesh(data, vocab):
    return jax.make_mesh((data, vocab), ("data", "vocab"), axis_types=(AxisType.Auto,) * 2)


def split(data, vocab, objective, target, check_vma=True):
    """The same gradients, taken inside a shard_map; sums over the devices of the data axis."""

    def share(hidden, head, labels, mask, target):
        (loss, aux), (d_hidden, d_head) = gradients(
            hidden, head, labels, mask, target, objective=objective, vocab_axis="vocab"
        )
        per_token = aux.pop("token_losses")
        if not check_vma:
            # Where varying axes are checked, JAX has added up the gradient of the head itself.
            d_head = jax.lax.psum(d_head, "data")
        loss, aux = jax.lax.psum((loss, aux), "data")
        return (loss, aux), per_token, d_hidden, d_head

    rows, whole = PartitionSpec("data"), PartitionSpec()
    args = *inputs(), target
    mapped = jax.shard_map(
        share,
        mesh=make_mesh(data, vocab),
        in_specs=(rows, HEAD, rows, rows, spec_of(target)),
        out_specs=(whole, rows, rows, HEAD),
        check_vma=check_vma,
    )
    (loss, aux), per_token, d_hidden, d_head = jit(mapped)(*args)
    return (loss, {**aux, "token_losses": per_token}), (d_hidden, d_head)


def assert_same(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(y).max()))


ALL = " + ".join(f"0.{i + 1}*{name}" for i, name in enumerate(DIVERGENCES))


@pytest.mark.parametrize("name", ["none", *DIVERGENCES])
def test_every_divergence_is_the_unsplit_one(name):
    objective = Objective(0.4, name, 0.6, kd_temperature=2.0, beta=0.3)
    target = make_target("none" if name == "none" else "live", 2.0)
    want = jit(functools.partial(gradients, objective=objective))(*inputs(), target)
    assert_same(split(1, 8, objective, target), want)


@pytest.mark.parametrize("kind", ["live", "geometric", "arithmetic", "tape", "sampled"])
@pytest.mark.parametrize("check_vma", [True, False])
def test_every_target_is_the_unsplit_one_also_where_tokens_are_split_too(kind, check_vma):
    objective = Objective(0.4, "forward_kl" if kind == "sampled" else ALL, 0.6)
    target = make_target(kind)
    want = jit(functools.partial(gradients, objective=objective))(*inputs(), target)
    assert_same(split(2, 4, objective, target, check_vma), want)


@pytest.mark.parametrize("kind", ["live", "tape"])
def test_gradients_may_be_taken_outside(kind):
    objective = Objective(0.4, "jsd", 0.6)
    target = make_target(kind)
    hidden, head, labels, mask = inputs()
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def share(hidden, head, labels, mask, target):
        loss, _ = linear_divergence(
            hidden, head, labels, mask, target=target, objective=objective, vocab_size=REAL,
            chunk_size=4, vocab_axis="vocab",
        )  # fmt: skip
        return jax.lax.psum(loss, "data")

    def outside(hidden, head):
        mapped = jax.shard_map(
            share,
            mesh=make_mesh(2, 4),
            in_specs=(rows, HEAD, rows, rows, spec_of(target)),
            out_specs=whole,
        )
        return mapped(hidden, head, labels, mask, target)

    def unsplit(hidden, head):
        return linear_divergence(
            hidden, head, labels, mask, target=target, objective=objective, vocab_size=REAL,
            chunk_size=4,
        )[0]  # fmt: skip

    got = jit(jax.value_and_grad(outside, (0, 1)))(hidden, head)
    assert_same(got, jit(jax.value_and_grad(unsplit, (0, 1)))(hidden, head))


def test_no_device_holds_the_whole_vocabulary():
    columns, tokens = 4096, 64
    head = jnp.ones((8, columns), jnp.bfloat16)
    target = HiddenTarget(jnp.ones((tokens, 8), jnp.bfloat16), head)
    spec = dataclasses.replace(jax.tree.map(lambda _: PartitionSpec(), target), head=HEAD)

    def share(hidden, head, target):
        return jax.grad(
            lambda hidden, head: linear_divergence(
                hidden, head, jnp.zeros(tokens, jnp.int32), jnp.ones(tokens),
                objective=Objective(0.5, "jsd"), target=target, chunk_size=tokens,
                vocab_axis="vocab",
            )[0], (0, 1),
        )(hidden, head)  # fmt: skip

    mapped = jax.shard_map(
        share,
        mesh=make_mesh(1, 8),
        in_specs=(PartitionSpec(), HEAD, spec),
        out_specs=(PartitionSpec(), HEAD),
    )
    compiled = jax.jit(mapped).lower(jnp.ones((tokens, 8), jnp.bfloat16), head, target).compile()
    # Both sides' logits, what is made of them, and the accumulator: of an eighth of the columns.
    assert compiled.memory_analysis().temp_size_in_bytes < columns * (tokens * 4 + 8 * 4)


@pytest.mark.fast
def test_differently_padded_shares_and_two_meshes_are_refused():
    hidden, head, labels, mask = inputs()
    target = dataclasses.replace(make_target("live"), head=normal(4, DT, V + 8))

    def share(hidden, head, target, **options):
        return linear_divergence(
            hidden, head, labels, mask, objective=Objective(0, "jsd"), target=target,
            vocab_size=REAL, vocab_axis="vocab", **options,
        )[0]  # fmt: skip

    def run(target, **options):
        spec = jax.tree.map(lambda _: PartitionSpec(), target)
        jax.shard_map(
            functools.partial(share, **options),
            mesh=make_mesh(1, 8),
            in_specs=(PartitionSpec(), HEAD, dataclasses.replace(spec, head=HEAD)),
            out_specs=PartitionSpec(),
        )(hidden, head, target)

    with pytest.raises(ConfigError, match="before they are split"):
        run(target)
    with pytest.raises(ConfigError, match="not both"):
        run(make_target("live"), mesh=make_mesh(1, 8), token_axes=("data",))
