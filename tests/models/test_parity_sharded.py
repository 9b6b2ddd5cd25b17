"""A model cut over a mesh, or computed in another order, is the same model."""

import dataclasses

import jax
import numpy as np
import pytest

from arkjax.models.transformer import Transformer
from arkjax.sharding import MeshConfig, batch_sharding, make_mesh

CUT = MeshConfig(data=2, fsdp=2, tensor=2)


def _assert_same(ours, expected) -> None:
    """Up to the order of fp32 sums."""
    rows = len(expected.logits)
    np.testing.assert_allclose(ours.logits[:rows], expected.logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(ours.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(ours.balance_loss, expected.balance_loss, rtol=1e-5)
    for name, gradient in expected.gradients.items():
        error = np.linalg.norm(ours.gradients[name] - gradient)
        assert error <= 1e-4 * np.linalg.norm(gradient), name


@pytest.mark.parametrize(
    "name, spread",
    [
        ("qwen3_moe", True),
        # Six rows on four devices, nine hidden units on two: each computes all of them.
        ("qwen3_moe_raw", False),
        ("gemma2", True),
        ("qwen2", True),
    ],
)
def test_a_model_on_a_mesh_reads_and_learns_the_same(
    open_family, load_float32, read_texts, name, spread
):
    family = open_family("golden", name)
    mesh = make_mesh(CUT)
    model = load_float32(family.folder / "checkpoint", mesh)
    cut = [w for w in model.arrays().values() if not w.sharding.is_fully_replicated]
    assert cut
    texts = [family.golden["tokens"], family.golden["segments"]]
    if spread:
        # Two rows of nothing but padding make their number divisible.
        texts = [np.concatenate([x, np.zeros_like(x[:2])]) for x in texts]
        texts = [jax.device_put(x, batch_sharding(mesh)) for x in texts]
    _assert_same(read_texts(model, *texts), family.reading)


@pytest.mark.parametrize("name", ["qwen3_moe", "gemma2"])
def test_unrolling_and_rematerialising_change_nothing(open_family, read_texts, name):
    family = open_family("golden", name)
    config = dataclasses.replace(family.model.config, remat=True, scan_unroll=2)
    model = Transformer(config, family.model.arrays())
    _assert_same(
        read_texts(model, family.golden["tokens"], family.golden["segments"]), family.reading
    )
