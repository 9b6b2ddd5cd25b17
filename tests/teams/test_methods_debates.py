"""Methods in which agents answer and answer again: who has read whom, and what ends it.

Each is told in lines "STAGE ROUND: SPEAKERS < WHAT THEY HAVE READ"; see `told` in conftest.py. Who
has no words of its own says "so 1", and 1 is right.
"""

from inspect import cleandoc

import pytest

from arkjax import teams
from arkjax.tasks.problems import Problem

pytestmark = pytest.mark.fast

EXPERTS = ("accountant", "watchman", "surveyor", "climber")


def header(prompt):
    """What a speaker is told of itself, below the transcript."""
    return prompt.rpartition("#")[2]


def each(*answers, round=0):
    """What the experts say in a round."""
    pairs = zip(EXPERTS, answers, strict=False)
    return {f"{name}@{round}": f"so {answer}" for name, answer in pairs}


# --- one round ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vanilla", "chain_of_thought"])
def test_one_agent_is_asked_once(follow, name):
    played = follow(f"{name}:max_tokens=9", {"answer": "so 2"})
    assert played.told == "opening 0: answer\n= 2, 1 calls"
    (agent,) = played.spec.agents
    assert (agent.sampling.temperature, agent.sampling.max_tokens) == (0.0, 9)


def test_vanilla(follow):
    assert follow("vanilla").prompts["answer@0"] == "#what is 1#answer:"
    assert follow("vanilla", {"answer": "hm"}).debate.answer is None


def test_chain_of_thought(follow):
    prompt = follow("chain_of_thought").prompts["answer@0"]
    assert prompt == "#what is 1#Let's think step by step.\nanswer:"


def test_self_consistency(follow):
    """Unreadable samples have no vote, and of equals the first counts."""
    words = {"answer@0/0": "hm", "answer@0/1": "so 2", "answer@0/3": "so 2"}
    played = follow("self_consistency:n=5", words)
    assert played.told == cleandoc("""
        opening 0: answer/0 answer/1 answer/2 answer/3 answer/4
        = 2, 5 calls""")
    assert played.debate.tied and set(played.prompts.values()) == {"#what is 1#answer:"}
    assert follow("self_consistency").debate.cost.calls == 8


def test_roles(follow):
    assert follow("roles", each(2, 3, 3, 2)).told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        = 2, 4 calls""")
    assert follow("roles:n=2", {"climber": "so 4"}).told == cleandoc("""
        opening 0: accountant/0 accountant/1 watchman/0 watchman/1 surveyor/0 surveyor/1 \
climber/0 climber/1
        = 1, 8 calls""")
    assert follow("roles:experts=ann+bob").told == "opening 0: ann bob\n= 1, 2 calls"


def test_judge(follow):
    """The judge has the last word, alone or wrong or not."""
    played = follow("judge", {"judge": "so 4"})
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        verdict 1: judge < accountant@0 watchman@0 surveyor@0 climber@0
        = 4, 5 calls""")
    assert played.spec.agent("judge").sampling.temperature == 0
    assert follow("judge", {"judge": "hm"}).debate.answer is None


# --- debates --------------------------------------------------------------------------------------


def test_debate(follow):
    """A fixed number of rounds even where all agree; the last answers vote."""
    played = follow("debate:rounds=3", each(2, 2, 2, 2) | each(3, 3, 1, 2, round=2))
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        rebuttal 1: accountant watchman surveyor climber < accountant@0 watchman@0 surveyor@0 \
climber@0
        rebuttal 2: accountant watchman surveyor climber < accountant@1 watchman@1 surveyor@1 \
climber@1
        = 3, 12 calls""")
    assert follow("debate").debate.cost.calls == 8
    assert follow("debate:rounds=1").debate.cost.calls == 4


def test_debate_judge(follow):
    played = follow("debate_judge", {"judge": "so 4"})
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        rebuttal 1: accountant watchman surveyor climber < accountant@0 watchman@0 surveyor@0 \
climber@0
        verdict 2: judge < accountant@1 watchman@1 surveyor@1 climber@1
        = 4, 9 calls""")
    heat = {agent.id: agent.sampling.temperature for agent in played.spec.agents}
    assert heat == dict.fromkeys(EXPERTS, 0.7) | {"judge": 0.0}
    assert follow("debate_judge:rounds=3").debate.cost.calls == 13


def test_sparse_debate(follow):
    """A ring: oneself and a neighbour on either side."""
    played = follow("sparse_debate", each(2, 2, 1, 3, round=2))
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        rebuttal 1: accountant < accountant@0 watchman@0 climber@0
        rebuttal 1: watchman < accountant@0 watchman@0 surveyor@0
        rebuttal 1: surveyor < watchman@0 surveyor@0 climber@0
        rebuttal 1: climber < accountant@0 surveyor@0 climber@0
        rebuttal 2: accountant < accountant@1 watchman@1 climber@1
        rebuttal 2: watchman < accountant@1 watchman@1 surveyor@1
        rebuttal 2: surveyor < watchman@1 surveyor@1 climber@1
        rebuttal 2: climber < accountant@1 surveyor@1 climber@1
        = 2, 12 calls""")
    wide = follow("sparse_debate:experts=a+b+c+d+e+f,reach=2,rounds=2").told
    assert "rebuttal 1: a < a@0 b@0 c@0 e@0 f@0" in wide and wide.endswith("12 calls")


def test_agentark(follow):
    """Five without roles debate until all agree, and who wrote last wrote the answer."""
    full = follow("agentark", {"agent-1": "so 2", "synthesiser": "so 3"})
    assert full.told == cleandoc("""
        opening 0: agent-1 agent-2 agent-3 agent-4 agent-5
        rebuttal 1: agent-1 agent-2 agent-3 agent-4 agent-5 < agent-1@0 agent-2@0 agent-3@0 \
agent-4@0 agent-5@0
        rebuttal 2: agent-1 agent-2 agent-3 agent-4 agent-5 < agent-1@1 agent-2@1 agent-3@1 \
agent-4@1 agent-5@1
        synthesis 3: synthesiser < agent-1@2 agent-2@2 agent-3@2 agent-4@2 agent-5@2
        = 3, 16 calls""")
    assert {agent.role for agent in full.spec.agents[:5]} == {"answer"}
    early = follow("agentark:agents=3,rounds=9", {"agent-1@0": "so 2", "synthesiser": "so 3"})
    assert early.told == cleandoc("""
        opening 0: agent-1 agent-2 agent-3
        rebuttal 1: agent-1 agent-2 agent-3 < agent-1@0 agent-2@0 agent-3@0
        synthesis 2: synthesiser < agent-1@1 agent-2@1 agent-3@1
        = 3, 7 calls, stopped by agree""")
    # Silence is no agreement.
    assert follow("agentark", {"agent-1": "hm"}).debate.stopped == ""
    assert follow("agentark").debate.cost.calls == 6


def test_group_debate(follow):
    """Full words within a group, summaries between groups, and one's own last answer."""
    played = follow("group_debate", each(2, 2, 3, 1, round=4))
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor climber
        rebuttal 1: accountant watchman < accountant@0 watchman@0
        rebuttal 1: surveyor climber < surveyor@0 climber@0
        summary 2: summary-1 < accountant@1 watchman@1
        summary 2: summary-2 < surveyor@1 climber@1
        exchange 3: accountant < accountant@1 summary-1@2 summary-2@2
        exchange 3: watchman < watchman@1 summary-1@2 summary-2@2
        exchange 3: surveyor < surveyor@1 summary-1@2 summary-2@2
        exchange 3: climber < climber@1 summary-1@2 summary-2@2
        rebuttal 4: accountant watchman < accountant@3 watchman@3
        rebuttal 4: surveyor climber < surveyor@3 climber@3
        = 2, 18 calls""")
    assert "80 words" in header(played.prompts["summary-1@2"])
    assert follow("group_debate:stages=1").debate.cost.calls == 8
    # Of an odd number the second group has one more.
    odd = follow("group_debate:experts=a+b+c+d+e,stages=3,rounds=1")
    assert odd.told.startswith(
        cleandoc("""
        opening 0: a b c d e
        summary 1: summary-1 < a@0 b@0
        summary 1: summary-2 < c@0 d@0 e@0""")
    )
    assert odd.debate.cost.calls == 3 * 5 + 2 * 2


def test_dylan_leaves_the_best_two(follow):
    """The ranker reads the second layer by numbers; only whom it names go on."""
    words = each(2, 3, 4, 2) | {"ranker": "[3, 1]", "surveyor@3": "so 5"}
    words |= each(2, 3, 4, 2, round=1) | {"accountant": "so 5", "surveyor@4": "so 6"}
    played = follow("dylan:rounds=5", words | {"surveyor@5": "so 5", "accountant@3": "so 6"})
    assert played.told == cleandoc("""
        first 0: accountant watchman surveyor climber
        second 1: accountant watchman surveyor climber < watchman@0 climber@0 surveyor@0 \
accountant@0
        ranking 2: ranker < accountant@1 climber@1 surveyor@1 watchman@1
        third 3: accountant surveyor < surveyor@1 accountant@1 watchman@1 climber@1
        later 4: accountant surveyor < surveyor@3 accountant@3
        later 5: accountant surveyor < accountant@4 surveyor@4
        = 5, 15 calls""")
    assert played.prompts["ranker@2"].startswith(
        "#what is 1#agent 1:so 2##agent 4:so 2##agent 3:so 4##agent 2:so 3#"
    )
    assert "#surveyor:so 4##accountant:so 2#" in played.prompts["accountant@3"]


def test_dylan_stops_by_consensus(follow):
    """More than two thirds: three of four, both of two."""
    apart, ranked = each(2, 3, 4, 5), {"ranker": "watchman > climber"}
    for words, rounds, calls, answer in (
        (each(1, 2, 2, 2), 1, 4, "2"),
        (apart | each(1, 2, 2, 2, round=1), 2, 8, "2"),
        (apart | each(1, 1, 2, 2, round=1) | ranked, 4, 11, "1"),
        # Those who have left count no more, whatever they said.
        (apart | each(1, 6, 1, 2, round=1) | ranked | each(1, 6, 1, 6, round=3), 4, 11, "6"),
    ):
        debate = follow("dylan:rounds=9", words).debate
        assert (debate.rounds, debate.cost.calls, debate.answer) == (rounds, calls, answer)
        assert debate.stopped == "agree"


def test_dylan_chooses_the_first_where_a_ranking_cannot_be_read(follow):
    words = each(2, 3, 4, 5) | each(2, 3, 4, 5, round=1)
    for ranking, chosen in (
        ("none", "accountant watchman"),
        ("[4, 2]", "watchman climber"),
        ("[9, agent 3]", "surveyor"),
    ):
        told = follow("dylan", words | {"ranker": ranking}).told
        assert f"third 3: {chosen} <" in told
    many = follow("dylan:top=3", words | {"ranker": "[4, 1, 2, 3]"}).told
    assert "third 3: accountant watchman climber <" in many


def test_dylan_shuffles_anew_and_alike_for_all(world):
    spec, problems = teams.load("dylan"), [Problem(f"q{i}", "q", "1", "t", "d") for i in range(12)]
    played = world.play(spec, problems, world.Model(say=lambda r, draw: f"so {r.seed % 997}"))
    orders = set()
    for debate in played:
        second = [call for call in debate.calls if call.stage == "second"]
        (order,) = {call.parents for call in second}
        orders.add(tuple([c.call_id for c in debate.calls].index(parent) for parent in order))
    assert len(orders) > 6 and all(sorted(order) == [0, 1, 2, 3] for order in orders)


def test_mad(follow):
    """One after the other; each reads the whole dispute; the sides never read the moderator."""
    played = follow(
        "mad:rounds=3", {"moderation": "so 2, verdict: no", "judge@9": "1 or 2", "judge@10": "so 3"}
    )
    assert played.told == cleandoc("""
        thesis 0: affirmative
        antithesis 1: negative < affirmative@0
        moderation 2: moderator < affirmative@0 negative@1
        affirm 3: affirmative < affirmative@0 negative@1
        oppose 4: negative < affirmative@0 negative@1 affirmative@3
        moderation 5: moderator < affirmative@0 negative@1 moderator@2 affirmative@3 negative@4
        affirm 6: affirmative < affirmative@0 negative@1 affirmative@3 negative@4
        oppose 7: negative < affirmative@0 negative@1 affirmative@3 negative@4 affirmative@6
        moderation 8: moderator < affirmative@0 negative@1 moderator@2 affirmative@3 negative@4 \
moderator@5 affirmative@6 negative@7
        candidates 9: judge < affirmative@0 negative@1 affirmative@3 negative@4 affirmative@6 \
negative@7
        decision 10: judge < affirmative@0 negative@1 affirmative@3 negative@4 affirmative@6 \
negative@7 judge@9
        = 3, 11 calls""")
    assert "You disagree with the other side." in header(played.prompts["negative@1"])
    for later in ("affirmative@3", "negative@4", "affirmative@6", "negative@7"):
        assert "Do you agree with the other side?" in header(played.prompts[later])
    assert follow("mad", {"moderator": "so 2 no"}).debate.cost.calls == 8


def test_mad_ends_when_the_moderator_is_decided(follow):
    """Its answer counts then, and no judge is asked; an unreadable verdict decides nothing."""
    first = follow("mad", {"moderator": "so 2, verdict: yes"})
    assert first.told.endswith("= 2, 3 calls, stopped by moderation.verdict")
    second = follow(
        "mad:sides=ann+bob", {"moderator@2": "so 3 perhaps", "moderator@5": "so 2, yes"}
    )
    assert second.told.endswith(
        "moderation 5: moderator < affirmative@0 negative@1 moderator@2 affirmative@3 negative@4\n"
        "= 2, 6 calls, stopped by moderation.verdict"
    )
    assert "#ann:so 1##bob:so 1##judge:so 3 perhaps#" in second.prompts["moderator@5"]


def test_reconcile(follow):
    """All read all by numbers, confidences as they were stated; the scaled ones vote."""
    words = {
        "accountant": "so 2 confidence: 1.0",
        "watchman": "so 1 confidence: 0.85",
        "surveyor": "so 1, Confidence: .61",
    }
    played = follow("reconcile:rounds=2", words)
    assert played.told == cleandoc("""
        opening 0: accountant watchman surveyor
        discussion 1: accountant watchman surveyor < accountant@0 watchman@0 surveyor@0
        discussion 2: accountant watchman surveyor < accountant@1 watchman@1 surveyor@1
        = 2, 9 calls""")
    assert played.prompts["watchman@1"].startswith(
        "#what is 1#agent 1:so 2 confidence: 1.0##agent 2:so 1 confidence: 0.85#"
    )
    agreed = follow("reconcile", words | {"accountant@1": "so 1 confidence: 0.1"})
    assert agreed.told.endswith("= 1, 6 calls, stopped by agree")
    assert follow("reconcile", {"opening": "so 1"}).debate.cost.calls == 3


@pytest.mark.parametrize(
    ("alone", "two", "answer"),
    [
        # 1 against .5 + .3, .8 against .5 + .3, .5 against .3 + .3, .3 against .1 + .1.
        ("1", ("0.8", "0.7"), "2"),
        ("0.95", ("0.8", "0.7"), "1"),
        ("0.95", ("0.7", "0.7"), "2"),
        ("0.85", ("0.7", "0.7"), "1"),
        ("0.61", ("0.6", "0.6"), "2"),
        ("0.6", ("0.5", "0"), "1"),
        # What cannot be read counts nothing: 85 is no confidence, and no 1 begins in 15.
        ("0.1", ("85%", "15%"), "2"),
        ("0.1", ("1.5", "high"), "2"),
        ("100", ("10", "12"), "1"),
    ],
)
def test_reconcile_counts_scaled_confidences(follow, alone, two, answer):
    words = {
        "accountant": f"so 2 confidence: {alone}.",
        "watchman": f"so 1 confidence: {two[0]}",
        "surveyor": f"so 1 confidence: {two[1]}",
    }
    assert follow("reconcile:rounds=0", words).debate.answer == answer


def test_reconcile_is_of_different_models(follow):
    played = follow("reconcile:models=x+y,rounds=0")
    assert [call.model for call in played.debate.calls] == ["x", "y", "x"]
    assert played.spec.models == ("x", "y")


def test_mixture_of_agents(follow):
    """Each layer reads all of the layer before, by numbers; the aggregator's words are the end."""
    played = follow("mixture_of_agents:layers=4,proposers=ann+bob+cid", {"aggregator": "so 2"})
    assert played.told == cleandoc("""
        propose 0: ann bob cid
        refine 1: ann bob cid < ann@0 bob@0 cid@0
        refine 2: ann bob cid < ann@1 bob@1 cid@1
        aggregate 3: aggregator < ann@2 bob@2 cid@2
        = 2, 10 calls""")
    assert played.prompts["bob@2"].startswith("#what is 1#agent 1:so 1##agent 2:so 1##agent 3:")
    orders = {header(played.prompts[name]).partition("\n")[0] for name in ("bob@2", "aggregator@3")}
    assert len(orders) == 1 and "evaluate them critically" in orders.pop()
    lite = follow("mixture_of_agents:layers=2,models=x+y,aggregator=z")
    assert [call.model for call in lite.debate.calls] == ["x", "y", "x", "y", "z"]
    assert follow("mixture_of_agents").debate.cost.calls == 9
