"""Rows in which what sequences begin with is there once: each can be read off its path."""

import numpy as np
import pytest

from arkjax.distillation.shared_rows import pack_shared

pytestmark = pytest.mark.fast


def path(packed, place) -> list[tuple[int, int]]:
    """(segment, column) of all tokens that the token at `place` may see, by the rows' own words."""
    row, last = divmod(int(place), packed.tokens.shape[1])
    segments, parents = packed.segment_ids[row], packed.parents[row]
    seen, segment, limit = [], segments[last], last + 1
    while segment:
        own = [c for c in np.flatnonzero(segments == segment) if c < limit]
        seen = [(segment, c) for c in own] + seen
        (parent,) = set(parents[segments == segment].tolist())
        assert parent < segment  # parents stand before those that go on from them
        segment, limit = parent, len(segments)
    return seen


def check(packed, sequences, row_length):
    used = packed.segment_ids > 0
    assert packed.tokens.shape[1] == row_length
    for ids, places in zip(sequences, packed.places, strict=True):
        assert packed.tokens.reshape(-1)[places].tolist() == list(ids)
        np.testing.assert_array_equal(packed.positions.reshape(-1)[places], np.arange(len(ids)))
        row = places[0] // row_length
        seen = path(packed, places[-1])
        assert [row * row_length + column for _, column in seen] == places.tolist()
    for row in range(len(packed.tokens)):
        # Depth first: what goes on from a segment stands directly behind it.
        segments = packed.segment_ids[row][used[row]]
        first = {s: np.flatnonzero(segments == s)[0] for s in set(segments.tolist())}
        last = {s: np.flatnonzero(segments == s)[-1] for s in first}
        assert all((segments[first[s] : last[s] + 1] == s).all() for s in first)
        parent = {s: packed.parents[row][packed.segment_ids[row] == s][0] for s in first}
        for s in first:
            below, inside = [s], {s}
            while below:
                below = [child for child, up in parent.items() if up in below]
                inside |= set(below)
            columns = np.flatnonzero(np.isin(segments, list(inside)))
            np.testing.assert_array_equal(columns, np.arange(columns[0], columns[-1] + 1))
    assert not packed.tokens[~used].any() and not packed.parents[~used].any()
    return int(used.sum())


def test_what_is_shared_is_there_once():
    transcript = tuple(range(100, 140))
    prompts = [(*transcript, 900 + k, 901) for k in range(3)]
    targets = [(7, 8, 9, 10), (7, 8, 5)]
    sequences = [p + t for p in prompts for t in targets]
    packed = pack_shared(sequences, 80)
    # The transcript, three headers, and of the targets what differs.
    assert check(packed, sequences, 80) == 40 + 3 * (2 + 2 + 2 + 1)
    assert len(packed.tokens) == 1
    whole = pack_shared(sequences, 80, share=False)
    assert check(whole, sequences, 80) == sum(map(len, sequences)) and not whole.parents.any()


def test_equal_sequences_and_beginnings_of_others_cost_nothing():
    long = tuple(range(30))
    sequences = [long, long[:20], long, (*long[:20], 99)]
    packed = pack_shared(sequences, 64)
    assert check(packed, sequences, 64) == 31
    np.testing.assert_array_equal(packed.places[0], packed.places[2])


def test_a_tree_that_no_row_holds_is_parted_where_it_has_least_in_common():
    # Two problems behind one system prompt; both fit into a row, but not into one.
    system, rng = tuple(range(10)), np.random.default_rng(0)
    problems = [tuple(rng.integers(100, 999, 20).tolist()) for _ in range(2)]
    sequences = [
        (*system, *problem, *rng.integers(100, 999, 15).tolist())
        for problem in problems
        for _ in range(3)
    ]
    packed = pack_shared(sequences, 100)
    used = check(packed, sequences, 100)
    assert used == 2 * (10 + 20 + 3 * 15) and len(packed.tokens) == 2
    assert check(pack_shared(sequences, 200), sequences, 200) == used - 10


def test_little_in_common_is_not_worth_a_row():
    sequences = [(1, 2, 3, *range(100 * i, 100 * i + 40)) for i in range(1, 5)]
    packed = pack_shared(sequences, 50)
    check(packed, sequences, 50)
    assert not packed.parents.any() and len(packed.tokens) == 4


@pytest.mark.parametrize("seed", range(6))
def test_any_set_of_sequences_can_be_read_off(seed):
    rng = np.random.default_rng(seed)
    made = [()]
    for _ in range(60):
        # Go on from a beginning of something that is there.
        stem = made[rng.integers(len(made))]
        stem = stem[: rng.integers(len(stem) + 1)]
        grown = (*stem, *rng.integers(1, 9, rng.integers(1, 25)).tolist())
        made.append(grown[:64])
    sequences = [made[i] for i in rng.integers(1, len(made), 40)]
    shared = check(pack_shared(sequences, 64), sequences, 64)
    assert shared < check(pack_shared(sequences, 64, share=False), sequences, 64)


def test_nothing_at_all_is_no_row():
    assert pack_shared([], 16).tokens.shape == (0, 16)
