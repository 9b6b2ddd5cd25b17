"""The generalised JSD against the definition that TRL and Liger publish, in torch on the CPU.

Both state the same one (TRL 1.16.0 `generalized_jsd_loss`, Liger 0.8.5 `LigerFusedLinearJSD`), here
written anew in torch: neither needs to be installed. ARKJAX_PARITY=1 demands torch itself.
"""

import importlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.chunked import linear_divergence
from arkjax.distillation.objective import Objective
from arkjax.distillation.targets import HiddenTarget

N, D, V = 16, 8, 50


@pytest.fixture(scope="module")
def torch():
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        if os.environ.get("ARKJAX_PARITY") == "1":
            pytest.fail(f"ARKJAX_PARITY is 1, but torch cannot be imported: {error}")
        pytest.skip("torch is not installed (extra: parity)")


def published_jsd(torch, z_s, z_t, beta, temperature, valid):
    """Their definition: beta 0 and 1 are the two KLs, else both to the mixture of weight beta."""
    log_softmax = torch.nn.functional.log_softmax
    log_q, log_p = (log_softmax(z / temperature, dim=-1) for z in (z_s, z_t))

    def kl(log_a, log_b):
        return torch.sum(torch.exp(log_a) * (log_a - log_b), dim=-1)

    if beta == 0:
        losses = kl(log_p, log_q)
    elif beta == 1:
        losses = kl(log_q, log_p)
    else:
        share = torch.tensor(beta, dtype=log_q.dtype)
        log_m = torch.logaddexp(log_q + torch.log1p(-share), log_p + torch.log(share))
        losses = beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)
    return losses[valid].sum()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_jsd_and_its_gradients_are_the_published_ones(torch, beta, temperature):
    rng = np.random.default_rng(0)
    arrays = {
        "hidden": rng.standard_normal((N, D)),
        "head": rng.standard_normal((D, V)),
        "teacher": rng.standard_normal((N, D)),
        "teacher_head": rng.standard_normal((D, V)),
    }
    valid = rng.random(N) < 0.6
    theirs = {name: torch.tensor(x, dtype=torch.float64) for name, x in arrays.items()}
    theirs["hidden"].requires_grad_()
    theirs["head"].requires_grad_()
    want = published_jsd(
        torch,
        theirs["hidden"] @ theirs["head"],
        theirs["teacher"] @ theirs["teacher_head"],
        beta,
        temperature,
        torch.tensor(valid),
    )
    want.backward()

    ours = {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
    name = {0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "jsd")
    objective = Objective(
        0.0, name, kd_temperature=temperature, beta=beta if name == "jsd" else 0.5
    )

    def loss(hidden, head):
        return linear_divergence(
            hidden, head, jnp.zeros(N, jnp.int32), jnp.asarray(valid, jnp.float32),
            objective=objective, target=HiddenTarget(ours["teacher"], ours["teacher_head"]),
            chunk_size=8,
        )[0]  # fmt: skip

    got, gradients = jax.value_and_grad(loss, (0, 1))(ours["hidden"], ours["head"])
    np.testing.assert_allclose(got, want.item(), rtol=1e-6)
    for gradient, side in zip(gradients, ("hidden", "head"), strict=True):
        expected = theirs[side].grad.numpy()
        np.testing.assert_allclose(gradient, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
