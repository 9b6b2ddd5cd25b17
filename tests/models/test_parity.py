"""Every family reads texts, and learns from them, as Hugging Face's implementation does.

What is compared with stands in golden files (`tests/golden/write_models.py`); where transformers is
installed, also with models and texts drawn anew.
"""

import numpy as np

from arkjax.models.weights import LAYERS

# Both sides compute in fp32, in other orders; logits are of order one.
LOGITS = 2e-4
GRADIENTS = 1e-3


def test_logits_agree(family):
    """Theirs are padded on the left and never packed, ours padded on the right and packed."""
    theirs = np.zeros_like(family.reading.logits)
    theirs[family.golden["segments"] > 0] = family.golden["logits"]
    for kind, mask in family.kinds().items():
        assert mask.any()
        np.testing.assert_allclose(
            family.reading.logits[mask], theirs[mask], rtol=0, atol=LOGITS, err_msg=kind
        )


def test_losses_agree(family):
    """The cross-entropy of next tokens, plus the router's loss, in which padding has no part."""
    ours, golden = family.reading, family.golden
    np.testing.assert_allclose(ours.loss, golden["loss"], rtol=1e-5)
    np.testing.assert_allclose(ours.balance_loss, golden["balance_loss"], rtol=1e-5)
    assert (golden["balance_loss"] > 0) == (family.model.config.experts is not None)


def test_gradients_of_every_weight_agree(family):
    assert family.reading.gradients.keys() == family.gradients.keys()
    for name, theirs in family.gradients.items():
        ours = family.reading.gradients[name]
        assert ours.shape == theirs.shape
        # Each tensor of their checkpoint by itself: of one layer, of one expert.
        separate = 0
        if name.startswith(LAYERS):
            experts = family.model.config.experts and name.endswith(("gate", "up", "down"))
            separate = 2 if experts else 1
        for index in np.ndindex(theirs.shape[:separate]):
            where = f"{name}{list(index)}"
            size = np.linalg.norm(theirs[index])
            assert size > 0, where
            assert np.linalg.norm(ours[index] - theirs[index]) <= GRADIENTS * size, where
            largest = np.abs(theirs[index]).max()
            np.testing.assert_allclose(
                ours[index], theirs[index], rtol=1e-2, atol=1e-3 * largest, err_msg=where
            )


def test_the_cases_are_hard_enough_to_agree_on(golden_family):
    """Texts reach beyond windows and contexts, caps are hit, scales and biases are not neutral."""
    config, golden = golden_family.model.config, golden_family.golden
    length = golden["tokens"].shape[1]
    assert config.sliding_window < length // 2
    if config.rope_scaling is not None and config.rope_scaling.kind != "linear":
        assert config.rope_scaling.original_context < length
    if config.logit_soft_cap:
        assert np.abs(golden["logits"]).max() > 0.95 * config.logit_soft_cap
    if config.attention_scale:
        assert abs(config.attention_scale - config.head_dim**-0.5) > 0.01
    for name, weight in golden_family.model.arrays().items():
        if name.endswith(("norm", "bias")):
            neutral = 0.0 if name.endswith("bias") or config.zero_centered_norm else 1.0
            assert np.abs(weight - neutral).mean() > 0.1, name
