"""Who sees whom, as boolean matrices; and the order of transcripts."""

from types import SimpleNamespace

import pytest

from arkjax.teams.primitives import View
from arkjax.teams.views import view_matrix, visible

pytestmark = pytest.mark.fast

AGENTS = ("a", "b", "c", "d", "e")


def matrix(text):
    return tuple(tuple(char == "1" for char in row) for row in text.split())


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View("full"), "11111 11111 11111 11111 11111"),
        (View("full", own=False), "01111 10111 11011 11101 11110"),
        (View("none"), "00000 00000 00000 00000 00000"),
        (View("self"), "10000 01000 00100 00010 00001"),
        (View("ring", own=False), "01001 10100 01010 00101 10010"),
        (View("ring", k=2, own=False), "01111 10111 11011 11101 11110"),
        (View("star", hub="b"), "11000 11111 01100 01010 01001"),
        (View("chain", own=False), "00000 10000 01000 00100 00010"),
        (View("edges", edges=(("a", "c"), ("e", "a")), own=False), "00001 00000 10000 00000 00000"),
        (
            View("groups", groups=(("a", "b"), ("b", "c")), own=False),
            "01000 10100 01000 00000 00000",
        ),
    ],
)
def test_graphs(view, expected):
    assert view_matrix(view, AGENTS, AGENTS) == matrix(expected)


def test_rings_and_chains_are_those_of_the_speakers():
    assert view_matrix(View("ring", own=False), AGENTS, ("d", "a", "b")) == matrix(
        "11000 01010 10010"
    )
    assert view_matrix(View("chain"), AGENTS, ("d", "a")) == matrix("00010 10010")


def test_an_outsider_sees_under_full_and_as_hub():
    assert view_matrix(View("full", own=False), AGENTS, ("e",)) == matrix("11110")
    assert view_matrix(View("star", hub="e", own=False), AGENTS, ("e",)) == matrix("11110")
    assert view_matrix(View("ring", own=False), AGENTS, ("e",)) == matrix("00000")


def said(*names):
    """Messages written "a0": agent and round, a third digit for the sample."""
    return [
        SimpleNamespace(agent=n[0], round=int(n[1]), sample=int(n[2:] or 0), name=n) for n in names
    ]


def names(view, viewer, messages, **options):
    shown = visible(view, viewer, AGENTS, AGENTS, messages, **options)
    return [message.name for message in shown]


def test_rounds_are_counted_for_each_author():
    messages = said("a0", "b0", "c0", "b1", "a2", "b2")
    assert names(View("full", rounds="last"), "d", messages) == ["c0", "a2", "b2"]
    window = View("full", rounds="window", window=2)
    assert names(window, "d", messages) == ["a0", "c0", "b1", "a2", "b2"]
    assert names(View("full", rounds="all"), "d", messages) == [m.name for m in messages]


def test_the_order_is_by_round_then_team_then_sample():
    messages = said("b01", "a0", "b00", "c1", "a1")
    everything = View("full", rounds="all")
    assert names(everything, "e", messages) == ["a0", "b00", "b01", "a1", "c1"]


def test_shuffling_is_alike_for_all_viewers_and_differs_by_key():
    messages = said(*(f"{name}0" for name in AGENTS))
    view = View("full", order="shuffled")
    orders = {tuple(names(view, viewer, messages, shuffle_key="x")) for viewer in AGENTS}
    assert len(orders) == 1
    keys = {tuple(names(view, "a", messages, shuffle_key=str(i))) for i in range(10)}
    assert len(keys) > 1
    assert all(sorted(order) == [f"{name}0" for name in AGENTS] for order in keys)
