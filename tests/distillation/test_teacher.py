"""Teacher contexts: each student position sees the hidden state that predicts its own target."""

import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.divergences import log_distribution
from arkjax.distillation.rows import batch, pack
from arkjax.distillation.targets import MixtureTarget
from arkjax.distillation.teacher import gather_hidden, mixture_target, teacher_batch
from arkjax.errors import DataError
from arkjax.synthesis.examples import Example

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    # Target tokens are unique over all examples, so that a token tells which one it is.
    fresh = iter(range(1000, 9999))
    examples = [
        Example(
            tuple(rng.integers(1, 99, a).tolist()),
            tuple(next(fresh) for _ in range(b)),
            1.0,
            {"problem_id": f"p{i}"},
        )
        for i, (a, b) in enumerate(rng.integers(1, 7, (12, 2)))
    ]
    return pack(examples, 16)


@pytest.fixture(scope="module")
def prompts(rows):
    """One to three prompts an example, each opened by a token that names it: 100 * example + k."""
    return [
        [[-(100 * e + k), *range(5 + k + e % 3)] for k in range(1 + e % 3)]
        for e in range(len(rows.placements))
    ]


def tell_tale(tokens, positions, segment_ids):
    """A model whose hidden state is (its token, its position, the first token of its segment)."""
    first = np.zeros_like(tokens)
    for row, segments in enumerate(segment_ids):
        for segment in set(segments.tolist()):
            here = segments == segment
            first[row, here] = tokens[row, here][0]
    return jnp.asarray(np.stack([tokens, positions, first], -1), jnp.float32)


def told(contexts):
    return tell_tale(contexts.tokens, contexts.positions, contexts.segment_ids)


def test_every_position_finds_its_own_token_under_every_prompt(rows, prompts):
    indices = np.array([1, 0, 1])
    contexts = teacher_batch(rows, indices, prompts, row_length=40)
    flat = np.asarray(told(contexts)).reshape(-1, 3)
    student = batch(rows, indices)
    for b, row in enumerate(indices):
        for t in range(rows.row_length):
            weights, example = contexts.weights[:, b, t], rows.example_ids[row, t]
            if student.weights[b, t] == 0:
                assert (weights == 0).all()
                continue
            count = len(prompts[example])
            np.testing.assert_allclose(weights, (np.arange(3) < count) / count)
            for k in range(count):
                token, position, first = flat[contexts.sources[k, b, t]]
                at = rows.placements[example]
                j = t - (at.target_start - 1)
                prompt = prompts[example][k]
                assert first == prompt[0]
                assert token == (prompt[-1] if j == 0 else student.tokens[b, t])
                assert position == len(prompt) + j - 1


def test_gathered_hidden_is_the_weighted_mean(rows, prompts):
    indices = np.array([0])
    weights = [[3.0, 1.0, 4.0][: len(p)] for p in prompts]
    contexts = teacher_batch(rows, indices, prompts, row_length=40, weights=weights)
    hidden = gather_hidden(told(contexts), contexts)
    assert hidden.shape == (1, rows.row_length, 3)
    for t in range(rows.row_length):
        example = rows.example_ids[0, t]
        want = 0.0
        if batch(rows, indices).weights[0, t]:
            names = np.array([prompt[0] for prompt in prompts[example]])
            want = np.average(names, weights=weights[example])
        np.testing.assert_allclose(hidden[0, t, 2], want, rtol=1e-6)


def test_garbage_where_nothing_is_predicted_does_not_leak(rows, prompts):
    contexts = teacher_batch(rows, np.array([0]), prompts, row_length=40)
    hidden = np.array(told(contexts))
    hidden[contexts.segment_ids == 0] = np.nan
    hidden[0, 0] = np.nan  # where positions without a share look
    assert np.isfinite(gather_hidden(jnp.asarray(hidden), contexts)).all()


def test_mean_hidden_is_the_geometric_mixture():
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((3, 4, 8)).astype(np.float32)
    head = rng.standard_normal((8, 30)).astype(np.float32)
    weights = np.array([0.5, 0.2, 0.3])
    logits = hidden.astype(np.float64) @ head
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    product = np.exp(np.einsum("k,ktv->tv", weights, log_p))
    want = np.log(product / product.sum(-1, keepdims=True))

    examples = [Example((1,), (2, 3, 4, 5), 1.0, {})]
    student = pack(examples, 5)
    contexts = teacher_batch(student, np.array([0]), [[[1], [2], [3]]], 5, weights=[weights])
    # Row k of the teacher is context k; its first four positions predict the four targets.
    by_row = np.zeros((4, 5, 8), np.float32)
    for k in range(3):
        by_row[contexts.sources[k, 0, 0] // 5, :4] = hidden[k]
    target = mixture_target(lambda *_: jnp.asarray(by_row), contexts, jnp.asarray(head))
    got = log_distribution(target.hidden[0, :4] @ target.head)
    np.testing.assert_allclose(got, want, atol=2e-5)
    # What no mean of hidden states is keeps the contexts apart.
    for settings in ({"soft_cap": 30.0}, {"mixture": "arithmetic"}):
        target = mixture_target(
            lambda *_: jnp.asarray(by_row), contexts, jnp.asarray(head), **settings
        )
        assert isinstance(target, MixtureTarget)
        assert target.mixture == settings.get("mixture", "geometric")
        np.testing.assert_array_equal(target.hidden[0, :4], hidden.swapaxes(0, 1))
        np.testing.assert_allclose(target.weights[0, :4], [weights] * 4, rtol=1e-6)
        assert not target.hidden[0, 4:].any() and not target.weights[0, 4:].any()


def test_shapes_are_few_and_can_be_fixed(rows, prompts):
    sizes = {
        teacher_batch(rows, np.array([i]), prompts, 40, multiple_of=2).tokens.shape[0]
        for i in range(rows.num_rows)
    }
    assert sizes <= {2, 4, 8}
    contexts = teacher_batch(rows, np.array([0]), prompts, 40, num_rows=7, num_contexts=5)
    assert contexts.tokens.shape == (7, 40) and contexts.sources.shape[0] == 5
    assert (contexts.weights[3:] == 0).all()


def test_what_cannot_be_placed_is_named(rows, prompts):
    indices = np.arange(rows.num_rows)

    def refused(match, prompts=prompts, row_length=40, **options):
        with pytest.raises(DataError, match=match):
            teacher_batch(rows, indices, prompts, row_length, **options)

    refused("problem p3.*row holds 12", [[[1] * (30 if e == 3 else 2)] for e in range(12)], 12)
    refused("problem p3.*no teacher prompt", [[] if e == 3 else [[1]] for e in range(12)])
    refused("11 sets", prompts[1:])
    refused("only 1 are allowed", num_rows=1)
    refused("none negative", weights=[[-1.0] * len(p) for p in prompts])
    refused("problem p3.*empty teacher prompt", [[[]] if e == 3 else [[1]] for e in range(12)])
    refused("all zero", weights=[[0.0] * len(p) for p in prompts])


# --- what contexts share --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debates(rows):
    """Four prompts an example that begin with one transcript; two examples share a problem."""
    return [
        [[*range(500 + e // 2, 520 + e // 2), 7, k] for k in range(4)]
        for e in range(len(rows.placements))
    ]


def read_back(contexts, k, b, t) -> list[int]:
    """The tokens that the position which context k of (b, t) looks at may see, in order."""
    row, column = divmod(int(contexts.sources[k, b, t]), contexts.tokens.shape[1])
    segments = contexts.segment_ids[row]
    parents = np.zeros_like(segments) if contexts.parents is None else contexts.parents[row]
    seen, segment, end = [], segments[column], column + 1
    while segment:
        here = np.flatnonzero(segments[:end] == segment)
        seen, segment = contexts.tokens[row, here].tolist() + seen, parents[here[0]]
        end = len(segments)
    return seen


@pytest.mark.parametrize("share", [True, False])
def test_every_position_sees_its_prompt_and_target_and_nothing_else(rows, debates, share):
    indices = np.arange(rows.num_rows)
    contexts = teacher_batch(rows, indices, debates, 60, share=share)
    assert (contexts.parents is not None) == share
    unshared = 0
    for e, at in enumerate(rows.placements):
        target = list(rows.example(e).target_ids)
        for k, prompt in enumerate(debates[e]):
            unshared += len(prompt) + len(target) - 1
            for j in range(len(target)):
                seen = read_back(contexts, k, at.row, at.target_start - 1 + j)
                assert seen == prompt + target[:j]
    assert contexts.unshared == unshared
    assert contexts.used == (contexts.segment_ids > 0).sum()
    if share:
        # At least: transcripts of 21 tokens are there once, not four times.
        assert contexts.used <= unshared - len(rows.placements) * 3 * 21
    else:
        assert contexts.used == unshared


def test_closed_gates_are_not_read(rows, prompts):
    indices = np.arange(rows.num_rows)
    gates = [float(e % 3 != 1) for e in range(len(rows.placements))]
    contexts = teacher_batch(rows, indices, prompts, 40, gates=gates)
    read = set(contexts.tokens.ravel().tolist())
    student = batch(rows, indices)
    for e, gate in enumerate(gates):
        assert (-(100 * e) in read or e == 0) == bool(gate or e == 0)
        here = (rows.example_ids[indices] == e) & (student.weights != 0)
        assert (contexts.gate[here] == gate).all()
        np.testing.assert_allclose(contexts.weights[:, here].sum(0), gate, rtol=1e-6)
    assert not contexts.gate[student.weights == 0].any()
    nothing = teacher_batch(rows, indices, prompts, 40, gates=[0.0] * 12)
    assert nothing.tokens.shape == (1, 40) and nothing.used == 0


def test_one_of_a_batch_is_enough_and_rows_may_be_empty(rows, prompts):
    indices = np.array([2, -1, 0])
    here = set(rows.example_ids[indices[indices >= 0]].ravel().tolist()) - {-1}
    some = teacher_batch(rows, indices, {e: prompts[e] for e in here}, 40, num_contexts=3)
    every = teacher_batch(rows, indices, prompts, 40)
    for a, b in zip(some, every, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not every.weights[:, 1].any() and not every.gate[1].any()
    np.testing.assert_array_equal(
        every.weights[:, [0, 2]], teacher_batch(rows, indices[[0, 2]], prompts, 40).weights
    )
