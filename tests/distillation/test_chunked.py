"""The chunked loss against the dense one: value, gradients, and what must stay exactly zero."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.divergences import cross_entropy, divergence, log_distribution
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import HiddenTarget, TapeTarget
from arkjax.errors import ConfigError

N, D, DT, V, K = 13, 6, 5, 24, 4
REAL = 21  # of V columns; the others pad the head

# On arrays this small nearly all of the time is compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
OBJECTIVE = Objective(0.5, "jsd", 0.5)
OPTIONS = {"objective": OBJECTIVE, "chunk_size": 4}
NAMES = ("none", "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "adaptive_kl", "tvd")


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(0)
    mask = (rng.random(N) < 0.6) * rng.uniform(0.5, 2.0, N)
    return {
        "hidden": jnp.asarray(normal(1, N, D)),
        "head": jnp.asarray(normal(2, D, V)),
        "labels": jnp.asarray(rng.integers(0, REAL, N), jnp.int32),
        "mask": jnp.asarray(mask, jnp.float32),
    }


@pytest.fixture(scope="module")
def live():
    return HiddenTarget(jnp.asarray(normal(3, N, DT)), jnp.asarray(normal(4, DT, V)))


@pytest.fixture(scope="module")
def short_tape(live):
    return tape(live, K)


@functools.partial(jit, static_argnums=(1, 2))
def tape(live, k, kappa=1.0):
    scores = linear_logprobs(
        live.hidden,
        live.head,
        jnp.zeros(live.hidden.shape[:-1], jnp.int32),
        top_k=k,
        kd_temperature=kappa,
        vocab_size=REAL,
        chunk_size=5,
    )
    return TapeTarget(scores.top_ids, scores.top_logprobs, scores.log_tail, kappa)


def dense(hidden, head, labels, mask, *, objective, target, soft_cap=None):
    """The same loss with `[N, V]` logits and JAX's own gradients."""
    z = logits(hidden, head, soft_cap)
    losses = objective.cross_entropy * cross_entropy(z, labels)
    if isinstance(target, TapeTarget):
        taped = jnp.concatenate([target.top_logprobs, target.log_tail[:, None]], -1)
        losses += objective.weight * divergence(objective, z, taped, target.top_ids)
    elif target is not None:
        z_t = logits(target.hidden, target.head, target.soft_cap)
        losses += objective.weight * divergence(objective, z, z_t)
    return jnp.sum(mask * losses), losses


def logits(hidden, head, soft_cap):
    z = hidden @ head
    z = z if soft_cap is None else soft_cap * jnp.tanh(z / soft_cap)
    return jnp.where(jnp.arange(z.shape[-1]) < REAL, z, -jnp.inf)


@functools.partial(jit, static_argnames=("objective", "chunk_size", "soft_cap", "train_head"))
def chunked_grads(hidden, head, labels, mask, target, **options):
    def loss(hidden, head):
        return linear_divergence(
            hidden, head, labels, mask, target=target, vocab_size=REAL, **options
        )

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(hidden, head)


def dense_grads(hidden, head, labels, mask, target, **options):
    def loss(hidden, head):
        return dense(hidden, head, labels, mask, target=target, **options)

    return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(hidden, head)


def assert_equal_to_dense(tokens, target, **options):
    dense_options = {k: v for k, v in options.items() if k in ("objective", "soft_cap")}
    (loss, aux), grads = chunked_grads(**tokens, target=target, **options)
    (want, losses), want_grads = dense_grads(**tokens, target=target, **dense_options)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for got, expected in zip(grads, want_grads, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5, rtol=1e-5)
    valid = np.asarray(tokens["mask"]) != 0
    np.testing.assert_allclose(aux["token_losses"], np.where(valid, losses, 0.0), rtol=1e-5)
    return aux


@pytest.mark.parametrize("name", NAMES)
def test_equals_dense_with_a_live_teacher(tokens, live, name):
    objective = Objective(0.4, name, 0.6, kd_temperature=2.0, beta=0.3)
    target = None if name == "none" else live
    assert_equal_to_dense(tokens, target, objective=objective, chunk_size=4)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd"])
def test_equals_dense_with_a_tape(tokens, live, name):
    objective = Objective(0.4, name, 0.6, kd_temperature=2.0, beta=0.3)
    assert_equal_to_dense(tokens, tape(live, K, 2.0), objective=objective, chunk_size=4)


@pytest.mark.parametrize("chunk_size", [5, 100])
def test_any_chunk_size(tokens, live, chunk_size):
    assert_equal_to_dense(tokens, live, objective=OBJECTIVE, chunk_size=chunk_size)


@pytest.mark.parametrize("valid", [0, 1, N])
def test_none_one_and_all_tokens_valid(tokens, live, valid):
    some = dict(tokens, mask=(jnp.arange(N) >= N - valid).astype(jnp.float32))
    aux = assert_equal_to_dense(some, live, **OPTIONS)
    assert aux["tokens"] == valid and aux["weight"] == valid


def test_soft_capped_heads(tokens, live):
    capped = dataclasses.replace(live, soft_cap=2.0)
    assert_equal_to_dense(tokens, capped, **OPTIONS, soft_cap=1.5)


def test_no_tokens_at_all():
    loss, aux = linear_divergence(
        jnp.zeros((0, D)), jnp.zeros((D, V)), jnp.zeros(0, int), jnp.zeros(0), objective=Objective()
    )
    assert loss == 0 and aux["token_losses"].shape == (0,)


def test_leading_axes_do_not_matter(tokens, short_tape):
    def fold(x):
        return x.reshape((1, N, *x.shape[1:]))

    folded = {k: v if k == "head" else fold(v) for k, v in tokens.items()}
    target = short_tape.map_tokens(fold)
    (loss, aux), (d_hidden, d_head) = chunked_grads(**folded, target=target, **OPTIONS)
    (want, want_aux), (want_hidden, want_head) = chunked_grads(
        **tokens, target=short_tape, **OPTIONS
    )
    assert loss == want and d_hidden.shape == (1, N, D)
    np.testing.assert_array_equal(d_hidden[0], want_hidden)
    np.testing.assert_array_equal(d_head, want_head)
    np.testing.assert_array_equal(aux["token_losses"][0], want_aux["token_losses"])


def test_whole_tape_equals_live_and_a_short_one_is_below(tokens, live, short_tape):
    options = {"objective": Objective(0.0, "forward_kl"), "chunk_size": 4}
    (full, aux), grads = chunked_grads(**tokens, target=live, **options)
    (whole, _), whole_grads = chunked_grads(**tokens, target=tape(live, REAL), **options)
    np.testing.assert_allclose(whole, full, rtol=1e-5)
    for got, want in zip(whole_grads, grads, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    (short, short_aux), _ = chunked_grads(**tokens, target=short_tape, **options)
    assert 0 < short < full
    assert (short_aux["token_losses"] <= aux["token_losses"] + 1e-6).all()
    assert 0 < short_aux["teacher_tail_mass"] < short_aux["weight"]
    np.testing.assert_array_equal(short_aux["teacher_top1"], aux["teacher_top1"])


def test_masked_tokens_have_exactly_no_effect_even_when_they_are_nan(tokens, live, short_tape):
    off = np.asarray(tokens["mask"]) == 0

    def spoil(x):
        dead = off.reshape(off.shape + (1,) * (x.ndim - 1))
        return jnp.where(dead, jnp.asarray(jnp.nan, x.dtype), x)

    spoiled = dict(tokens, hidden=spoil(tokens["hidden"]))
    spoiled["labels"] = jnp.where(off, -7, tokens["labels"])
    spoiled_tape = dataclasses.replace(
        short_tape.map_tokens(lambda x: spoil(x) if x.dtype == jnp.float32 else x),
        top_ids=jnp.where(off[:, None], 10**6, short_tape.top_ids),
    )
    for target, bad in ((live, live.map_tokens(spoil)), (short_tape, spoiled_tape)):
        (loss, aux), grads = chunked_grads(**tokens, target=target, **OPTIONS)
        (bad_loss, bad_aux), bad_grads = chunked_grads(**spoiled, target=bad, **OPTIONS)
        assert loss == bad_loss
        jax.tree.map(np.testing.assert_array_equal, (aux, grads), (bad_aux, bad_grads))
        assert (np.asarray(grads[0])[off] == 0).all()


def test_order_and_padding_of_tokens_do_not_matter(tokens, live):
    shuffle = np.random.default_rng(5).permutation(N)
    padded = np.concatenate([shuffle, np.zeros(6, int)])

    def move(x):
        return x[padded]

    moved = {k: v if k == "head" else move(v) for k, v in tokens.items()}
    moved["mask"] = moved["mask"].at[N:].set(0.0)
    (loss, _), (d_hidden, d_head) = chunked_grads(**tokens, target=live, **OPTIONS)
    (got, _), (got_hidden, got_head) = chunked_grads(
        **moved, target=live.map_tokens(move), **OPTIONS
    )
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    np.testing.assert_allclose(got_hidden[:N], d_hidden[shuffle], atol=1e-6)
    np.testing.assert_allclose(got_head, d_head, atol=1e-5)


def test_aux_says_what_it_says(tokens, live):
    objective = Objective(0.4, "tvd", 0.6, kd_temperature=2.0, beta=0.3)
    (_, aux), _ = chunked_grads(**tokens, target=live, objective=objective, chunk_size=4)
    mask = np.asarray(tokens["mask"], np.float64)
    z_s = np.asarray(tokens["hidden"] @ tokens["head"])[:, :REAL]
    z_t = np.asarray(live.hidden @ live.head)[:, :REAL]
    log_q, log_p = (np.asarray(log_distribution(z)) for z in (z_s, z_t))
    warm_q, warm_p = (np.exp(log_distribution(z, 2.0)) for z in (z_s, z_t))
    labels = np.asarray(tokens["labels"])
    want = {
        "cross_entropy": -log_q[np.arange(N), labels],
        "divergence": 0.5 * np.abs(warm_q - warm_p).sum(-1),
        "student_entropy": -(np.exp(log_q) * log_q).sum(-1),
        "label_top1": log_q.argmax(-1) == labels,
        "teacher_top1": log_q.argmax(-1) == log_p.argmax(-1),
        "teacher_tail_mass": np.zeros(N),
        "gate": np.ones(N),
        "weight": np.ones(N),
    }
    for name, per_token in want.items():
        np.testing.assert_allclose(aux[name], np.sum(mask * per_token), rtol=1e-5, err_msg=name)
    assert aux["tokens"] == np.count_nonzero(mask)
    assert set(aux) == {*want, "tokens", "token_losses"}


def test_gradients_scale_with_the_cotangent_and_stop_at_teacher_mask_and_aux(tokens, live):
    def losses(hidden, mask, target):
        value, aux = linear_divergence(
            hidden, tokens["head"], tokens["labels"], mask, objective=OBJECTIVE, target=target
        )
        return value, jnp.sum(aux["token_losses"]) + aux["cross_entropy"]

    @jit
    def pull(args, cotangents):
        return jax.vjp(losses, *args)[1](cotangents)

    args = tokens["hidden"], tokens["mask"], live
    one, mask, teacher = pull(args, (1.0, 0.0))
    np.testing.assert_allclose(pull(args, (1 / 3, 0.0))[0], one / 3, atol=1e-7)
    through_aux = pull(args, (0.0, 1.0))[0]
    assert all((x == 0).all() for x in (mask, teacher.hidden, teacher.head, through_aux))
    assert (np.abs(one).sum(-1) > 0).any()


def test_a_frozen_head_gets_no_gradient_and_hidden_the_same(tokens, live):
    _, (d_hidden, _) = chunked_grads(**tokens, target=live, **OPTIONS)
    _, (frozen, d_head) = chunked_grads(**tokens, target=live, train_head=False, **OPTIONS)
    np.testing.assert_array_equal(frozen, d_hidden)
    assert (d_head == 0).all()


def test_bfloat16_inputs_accumulate_in_float32():
    # A thousand tokens of small divergence: a bfloat16 sum stalls long before the end.
    n, d, v = 1024, 8, 64
    hidden = jnp.asarray(normal(7, n, d), jnp.bfloat16)
    head = jnp.asarray(normal(8, d, v), jnp.bfloat16)
    teacher = HiddenTarget((hidden + 0.05 * normal(9, n, d)).astype(jnp.bfloat16), head)
    args = (jnp.zeros(n, jnp.int32), jnp.ones(n))
    objective = Objective(0.0, "forward_kl")

    def loss(hidden, head):
        return linear_divergence(
            hidden, head, *args, objective=objective, target=teacher, chunk_size=64
        )[0]

    value, (d_hidden, d_head) = jit(jax.value_and_grad(loss, (0, 1)))(hidden, head)
    z_s, z_t = (
        np.asarray(h, np.float64) @ np.asarray(head, np.float64) for h in (hidden, teacher.hidden)
    )
    log_q, log_p = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (z_s, z_t))
    want = np.sum(np.exp(log_p) * (log_p - log_q))
    assert value.dtype == jnp.float32 and 0.001 < want / n < 0.02
    np.testing.assert_allclose(value, want, rtol=1e-3)
    assert d_hidden.dtype == d_head.dtype == jnp.bfloat16
    want_head = np.asarray(hidden, np.float64).T @ (np.exp(log_q) - np.exp(log_p))
    # Per-token gradients are rounded to bfloat16 (8 bits) before they are added up in float32.
    np.testing.assert_allclose(
        d_head.astype(jnp.float32), want_head, atol=0.01 * np.abs(want_head).max()
    )


def test_differently_padded_heads(tokens, live):
    wide = dataclasses.replace(live, head=jnp.pad(live.head, ((0, 0), (0, 7)), constant_values=9.0))
    (loss, _), grads = chunked_grads(**tokens, target=live, **OPTIONS)
    (got, _), got_grads = chunked_grads(**tokens, target=wide, **OPTIONS)
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), got_grads, grads)
    assert (got_grads[1][:, REAL:] == 0).all()


@pytest.mark.parametrize("kind", ["live", "tape"])
def test_over_a_mesh_with_split_tokens_and_a_split_vocabulary(kind):
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    live = HiddenTarget(jnp.asarray(normal(3, 8, 3, DT)), jnp.asarray(normal(4, DT, V)))
    target = live if kind == "live" else tape(live, K)
    rng = np.random.default_rng(1)
    hidden, head = jnp.asarray(normal(1, 8, 3, D)), jnp.asarray(normal(2, D, V))
    labels = jnp.asarray(rng.integers(0, REAL, (8, 3)))
    # One device has no valid token at all and must keep step with the others.
    mask = jnp.asarray(rng.random((8, 3)) < 0.7, jnp.float32).at[2:4].set(0.0)

    def grads(hidden, head, target, **mesh):
        def loss(hidden, head):
            return linear_divergence(
                hidden, head, labels, mask, objective=OBJECTIVE, target=target,
                chunk_size=2, vocab_size=REAL, **mesh,
            )  # fmt: skip

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, head)

    def put(x, *spec):
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))

    spread = target.map_tokens(lambda x: put(x, "data"))
    if kind == "live":
        spread = dataclasses.replace(spread, head=put(live.head, None, "tensor"))
    over_mesh = jit(functools.partial(grads, mesh=mesh, token_axes=("data",)))
    got = over_mesh(put(hidden, "data"), put(head, None, "tensor"), spread)
    want = jit(grads)(hidden, head, target)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), got, want)


def test_label_logprobs_and_their_tape(tokens):
    z = np.asarray(tokens["hidden"] @ tokens["head"])[:, :REAL]
    log_q, half = log_distribution(z), log_distribution(z, 2.0)
    scores = jit(
        functools.partial(
            linear_logprobs, top_k=K, kd_temperature=2.0, chunk_size=4, vocab_size=REAL
        )
    )(tokens["hidden"], tokens["head"], tokens["labels"], mask=tokens["mask"])
    valid = np.asarray(tokens["mask"]) != 0
    want = log_q[np.arange(N), tokens["labels"]]
    np.testing.assert_allclose(scores.logprobs, np.where(valid, want, 0.0), rtol=1e-5)
    top, ids = jax.lax.top_k(half, K)
    np.testing.assert_array_equal(scores.top_ids[valid], ids[valid])
    np.testing.assert_allclose(scores.top_logprobs[valid], top[valid], rtol=1e-5)
    tail = np.log(1 - np.exp(np.asarray(top, np.float64)).sum(-1))
    np.testing.assert_allclose(scores.log_tail[valid], tail[valid], rtol=1e-5)
    assert all((x[~valid] == 0).all() for x in scores)


@pytest.mark.fast
def test_what_does_not_fit_together_is_refused(tokens, live, short_tape):
    def refused(match, objective=OBJECTIVE, target=live, **changes):
        with pytest.raises(ConfigError, match=match):
            linear_divergence(**{**tokens, **changes}, objective=objective, target=target)

    refused("no teacher is given", target=None)
    refused("written at 1", Objective(0, "jsd", kd_temperature=2.0), short_tape)
    refused("columns", target=dataclasses.replace(live, head=live.head[:, :20]))
    refused("do not match", target=live.map_tokens(lambda x: x[1:]))
    refused("transpose a tied embedding", head=tokens["head"].T)
    refused("same tokens", labels=tokens["labels"][1:])
