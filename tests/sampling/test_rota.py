"""Models that take turns: one at a time is there, none waits for ever, and no call is lost."""

import functools
import gc

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.sampling.params import Generation, Request, SamplingParams
from arkjax.sampling.rota import Rota

pytestmark = pytest.mark.fast


class Slow:
    """Ends one call a step, the oldest first."""

    def __init__(self, there):
        self.queue = []
        self.there = there
        there.add(id(self))

    def __del__(self):
        self.there.discard(id(self))

    @property
    def pending(self):
        return len(self.queue)

    def submit(self, request):
        self.queue.append(request)

    def step(self):
        assert self.queue
        request = self.queue.pop(0)
        return [Generation(request.id, (1,), (0.0,), (0.0,), "stop", 0, 0.0)]


def request(name, tokens=4):
    return Request(name, (1, 2), 0, SamplingParams(max_tokens=tokens), 0)


def rota(places=1, names="abc"):
    made, there = [], set()

    def opened(name):
        made.append(name)
        assert len(there) < places, "the next one came before the last one had gone"
        return Slow(there)

    opens = {name: functools.partial(opened, name) for name in names}
    return Rota(opens, dict.fromkeys(names, 16), places), made


def drain(members, limit=100):
    ended = []
    for _ in range(limit):
        busy = [member for member in members if member.pending]
        if not busy:
            return ended
        for member in busy:
            ended += [generation.request_id for generation in member.step()]
    raise AssertionError("calls wait for ever")


def test_a_model_works_until_it_has_no_call_and_then_the_busiest_takes_its_turn():
    turns, made = rota()
    for name, count in (("a", 2), ("b", 1), ("c", 3)):
        for i in range(count):
            turns[name].submit(request(f"{name}{i}"))
    assert drain([turns[name] for name in "abc"]) == ["c0", "c1", "c2", "a0", "a1", "b0"]
    assert made == ["c", "a", "b"] and turns.swaps == 3


def test_calls_that_come_during_a_turn_are_made_in_it():
    turns, made = rota(names="ab")
    turns["a"].submit(request("a0"))
    turns["b"].submit(request("b0"))
    assert [g.request_id for g in turns["a"].step()] == ["a0"]
    turns["a"].submit(request("a1"))
    assert turns["b"].step() == []
    assert drain([turns["a"], turns["b"]]) == ["a1", "b0"]
    assert made == ["a", "b"]


def test_as_many_are_there_as_there_are_places():
    turns, made = rota(places=2)
    for name in "abc":
        turns[name].submit(request(name))
    for name in "ab":
        turns[name].step()
    assert made == ["a", "b"]
    turns["c"].step()
    assert made == ["a", "b", "c"]
    turns["a"].submit(request("more"))
    turns.close()
    assert not any(turns[name].pending for name in "abc")


def test_a_model_can_be_taken_while_the_others_rest():
    turns, made = rota(names="ab")
    turns["a"].submit(request("a0"))
    assert [g.request_id for g in turns["a"].step()] == ["a0"]
    assert turns.take("b") is turns.there("b") and made == ["a", "b"]
    assert turns.take("b") is turns.there("b") and turns.swaps == 2
    turns["b"].submit(request("b0"))
    with pytest.raises(RuntimeError, match="there is no place for a"):
        turns.take("a")


def test_what_cannot_fit_is_refused_whether_the_model_is_there_or_not():
    turns, _ = rota()
    with pytest.raises(DataError, match="call long needs 102 tokens, but model 'a' holds 16"):
        turns["a"].submit(request("long", 100))
    with pytest.raises(ConfigError, match="places is 0"):
        rota(places=0)


def test_a_model_that_refers_to_itself_has_gone_also_where_the_heap_is_frozen():
    """As engines may, and as the heap is while a team plays."""
    members, made = rota()
    members.take("a").itself = members.take("a")
    gc.freeze()
    try:
        members.take("b")
    finally:
        gc.unfreeze()
    assert made == ["a", "b"]
