"""Who sees whom, as boolean matrices; and the order of transcripts."""

from types import SimpleNamespace

import pytest

from arkjax.teams.primitives import View
from arkjax.teams.views import levels, view_matrix, visible

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
        (View("before"), "10000 11000 11100 11110 11111"),
        (View("tree", k=2, own=False), "01100 10011 10000 01000 01000"),
        (View("tree", k=1, own=False), "01000 10100 01010 00101 00010"),
        (View("layer", k=2, own=False), "00000 00000 11000 11000 00110"),
        (View("layer", k=9), "10000 01000 00100 00010 00001"),
        (View("random", p=1.0, own=False), "01111 10111 11011 11101 11110"),
        (View("random", p=0.0), "10000 01000 00100 00010 00001"),
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


def test_a_random_graph_is_drawn_by_its_seed_and_about_as_dense_as_said():
    agents = [f"a{i}" for i in range(40)]
    graphs = [view_matrix(View("random", p=0.3, seed=s), agents, agents) for s in (0, 0, 1)]
    assert graphs[0] == graphs[1] != graphs[2]
    edges = sum(map(sum, graphs[0])) - len(agents)
    assert 0.25 < edges / (40 * 39) < 0.35
    assert view_matrix(View("random", p=0.3), agents, agents[:2]) == graphs[0][:2]


def test_a_matrix_says_who_reads_whom_round_by_round():
    rounds = tuple(matrix(text) for text in ("010 001 100", "000 000 110"))
    view = View("matrix", matrix=rounds)
    assert view_matrix(view, "abc", "abc", 0) == matrix("110 011 101")
    for turn in (1, 2, 9):
        assert view_matrix(view, "abc", "abc", turn) == matrix("100 010 111")
    assert view_matrix(view, "abc", "cb", 1) == matrix("111 010")


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View("chain"), "a b c d e"),
        (View("before"), "a b c d e"),
        (View("none"), "abcde"),
        (View("layer", k=2), "ab cd e"),
        (View("edges", edges=(("e", "a"), ("a", "b"), ("e", "b"))), "cde a b"),
    ],
)
def test_levels(view, expected):
    assert ["".join(level) for level in levels(view, AGENTS, AGENTS)] == expected.split()


def test_a_circle_has_no_levels():
    with pytest.raises(ValueError, match="b, c wait for each other"):
        levels(View("edges", edges=(("b", "c"), ("c", "b"))), AGENTS, AGENTS)


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


def scored(*messages):
    """Messages "a0 id score": author and round, what it scores itself, and whom it has read."""
    calls = []
    for i, message in enumerate(messages):
        place, stage, score, *parents = message.split()
        parsed = {} if score == "-" else {"score": score}
        calls.append(
            SimpleNamespace(call_id=str(i), agent=place[0], round=int(place[1]), sample=i, name=i,
                            stage=stage, parsed=parsed, parents=parents)
        )  # fmt: skip
    return calls


@pytest.mark.parametrize(
    ("messages", "ranks"),
    [
        (["a0 x 2", "b0 x 9", "c0 x 3"], [1, 2, 0]),
        (["a0 x 2", "b0 x 2", "c0 x 10"], [2, 0, 1]),
        (["a0 x nan", "b0 x -5", "c0 x many"], [1, 0, 2]),
        (["a0 x -", "b0 x -", "c0 x -inf"], [0, 1, 2]),
        (["a0 x 1e400", "b0 x 5", "c0 x -"], [0, 1, 2]),
    ],
)
def test_the_best_and_the_next_best(messages, ranks):
    best, after = (View(pick=pick, pick_by="score", authors=("a", "b", "c")) for pick in
                   ("best", "next"))  # fmt: skip
    for turn in range(5):
        assert names(best, "e", scored(*messages), turn=turn) == ranks[:1]
        assert names(after, "e", scored(*messages), turn=turn) == [ranks[min(turn, 2)]]
    assert names(best, "e", []) == []


def test_what_others_say_of_a_message_ranks_it():
    messages = scored("a0 x 9", "b0 x 1", "c0 x 1", "d1 rate 2 0", "d1 rate 7 1", "d1 rate 3 2",
                      "e1 odd 9 2")  # fmt: skip
    view = View(pick="best", pick_by="rate.score", stages=("x",))
    assert names(view, "e", messages) == [1]
    again = [*messages, *scored("d2 rate 8 0")]
    assert names(view, "e", again) == [0]


def test_stages_and_authors_can_be_left_out():
    messages = scored("a0 x -", "b0 x -", "a1 y -", "c1 y -")
    assert names(View(stages=("x",)), "d", messages) == [0, 1]
    assert names(View(), "d", messages, authors=("b", "c")) == [1, 3]
    # The latest round of an author is that among what can be seen.
    assert names(View(stages=("x",)), "a", messages) == [0, 1]
    assert names(View(stages=("z",)), "a", messages) == []
