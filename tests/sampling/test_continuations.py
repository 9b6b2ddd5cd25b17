"""Scores of continuations: those of whole sequences, with what prompts share computed once."""

import dataclasses
import itertools
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.models.placement import shardings
from arkjax.models.transformer import Transformer
from arkjax.sampling.continuations import shared_beginnings
from arkjax.sampling.replicas import Replicas
from arkjax.sharding import MeshConfig, ShardingRules, make_mesh

SMALL = {"chunk": 4, "prefixes": 6, "length_classes": (40,)}


def debates(count: int, seed: int = 0) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompts of a question, up to four messages and a byline, each with any message left out."""
    rng = np.random.default_rng(seed)

    def words(low, high):
        return tuple(rng.integers(3, 40, rng.integers(low, high)).tolist())

    pairs = []
    for _ in range(count):
        question, messages = words(4, 9), [words(3, 6) for _ in range(4)]
        for byline in (words(1, 3), words(1, 3)):
            target = words(1, 8)
            for left in itertools.combinations(messages, 3):
                pairs.append((question + sum(left, ()) + byline, target))
            pairs.append((question + sum(messages, ()) + byline, target))
    return pairs


def plain(engine, pairs):
    scored = engine.score([tuple(prompt) + tuple(target) for prompt, target in pairs])
    return [s.logprobs[len(p) - 1 :] for s, (p, _) in zip(scored, pairs, strict=True)]


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        # fp32 in other shapes; a network of two layers.
        np.testing.assert_allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"prefixes": 1},
        {"prefixes": 64, "prefix_rows": 8, "admit_rows": 16},
        {"prefill_tokens": 6},
        {"cache": "int8"},
        {"grouped_prefixes": True},
    ],
    ids=str,
)
def test_they_are_those_of_whole_sequences(make_engine, sizes):
    pairs = debates(3)
    engine = make_engine(**SMALL | sizes)
    assert_same(engine.score_continuations(pairs), plain(make_engine(), pairs))


def test_targets_longer_than_what_is_read_at_once(make_engine):
    rng = np.random.default_rng(4)
    pairs = [
        (tuple(rng.integers(3, 40, n).tolist()), tuple(rng.integers(3, 40, 40 - n).tolist()))
        for n in (1, 2, 19, 33, 39)
    ]
    engine = make_engine(**SMALL, prefill_tokens=7)
    assert_same(engine.score_continuations(pairs), plain(make_engine(), pairs))


def test_windows_and_soft_caps(model, make_engine):
    shape = {"sliding_window": 6, "attention_pattern": ("local", "global")}
    config = dataclasses.replace(model.config, **shape, attention_soft_cap=5.0)
    own, pairs = Transformer(config, model.arrays()), debates(2)
    assert_same(
        make_engine(own, **SMALL).score_continuations(pairs), plain(make_engine(own), pairs)
    )


def test_what_is_shared_is_computed_once_and_counted(make_engine):
    question, end = tuple(range(3, 15)), (2,)
    pairs = [(question + (i, i + 1), (i, *end)) for i in range(15, 20)]
    engine = make_engine(**SMALL)
    engine.score_continuations(pairs)
    assert engine.profile.scored_tokens == 5 * 16
    # The question once; then two tokens of the prompt and the first of the target for each.
    assert engine.profile.scoring_tokens == 12 + 5 * 3
    assert engine.profile.scoring_tokens <= engine.profile.scoring_padded
    assert engine.profile.prompt_tokens == engine.profile.calls == 0
    # What is asked twice is computed once, and answered twice.
    before = engine.profile.scoring_tokens
    once, twice = engine.score_continuations([pairs[0], pairs[0]])
    np.testing.assert_array_equal(once, twice)
    assert engine.profile.scoring_tokens - before == 15
    engine.score([(3, 4, 5)])
    assert engine.profile.scoring_tokens - before == 18


def test_whatever_is_beside_it_and_while_calls_run(make_engine, make_requests):
    pairs = debates(2, seed=7)
    engine = make_engine(**SMALL)
    whole = engine.score_continuations(pairs)
    assert_same(whole[3:5], engine.score_continuations(pairs[3:5]))
    assert_same(whole[::-1], engine.score_continuations(pairs[::-1]))
    requests = make_requests(8)
    alone = make_engine(**SMALL).generate(requests)
    for request in requests:
        engine.submit(request)
    ended = engine.step()
    assert_same(engine.score_continuations(pairs), whole)
    while engine.pending:
        ended += engine.step()
    assert {g.request_id: g.ids for g in ended} == {g.request_id: g.ids for g in alone}


def test_progress_counts_every_pair(make_engine):
    told: list[int] = []
    pairs = debates(4)
    make_engine(**SMALL).score_continuations(pairs, told.append)
    assert sum(told) == len(pairs) and len(told) > 1
    assert make_engine(**SMALL).score_continuations([]) == []


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_on_several_devices(model, make_engine, sizes):
    mesh = make_mesh(MeshConfig(*sizes))
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    pairs = debates(2)
    engine = make_engine(Transformer(model.config, weights, mesh), **SMALL | {"prefixes": 8})
    assert_same(engine.score_continuations(pairs), plain(make_engine(), pairs))


def test_replicas_share_the_work(model, make_engine):
    mesh = make_mesh(MeshConfig(2, 1, 4))
    weights = jax.device_put(model.arrays(), shardings(model.config, mesh, ShardingRules()))
    config = dataclasses.replace(make_engine().config, **SMALL)
    replicas = Replicas(Transformer(model.config, weights, mesh), config)
    pairs = debates(4)
    assert_same(replicas.score_continuations(pairs), plain(make_engine(), pairs))
    assert sum(engine.profile.scored_tokens > 0 for engine in replicas.engines) == 2
    assert replicas.score_continuations([]) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([((4,), (5,)), ((), (5,))], "prompt 1 has ()"),
        ([((4,), (5,)), ((4,), ())], "target 1 has ()"),
        ([((4,), (40,))], "target 0 has the token id 40"),
        (
            [((4,) * 30, (5,) * 11)],
            "pair 0 has 30 prompt and 11 target tokens: expected at most 40",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(make_engine, pairs, message):
    with pytest.raises(DataError, match=re.escape(message)):
        make_engine().score_continuations(pairs)


SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=7).map(tuple), max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(SEQUENCES, st.integers(1, 3))
def test_beginnings_are_shared_and_as_long_as_they_can_be(sequences, least):
    sequences = sorted(sequences)
    cuts = shared_beginnings(sequences, least)
    for i, (sequence, lengths) in enumerate(zip(sequences, cuts, strict=True)):
        assert all(b - a >= least for a, b in itertools.pairwise((0, *lengths)))
        others = sequences[:i] + sequences[i + 1 :]
        for length in lengths:
            assert sum(other[:length] == sequence[:length] for other in others) > 0
            # Everybody who begins like this is cut there.
            assert all(
                length in other_cuts
                for other, other_cuts in zip(sequences, cuts, strict=True)
                if other[:length] == sequence[:length]
            )
        shares = max(
            (n for n in range(len(sequence) + 1) for o in others if o[:n] == sequence[:n]),
            default=0,
        )
        assert shares - max((0, *lengths)) < least
