"""Each unified form: what is learned of it, and that it is right."""

import dataclasses
from pathlib import Path

import pytest

from arkjax.errors import ConfigError
from arkjax.synthesis.operations import StepReader
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.unified import NO_CORRECTION, NO_SYNTHESIZER, NOT_RIGHT, Unifier
from arkjax.tasks.problems import Grade
from arkjax.text.tokenizer import load_tokenizer
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit

pytestmark = pytest.mark.fast


# --- corrective -----------------------------------------------------------------------------------


def test_wrong_words_are_shown_and_not_learned(world):
    examples, counts = world.unify(form="corrective", fallback=False)
    assert len(examples) == counts.forms["made"] == counts.corrective > 20
    for example in examples:
        problem = world.problems[example.provenance["problem_id"]]
        spans = example.provenance["spans"]
        after = world.calls[spans[-1][0]]
        (wrong,) = [s for s in spans if not world.calls[s[0]].correct]
        name, start, end, place = wrong
        size = end - start
        assert example.target_weights == tuple(
            float(not place <= i < place + size) for i in range(len(example.target_ids))
        )
        # It is one step, of an earlier round, and the first that is wrong there.
        before = world.calls[name]
        assert before.agent == after.agent and before.round < after.round
        steps = StepReader.of(world.grader, world.tokenizer)(before)
        index = [(s.start, s.end) for s in steps].index((start, end))
        first = world.grader.first_wrong_step(problem, before.text)
        assert index == (len(steps) - 1 if first is None else first)
        # Without it and the connecting text stands the right answer.
        learned = [i for i, w in zip(example.target_ids, example.target_weights, strict=True) if w]
        at = learned.index(world.no[0])
        assert tuple(learned[:at] + learned[at + len(world.no) :]) == after.gen_ids
        assert world.grader.holds(problem, after.text)


def test_corrections_of_earlier_rounds_are_found_and_lost_with_them(world):
    """A record of last rounds alone, as AgentArk keeps, holds no correction."""
    assert world.unify(form="corrective", fallback=False)[1].forms["made"] > 20
    last = [(n, [c for c in calls if c.round == 2]) for n, calls in world.debates]
    examples, counts = world.unify(last, form="corrective", fallback=False)
    assert examples == [] and counts.forms == {NO_CORRECTION: counts.filters["form"].problems}


def test_a_correction_that_was_right_by_luck_is_not_made(world):
    """Two errors that cancel out give the right digit, and a step that is no correction."""
    problem = world.problem_of((("peak", 3, 2), ("peak", 5, 1)))
    wrong = world.said("peak 3 2 makes 3 total 3 ; peak 5 1 is 4 total 7 ; so 7", problem)
    other = world.said("peak 3 2 makes 3 sum 3 ; peak 5 1 makes 5 sum 8 ; so 8", problem, agent="b")
    lucky = world.said(
        "peak 3 2 is 4 total 4 ; peak 5 1 is 4 total 8 ; so 8",
        problem,
        round=1,
        parents=(wrong, other),
    )
    of, problems = [("p1", [wrong, other, lucky])], {"p1": problem}
    examples, counts = world.unify(of, problems, form="corrective", fallback=False)
    assert examples == [] and counts.forms == {NOT_RIGHT: 1}
    # Without gold nobody can know.
    assert len(world.unify(of, problems, {"p1": "8"}, form="corrective", gate="team")[0]) == 1


QWEN = load_tokenizer(Path(__file__).parents[1] / "golden" / "chat" / "qwen")


class Colon:
    """A grader of free text whose answer stands behind the last colon."""

    def extract(self, text):
        return text.rpartition(":")[2].strip(" .") or None

    def equal(self, a, b):
        return a == b

    def grade(self, problem, text):
        return Grade(self.extract(text) == problem.answer, self.extract(text), "compared")


@pytest.mark.parametrize("critic", [True, False])
def test_in_free_text_the_objection_is_in_its_own_words(world, critic):
    problem = dataclasses.replace(world.problem_of((("peak", 3, 2),)), question="?", answer="7")

    def says(text, answer, **where):
        return world.said(text, problem, tokenizer=QWEN, answer=answer, **where)

    wrong = says("We count.\nThen 3 * 2 = 5.\nAnswer: 6", "6")
    other = (
        dataclasses.replace(
            says("You multiply wrongly: 3 * 2 is 6.", None, agent="b"), parse_ok=True
        )
        if critic
        else says("Surely $3*2=6$, I say.\nAnswer: 7", "7", agent="b")
    )
    after = says("We count!\nThen 3 * 2 = 6.\nAnswer: 7", "7", round=1, parents=(wrong, other))
    config = SelectionConfig(1, 1, True, form="corrective", correction="\nNo.\n")
    (example,), _ = Unifier(config, Colon(), QWEN, {"p1": problem}, QWEN.encode)(
        [("p1", [wrong, other, after])], {}
    )
    objection = other.text if critic else "Surely $3*2=6$, I say.\n"
    expected = [
        ("We count!\n", 1.0),
        ("Then 3 * 2 = 5.\n", 0.0),
        ("\nNo.\n", 1.0),
        (objection, 1.0),
        ("Then 3 * 2 = 6.\nAnswer: 7", 1.0),
    ]
    assert QWEN.decode(example.target_ids) == "".join(text for text, _ in expected)
    shown = [i for i, w in zip(example.target_ids, example.target_weights, strict=True) if not w]
    assert QWEN.decode(shown) == "Then 3 * 2 = 5.\n"


def test_a_connecting_text_without_tokens_is_refused(world):
    with pytest.raises(ConfigError, match="synthesis.correction is 'n\u2603'.*tokenizer.model has"):
        world.unify(form="corrective", correction="n\u2603")


# --- consolidated ---------------------------------------------------------------------------------


def test_consolidated_traces_are_right_in_every_step(world):
    examples, counts = world.unify(form="consolidated", fallback=False)
    assert counts.forms["made"] == len(examples) > 15
    mixed = 0
    for example in examples:
        problem = world.problems[example.provenance["problem_id"]]
        assert world.grader.holds(problem, world.tokenizer.decode(example.target_ids[:-1]))
        assert example.target_weights is None
        assert all(world.calls[name].correct for name in example.provenance["call_ids"])
        mixed += len(example.provenance["call_ids"]) > 1
    assert mixed > 2
    # What cannot be made is counted, and its place taken by a recorded trace.
    filled, with_fallback = world.unify(form="consolidated")
    fell_back = with_fallback.forms["fell_back"]
    assert fell_back == counts.filters["form"].problems_dropped > 0
    assert len(filled) == len(examples) + fell_back
    kinds = [e.provenance["kind"] for e in filled]
    assert len(kinds) - kinds.count("consolidated") == fell_back


def test_a_step_comes_from_the_agent_with_the_most_credit_among_those_who_agree(world):
    problem = world.problem_of((("peak", 3, 2), ("peak", 5, 1)))
    texts = {
        "a": "peak 3 2 makes 3 total 3 ; peak 5 1 makes 5 total 8 ; so 8",
        "b": "peak 3 2 is 3 sum 3 ; peak 5 1 is 5 sum 8 ; so 8",
        # Right at the end, wrong in its first two steps.
        "c": "peak 3 2 is 5 sum 5 ; peak 5 1 is 3 sum 8 ; so 8",
    }
    calls = [world.said(text, problem, agent=agent) for agent, text in texts.items()]

    def made(**credit):
        agents = [
            AgentCredit("p1", name, value, 0.0, False, False) for name, value in credit.items()
        ]
        messages = [
            MessageCredit(c.call_id, "p1", c.agent, 0, 0.0, 0.0, False, False) for c in calls
        ]
        known = Attribution.of(messages, agents)
        (example,), _ = world.unify(
            [("p1", calls)], {"p1": problem}, form="consolidated", known=known
        )
        return example.provenance["kind"], world.tokenizer.decode(example.target_ids[:-1])

    assert made(a=2.0, b=1.0, c=0.0) == ("consolidated", texts["a"])
    assert made(a=1.0, b=2.0, c=0.0) == ("consolidated", texts["b"])
    # The last step is agreed on by all three, the others are not its author's.
    assert made(a=1.0, b=0.0, c=2.0) == ("consolidated", texts["a"])


def test_what_no_longer_holds_together_is_dropped(world):
    """Two agree on a pair of errors that cancel out: right to each of them, wrong by the grader."""
    problem = world.problem_of((("peak", 3, 2), ("peak", 5, 1)))
    text = "peak 3 2 is 4 total 4 ; peak 5 1 is 4 total 8 ; so 8"
    calls = [
        world.said(text, problem, agent="a"),
        world.said(text.replace("is", "makes"), problem, agent="b"),
    ]
    examples, counts = world.unify(
        [("p1", calls)], {"p1": problem}, form="consolidated", fallback=False
    )
    assert examples == [] and counts.forms == {NOT_RIGHT: 1}


# --- the synthesiser's text, and bare answers -----------------------------------------------------


def test_the_synthesizers_text_is_its_last_right_message(world):
    examples, counts = world.unify(form="synthesizer", fallback=False)
    assert examples and all(e.provenance["agent"] == "d" for e in examples)
    without, counts = world.unify(form="synthesizer", fallback=False, synthesizer=None)
    assert without == [] and counts.forms == {NO_SYNTHESIZER: counts.filters["form"].problems}


def test_bare_answers_are_the_last_step_alone(world):
    examples, _ = world.unify(form="answer_only", near_duplicates=0.5)
    best, _ = world.unify(form="best")
    assert len(examples) == len(best) > 25
    for bare, whole in zip(examples, best, strict=True):
        answer = world.problems[bare.provenance["problem_id"]].answer
        assert bare.target_ids == (*world.tokenizer.encode(f"so {answer}"), world.tokenizer.eos_id)
        assert whole.target_ids[-len(bare.target_ids) :] == bare.target_ids
