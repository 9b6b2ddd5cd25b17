"""Votes, ties, judges: the rule that is stated is the rule that holds."""

from types import SimpleNamespace

import pytest

from arkjax.teams.reducers import Verdict, agreement, reduce, unchanged
from arkjax.teams.rules import Reducer

pytestmark = pytest.mark.fast

VOTERS = ("a", "b", "c", "d")


def equal(a, b):
    return a.strip("0.") == b.strip("0.")


def said(*messages):
    """Messages written "a0=3" or "a0=3@0.5": agent, round, answer, weight; "a0" states nothing."""
    calls = []
    for message in messages:
        place, _, stated = message.partition("=")
        answer, _, weight = stated.partition("@")
        parsed = {key: text for key, text in (("answer", answer), ("weight", weight)) if text}
        calls.append(SimpleNamespace(agent=place[0], round=int(place[1]), parsed=parsed))
    return calls


def answer(reducer, *messages):
    return reduce(reducer, VOTERS, said(*messages), equal)


def test_the_majority_of_last_rounds_wins():
    verdict = answer(Reducer("vote"), "a0=1", "b0=1", "c0=1", "d0=2", "a1=2", "b1=2")
    assert verdict == Verdict("2", False, 0.75)


def test_equality_is_the_graders():
    assert answer(Reducer("vote"), "a0=3", "b0=5", "c0=5.0", "d0=3.00").tied
    assert answer(Reducer("vote"), "a0=5", "b0=5.0", "c0=3").answer == "5"


def test_silence_abstains():
    assert answer(Reducer("vote"), "a0", "b0", "c0=7", "d0").answer == "7"
    assert answer(Reducer("vote"), "a0", "b0") == Verdict(None)
    assert answer(Reducer("vote")) == Verdict(None)
    assert answer(Reducer("vote"), "a0=1", "a1", "b0=2", "b1=2") == Verdict("2", False, 1.0)


def test_who_does_not_vote_is_not_counted():
    assert answer(Reducer("vote"), "z0=9", "y0=9", "a0=1").answer == "1"


@pytest.mark.parametrize(
    ("tie", "expected"), [("first", "9"), ("lowest", "2"), ("plurality_then_first", "7")]
)
def test_tie_rules(tie, expected):
    messages = ["a0=7", "b0=7", "c0=9", "d0=7", "a1=9", "b1=7", "c1=2", "d1"]
    verdict = answer(Reducer("vote", tie=tie), *messages)
    assert verdict.answer == expected and verdict.tied


def test_lowest_is_a_number_where_all_are_and_else_a_word():
    assert answer(Reducer("vote", tie="lowest"), "a0=15", "b0=9").answer == "9"
    assert answer(Reducer("vote", tie="lowest"), "a0=15", "b0=9", "c0=x").answer == "15"


def test_plurality_falls_back_to_first():
    assert answer(Reducer("vote", tie="plurality_then_first"), "a0=4", "b0=3").answer == "4"


def test_weights():
    weighted = Reducer("weighted_vote", weight="weight")
    messages = ["a0=1@0.9", "b0=2@0.5", "c0=2@0.3", "d0=2@nan"]
    assert answer(weighted, *messages).answer == "1"
    assert answer(weighted, "a0=1@none", "b0=2@-3").tied
    best = Reducer("best", weight="weight")
    assert answer(best, *messages).answer == "1"
    assert answer(best, "a0=1@-5", "b0=2@-2", "c0@9").answer == "2"


def test_the_judges_last_word_counts():
    judge = Reducer("judge", agent="z")
    assert answer(judge, "a0=1", "z1=5", "a2=2").answer == "5"
    assert answer(judge, "a0=1", "z1=5", "z2") == Verdict(None)
    assert answer(judge, "a0=1") == Verdict(None)


def test_last_and_all():
    assert answer(Reducer("last"), "a0=1", "b0=2", "c0").answer == "2"
    assert answer(Reducer("last", agent="a"), "a0=1", "b0=2").answer == "1"
    assert answer(Reducer("all"), "a0=1") == Verdict(None)


def test_agreement_counts_silence_as_dissent():
    assert agreement(Reducer(), VOTERS, said("a0=1", "b0=1", "c0=2", "d0"), equal) == 0.5
    assert agreement(Reducer(), VOTERS, said("a0=1", "b0=1.0"), equal) == 1.0
    assert agreement(Reducer(), VOTERS, [], equal) == 0.0


def test_unchanged_needs_a_history():
    one = said("a0=1", "b0=2", "c0=3", "d0=4")
    two = one + said("a1=1", "b1=2", "c1=3", "d1=4")
    three = two + said("a2=1", "b2=2", "c2=3", "d2=5")
    assert not unchanged("answer", 1, VOTERS, one, equal)
    assert unchanged("answer", 1, VOTERS, two, equal)
    assert not unchanged("answer", 2, VOTERS, two, equal)
    assert not unchanged("answer", 1, VOTERS, three, equal)


def test_a_scale_replaces_weights():
    scale = Reducer("weighted_vote", weight="weight", scale=((0.5, 1.0), (0.9, 3.0)))
    assert answer(scale, "a0=1@0.95", "b0=2@0.5", "c0=2@0.89").answer == "1"
    assert answer(scale, "a0=1@0.9", "b0=2@0.5", "c0=2@0.6", "d0=2@0.7").tied
    # What reaches no bound weighs nothing, and what is no number neither.
    assert answer(scale, "a0=1@0.49", "b0=2@0.5", "c0=1@much").answer == "2"
    assert answer(scale, "a0=1@yes", "b0=2@0.89", "c0=2@no").answer == "1"


def test_only_the_latest_round_votes_if_asked():
    messages = ["a0=1", "b0=1", "c0=1", "a1=2", "b1"]
    assert answer(Reducer("vote"), *messages).tied
    assert answer(Reducer("vote", latest=True), *messages) == Verdict("2", False, 1.0)
    late = Reducer(latest=True)
    assert agreement(late, VOTERS, said(*messages), equal) == 0.5
    assert agreement(Reducer(), VOTERS, said("a0=1", "b0=1", "a1=1"), equal) == 1.0


def judged(*messages):
    """Messages "a0=3" with ids by their place, and "j1:0=yes", what j says of the first."""
    calls = []
    for i, message in enumerate(messages):
        place, _, value = message.partition("=")
        author, _, read = place.partition(":")
        field = "weight" if read else "answer"
        calls.append(
            SimpleNamespace(call_id=str(i), agent=author[0], round=int(author[1]),
                            parsed={field: value} if value else {}, parents=tuple(read.split(",")))
        )  # fmt: skip
    return calls


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["a0=1", "b0=2", "j1:0=no", "j1:1=yes"], ("2", False)),
        (["a0=1", "b0=2", "j1:0=yes", "j1:1=yes", "j1:1=no"], ("1", True)),
        (["a0=1", "b0=2", "j1:0=0.4", "j1:0=0.4", "j1:1=0.7"], ("1", False)),
        (["a0=1", "b0=2", "j1:0", "j1:1=-1"], ("1", False)),
        (["a0=1", "b0=2"], ("1", True)),
        # Who was shown both speaks of both.
        (["a0=1", "b0=2", "j1:0,1=yes", "j1:1=0.1"], ("2", False)),
        # What cannot be read is no candidate, however much it is liked.
        (["a0", "b0=2", "j1:0=yes", "j1:1=no"], ("2", False)),
        (["a0", "b0"], (None, False)),
    ],
)
def test_approvals(messages, expected):
    reducer = Reducer("approvals", weight="weight")
    verdict = reduce(reducer, ("a", "b"), judged(*messages), equal)
    assert (verdict.answer, verdict.tied) == expected


def test_a_synthesiser_decides_as_a_judge_does():
    for kind in ("judge", "synthesize"):
        reducer = Reducer(kind, agent="z")
        assert answer(reducer, "a0=1", "b0=1", "z1=5").answer == "5"
        assert answer(reducer, "a0=1", "z1=5", "z2") == Verdict(None)


def test_the_last_is_who_spoke_last():
    assert answer(Reducer("last"), "c0=3", "b0=2").answer == "2"
    assert answer(Reducer("last"), "d0=4", "a0=1").answer == "1"
