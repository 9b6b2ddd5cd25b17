"""Which replica takes which call: equal shares, and calls that share a prefix together."""

import collections
import itertools
from collections.abc import Sequence

from arkjax.sampling.params import Request

# What computing a token of a prompt counts beside drawing one: prompts are read many tokens at a
# time. It only weighs calls against each other, so its order of magnitude will do.
_PROMPT_TOKEN = 1 / 16
# A share may cost so much more than the mean before calls with one prefix are parted.
_UNEVEN = 1.1
# A call goes where its prefix is if that replica has at most so many calls like it more to do.
_CALLS_MORE = 4

Ids = tuple[int, ...]


def cost(request: Request) -> float:
    """What a call is expected to cost, its prefix apart, in drawn tokens: all that it may draw."""
    own = len(request.prompt_ids) - request.prefix_len
    return request.sampling.max_tokens + _PROMPT_TOKEN * own


def divide(requests: Sequence[Request], shares: int) -> list[int]:
    """Give every call to a share.

    It depends on the list and the number of shares alone, so that processes agree without a word.
    Calls that share a prefix stay together, as far as no share then costs over a tenth more than
    the mean; the costliest are given away first, each to the share that has least.

    Args:
      requests: the calls.
      shares: how many shares, at least 1.

    Returns:
      The share of each call, from 0.
    """
    costs = [cost(request) for request in requests]
    limit = sum(costs) / shares
    least = max(costs, default=0.0)
    while True:
        units = _split(requests, costs, list(range(len(requests))), 0, limit)
        owners, loads = _spread(requests, costs, units, shares)
        if limit <= least or max(loads) <= _UNEVEN * sum(loads) / shares:
            return owners
        limit /= 2


def balance(costs: Sequence[float], shares: int) -> list[int]:
    """The share of each of these: the costliest first, each to the share that has least."""
    loads, owners = [0.0] * shares, [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += costs[i]
    return owners


def _spread(
    requests: Sequence[Request], costs: Sequence[float], units: list[list[int]], shares: int
) -> tuple[list[int], list[float]]:
    """The share of each call, and what each share then costs."""
    totals = [
        sum(costs[i] for i in unit) + _PROMPT_TOKEN * requests[unit[0]].prefix_len for unit in units
    ]
    owners, loads = [0] * len(requests), [0.0] * shares
    for unit, total, owner in zip(units, totals, balance(totals, shares), strict=True):
        loads[owner] += total
        for i in unit:
            owners[i] = owner
    return owners, loads


def _split(
    requests: Sequence[Request],
    costs: Sequence[float],
    members: list[int],
    level: int,
    limit: float,
) -> list[list[int]]:
    """Part calls, of which the first `level` shared beginnings are the same, into units.

    Units that cost more than `limit` are parted by what follows, and in the end in the middle.
    """
    alike: dict[Ids, list[int]] = collections.defaultdict(list)
    for i in members:
        request = requests[i]
        lengths = [*request.shared, request.prefix_len][level : level + 1]
        # Those that end here are together, unless they have nothing in common at all.
        key = request.prompt_ids[: lengths[0]] if lengths and lengths[0] else ()
        alike[key or (() if level else (-1, i))].append(i)
    units = []
    for key, unit in alike.items():
        if sum(costs[i] for i in unit) <= limit or len(unit) == 1:
            units.append(unit)
        elif key:
            units += _split(requests, costs, unit, level + 1, limit)
        else:
            units += _cut(costs, unit, limit)
    return units


def _cut(costs: Sequence[float], unit: list[int], limit: float) -> list[list[int]]:
    """Cut a list of calls into equal parts of at most about `limit`."""
    total = sum(costs[i] for i in unit)
    part = total / -(-total // limit)
    ends = itertools.accumulate(costs[i] for i in unit)
    pieces: dict[int, list[int]] = collections.defaultdict(list)
    for i, end in zip(unit, ends, strict=True):
        pieces[int((end - costs[i] / 2) / part)].append(i)
    return list(pieces.values())


class Router:
    """Says where each call goes while calls come and end one by one."""

    def __init__(self, shares: int, remembered: int):
        """Set up a router.

        Args:
          shares: how many there are to choose from.
          remembered: prefixes of which it knows where they were computed.
        """
        self._loads = [0.0] * shares
        self._calls: dict[str, tuple[int, float]] = {}
        self._remembered = remembered
        # Shares by prefix, least recently used first.
        self._homes: collections.OrderedDict[Ids, set[int]] = collections.OrderedDict()

    def take(self, request: Request) -> int:
        """Where a call goes: where its longest known prefix is, unless that share has more to do
        than others by several calls."""
        price = cost(request)
        most = min(self._loads) + _CALLS_MORE * price
        lengths = [n for n in (*request.shared, request.prefix_len) if n]
        chain = [request.prompt_ids[:n] for n in lengths]
        homes = [self._homes.get(ids, ()) for ids in reversed(chain)]
        near = [home for home in homes if any(self._loads[i] < most for i in home)]
        choice = near[0] if near else range(len(self._loads))
        chosen = min(choice, key=lambda i: (self._loads[i], i))
        for ids in chain:
            self._homes.setdefault(ids, set()).add(chosen)
            self._homes.move_to_end(ids)
        while len(self._homes) > self._remembered:
            self._homes.popitem(last=False)
        self._loads[chosen] += price
        self._calls[request.id] = chosen, price
        return chosen

    def where(self, request_id: str) -> int:
        """Where a call was sent."""
        return self._calls[request_id][0]

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._calls

    def end(self, request_id: str) -> None:
        """Forget a call that has ended."""
        share, price = self._calls.pop(request_id)
        self._loads[share] -= price

    def clear(self) -> None:
        """Forget all calls, and what was computed for them."""
        self._loads = [0.0] * len(self._loads)
        self._calls.clear()
        self._homes.clear()
