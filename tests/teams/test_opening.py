"""What a team would have answered without talking, and how sure it is of what it answers."""

import math
from types import SimpleNamespace

import pytest

from arkjax.teams import library
from arkjax.teams.confidence import answer_probability, confidence
from arkjax.teams.opening import opening, opening_answer
from arkjax.teams.rules import Reducer

pytestmark = pytest.mark.fast
VOTERS = ("a", "b", "c")


def equal(a, b):
    return a == b


def call(name, answer=None, parents=(), stage="talk", **parsed):
    """A message named "a0": agent and round."""
    if answer is not None:
        parsed["answer"] = answer
    return SimpleNamespace(
        call_id=name, agent=name[0], round=int(name[1]), stage=stage, parsed=parsed,
        parents=tuple(parents),
    )  # fmt: skip


def answered(reducer, said, voters=VOTERS):
    return opening_answer(reducer, voters, opening(said, {"talk"}), equal)


DEBATE = [
    call("a0", "1"), call("b0", "1"), call("c0", "2"),
    *(call(f"{x}1", "2", ("a0", "b0", "c0")) for x in "abc"),
]  # fmt: skip


def names(said):
    return [message.call_id for message in opening(said, {"talk"})]


def test_a_debate_opens_with_its_first_round():
    assert names(DEBATE) == ["a0", "b0", "c0"]
    assert answered(Reducer("vote"), DEBATE) == "1"


def test_a_chain_opens_with_its_first_agent():
    chain = [call("a0", "1"), call("b0", "2", ["a0"]), call("c0", "3", ["b0"])]
    assert names(chain) == ["a0"] and answered(Reducer("last"), chain) == "1"


def test_who_read_a_plan_has_heard_no_answer_but_who_read_a_critique_has():
    plan = call("c0", stage="plan")
    said = [plan, call("a1", "1", ["c0"]), call("c2", None, ["a1"], stage="criticise")]
    said += [call("b3", "2", ["c2"]), call("a3", "5", ["c0"])]
    assert names(said) == ["a1", "a3"]


@pytest.mark.parametrize(
    "reducer",
    [
        Reducer("judge", agent="j"),
        Reducer("synthesize", agent="j"),
        Reducer("approvals", weight="score"),
        Reducer("best", weight="score"),
        Reducer("weighted_vote", weight="score"),
        Reducer("last", agent="j"),
    ],
)
def test_majority_stands_for_reducers_that_find_nothing_there(reducer):
    judge = call("j2", "7", ("a1", "b1", "c1"))
    assert answered(reducer, [*DEBATE, judge]) == "1"


def test_reducers_that_find_what_they_need_are_used():
    said = [call("a0", "1", score="1"), call("b0", "1", score="1"), call("c0", "2", score="9")]
    assert answered(Reducer("weighted_vote", weight="score"), said) == "2"
    assert answered(Reducer("best", weight="score"), said) == "2"
    assert answered(Reducer("last"), said) == "2"
    assert answered(Reducer("last", agent="a"), said) == "1"
    assert answered(Reducer("all"), said) is None
    assert answered(Reducer("vote"), [call("a0"), call("b0")]) is None
    # Voters who speak later are stood for by those who opened.
    assert answered(Reducer("vote"), said, voters=("z",)) == "1"


def sure(reducer, said, answer, voters=VOTERS):
    return confidence(reducer, voters, said, answer, equal, lambda call: None)


def test_confidence_of_voters_is_the_share_that_agrees():
    said = [*DEBATE[:5], call("c1")]
    assert sure(Reducer("vote"), said, "2") == pytest.approx(2 / 3)
    assert sure(Reducer("vote"), DEBATE, "2") == 1
    assert sure(Reducer("judge", agent="j"), DEBATE, "9") == 0
    assert sure(Reducer("vote"), said, None) == 0
    assert math.isnan(sure(Reducer("last", agent="j"), [call("j0", "2")], "2"))


def spoken(text, answer, logprobs=None, tokens=None):
    """One message of single letters, or of `tokens`; the i-th has probability 1 - i / 100."""
    tokens = list(text) if tokens is None else tokens
    if logprobs is None:
        logprobs = [math.log(1 - i / 100) for i in range(len(tokens))]
    return SimpleNamespace(
        agent="a", round=0, text=text, gen_ids=tuple(range(len(tokens))), parsed={"answer": answer},
        logprobs=tuple(logprobs), tokens=tokens,
    )  # fmt: skip


def probability(message, answer):
    def decode(ids):
        return "".join(message.tokens[i] for i in ids)

    return answer_probability(message, answer, decode)


def test_confidence_of_one_message_is_the_probability_of_its_answer():
    assert probability(spoken("so 42", "42"), "42") == pytest.approx(0.97 * 0.96)
    # The last mention counts, and a digit within another number is none.
    assert probability(spoken("4 x 4 so 4, not 14", "4"), "4") == pytest.approx(0.91)
    # What graders leave out of numbers may stand between.
    assert probability(spoken("$1,000.", "1000"), "1000") == pytest.approx(
        0.99 * 0.98 * 0.97 * 0.96 * 0.95
    )
    # Tokens of several letters: those that reach into the answer.
    message = spoken("The answer is B.", "B", tokens=["The ans", "wer is", " B", "."])
    assert probability(message, "B") == pytest.approx(0.98)
    # An article is not the option of that letter.
    message = spoken("option A or a", "A", tokens=["option", " A", " or", " a"])
    assert probability(message, "A") == pytest.approx(0.99)


def test_confidence_that_cannot_be_known_is_nan():
    assert math.isnan(probability(spoken("so four", "4"), "4"))
    assert math.isnan(probability(spoken("so 4", "4", logprobs=()), "4"))
    assert math.isnan(probability(spoken("so 4", "4", logprobs=[math.nan] * 4), "4"))
    assert math.isnan(probability(spoken("so 4", "$", logprobs=[0.0] * 4), "$"))
    assert probability(spoken("so 4", "4", logprobs=[1e-9] * 4), "4") == 1


def test_nasty_words_end_in_a_number_or_in_nan():
    nasty = [("(" * 4000, "("), ("a" * 9000, "a" * 400), ("a" * 9000, "a" * 600), ("", "x")]
    nasty += [("\\" * 99, "\\("), ("ß" * 50, "SS"), (" ,$" * 3000 + "1", "1"), ("\0\ud800", "\0")]
    for text, answer in nasty:
        found = probability(spoken(text, answer, logprobs=[-0.01] * len(text)), answer)
        assert math.isnan(found) or 0 <= found <= 1


def test_a_play_says_what_talking_did(world):
    """Round one is wrong for all, and whoever hears another goes over to the gold answer."""
    problems = world.problems(6)

    def say(request, draw):
        text = world.text_of(request)
        number = int(text.split("what is ")[1].split("#")[0])
        return f"so {number % 3}" if "so " in text else f"so {number % 3 + 1}"

    team = library.debate(rounds=2)
    for debate in world.play(team, problems, world.Model(say)):
        gold = debate.problem.answer
        assert (debate.opening, debate.opening_correct) == (str(int(gold) + 1), False)
        assert debate.correct and debate.in_pool and debate.confidence == 1


def test_where_nobody_talks_the_opening_is_the_answer(world):
    for team in (library.roles(), library.self_consistency(n=5), library.vanilla()):
        for debate in world.play(team, world.problems(12), world.Model()):
            assert debate.opening == debate.answer
            assert debate.opening_correct == debate.correct
            stated = {c.parsed.get("answer") for c in debate.calls}
            assert debate.in_pool == (debate.problem.answer in stated)
            if team.name == "vanilla":
                # Every token of this model has a log-probability of -0.5.
                assert debate.confidence == pytest.approx(math.exp(-0.5 * len(debate.answer)))
            else:
                votes = [c.parsed.get("answer") == debate.answer for c in debate.calls]
                assert debate.confidence == pytest.approx(sum(votes) / len(votes))
