"""Changes of mind: whose they are, and that shared credit is shared."""

import pytest

from arkjax.synthesis.flips import Credit, flips

pytestmark = pytest.mark.fast


@pytest.fixture
def debate(call):
    """A function that makes a debate of [agents' answers] by round; all hear the round before."""

    def make(*rounds):
        calls, before = [], ()
        for r, answers in enumerate(rounds):
            said = [
                call(answer, agent=agent, round=r, parents=before)
                for agent, answer in answers.items()
            ]
            calls += said
            before = tuple(said)
        return calls

    return make


def by(calls, agent, round):
    (found,) = [c.call_id for c in calls if (c.agent, c.round) == (agent, round)]
    return found


def test_who_corrects_is_whose_answer_was_read_and_taken(debate, grader):
    # The right answer is 3.
    calls = debate({"a": "3", "b": "4", "c": "4"}, {"a": "3", "b": "3", "c": "4"})
    found = flips(calls, "3", grader.equal)
    (turn,) = [t for t in found.turns if t.before]
    assert (turn.call_id, turn.kind) == (by(calls, "b", 1), "corrected")
    assert turn.sources == (by(calls, "a", 0),)
    assert found.messages[by(calls, "a", 0)] == Credit(corrected=1, first=True, own=True)
    assert found.agents["a"] == Credit(corrected=1, first=True, own=True)
    assert found.agents["b"] == found.agents["c"] == Credit()


def test_who_misleads(debate, grader):
    calls = debate({"a": "3", "b": "4"}, {"a": "4", "b": "4"})
    found = flips(calls, "4", grader.equal)
    assert found.agents["b"] == Credit(misled=1, first=True)
    assert [t.kind for t in found.turns] == ["invented", "invented", "misled"]


def test_several_sources_share_the_credit(debate, grader):
    calls = debate({"a": "3", "b": "3", "c": "4"}, {"c": "3"})
    found = flips(calls, "3", grader.equal)
    assert found.agents["a"].corrected == found.agents["b"].corrected == 0.5
    assert found.agents["a"].first and not found.agents["b"].first
    assert sum(credit.corrected for credit in found.messages.values()) == 1


def test_who_works_it_out_owes_nobody(debate, grader):
    calls = debate({"a": "4", "b": "5"}, {"a": "3", "b": "4"})
    found = flips(calls, "3", grader.equal)
    assert [t.kind for t in found.turns] == ["invented", "invented", "corrected", "moved"]
    assert found.turns[2].sources == ()
    assert found.messages[by(calls, "a", 1)] == Credit(first=True, own=True)
    # Moving from one wrong answer to another that was read is nobody's credit and nobody's fault.
    assert found.turns[3].sources == (by(calls, "a", 0),)
    assert found.agents["a"].corrected == found.agents["a"].misled == 0


def test_a_judge_adopts_and_silence_is_no_change(debate, grader):
    calls = debate({"a": "3", "b": None}, {"judge": "3"}, {"b": "3"})
    found = flips(calls, "3", grader.equal)
    assert [t.kind for t in found.turns] == ["invented", "adopted", "adopted"]
    assert not found.agents["judge"].own
    assert flips([], None, grader.equal).turns == ()
    # Nobody stated the team's answer, or it has none.
    assert not any(c.first for c in flips(calls, None, grader.equal).messages.values())


def test_samples_of_one_round_do_not_change_one_another(call, grader):
    first = [call("4", agent="a", sample=0), call("3", agent="a", sample=1)]
    second = [call("3", agent="a", round=1, sample=0), call("3", agent="a", round=1, sample=1)]
    found = flips([*first, *second], "3", grader.equal)
    # Both answers of the opening are first ones; then only sample 0 has another than before.
    assert [(t.kind, t.call_id) for t in found.turns] == [
        ("invented", first[0].call_id),
        ("invented", first[1].call_id),
        ("corrected", second[0].call_id),
    ]
    assert found.turns[2].before == first[0].call_id
