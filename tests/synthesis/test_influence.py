"""Leave-one-out influence and the game of the agents, with a scorer that is known to the digit."""

import dataclasses
import itertools
import math

import pytest

from arkjax.synthesis.influence import (
    game,
    influence_pairs,
    influences,
    readings,
    right_words,
)
from arkjax.synthesis.shapley import coalitions, shapley

pytestmark = pytest.mark.fast
END, HEADER, QUESTION = 1, 2, (5, 6, 7)


@pytest.fixture
def said(call):
    """A function that makes a message whose prompt shows others, as it would be recorded."""

    def make(answer, agent, round=0, parents=(), **fields):
        made = call(answer, agent=agent, round=round, parents=tuple(parents), **fields)
        ids, segments = list(QUESTION), []
        for parent in parents:
            start = len(ids) + 1
            ids += [HEADER, *parent.gen_ids]
            segments.append((parent.call_id, start, len(ids)))
        prefix = len(ids)
        ids.append(HEADER)
        edges = [0, *itertools.chain(*(s[1:] for s in segments)), len(ids)]
        gaps = [("template", a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        spans = sorted([*segments, *gaps], key=lambda s: s[1])
        return dataclasses.replace(
            made, prompt_ids=tuple(ids), prefix_len=prefix, prompt_segments=tuple(spans)
        )

    return make


@pytest.fixture
def debate(said):
    """Four speak, three of them again; the right answer is 3."""
    first = [said(a, agent=n) for n, a in zip("abcd", ("3", "4", "4", "5"), strict=True)]
    second = [
        said(a, agent=n, round=1, parents=first)
        for n, a in zip("bcd", ("3", "4", "3"), strict=True)
    ]
    return [*first, *second]


def contains(prompt, ids):
    return any(prompt[i : i + len(ids)] == ids for i in range(len(prompt)))


def scorer(calls, weights, together=None):
    """log p = the sum of the weights of the agents shown, and more where both of a pair are."""

    def worth(pair):
        prompt, target = pair
        shown = {c.agent for c in calls if c.round == 0 and contains(prompt, c.gen_ids)}
        extra = together[2] if together and {*together[:2]} <= shown else 0.0
        return sum(weights[agent] for agent in shown) + extra - len(target)

    return worth


def test_influence_is_what_a_message_adds(debate):
    weights = {"a": 2.0, "b": 0.0, "c": -1.0, "d": 0.25}
    of = readings(debate, END)
    found = influences(of, scorer(debate, weights))
    by_agent = {c.agent: found[c.call_id] for c in debate if c.round == 0}
    assert by_agent == {agent: (weight, 3) for agent, weight in weights.items()}
    # Nobody reads the last round.
    assert {c.call_id for c in debate if c.round} & found.keys() == set()
    # Where two are needed, each of them is missed as much.
    found = influences(of, scorer(debate, weights, ("b", "c", 4.0)))
    by_agent = {c.agent: found[c.call_id][0] for c in debate if c.round == 0}
    assert by_agent == {"a": 2.0, "b": 4.0, "c": 3.0, "d": 0.25}


def test_what_is_asked_is_asked_beforehand(debate):
    of, asked = readings(debate, END), []

    def worth(pair):
        asked.append(pair)
        return 0.0

    influences(of, worth)
    assert set(asked) == set(influence_pairs(of))
    played = game(of, debate)
    asked.clear()
    played.solve(worth)
    # Of three readers with one prompt, two are asked for the same words.
    assert set(asked) == set(played.asked()) and len(set(asked)) == 16 * 2
    assert all(prompt[:3] == QUESTION and target[-1] == END for prompt, target in asked)


def test_shares_of_the_gain(debate):
    weights = {"a": 2.0, "b": 0.0, "c": -1.0, "d": 0.25}
    played = game(readings(debate, END), debate)
    shares = played.solve(scorer(debate, weights, ("b", "c", 4.0)))
    # What two do together is divided between them.
    assert shares.values == pytest.approx({"a": 2.0, "b": 2.0, "c": 1.0, "d": 0.25})
    assert shares.exact and math.fsum(shares.values.values()) == pytest.approx(
        shares.gain, abs=1e-9
    )


def test_large_teams_are_sampled_with_an_error(said):
    first = [said("3", agent=f"a{i}") for i in range(9)]
    judge = said("3", agent="judge", round=1, parents=first)
    calls = [*first, judge]
    weights = {f"a{i}": float(i) for i in range(9)}
    played = game(readings(calls, END), calls, exact_up_to=6, pairs=4, seed=1)
    shares = played.solve(scorer(calls, weights, ("a0", "a8", 3.0)))
    assert not shares.exact and math.fsum(shares.values.values()) == pytest.approx(shares.gain)
    assert shares.values["a3"] == pytest.approx(3.0) and shares.errors["a3"] == pytest.approx(0.0)
    # An order and its reverse: whoever of the two comes second has it, once each.
    assert shares.values["a8"] == pytest.approx(8 + 1.5)
    assert set(shares.values) == set(weights)


def test_coalitions_are_those_that_are_asked():
    for players, sizes in (("abc", {}), ("abcdefgh", {"pairs": 3, "seed": 5})):
        asked = []

        def worth(coalitions, asked=asked):
            asked += coalitions
            return [float(len(c)) for c in coalitions]

        shapley(players, worth, **sizes)
        assert asked == coalitions(players, **sizes)


def test_the_right_words_are_ones_own_first(said):
    first = [said(a, agent=n) for n, a in zip("abc", "343", strict=True)]
    second = [said(a, agent=n, round=1, parents=first) for n, a in zip("abc", "443", strict=True)]
    calls = [*first, *second]
    assert right_words(second[2], calls) == second[2].gen_ids
    # Another's of the same round, before its own of an earlier one.
    assert right_words(second[0], calls) == second[2].gen_ids
    assert right_words(first[1], calls) == first[0].gen_ids
    wrong = [said("4", agent="d", round=2, parents=first)]
    assert right_words(wrong[0], [*calls, *wrong]) == second[2].gen_ids
    assert right_words(wrong[0], wrong) is None


def test_right_words_that_do_not_fit_are_left_out(debate):
    whole = readings(debate, END)
    (prompt,) = {len(r.reader.prompt_ids) for r in whole}
    assert readings(debate, END, prompt + 9) == whole
    assert readings(debate, END, prompt + 8) == []


def test_where_nobody_was_right_there_is_nothing(said):
    first = [said("4", agent=n) for n in "ab"]
    calls = [*first, said("5", agent="c", round=1, parents=first)]
    assert readings(calls, END) == [] and game([], calls) is None
    # Who speaks without having read anybody reads nothing, and a critic states no answer.
    alone = [said("3", agent=n) for n in "ab"]
    assert readings(alone, END) == []
    critic = dataclasses.replace(said(None, agent="c", round=1, parents=alone), correct=None)
    assert readings([*alone, critic], END) == [] and game([], alone) is None
