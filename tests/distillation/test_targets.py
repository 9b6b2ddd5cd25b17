"""Every divergence against every target, values and gradients, to the float64 definitions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.chunked import linear_divergence, linear_logprobs
from arkjax.distillation.objective import DIVERGENCES, Objective
from arkjax.distillation.targets import HiddenTarget, MixtureTarget, SampledTarget, TapeTarget
from arkjax.errors import ConfigError

N, D, DT, V, K, REAL = 9, 5, 4, 14, 3, 12
TARGETS = ("live", "geometric", "arithmetic", "geometric capped", "arithmetic capped", "tape")

# On arrays this small nearly all of the time is compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def normal(seed, *shape, scale=1.0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def tokens(hidden=None):
    rng = np.random.default_rng(0)
    mask = jnp.asarray((rng.random(N) < 0.7) * rng.uniform(0.5, 2.0, N), jnp.float32)
    return {
        "hidden": normal(1, N, D) if hidden is None else hidden,
        "head": normal(2, D, V),
        "labels": jnp.asarray(rng.integers(0, REAL, N), jnp.int32),
        "mask": mask,
    }


def make_target(kind, kappa=1.0, scale=1.0, gate=None):
    head = normal(4, DT, V, scale=scale)
    if kind == "live":
        return HiddenTarget(normal(3, N, DT), head, gate=gate)
    if kind == "tape":
        scores = jit(
            lambda hidden, labels: linear_logprobs(
                hidden, head, labels, top_k=4, kd_temperature=kappa, vocab_size=REAL
            )
        )(normal(3, N, DT), jnp.zeros(N, jnp.int32))
        return TapeTarget(scores.top_ids, scores.top_logprobs, scores.log_tail, kappa, gate)
    weights = np.random.default_rng(5).dirichlet(np.ones(K), N)
    # A context without a share, and one that has all.
    weights[0], weights[1] = (0.5, 0.0, 0.5), (0.0, 1.0, 0.0)
    cap = 2.0 if kind.endswith("capped") else None
    hidden, weights = normal(6, N, K, DT), jnp.asarray(weights, jnp.float32)
    return MixtureTarget(hidden, weights, head, cap, kind.split()[0], gate)


@functools.partial(jit, static_argnames=("objective", "soft_cap", "train_head", "chunk_size"))
def grads(hidden, head, labels, mask, target=None, label_weights=None, **options):
    def loss(hidden, head):
        return linear_divergence(
            hidden, head, labels, mask, target=target, label_weights=label_weights,
            vocab_size=REAL, **{"chunk_size": 4, **options},
        )  # fmt: skip

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, head)


def assert_is_reference(reference, inputs, target, objective, loss_rtol=1e-6, **options):
    (loss, aux), (d_hidden, d_head) = grads(**inputs, target=target, objective=objective, **options)
    want = reference(**inputs, target=target, objective=objective, vocab_size=REAL, **options)
    np.testing.assert_allclose(loss, want.loss, rtol=loss_rtol)
    np.testing.assert_allclose(
        aux["token_losses"], want.token_losses, rtol=1e-5, atol=1e-6 * np.abs(want.loss)
    )
    # What rounds a logit to float32 is divided by the temperature with it.
    tolerance = 1e-5 / min(1.0, objective.kd_temperature)
    for got, expected in ((d_hidden, want.d_hidden), (d_head, want.d_head)):
        np.testing.assert_allclose(got, expected, atol=tolerance * max(1.0, np.abs(expected).max()))
    assert (np.asarray(d_hidden)[np.asarray(inputs["mask"]) == 0] == 0).all()
    assert (d_head[:, REAL:] == 0).all()
    return aux


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
def test_every_divergence_against_every_target(reference, kind, kappa):
    target = make_target(kind, kappa)
    for name in DIVERGENCES:
        objective = Objective(0.3, name, 0.7, kd_temperature=kappa, beta=0.3, alpha=0.2)
        assert_is_reference(reference, tokens(), target, objective)


@pytest.mark.parametrize("kind", TARGETS)
def test_sums_of_divergences(reference, kind):
    objective = Objective(
        0.2, "0.7*forward_kl + 0.5 * jsd+2*tvd", 0.6, kd_temperature=2.0, normalize=True,
        scale_by_temperature_squared=True,
    )  # fmt: skip
    assert_is_reference(reference, tokens(), make_target(kind, 2.0), objective)


@pytest.mark.parametrize("kind", ["live", "arithmetic", "tape"])
def test_near_one_hot_teachers(reference, kind):
    # The teacher's logits spread over some hundred nats: p is 1 or 0 to float32 at most tokens.
    target = make_target(kind, scale=40.0)
    for name in ("forward_kl", "jsd", "skew_kl", "skew_rkl", "tvd"):
        objective = Objective(0.3, name, 0.7, beta=0.3, alpha=0.2)
        assert_is_reference(reference, tokens(), target, objective)


def test_soft_capped_student(reference):
    objective = Objective(0.3, "jsd + reverse_kl", 0.7)
    assert_is_reference(reference, tokens(), make_target("live"), objective, soft_cap=1.5)


@pytest.mark.parametrize("kind", [*TARGETS, "sampled"])
def test_gates_weigh_the_divergence_alone_and_hide_what_is_shut(reference, kind):
    gate = jnp.asarray(np.random.default_rng(7).uniform(0.2, 1.5, N), jnp.float32).at[2:4].set(0.0)
    target = drawn(3) if kind == "sampled" else make_target(kind)
    target = dataclasses.replace(target, gate=gate)
    objective = Objective(0.3, "forward_kl", 0.7)
    aux = assert_is_reference(reference, tokens(), target, objective)
    mask = np.asarray(tokens()["mask"])
    np.testing.assert_allclose(aux["gate"], np.sum(mask * np.asarray(gate)), rtol=1e-6)

    def spoil(x):
        shut = np.asarray(gate == 0).reshape((-1,) + (1,) * (x.ndim - 1))
        bad = jnp.nan if x.dtype == jnp.float32 else 10**6
        return jnp.where(shut, jnp.asarray(bad, x.dtype), x)

    spoiled = dataclasses.replace(target.map_tokens(spoil), gate=gate)
    got = grads(**tokens(), target=spoiled, objective=objective)
    want = grads(**tokens(), target=target, objective=objective)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_a_gate_of_ones_changes_nothing():
    target = make_target("live")
    objective = Objective(0.3, "jsd", 0.7)
    gated = dataclasses.replace(target, gate=jnp.ones(N))
    want = grads(**tokens(), target=target, objective=objective)
    got = grads(**tokens(), target=gated, objective=objective)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("with_teacher", [False, True])
def test_label_weights_weigh_the_cross_entropy_alone(reference, with_teacher):
    weights = jnp.asarray(np.random.default_rng(8).standard_normal(N), jnp.float32)
    target = make_target("live") if with_teacher else None
    objective = Objective(1.0, "reverse_kl" if with_teacher else "none", 0.05)
    aux = assert_is_reference(
        reference, tokens(), target, objective, label_weights=weights, loss_rtol=5e-6
    )
    plain = grads(**tokens(), target=target, objective=objective)[0][1]
    np.testing.assert_allclose(aux["cross_entropy"], plain["cross_entropy"], rtol=1e-6)


def drawn(draws, seed=9, kappa=1.0):
    """That many draws a token from the live teacher, as counts of distinct tokens."""
    rng = np.random.default_rng(seed)
    ids, weights = np.zeros((N, draws), np.int32), np.zeros((N, draws), np.float32)
    for n, p in enumerate(teacher_probabilities(kappa)):
        found, counts = np.unique(rng.choice(REAL, draws, p=p), return_counts=True)
        ids[n, : len(found)], weights[n, : len(found)] = found, counts / draws
    return SampledTarget(jnp.asarray(ids), jnp.asarray(weights), kappa)


def teacher_probabilities(kappa=1.0):
    live = make_target("live")
    z = np.asarray(live.hidden, np.float64) @ np.asarray(live.head, np.float64)[:, :REAL] / kappa
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_sampled_targets(reference, kappa):
    objective = Objective(0.3, "forward_kl", 0.7, kd_temperature=kappa)
    assert_is_reference(reference, tokens(), drawn(5, kappa=kappa), objective)


def test_sampled_targets_have_the_teachers_gradient_in_the_mean():
    objective = Objective(0.0, "forward_kl", kd_temperature=2.0)
    live = grads(**tokens(), target=make_target("live"), objective=objective)[1]
    # Exactly: the mean over all single draws, each with its probability.
    p = teacher_probabilities(2.0)
    mean = [np.zeros_like(x, np.float64) for x in live]
    for v in range(REAL):
        ids = jnp.full((N, 1), v, jnp.int32)
        # A token's gradient is linear in its weights, so a draw's probability can be its weight.
        draw = SampledTarget(ids, jnp.asarray(p[:, v : v + 1], jnp.float32), 2.0)
        for total, part in zip(
            mean, grads(**tokens(), target=draw, objective=objective)[1], strict=True
        ):
            total += np.asarray(part)
    for got, want in zip(mean, live, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_one_context_is_no_mixture():
    live = make_target("live")
    objective = Objective(0.3, "jsd", 0.7, kd_temperature=2.0)
    want = grads(**tokens(), target=live, objective=objective)
    for mixture in ("geometric", "arithmetic"):
        for cap in (None, 3.0):
            capped = dataclasses.replace(live, soft_cap=cap)
            one = MixtureTarget(live.hidden[:, None], jnp.ones((N, 1)), live.head, cap, mixture)
            got = grads(**tokens(), target=one, objective=objective)
            want = grads(**tokens(), target=capped, objective=objective)
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), got, want)


def test_mixtures_have_the_gradients_of_the_sums_of_divergences():
    # Arithmetic: sum_k w_k KL(p_k || q). Geometric: sum_k w_k KL(q || p_k).
    for mixture, name in (("arithmetic", "forward_kl"), ("geometric", "reverse_kl")):
        target = make_target(f"{mixture} capped", 2.0)
        objective = Objective(0.0, name, kd_temperature=2.0)
        got = grads(**tokens(), target=target, objective=objective)[1]
        want = [np.zeros_like(x) for x in got]
        for k in range(K):
            one = HiddenTarget(
                target.hidden[:, k], target.head, target.soft_cap, target.weights[:, k]
            )
            for total, part in zip(
                want, grads(**tokens(), target=one, objective=objective)[1], strict=True
            ):
                total += np.asarray(part)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)


def test_contexts_without_a_share_may_hold_anything():
    for kind in TARGETS[1:5]:
        target = make_target(kind)
        none = (target.weights == 0)[..., None]
        spoiled = dataclasses.replace(target, hidden=jnp.where(none, jnp.nan, target.hidden))
        got = grads(**tokens(), target=spoiled, objective=Objective(0.3, "jsd", 0.7))
        want = grads(**tokens(), target=target, objective=Objective(0.3, "jsd", 0.7))
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_the_logits_of_all_contexts_never_exist_at_once():
    contexts = 16
    target = MixtureTarget(
        jnp.ones((64, contexts, 8), jnp.bfloat16), jnp.ones((64, contexts)) / contexts,
        jnp.ones((8, 4096), jnp.bfloat16), 30.0, "arithmetic",
    )  # fmt: skip

    def loss(hidden, head):
        return linear_divergence(
            hidden, head, jnp.zeros(64, jnp.int32), jnp.ones(64),
            objective=Objective(0.0, "jsd"), target=target, chunk_size=64,
        )[0]  # fmt: skip

    step = jax.jit(jax.value_and_grad(loss)).lower(jnp.ones((64, 8)), jnp.ones((8, 4096)))
    one = 64 * 4096 * 4
    assert step.compile().memory_analysis().temp_size_in_bytes < contexts * one / 2


@pytest.mark.parametrize("hidden_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("head_dtype", [jnp.float32, jnp.bfloat16])
def test_the_heads_gradient_is_in_its_own_dtype_and_never_rounded_before(hidden_dtype, head_dtype):
    inputs = tokens()
    inputs = dict(
        inputs, hidden=inputs["hidden"].astype(hidden_dtype), head=inputs["head"].astype(head_dtype)
    )
    objective = Objective(0.3, "jsd", 0.7)
    _, (d_hidden, d_head) = grads(**inputs, target=make_target("live"), objective=objective)
    assert d_hidden.dtype == hidden_dtype and d_head.dtype == head_dtype
    rounded = d_head.astype(jnp.bfloat16).astype(d_head.dtype)
    assert (head_dtype == jnp.bfloat16) == bool((d_head == rounded).all())
    # Products in hidden's dtype: the head counts as rounded to it.
    same = dict(inputs, head=inputs["head"].astype(hidden_dtype).astype(jnp.float32))
    _, (_, want) = grads(**same, target=make_target("live"), objective=objective)
    np.testing.assert_allclose(
        d_head.astype(jnp.float32), want, atol=(0.004 if head_dtype == jnp.bfloat16 else 1e-6) * 5
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    "target, change, match",
    [
        ("sampled", {"objective": Objective(0.0, "jsd")}, "forward_kl alone, not for jsd"),
        ("sampled", {"objective": Objective(0, "forward_kl", kd_temperature=2.0)}, "reheated"),
        ("arithmetic", {"mixture": "harmonic"}, "'geometric' or 'arithmetic'"),
        ("arithmetic", {"weights": jnp.ones((N, K + 1))}, "does not match"),
        ("live", {"gate": jnp.ones(N + 1)}, "gate"),
        ("sampled", {"weights": jnp.ones((N, 2))}, "sampled target"),
        ("live", {"label_weights": jnp.ones(N + 1)}, "same tokens"),
    ],
)
def test_what_does_not_fit_is_refused(target, change, match):
    target = drawn(3) if target == "sampled" else make_target(target)
    options = {"objective": Objective(0.0, "forward_kl"), "vocab_size": REAL}
    options |= {
        k: change.pop(k) for k in ("objective", "label_weights") if k in (change := {**change})
    }
    fields = {k: v for k, v in change.items() if k not in options}
    with pytest.raises(ConfigError, match=match):
        linear_divergence(**tokens(), target=dataclasses.replace(target, **fields), **options)
