"""Routed experts against a plain loop over experts in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from arkjax.models.config import Experts
from arkjax.models.moe import RouterLoad, balance_loss, routed_experts
from arkjax.sharding import BATCH_AXES, MeshConfig, make_mesh

B, T, D, E, F = 2, 7, 6, 5, 4
BALANCE = 0.7


def _arrays(seed: int = 0, rows: int = B, units: int = F) -> dict[str, np.ndarray]:
    """Inputs and weights; fp32 values, kept in float64."""
    rng = np.random.default_rng(seed)
    shapes = {
        "x": (rows, T, D),
        "router": (E, D),
        "gate": (E, units, D),
        "up": (E, units, D),
        "down": (E, D, units),
    }
    return {
        name: rng.normal(size=shape).astype(np.float32).astype(np.float64)
        for name, shape in shapes.items()
    }


def _counts(rows: int = B) -> np.ndarray:
    counts = np.ones((rows, T), bool)
    counts[0, 4:] = False
    return counts


def _weight(rows: int = B) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(rows, T, D)).astype(np.float32)


def _loop(arrays: dict[str, np.ndarray], counts: np.ndarray, experts: Experts):
    """Every expert on every token, then the k chosen ones: y [B, T, D] and the balance loss."""
    x = arrays["x"].reshape(-1, D)
    logits = x @ arrays["router"].T
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    chosen = np.argsort(-probabilities, axis=1)[:, : experts.per_token]
    y, sent = np.zeros_like(x), np.zeros(E)
    for token in range(len(x)):
        weights = probabilities[token, chosen[token]]
        if experts.normalize:
            weights = weights / weights.sum()
        for expert, weight in zip(chosen[token], weights, strict=True):
            gate, up = arrays["gate"][expert] @ x[token], arrays["up"][expert] @ x[token]
            answer = arrays["down"][expert] @ (gate / (1 + np.exp(-gate)) * up)
            y[token] += weight * answer
            sent[expert] += counts.reshape(-1)[token]
    counted = counts.reshape(-1)
    share, mean = sent / counted.sum(), probabilities[counted].mean(axis=0)
    return y.reshape(arrays["x"].shape), E * (share * mean).sum(), sent


def _differences(arrays, counts, experts: Experts, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Gradient of the weighted sum of y plus the balance loss, element by element."""

    def value() -> float:
        y, balance, _ = _loop(arrays, counts, experts)
        return (y * weight).sum() + BALANCE * balance

    step, gradients = 1e-6, {}
    for name, array in arrays.items():
        gradients[name] = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + step
            above = value()
            array[index] = kept - step
            gradients[name][index] = (above - value()) / (2 * step)
            array[index] = kept
    return gradients


@functools.partial(jax.jit, static_argnums=(3, 4))
def _ours(arrays, counts, weight, experts: Experts, mesh=None):
    """y, the load, and the same gradient."""

    def value(arrays):
        y, load = routed_experts(
            **arrays, counts=counts, experts=experts, activation=jax.nn.silu, mesh=mesh
        )
        return (y * weight).sum() + BALANCE * balance_loss(load), (y, load)

    gradients, (y, load) = jax.grad(value, has_aux=True)(arrays)
    return y, load, gradients


def _run(arrays, counts, experts: Experts, mesh=None):
    arrays = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    return _ours(arrays, counts, _weight(len(counts)), experts, mesh)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("per_token", [1, 2, E])
def test_equals_a_loop_over_experts_with_its_gradients(per_token, normalize):
    experts = Experts(E, per_token, normalize)
    arrays, counts = _arrays(), _counts()
    expected, balance, sent = _loop(arrays, counts, experts)
    y, load, gradients = _run(arrays, counts, experts)
    # fp32 sums of a few numbers of order one to ten.
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_array_equal(load.sent, sent)
    np.testing.assert_allclose(balance_loss(load), balance, rtol=1e-5)
    for name, gradient in _differences(arrays, counts, experts, _weight()).items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.fast
def test_an_expert_without_tokens_learns_nothing_and_harms_nothing():
    experts, arrays, counts = Experts(E, 2), _arrays(), np.ones((B, T), bool)
    arrays["x"] = np.abs(arrays["x"])
    arrays["router"][3] = -20.0
    expected, _, sent = _loop(arrays, counts, experts)
    y, load, gradients = _run(arrays, counts, experts)
    assert sent[3] == 0 == load.sent[3]
    np.testing.assert_allclose(y, expected, atol=1e-4)
    for name in ("gate", "up", "down"):
        np.testing.assert_array_equal(np.any(gradients[name], axis=(1, 2)), sent > 0)


@pytest.mark.fast
def test_one_expert_may_take_all_tokens():
    experts, arrays, counts = Experts(E, 1), _arrays(), np.ones((B, T), bool)
    arrays["x"] = np.abs(arrays["x"]) + 0.1
    arrays["router"][:] = -30.0
    arrays["router"][2] = 30.0
    expected, _, sent = _loop(arrays, counts, experts)
    y, load, _ = _run(arrays, counts, experts)
    assert sent[2] == B * T == load.sent[2]
    np.testing.assert_allclose(y, expected, atol=1e-4)
    # The router is certain and wrong about balance: E times one expert's share of one.
    assert float(balance_loss(load)) == pytest.approx(E)


@pytest.mark.fast
@pytest.mark.parametrize("per_token", [1, 3])
def test_an_even_load_costs_the_number_of_choices(per_token):
    """Token n prefers the experts n, n + 1, ..., in turn: all get the same."""
    turns = np.stack([np.roll(-np.arange(E, dtype=np.float32), n) for n in range(E)])
    arrays = _arrays() | {"x": turns[None], "router": np.eye(E)}
    shapes = {"gate": (E, F, E), "up": (E, F, E), "down": (E, E, F)}
    arrays |= {name: np.ones(shape) for name, shape in shapes.items()}
    arrays = {name: jnp.asarray(array, jnp.float32) for name, array in arrays.items()}
    _, load = routed_experts(
        **arrays,
        counts=np.ones((1, E), bool),
        experts=Experts(E, per_token),
        activation=jax.nn.silu,
    )
    np.testing.assert_array_equal(load.sent, np.full(E, per_token))
    assert float(balance_loss(load)) == pytest.approx(per_token, rel=1e-6)


@pytest.mark.fast
def test_no_tokens_cost_nothing():
    zero = jnp.zeros(E)
    assert float(balance_loss(RouterLoad(zero, zero, jnp.zeros(())))) == 0.0


@pytest.mark.fast
def test_padding_is_answered_but_not_counted():
    experts, arrays = Experts(E, 2), _arrays()
    everything = np.ones((B, T), bool)
    y, load, _ = _run(arrays, _counts(), experts)
    same, whole, _ = _run(arrays, everything, experts)
    np.testing.assert_array_equal(y, same)
    assert (load.tokens, whole.tokens) == (_counts().sum(), B * T)
    assert load.sent.sum() == 2 * load.tokens
    np.testing.assert_allclose(load.probability.sum(), load.tokens, rtol=1e-5)


@pytest.mark.parametrize(
    "rows, units",
    # Rows on four devices, hidden units on two: each may divide or not.
    [(8, 4), (8, 3), (6, 4), (3, 3)],
)
def test_a_mesh_changes_nothing(rows, units):
    experts, arrays, counts = Experts(E, 2), _arrays(1, rows, units), _counts(rows)
    y, load, gradients = _run(arrays, counts, experts)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = PartitionSpec(BATCH_AXES if rows % 4 == 0 else None)
    split = "tensor" if units % 2 == 0 else None
    specs = {
        "x": spread,
        "router": PartitionSpec(None, "fsdp"),
        "gate": PartitionSpec(None, split, "fsdp"),
        "up": PartitionSpec(None, split, "fsdp"),
        "down": PartitionSpec(None, "fsdp", split),
    }
    laid = {
        name: jax.device_put(arrays[name].astype(np.float32), NamedSharding(mesh, spec))
        for name, spec in specs.items()
    }
    on_mesh = _run(laid, jax.device_put(counts, NamedSharding(mesh, spread)), experts, mesh)
    np.testing.assert_allclose(on_mesh[0], y, atol=1e-4)
    for ours, expected in zip(on_mesh[1], load, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(on_mesh[2][name], gradient, rtol=1e-4, atol=2e-4, err_msg=name)
