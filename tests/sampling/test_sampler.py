"""Draws against the distribution they claim to come from; filters against NumPy in float64."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from arkjax.errors import ConfigError
from arkjax.sampling.draws import choose, choose_token, random_words
from arkjax.sampling.params import SamplingParams
from arkjax.sampling.sampler import (
    RowSampling,
    lowest_kept,
    sample,
    seed_words,
    tail_mass,
    top_logprobs,
)

V = 150

# What fp32 sums over a vocabulary may be off: some 1e-7 of the whole for each doubling of V.
_MASS_ERROR = 3e-6


def _rows(size: int, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=0) -> RowSampling:
    def column(value, dtype):
        return jnp.asarray(np.broadcast_to(np.asarray(value, dtype), (size,)))

    return RowSampling(
        column(temperature, np.float32),
        column(top_k, np.int32),
        column(top_p, np.float32),
        column(min_p, np.float32),
        jnp.stack([column(seed, np.uint32), jnp.zeros(size, jnp.uint32)], axis=1),
    )


def _rows_of(rules: list[dict], seed: np.ndarray) -> RowSampling:
    """One row for each rule."""
    fields = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    columns = {name: [rule.get(name, value) for rule in rules] for name, value in fields.items()}
    return _rows(len(rules), **columns, seed=seed)


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _kept(
    logits: np.ndarray,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    error: float = 0.0,
) -> np.ndarray:
    """Which of the logits [V] remain, by sorting; ties with the last one kept are kept.

    With `error` these are the most tokens that rounding may keep, with -`error` the fewest.
    """
    order = np.argsort(-logits, kind="stable")
    mass = np.exp(_log_softmax(logits.astype(np.float64) / np.float32(temperature)))
    keep = np.ones(logits.shape, bool)
    if 0 < top_k < len(logits):
        keep &= logits >= logits[order[top_k - 1]]
    if top_p < 1:
        reached = np.cumsum(mass[order]) >= np.float32(top_p) + error
        keep &= logits >= logits[order[np.argmax(reached) if reached.any() else -1]]
    if min_p > 0:
        # Thresholds are logits, and those have a grain.
        grain = (1 + np.abs(logits).max() / temperature) * np.sign(error) * 3e-7
        keep &= mass >= np.float32(min_p) * mass.max() * (1 - grain)
    return keep


_sample = jax.jit(sample)
_lowest_kept = jax.jit(lowest_kept)


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """[64, V], from flat to steep."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.1, 8, 64)[:, None]
    return (rng.normal(size=(64, V)) * spread).astype(np.float32)


def test_temperature_zero_takes_the_most_probable(logits):
    tokens, logprobs, drawn_from = _sample(
        logits, _rows(64, temperature=0.0, seed=np.arange(64)), jnp.arange(64)
    )
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))
    np.testing.assert_allclose(logprobs, _log_softmax(logits).max(axis=1), atol=1e-5)
    np.testing.assert_array_equal(drawn_from, 0.0)


@pytest.mark.parametrize("size", [5, 128, 1000, 1009])
def test_the_first_of_equals_is_the_most_probable(size):
    z = np.random.default_rng(0).integers(0, 3, (64, size)).astype(np.float32)
    tokens, _, _ = _sample(z, _rows(64, temperature=0.0), jnp.arange(64))
    np.testing.assert_array_equal(tokens, z.argmax(axis=1))


# --- what one row gets is its own -----------------------------------------------------------------

# Each needs more to be computed than the one before, the last two a search.
KINDS = [
    {"temperature": 0.0},
    {},
    {"temperature": 0.7},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 0.1, "top_p": 0.9},
    {"min_p": 0.2},
    {"top_k": 200},
    {"temperature": 2.0, "top_p": 0.95, "min_p": 1e-4},
]


@pytest.mark.parametrize("size", [150, 1000, 1009])
def test_a_row_is_the_same_bit_for_bit_in_any_company(size):
    S = 16
    z = (np.random.default_rng(size).normal(size=(S, size)) * 2).astype(np.float32)
    seeds, positions = np.arange(S) * 7, jnp.arange(S) * 3
    kinds = [KINDS[i % len(KINDS)] for i in range(S)]

    def draw(z, kinds, seeds, positions):
        return [np.asarray(x) for x in _sample(z, _rows_of(kinds, seeds), positions)]

    mixed = draw(z, kinds, seeds, positions)
    order = np.random.default_rng(0).permutation(S)
    moved = draw(z[order], [kinds[i] for i in order], seeds[order], positions[order])
    for a, b in zip(mixed, moved, strict=True):
        np.testing.assert_array_equal(a[order], b)
    for kind in KINDS:
        its = np.array([other == kind for other in kinds])
        for others in KINDS:
            company = [kind if own else others for own in its]
            for a, b in zip(mixed, draw(z, company, seeds, positions), strict=True):
                np.testing.assert_array_equal(a[its], b[its], err_msg=f"{kind} among {others}")


def test_randomness_depends_on_seed_and_position_only():
    rng = np.random.default_rng(2)
    z = np.broadcast_to(rng.normal(size=V).astype(np.float32), (64, V))
    seeds, positions = rng.integers(0, 2**32, 64), rng.integers(0, 100, 64)
    tokens = np.asarray(_sample(z, _rows(64, seed=seeds), jnp.asarray(positions))[0])
    for i in range(8):
        alone = _sample(z[:1], _rows(1, seed=seeds[i]), jnp.asarray(positions[i : i + 1]))[0]
        assert alone[0] == tokens[i]
    assert len(set(tokens.tolist())) > V // 4


def test_seeds_of_64_bits_do_not_collide():
    low, high = seed_words(5 + 7 * 2**32)
    assert (low, high) == (5, 7) and seed_words(-1) == (2**32 - 1, 2**32 - 1)
    positions = jnp.zeros(3, jnp.int32)
    words = random_words(jnp.array([[5, 0], [5, 7], [7, 5]], jnp.uint32), positions)
    assert len(np.unique(words)) == 9


def test_a_sharded_batch_gets_the_same_tokens():
    S, size = 16, 1024
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    z = (np.random.default_rng(5).normal(size=(S, size)) * 2).astype(np.float32)
    rows = _rows_of(KINDS * 2, np.arange(S))
    positions = jnp.arange(S)
    expected = _sample(z, rows, positions)
    for spec in (PartitionSpec("data", None), PartitionSpec(None, "data")):
        place = functools.partial(jax.device_put, device=NamedSharding(mesh, spec))
        own = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec(spec[0])))
        got = _sample(place(z), jax.tree.map(own, rows), own(positions))
        np.testing.assert_array_equal(got[0], expected[0])
        for a, b in zip(got[1:], expected[1:], strict=True):
            # fp32 sums in another order.
            np.testing.assert_allclose(a, b, atol=1e-5)


# --- the distribution of draws --------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=2)
def _draws(z, rows, count):
    """Tokens [count, S] at as many positions, of S rows with the same logits [V]."""
    S = rows.seed.shape[0]
    z = jnp.broadcast_to(z[None], (S, z.shape[0]))
    return jax.lax.map(lambda at: sample(z, rows, jnp.full(S, at))[0], jnp.arange(count))


@pytest.mark.parametrize("size", [30, 3001])
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 20},
        {"top_p": 0.8},
        {"top_k": 300, "min_p": 0.01},
    ],
)
def test_draws_follow_the_distribution(rule, size):
    """Chi-square over 100,000 draws: 500 seeds, 200 positions."""
    z = (np.random.default_rng(1).normal(size=size) * 1.5).astype(np.float32)
    tokens = np.asarray(_draws(z, _rows(500, seed=np.arange(500), **rule), 200))
    keep = _kept(z, **rule)
    mass = np.exp(_log_softmax(np.where(keep, z / rule.get("temperature", 1.0), -np.inf)))
    counts = np.bincount(tokens.ravel(), minlength=size)
    assert (counts[~keep] == 0).all()
    # Tokens that are expected less than ten times are counted together.
    expected = tokens.size * mass
    rare = keep & (expected < 10)
    observed = np.append(counts[keep & ~rare], counts[rare].sum())
    expected = np.append(expected[keep & ~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    statistic = ((observed - expected) ** 2 / expected).sum()
    # The 99.99% quantile, by Wilson and Hilferty.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 100])
def test_draws_of_any_vocabulary_size_are_among_its_tokens(size):
    n = 2_000
    z = np.where(np.arange(size) % 3 == 1, -np.inf, 0.0).astype(np.float32)
    for rule in ({}, {"top_k": size}, {"top_p": 0.999, "min_p": 0.5}):
        rows = _rows(n, seed=np.arange(n), **rule)
        tokens = np.asarray(_sample(jnp.broadcast_to(z, (n, size)), rows, jnp.zeros(n, int))[0])
        assert set(tokens.tolist()) == set(np.flatnonzero(z == 0).tolist())


def test_draws_at_different_positions_are_independent():
    n = 4_000
    z = np.zeros((n, 2), np.float32)
    a, b = (np.asarray(_sample(z, _rows(n, seed=np.arange(n)), jnp.full(n, p))[0]) for p in (4, 5))
    assert abs((a == b).mean() - 0.5) < 0.04
    # Neighbouring seeds one position apart are not the same stream shifted.
    assert abs((a[1:] == b[:-1]).mean() - 0.5) < 0.04


def test_a_token_far_below_the_grain_of_one_random_number_can_be_drawn():
    rare = 2.0**-20
    # 8 groups of 8 groups: of the last 8, which have 2^-20 of the mass, the last has 2^-20.
    mass = np.zeros((1, 64), np.float32)
    mass[0, 0], mass[0, 56], mass[0, 63] = 1, rare, rare * rare
    tokens = np.log(np.array([[1.0, rare]], np.float32))
    for last, word in ((63, 1 - rare / 2), (56, 1 - 2 * rare)):
        words = jnp.array([[1 - rare / 2, word, 1 - rare / 2]], jnp.float32)
        token, _ = choose_token(words, jnp.asarray(mass), lambda group: jnp.asarray(tokens))
        # Its probability is 2^-60, or 2^-40.
        assert token[0] == last * 2 + 1


def test_the_least_probable_of_those_kept_is_drawn_as_often_as_it_should():
    weights = jnp.array([[2.0**-30, 1.0]], jnp.float32)
    assert choose(weights, jnp.array([2.0**-31]))[0] == 0
    assert choose(weights, jnp.array([2.0**-29]))[0] == 1
    seeds = _rows(4096, seed=np.arange(4096)).seed
    words = np.asarray(random_words(seeds, jnp.zeros(4096, jnp.int32)))
    assert ((words >= 0) & (words < 1)).all() and (words * 2**24 % 1 != 0).any()
    # 12,288 numbers of mean 1/2 and variance 1/12: five standard deviations of their mean.
    assert abs(words.mean() - 0.5) < 5 * (1 / 12 / words.size) ** 0.5
    assert abs(np.corrcoef(words.T) - np.eye(3)).max() < 0.08


# --- filters --------------------------------------------------------------------------------------

RULES = [
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 64},
    {"top_k": 65},
    {"top_k": 80},
    {"top_k": 500},
    {"top_k": 10**6},
    {"top_p": 1e-6},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"temperature": 0.4, "top_p": 0.9},
    {"min_p": 1e-4},
    {"min_p": 0.3},
    {"min_p": 0.999},
    {"top_k": 6, "top_p": 0.7, "min_p": 0.05},
    {"temperature": 1.5, "top_k": 300, "top_p": 0.99, "min_p": 1e-3},
]


def _shapes(size: int) -> dict[str, np.ndarray]:
    """Logits [V] that are random, tied, peaked, flat, equal, large, masked."""
    rng = np.random.default_rng(size)
    random = rng.normal(size=size) * 3
    shapes = {
        "random": random,
        "tied": np.round(random),
        "peaked": rng.normal(size=size) * 0.1 + 25 * (np.arange(size) == size // 2),
        "steep": -0.7 * rng.permutation(size),
        "flat": rng.normal(size=size) * 0.01,
        "equal": np.zeros(size),
        "large": random * 1e3 - 5e3,
        "masked": np.where(np.arange(size) % 3 == 0, random, -np.inf),
        "impossible": np.where(np.arange(size) % 3 == 0, random, -1e30),
    }
    return {name: z.astype(np.float32) for name, z in shapes.items()}


@pytest.mark.parametrize("size", [5, 63, 64, 65, 1000, 32000])
def test_filters_keep_exactly_the_right_tokens(size):
    cases = [(name, z, rule) for name, z in _shapes(size).items() for rule in RULES]
    z = np.stack([z for _, z, _ in cases])
    rows = _rows_of([rule for _, _, rule in cases], np.arange(len(cases)))
    kept = z >= np.asarray(_lowest_kept(z, rows))[:, None]
    tokens, logprobs, drawn_from = (np.asarray(x) for x in _sample(z, rows, jnp.arange(len(cases))))
    certain = 0
    for i, (name, logits, rule) in enumerate(cases):
        possible = np.isfinite(logits)
        most, fewest = (_kept(logits, **rule, error=sign * _MASS_ERROR) for sign in (1, -1))
        assert (fewest <= most).all() and kept[i].any()
        ours = kept[i] & possible
        assert (ours <= most).all() and (fewest & possible <= ours).all(), (name, rule)
        certain += (most == fewest).all()
        # The draw is from exactly these.
        assert ours[tokens[i]], (name, rule)
        scaled = np.where(
            ours, logits / np.float64(np.float32(rule.get("temperature", 1.0))), -np.inf
        )
        np.testing.assert_allclose(
            drawn_from[i],
            _log_softmax(scaled)[tokens[i]],
            atol=1e-4 + 3e-7 * np.abs(scaled[ours]).max(),
            err_msg=str((name, rule)),
        )
    # Rounding may only decide where a token is below fp32 sums of the vocabulary.
    assert certain > 0.8 * len(cases)


def test_rows_searched_together_get_what_they_get_one_by_one(monkeypatch):
    """Accelerators search all rows at once, the CPU one after another."""
    shapes = [*_shapes(1000).values(), np.full(1000, np.nan, np.float32)]
    cases = [(z, rule) for z in shapes for rule in RULES]
    z = np.stack([z for z, _ in cases])
    rows = _rows_of([rule for _, rule in cases], np.arange(len(cases)))
    positions = jnp.arange(len(cases))
    one_by_one = (*_sample(z, rows, positions), _lowest_kept(z, rows))
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda cpu, default: default())
    together = (
        *jax.jit(lambda *args: sample(*args))(z, rows, positions),
        jax.jit(lambda *args: lowest_kept(*args))(z, rows),
    )
    kept = [z >= np.asarray(lowest)[:, None] for lowest in (one_by_one[3], together[3])]
    np.testing.assert_array_equal(*kept)
    np.testing.assert_array_equal(one_by_one[0], together[0])
    for a, b in zip(one_by_one[1:3], together[1:3], strict=True):
        # fp32 sums in another order.
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_no_sort_of_the_vocabulary():
    z, rows, positions = jnp.zeros((4, 32000)), _rows(4), jnp.zeros(4, int)
    for lowered in (
        _sample.lower(z, rows, positions),
        jax.jit(top_logprobs, static_argnums=1).lower(z, 20),
    ):
        sorts = re.findall(r"= \(?\w+\[([\d,]*)\][^=]* sort\(", lowered.compile().as_text())
        assert sorts and max(int(shape.split(",")[-1]) for shape in sorts) <= 128, sorts


# --- log-probabilities ----------------------------------------------------------------------------


def test_logprobs_are_those_of_both_distributions(logits):
    rule = {"temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.02}
    tokens, logprobs, drawn_from = _sample(
        logits, _rows(64, seed=np.arange(64), **rule), jnp.arange(64)
    )
    keep = np.stack([_kept(row, **rule) for row in logits])
    chosen = np.arange(64), np.asarray(tokens)
    assert keep[chosen].all()
    np.testing.assert_allclose(logprobs, _log_softmax(logits)[chosen], atol=1e-5)
    filtered = _log_softmax(np.where(keep, logits / np.float32(0.8), -np.inf))
    np.testing.assert_allclose(drawn_from, filtered[chosen], atol=1e-5)


@pytest.mark.parametrize("size", [5, 64, 1000, 1009])
@pytest.mark.parametrize("tied", [False, True])
def test_the_most_probable_and_what_is_left(size, tied):
    z = (np.random.default_rng(3).normal(size=(7, size)) * 3).astype(np.float32)
    # Adding 0 makes -0 and 0 the same.
    z = np.round(z) + np.float32(0) if tied else z
    z[5:, ::2] = -np.inf
    full = _log_softmax(z)
    for k in (0, 1, 5, 20, 500):
        ids, logprobs = (np.asarray(x) for x in jax.jit(top_logprobs, static_argnums=1)(z, k))
        expected = np.argsort(-z, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_allclose(logprobs, np.take_along_axis(full, ids, axis=1), atol=1e-5)
        left = np.exp(full)
        np.put_along_axis(left, ids, 0.0, axis=1)
        tail = np.asarray(jax.jit(tail_mass)(z, ids))
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(tail, np.log(left.sum(axis=1)), atol=1e-5)


def test_a_small_tail_keeps_its_digits():
    z = np.full((1, 1000), -60.0, np.float32)
    z[0, [3, 4, 500]] = 0.0, 1.0, 2.0
    ids, _ = top_logprobs(z, 3)
    np.testing.assert_array_equal(ids, [[500, 4, 3]])
    expected = np.log(997) - 60 - np.log(1 + np.e + np.e**2)
    np.testing.assert_allclose(tail_mass(z, ids), [expected], rtol=1e-6)


# --- what must not happen -------------------------------------------------------------------------


def test_a_row_that_is_not_a_number_harms_no_other():
    S, size = 16, 1000
    z = (np.random.default_rng(4).normal(size=(S, size)) * 2).astype(np.float32)
    bad = np.arange(S) % 3 == 0
    rows = _rows_of(KINDS * 2, np.arange(S))
    good = [np.asarray(x) for x in _sample(z, rows, jnp.arange(S))]
    for value in (np.nan, np.inf, -np.inf):
        broken = z.copy()
        broken[bad] = value
        broken[bad, 17] = np.nan if value != -np.inf else value
        tokens, logprobs, drawn_from = (np.asarray(x) for x in _sample(broken, rows, jnp.arange(S)))
        assert ((tokens >= 0) & (tokens < size)).all()
        assert np.isnan(logprobs[bad]).all()
        for ours, theirs in zip((tokens, logprobs, drawn_from), good, strict=True):
            np.testing.assert_array_equal(ours[~bad], theirs[~bad])


@pytest.mark.parametrize("temperature", [1e-45, 1e-37, 1e-20, 1e-3, 1e20, 3e38])
def test_extreme_temperatures(temperature):
    cold = np.array([1e3, 3e38, -np.inf, 3e38, -3e38], np.float32)
    hot = np.array([1.0, 3.0, -np.inf, 3.0, -3.0], np.float32)
    for z, rule, seen in (
        # A number too small to be normal counts as 0.
        (cold, {}, {1} if temperature == 1e-45 else {1, 3}),
        (cold, {"top_k": 2}, {1} if temperature == 1e-45 else {1, 3}),
        (hot, {}, {0, 1, 3, 4} if temperature > 1 else None),
        (hot, {"top_p": 0.9}, {0, 1, 3, 4} if temperature > 1 else None),
    ):
        rows = _rows(64, temperature=temperature, seed=np.arange(64), **rule)
        tokens, logprobs, drawn_from = _sample(np.tile(z, (64, 1)), rows, jnp.arange(64))
        if seen is not None:
            assert set(np.asarray(tokens).tolist()) == seen
            np.testing.assert_allclose(drawn_from, -np.log(len(seen)), atol=1e-6)
        np.testing.assert_allclose(logprobs, _log_softmax(z)[np.asarray(tokens)], atol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.0),
        ("max_tokens", 0),
    ],
)
def test_impossible_rules_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"sampling.{field}"):
        SamplingParams(**{field: value})
