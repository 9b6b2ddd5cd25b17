"""Methods in which agents have tasks of their own: instruct, criticise, verify, hand over, rank.

Each is told in lines "STAGE ROUND: SPEAKERS < WHAT THEY HAVE READ"; see `told` in conftest.py. Who
has no words of its own says "so 1", and 1 is right.
"""

from inspect import cleandoc

import pytest

from arkjax.teams.graphs import SHAPES, edges, leaves

pytestmark = pytest.mark.fast


def header(prompt):
    """What a speaker is told of itself, below the transcript."""
    return prompt.rpartition("#")[2]


# --- one agent and its critic ---------------------------------------------------------------------


def test_self_refine(follow):
    """Feedback reads the answer at hand, the refinement all answers and feedback so far."""
    played = follow("self_refine", {"feedback": "verdict: no", "author@6": "so 2"})
    assert played.told == cleandoc("""
        draft 0: author
        feedback 1: author < author@0
        refine 2: author < author@0 author@1
        feedback 3: author < author@2
        refine 4: author < author@0 author@1 author@2 author@3
        feedback 5: author < author@4
        refine 6: author < author@0 author@1 author@2 author@3 author@4 author@5
        = 2, 7 calls""")
    assert header(played.prompts["author@0"]) == "answer:"


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        ({"author@0": "so 2", "author@1": "verdict: yes"}, "= 2, 2 calls"),
        (
            {"author@1": "no", "author@2": "so 2", "author@3": "it is correct"},
            "feedback 3: author < author@2\n= 2, 4 calls",
        ),
        # What says neither yes nor no finds no end, and the last refinement is made as well.
        ({"feedback": "hm", "author@4": "so 2"}, "refine 4: author < author@0 author@1 author@2"),
    ],
)
def test_self_refine_ends_when_nothing_is_left_to_improve(follow, words, ending):
    name = "self_refine:iterations=2" if "feedback" in words else "self_refine"
    told = follow(name, words).told
    if "feedback" in words:
        assert told == cleandoc("""
            draft 0: author
            feedback 1: author < author@0
            refine 2: author < author@0 author@1
            feedback 3: author < author@2
            refine 4: author < author@0 author@1 author@2 author@3
            = 2, 5 calls""")
    else:
        assert told.endswith(f"{ending}, stopped by feedback.verdict")


def test_critic(follow):
    """Both read all that was said; the solver closes with what the critic found right."""
    words = {"critic": "so low", "critic@3": "so right", "solver@2": "so 2", "solver@4": "so 2"}
    played = follow("critic:checks=3", words)
    assert played.told == cleandoc("""
        opening 0: solver
        check 1: critic < solver@0
        revise 2: solver < solver@0 critic@1
        check 3: critic < solver@0 critic@1 solver@2
        revise 4: solver < solver@0 critic@1 solver@2 critic@3
        = 2, 5 calls, stopped by check.verdict""")
    heat = {agent.id: agent.sampling.temperature for agent in played.spec.agents}
    assert heat == {"solver": 0.7, "critic": 0.0} and not played.spec.uses_oracle
    # Without a verdict that it knows it goes on to the last check.
    assert follow("critic").told.endswith("= 1, 5 calls")
    done = follow("critic:right=fine,others=poor", {"critic": "so fine"})
    assert done.told.endswith("= 1, 3 calls, stopped by check.verdict")


def test_reflexion(follow):
    """The actor reads its latest reflections alone, the reflector the latest trial alone."""
    played = follow("reflexion:memory=2", {"actor": "so 2"})
    assert played.told == cleandoc("""
        trial 0: actor
        reflection 1: reflector < actor@0
        trial 2: actor < reflector@1
        reflection 3: reflector < actor@2
        trial 4: actor < reflector@1 reflector@3
        reflection 5: reflector < actor@4
        trial 6: actor < reflector@3 reflector@5
        = 2, 7 calls""")
    assert played.spec.uses_oracle and not played.debate.correct
    assert follow("reflexion:trials=6", {"actor": "so 2"}).told.endswith(
        "trial 10: actor < reflector@5 reflector@7 reflector@9\n= 2, 11 calls"
    )


def test_reflexion_ends_when_the_gold_answer_is_found(follow):
    assert follow("reflexion").told == "trial 0: actor\n= 1, 1 calls, stopped by oracle"
    # No answer is a failure as well.
    third = follow("reflexion", {"actor@0": "so 2", "actor@2": "hm"})
    assert third.told.endswith(
        "trial 4: actor < reflector@1 reflector@3\n= 1, 5 calls, stopped by oracle"
    )


def test_content_pipeline(follow):
    played = follow("content_pipeline", {"critic": "Style: 7\nFaithfulness: 8"})
    assert played.told == cleandoc("""
        plan 0: planner
        write 1: writer < planner@0
        review 2: critic < writer@1
        write 3: writer < planner@0 writer@1 critic@2
        review 4: critic < writer@3
        write 5: writer < planner@0 writer@3 critic@4
        review 6: critic < writer@5
        = 1, 7 calls""")
    good = {"critic": "Style: 7\nFaithfulness: 9", "writer": "so 2"}
    ended = follow("content_pipeline", good)
    assert ended.told.endswith("review 2: critic < writer@1\n= 2, 3 calls, stopped by review.score")
    assert follow("content_pipeline:score=8.5,drafts=2", good).debate.cost.calls == 5


# --- who speaks next ------------------------------------------------------------------------------


def test_camel(follow):
    """The user instructs, the assistant answers what it is told last; both read all."""
    played = follow("camel", {"assistant@5": "so 2"})
    assert played.told == cleandoc("""
        instruct 0: user
        solve 1: assistant < user@0
        instruct 2: user < user@0 assistant@1
        solve 3: assistant < user@0 assistant@1 user@2
        instruct 4: user < user@0 assistant@1 user@2 assistant@3
        solve 5: assistant < user@0 assistant@1 user@2 assistant@3 user@4
        = 2, 6 calls""")
    assert "never the assistant" in header(played.prompts["user@4"])
    assert "never the user" in header(played.prompts["assistant@5"])


def test_camel_ends_when_the_user_is_content(follow):
    """The assistant answers that as well; where it says no more, its former answer counts."""
    words = {"user@2": "CAMEL_TASK_DONE", "assistant@1": "so 2", "assistant@3": "Thank you"}
    played = follow("camel:turns=9,user=ann,assistant=bob", words)
    assert played.told == cleandoc("""
        instruct 0: user
        solve 1: assistant < user@0
        instruct 2: user < user@0 assistant@1
        solve 3: assistant < user@0 assistant@1 user@2
        = 2, 4 calls, stopped by instruct.done""")
    assert played.prompts["user@2"].startswith("#what is 1#ann:so 1##bob:so 2#")


def test_camel_can_make_its_task_more_specific(follow):
    """Beside the question, which goes on to open every prompt."""
    played = follow("camel:specify=1,turns=1", {"specifier": "what exactly"})
    assert played.told == cleandoc("""
        specify 0: specifier
        instruct 1: user < specifier@0
        solve 2: assistant < specifier@0 user@1
        = 1, 3 calls""")
    assert "#what is 1#task:what exactly#" in played.prompts["user@1"]


def test_selected_speaker(follow):
    """A manager reads the conversation before each turn, and nobody reads the manager."""
    words = {"manager@0": "Watchman.", "manager@2": "climber", "manager@4": "climber"}
    played = follow("selected_speaker:turns=3", words | {"climber@5": "so 2"})
    assert played.told == cleandoc("""
        selection 0: manager
        talk 1: watchman
        selection 2: manager < watchman@1
        talk 3: climber < watchman@1
        selection 4: manager < watchman@1 climber@3
        talk 5: climber < watchman@1 climber@3
        = 2, 6 calls""")
    ended = follow("selected_speaker", words | {"climber@3": "so 2 TERMINATE"})
    assert ended.told.endswith("talk 3: climber < watchman@1\n= 2, 4 calls, stopped by talk.done")


def test_selected_speaker_goes_on_where_nobody_is_selected(follow):
    """Asked three times in vain, or for one who is no expert, who has spoken least speaks."""
    words = {
        "manager@0": "accountant",
        "manager@2/0": "?",
        "manager@2/1": "you",
        "manager@2/2": "he",
        "manager@4/0": "?",
        "manager@4/1": "surveyor",
        "manager@6": "the manager",
    }
    assert follow("selected_speaker", words).told == cleandoc("""
        selection 0: manager
        talk 1: accountant
        selection 2: manager/0 manager/1 manager/2 < accountant@1
        talk 3: watchman < accountant@1
        selection 4: manager/0 manager/1 < accountant@1 watchman@3
        talk 5: surveyor < accountant@1 watchman@3
        selection 6: manager < accountant@1 watchman@3 surveyor@5
        talk 7: climber < accountant@1 watchman@3 surveyor@5
        = 1, 11 calls""")


def test_handover(follow):
    """One at a time, each reading all that was said, until one answers and hands on no more."""
    words = {"triage": "climber", "climber": "so 3\nHANDOFF: watchman", "watchman": "so 2"}
    played = follow("handover", words)
    assert played.told == cleandoc("""
        triage 0: triage
        work 1: climber < triage@0
        work 2: watchman < triage@0 climber@1
        = 2, 3 calls, stopped by work.next""")
    assert "accountant, watchman, surveyor, climber" in header(played.prompts["watchman@2"])
    once = follow("handover", {"triage": "surveyor"})
    assert once.told.endswith("work 1: surveyor < triage@0\n= 1, 2 calls, stopped by work.next")


def test_handover_has_a_bound(follow):
    """The last answer counts then; of two names the last one, and for no one's name who is next."""
    words = {
        "triage": "anybody",
        "accountant@1": "HANDOFF: climber\nHANDOFF: surveyor",
        "surveyor@2": "so 4 HANDOFF: bishop",
        "accountant@3": "HANDOFF: watchman",
        "watchman@3": "HANDOFF: climber",
    }
    assert follow("handover", words).told == cleandoc("""
        triage 0: triage
        work 1: accountant < triage@0
        work 2: surveyor < triage@0 accountant@1
        work 3: watchman < triage@0 accountant@1 surveyor@2
        = 4, 4 calls""")


# --- teams that form themselves -------------------------------------------------------------------


def test_agentverse(follow):
    """Recruit, solve, review until all agree, evaluate; what is wrong opens the next turn."""
    words = {
        "recruiter@0": '{"solver": "You add.", "critic-1": "You doubt.", "critic-2": "You dare."}',
        "critique": "verdict: no",
        "evaluator@6": "Look again. verdict: no",
        "recruiter@7": 'Here: {"solver": "You subtract.", "critic-2": "You sleep."}',
        "evaluator@13": "verdict: no",
        "solver@12": "so 2",
    }
    played = follow("agentverse", words)
    assert played.told == cleandoc("""
        recruit 0: recruiter
        solve 1: solver
        critique 2: critic-1 critic-2 < solver@1
        revise 3: solver < solver@1 critic-1@2 critic-2@2
        critique 4: critic-1 critic-2 < solver@3
        revise 5: solver < solver@3 critic-1@4 critic-2@4
        evaluate 6: evaluator < recruiter@0 solver@5
        recruit 7: recruiter < evaluator@6
        solve 8: solver < solver@5 evaluator@6
        critique 9: critic-1 critic-2 < evaluator@6 solver@8
        revise 10: solver < evaluator@6 solver@8 critic-1@9 critic-2@9
        critique 11: critic-1 critic-2 < evaluator@6 solver@10
        revise 12: solver < evaluator@6 solver@10 critic-1@11 critic-2@11
        evaluate 13: evaluator < recruiter@7 solver@12
        = 2, 18 calls""")
    roles = {
        "solver@1": "You add.",
        "solver@5": "You add.",
        "critic-2@4": "You dare.",
        "solver@8": "You subtract.",
        "critic-2@9": "You sleep.",
        # Whom the second recruitment leaves out keeps the role of the first.
        "critic-1@11": "You doubt.",
    }
    for name, role in roles.items():
        assert header(played.prompts[name]).startswith(role)


def test_agentverse_ends_by_consensus_and_by_approval(follow):
    """All critics must agree, and what cannot be read does not; the evaluator ends the whole."""
    agreed = follow("agentverse", {"critique": "I agree: yes", "evaluator": "yes"})
    assert agreed.told == cleandoc("""
        recruit 0: recruiter
        solve 1: solver
        critique 2: critic-1 critic-2 < solver@1
        evaluate 3: evaluator < recruiter@0 solver@1
        = 1, 5 calls, stopped by evaluate.verdict""")
    # A recruitment that cannot be read leaves experts by their bylines.
    assert header(agreed.prompts["critic-1@2"]).endswith("\naccountant:")
    assert "so 1" not in header(agreed.prompts["solver@1"])
    half = {"critic-1": "yes", "critic-2@2": "hm", "critic-2@4": "agreed", "evaluator@5": "yes"}
    assert follow("agentverse", half).told == cleandoc("""
        recruit 0: recruiter
        solve 1: solver
        critique 2: critic-1 critic-2 < solver@1
        revise 3: solver < solver@1 critic-1@2 critic-2@2
        critique 4: critic-1 critic-2 < solver@3
        evaluate 5: evaluator < recruiter@0 solver@3
        = 1, 8 calls, stopped by evaluate.verdict""")
    assert follow("agentverse:critics=ann,turns=1,reviews=1").debate.cost.calls == 5


def test_macnet_on_a_chain(follow):
    """A critic on every edge, and each actor rewrites what the one before it has made."""
    played = follow("macnet", {"merger": "so 2"})
    assert played.told == cleandoc("""
        work 0: actor-0
        work 0: actor-1 < actor-0@0 critic-0-1@0
        work 0: actor-2 < actor-1@0 critic-1-2@0
        work 0: actor-3 < actor-2@0 critic-2-3@0
        work 0: critic-0-1 < actor-0@0
        work 0: critic-1-2 < actor-1@0
        work 0: critic-2-3 < actor-2@0
        work 0: critic-3-4 < actor-3@0
        merge 1: merger < actor-3@0 critic-3-4@0
        = 2, 9 calls""")
    bylines = [agent.name for agent in played.spec.agents if agent.id.startswith("actor")]
    assert bylines == ["accountant", "watchman", "surveyor", "climber"]


def test_macnet_on_layers(follow):
    """All wait for all who come before them, and who makes the last solutions is merged."""
    assert follow("macnet:topology=mlp,experts=ann+bob").told == cleandoc("""
        work 0: actor-0 actor-1
        work 0: actor-2 < actor-0@0 actor-1@0 critic-0-2@0 critic-1-2@0
        work 0: actor-3 < actor-0@0 actor-1@0 critic-0-3@0 critic-1-3@0
        work 0: critic-0-2 critic-0-3 < actor-0@0
        work 0: critic-1-2 critic-1-3 < actor-1@0
        work 0: critic-2-4 < actor-2@0
        work 0: critic-3-4 < actor-3@0
        merge 1: merger < actor-2@0 actor-3@0 critic-2-4@0 critic-3-4@0
        = 1, 11 calls""")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nodes", [1, 2, 6])
def test_macnet_on_every_shape(follow, shape, nodes):
    """On each edge goes a solution and its review, and on no other way anything."""
    debate = follow(f"macnet:topology={shape},nodes={nodes},seed=4").debate
    author = {call.call_id: call.agent for call in debate.calls}
    read = {call.agent: {author[parent] for parent in call.parents} for call in debate.calls}
    pairs, ends = edges(shape, nodes, 4), leaves(shape, nodes, 4)
    for node in range(nodes):
        before = [i for i, j in pairs if j == node]
        assert read[f"actor-{node}"] == {f"actor-{i}" for i in before} | {
            f"critic-{i}-{node}" for i in before
        }
    assert read["merger"] == {f"actor-{i}" for i in ends} | {f"critic-{i}-{nodes}" for i in ends}
    assert all(read[f"critic-{i}-{j}"] == {f"actor-{i}"} for i, j in pairs)
    assert len(debate.calls) == nodes + len(pairs) + len(ends) + 1


# --- verification ---------------------------------------------------------------------------------


def test_mav(follow):
    """Every verifier reads every candidate alone; the one with most approvals is the answer."""
    words = {"generator@0/0": "so 2", "generator@0/1": "so 1", "verify": "verdict: no"}
    words |= {"verifier-units@1/0": "verdict: yes"}
    words |= {"verifier-steps@1/1": "yes", "verifier-edges@1/1": "It is correct."}
    played = follow("mav:n=2", words)
    assert played.told == cleandoc("""
        propose 0: generator/0 generator/1
        verify 1: verifier-steps/0 < generator@0/0
        verify 1: verifier-steps/1 < generator@0/1
        verify 1: verifier-units/0 < generator@0/0
        verify 1: verifier-units/1 < generator@0/1
        verify 1: verifier-summary/0 < generator@0/0
        verify 1: verifier-summary/1 < generator@0/1
        verify 1: verifier-edges/0 < generator@0/0
        verify 1: verifier-edges/1 < generator@0/1
        verify 1: verifier-mistakes/0 < generator@0/0
        verify 1: verifier-mistakes/1 < generator@0/1
        = 1, 12 calls""")
    assert {c.sampling["temperature"] for c in played.debate.calls[2:]} == {0.0}
    assert "quantities and their units" in header(played.prompts["verifier-units@1/1"])


def test_mav_selects_a_solution_and_not_a_vote(follow):
    """Three equal answers lose to one that is approved of; of equals the first counts."""
    alike = {f"generator@0/{i}": "so 3" for i in range(3)} | {"generator@0/3": "so 2"}
    approved = follow("mav", alike | {"verify": "no", "verifier-steps@1/3": "yes"})
    assert (approved.debate.answer, approved.debate.cost.calls) == ("2", 24)
    # What cannot be read is no approval.
    unread = {f"verifier-{name}@1/3": "hm" for name in ("steps", "units", "edges", "mistakes")}
    unread |= {"verify": "no", "verifier-summary@1/3": "yes", "verifier-steps@1/1": "yes"}
    tied = follow("mav", alike | unread).debate
    assert (tied.answer, tied.tied) == ("3", True)
