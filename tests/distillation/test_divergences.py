"""The dense forms against their definitions in float64, where they are easy and where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation import divergences
from arkjax.distillation.divergences import coarsen, cross_entropy, divergence, log_distribution
from arkjax.distillation.objective import Objective
from arkjax.errors import ConfigError

pytestmark = pytest.mark.fast

NAMES = ("forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_rkl", "adaptive_kl", "tvd")
BETA, ALPHA = 0.3, 0.2


def softmax(z, kappa=1.0):
    z = np.asarray(z, np.float64) / kappa
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(a, b):
    """KL(a || b) over the last axis, 0 log 0 = 0."""
    safe_a, safe_b = np.where(a > 0, a, 1.0), np.where(a > 0, b, 1.0)
    return np.sum(a * (np.log(safe_a) - np.log(safe_b)), axis=-1)


def definition(name, z_s, z_t, kappa=1.0):
    q, p = softmax(z_s, kappa), softmax(z_t, kappa)
    if name == "forward_kl":
        return kl(p, q)
    if name == "reverse_kl":
        return kl(q, p)
    if name == "jsd":
        m = BETA * p + (1 - BETA) * q
        return BETA * kl(p, m) + (1 - BETA) * kl(q, m)
    if name == "skew_kl":
        return kl(p, ALPHA * p + (1 - ALPHA) * q)
    if name == "skew_rkl":
        return kl(q, (1 - ALPHA) * p + ALPHA * q)
    if name == "tvd":
        return 0.5 * np.abs(p - q).sum(-1)
    return np.array([adaptive(*pair) for pair in zip(p, q, strict=True)])


def adaptive(p, q):
    """Adaptive KL of one token, by walking down the teacher's most probable tokens."""
    head, mass = np.zeros(p.shape, bool), 0.0
    for v in np.argsort(-p):
        head[v], mass = True, mass + p[v]
        if mass >= 0.5:
            break
    gap = np.abs(p - q)
    share = gap[head].sum() / gap.sum()
    return share * kl(p, q) + (1 - share) * kl(q, p)


def logits(seed, n=6, v=13, scale=2.0):
    rng = np.random.default_rng(seed)
    return [(scale * rng.standard_normal((n, v))).astype(np.float32) for _ in range(2)]


def objective(name, **fields):
    return Objective(0.0, name, beta=BETA, alpha=ALPHA, **fields)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
def test_equals_its_definition_in_float64(name, kappa):
    z_s, z_t = logits(0)
    got = divergence(objective(name, kd_temperature=kappa), z_s, z_t)
    want = definition(name, z_s, z_t, kappa)
    # float32 sums of terms up to log p ~ 100 at temperature 0.1.
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6 / kappa)


@pytest.mark.parametrize("name", NAMES)
def test_near_one_hot_teacher_and_student_have_finite_values_and_gradients(name):
    z_s, z_t = logits(1)
    z_t[0, 3], z_t[1, 2], z_s[1, 2], z_s[2, 5], z_s[3, 1], z_t[3, 4] = 60, 90, 90, 60, 40, 40
    value = divergence(objective(name), z_s, z_t)
    gradient = jax.grad(lambda z: jnp.sum(divergence(objective(name), z, z_t)))(jnp.asarray(z_s))
    np.testing.assert_allclose(value, definition(name, z_s, z_t), rtol=1e-5, atol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_padded_vocabulary_adds_nothing_and_gets_no_gradient(name):
    z_s, z_t = (jnp.asarray(z).at[:, 9:].set(-jnp.inf) for z in logits(2))

    def total(z_s, z_t):
        return jnp.sum(divergence(objective(name), z_s, z_t))

    value, gradient = jax.value_and_grad(total)(z_s, z_t)
    want = definition(name, z_s[:, :9], z_t[:, :9]).sum()
    np.testing.assert_allclose(value, want, rtol=1e-6)
    # e^-100 is nothing beside 1, so this is the gradient without padding.
    almost = jax.grad(total)(*(jnp.maximum(z, -100.0) for z in (z_s, z_t)))
    np.testing.assert_allclose(gradient[:, :9], almost[:, :9], atol=1e-6)
    assert (gradient[:, 9:] == 0).all()


def test_cross_entropy_and_its_gradient():
    z, _ = logits(3)
    labels = np.arange(6) * 2
    np.testing.assert_allclose(
        cross_entropy(z, labels), -np.log(softmax(z)[np.arange(6), labels]), rtol=1e-6
    )
    gradient = jax.grad(lambda z: jnp.sum(cross_entropy(z, labels)))(jnp.asarray(z))
    np.testing.assert_allclose(gradient, softmax(z) - np.eye(13)[labels], atol=1e-6)


@pytest.mark.parametrize("kappa", [0.5, 1.0])
def test_gradients_are_the_papers(kappa):
    z_s, z_t = logits(4)
    q, p = softmax(z_s, kappa), softmax(z_t, kappa)
    m = BETA * p + (1 - BETA) * q
    r, r_m = np.log(q) - np.log(p), np.log(q) - np.log(m)
    papers = {
        "forward_kl": (q - p) / kappa,
        "reverse_kl": q * (r - kl(q, p)[:, None]) / kappa,
        "jsd": (1 - BETA) * q * (r_m - kl(q, m)[:, None]) / kappa,
    }
    for name, want in papers.items():
        fields = objective(name, kd_temperature=kappa)
        got = jax.grad(lambda z, fields=fields: jnp.sum(divergence(fields, z, z_t)))(
            jnp.asarray(z_s)
        )
        np.testing.assert_allclose(got, want, atol=3e-6, err_msg=name)


def test_jsd_mixes_teacher_by_beta_and_student_by_the_rest():
    # Worked by hand for beta = 0.1; mixing q by beta instead, a known mistake, gives 0.80.
    q, p = jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.2, 0.8]))
    np.testing.assert_allclose(divergences.jsd(q, p, beta=0.1), 0.11327, atol=1e-5)


def test_normalised_jsd_tends_to_both_kls():
    z_s, z_t = logits(5, scale=1.0)
    near_0 = divergences.jsd(z_s, z_t, beta=1e-3, normalize=True)
    near_1 = divergences.jsd(z_s, z_t, beta=1 - 1e-3, normalize=True)
    np.testing.assert_allclose(near_0, definition("forward_kl", z_s, z_t), rtol=0.02)
    np.testing.assert_allclose(near_1, definition("reverse_kl", z_s, z_t), rtol=0.02)


def test_bfloat16_logits_are_summed_in_float32():
    # A sum in bfloat16 reports 0 here: each of 4,096 terms is below its resolution.
    rng = np.random.default_rng(0)
    z_t = jnp.asarray(rng.standard_normal((1, 4096)), jnp.bfloat16)
    z_s = jnp.asarray(z_t.astype(np.float32) + 0.12 * rng.standard_normal((1, 4096)), jnp.bfloat16)
    want = definition("forward_kl", z_s.astype(np.float32), z_t.astype(np.float32))
    got = divergences.forward_kl(z_s, z_t)
    assert got.dtype == jnp.float32 and 0.006 < want[0] < 0.009
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_temperature_squared_and_clip():
    z_s, z_t = logits(6)
    plain = divergence(objective("forward_kl", kd_temperature=2.0), z_s, z_t)
    scaled = objective("forward_kl", kd_temperature=2.0, scale_by_temperature_squared=True)
    np.testing.assert_allclose(divergence(scaled, z_s, z_t), 4 * plain, rtol=1e-6)
    clip = float(np.median(plain))
    clipped = objective("forward_kl", kd_temperature=2.0, token_clip=clip)
    gradient = jax.grad(lambda z: jnp.sum(divergence(clipped, z, z_t)))(jnp.asarray(z_s))
    above = np.asarray(plain) > clip
    assert (gradient[above] == 0).all() and (np.abs(gradient[~above]).max(-1) > 0).all()


def tape_of(z_t, k, kappa=1.0):
    log_p = log_distribution(z_t, kappa)
    top, ids = jax.lax.top_k(log_p, k)
    return jnp.concatenate([top, coarsen(log_p, ids)[:, -1:]], -1), ids


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kappa", [0.5, 3.0])
def test_whole_tape_equals_live_teacher(name, kappa):
    z_s, z_t = logits(7)
    fields = objective(name, kd_temperature=kappa)
    tape, ids = tape_of(z_t, 13, kappa)
    np.testing.assert_allclose(
        divergence(fields, z_s, tape, ids), divergence(fields, z_s, z_t), rtol=1e-5, atol=2e-6
    )


def test_what_a_tape_leaves_out_is_the_divergence_within_the_tail():
    # Chain rule: KL(p || q) = KL(coarse p || coarse q) + p(tail) KL(p given tail || q given tail).
    z_s, z_t = logits(8)
    q, p = softmax(z_s), softmax(z_t)
    tape, ids = tape_of(z_t, 3)
    for a, b, name in ((p, q, "forward_kl"), (q, p, "reverse_kl")):
        coarse = divergence(objective(name), z_s, tape, ids)
        rest = np.ones((6, 13), bool)
        np.put_along_axis(rest, np.asarray(ids), False, axis=-1)
        tail_a, tail_b = a * rest, b * rest
        mass = tail_a.sum(-1)
        within = kl(tail_a / mass[:, None], tail_b / tail_b.sum(-1, keepdims=True))
        np.testing.assert_allclose(kl(a, b) - coarse, mass * within, rtol=1e-4, atol=2e-6)
        assert (np.asarray(coarse) >= 0).all() and (coarse <= kl(a, b) + 1e-6).all()


def test_the_tail_keeps_its_digits_when_the_student_is_nearly_sure():
    # The mass outside the top 2 is 1e-9, far below what 1 - P can tell in float32.
    z_s = jnp.array([[20.0, 19.0, -2.0, -2.5, -3.0, -3.0]])
    z_t = jnp.array([[1.0, 1.5, 0.5, 0.0, 0.2, 0.1]])
    ids = jnp.array([[0, 1]])
    q, p = softmax(z_s), softmax(z_t)
    tape = jnp.log(jnp.array([[p[0, 0], p[0, 1], p[0, 2:].sum()]]))
    gradient = jax.grad(lambda z: divergence(objective("forward_kl"), z, tape, ids)[0])(z_s)
    tail_share = q[0, 2:] / q[0, 2:].sum()
    want = np.concatenate([q[0, :2] - p[0, :2], (q[0, 2:].sum() - p[0, 2:].sum()) * tail_share])
    np.testing.assert_allclose(gradient[0], want, atol=1e-6)
    log_tail = log_distribution(coarsen(z_s, ids))[0, -1]
    np.testing.assert_allclose(log_tail, np.log(q[0, 2:].sum()), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_one_hot_tapes_have_finite_gradients(name):
    z_s, z_t = logits(9)
    z_s[0, 1], z_s[1, 2], z_t[1, 2], z_t[2, 3] = 150, 150, 150, 150
    tape, ids = tape_of(z_t, 3)
    tape = jnp.concatenate([tape[:, :-1], jnp.where(tape[:, -1:] < -60, -jnp.inf, tape[:, -1:])], 1)
    value, gradient = jax.value_and_grad(
        lambda z: jnp.sum(divergence(objective(name), z, tape, ids)), allow_int=False
    )(jnp.asarray(z_s))
    assert np.isfinite(gradient).all()
    assert np.isfinite(value) or name in ("reverse_kl", "adaptive_kl")


@pytest.mark.parametrize(
    "fields, named",
    [
        ({"divergence": "js"}, "divergence"),
        ({"kd_temperature": 0.0}, "kd_temperature"),
        ({"beta": 1.0}, "beta"),
        ({"alpha": -0.1}, "alpha"),
        ({"weight": -1.0}, "weight"),
        ({"token_clip": 0.0}, "token_clip"),
        ({"cross_entropy": 0.0}, "nothing to minimise"),
        ({"kd_temperature": float("nan")}, "kd_temperature"),
    ],
)
def test_an_impossible_objective_is_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        Objective(**fields)
