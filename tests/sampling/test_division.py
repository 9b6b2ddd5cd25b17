"""Which replica takes which call."""

import dataclasses

import numpy as np
import pytest

from arkjax.sampling.division import Router, balance, cost, divide
from arkjax.sampling.params import Request, SamplingParams

pytestmark = pytest.mark.fast


def _request(id: str, prompt, prefix_len: int = 0, max_tokens: int = 64, shared=()) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens)
    return Request(id, tuple(prompt), prefix_len, sampling, 0, tuple(shared))


def _loads(requests, owners, shares: int) -> list[float]:
    return [
        sum(cost(r) for r, owner in zip(requests, owners, strict=True) if owner == share)
        for share in range(shares)
    ]


@pytest.mark.parametrize("shares", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_shares_cost_about_the_same(shares, seed):
    rng = np.random.default_rng(seed)
    prefixes = [tuple(rng.integers(3, 99, n).tolist()) for n in (0, 30, 200, 7)]
    requests = []
    for i in range(200):
        prefix = prefixes[rng.integers(4)]
        prompt = prefix + tuple(rng.integers(3, 99, rng.integers(1, 50)).tolist())
        requests.append(_request(f"r{i}", prompt, len(prefix), int(rng.integers(1, 200))))
    owners = divide(requests, shares)
    assert set(owners) == set(range(shares))
    loads = _loads(requests, owners, shares)
    most = max(cost(request) for request in requests)
    # Prefixes, which `cost` leaves out, count as well: of this list at most 13 tokens each.
    assert max(loads) <= 1.1 * sum(loads) / shares + most
    assert owners == divide([dataclasses.replace(r) for r in requests], shares)


def test_calls_that_share_a_prefix_stay_together_where_that_is_even():
    requests = [
        _request(f"{i}.{j}", (*range(i, i + 20), j), 20) for j in range(4) for i in range(12)
    ]
    owners = divide(requests, 4)
    homes = {}
    for request, owner in zip(requests, owners, strict=True):
        homes.setdefault(request.prompt_ids[:20], set()).add(owner)
    assert all(len(home) == 1 for home in homes.values())
    assert sorted(owners.count(share) for share in range(4)) == [12] * 4


def test_a_prefix_of_all_calls_is_parted_where_the_next_one_begins():
    # All share a system prompt; three calls each share a transcript.
    system = tuple(range(10))
    requests = [
        _request(f"{i}.{j}", (*system, *range(50 + i, 60 + i), j), 20, shared=(10,))
        for i in range(16)
        for j in range(3)
    ]
    owners = divide(requests, 4)
    for i in range(16):
        assert len(set(owners[3 * i : 3 * i + 3])) == 1
    assert sorted(owners.count(share) for share in range(4)) == [12] * 4


def test_samples_of_one_prompt_are_spread():
    requests = _request("r", range(30)).samples(64)
    owners = divide(requests, 8)
    assert sorted(owners.count(share) for share in range(8)) == [8] * 8


def test_one_long_call_leaves_the_rest_to_others():
    requests = [_request("long", (3,), max_tokens=1000)]
    requests += [_request(f"r{i}", (3, i), max_tokens=10) for i in range(30)]
    owners = divide(requests, 3)
    assert owners.count(owners[0]) == 1
    assert divide([], 3) == []
    assert divide(requests[:1], 3) == [0]


def test_balance_gives_the_costliest_first():
    assert balance([1, 5, 3, 3], 2) == [1, 0, 1, 0] or balance([1, 5, 3, 3], 2) == [0, 0, 1, 1]


def test_calls_that_come_one_by_one_go_to_their_prefix_or_to_who_has_least():
    router = Router(3, remembered=10)
    debate = [_request(f"d{i}", (*range(20), i), 20) for i in range(3)]
    other = [_request(f"o{i}", (i + 50,)) for i in range(4)]
    assert len({router.take(request) for request in debate}) == 1
    assert {router.take(request) for request in other[:2]} == {1, 2}
    assert router.where("d0") == 0 and "d0" in router
    router.end("d0")
    assert "d0" not in router
    # Whoever shares it with many more goes where there is less to do.
    many = [router.take(_request(f"m{i}", (*range(20), i), 20)) for i in range(30)]
    assert set(many) == {0, 1, 2}
    assert max(map(many.count, set(many))) - min(map(many.count, set(many))) <= 6
    router.clear()
    assert router.take(other[3]) == 0


def test_a_router_forgets_the_oldest_prefixes():
    router = Router(2, remembered=1)
    assert router.take(_request("a", (1, 2, 3), 2)) == 0
    assert router.take(_request("b", (4, 5, 6), 2)) == 1
    assert router.take(_request("c", (9,))) == 0
    # Its prefix was computed in the first, which is forgotten.
    assert router.take(_request("d", (1, 2, 7), 2)) == 1
