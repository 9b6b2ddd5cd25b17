"""Methods that write programs and test them: the programs run isolated, against real tests.

Each is told in lines "STAGE ROUND: SPEAKERS < WHAT THEY HAVE READ"; see `told` in conftest.py. Who
has no words of its own says "so 1", which is no program.
"""

import os
from inspect import cleandoc

import pytest

from arkjax.tools.python_runner import can_isolate

pytestmark = [
    pytest.mark.fast,
    pytest.mark.skipif(
        bool(can_isolate()) and "ARKJAX_PARITY" not in os.environ, reason=can_isolate()
    ),
]

TESTS = {"public_tests": ["assert f(1) == 2", "assert f(5) == 6"], "entry_point": "f"}


def program(result, answer):
    """A message with a program that gives `result` of x; `answer` is the last number beside it."""
    return f"By the plan:\n```python\ndef f(x):\n    return {result}\n```\nso {answer}"


RIGHT, WRONG = program("x + 1", 1), program("x", 2)


def header(prompt):
    """What a speaker is told of itself, below the transcript."""
    return prompt.rpartition("#")[2]


def results(debate):
    """Whether each run of the tests passed, in order."""
    return [call.parsed["passed"] for call in debate.calls if call.is_action]


# --- MapCoder -------------------------------------------------------------------------------------


def test_mapcoder_codes_the_best_plan_first(follow):
    words = {"rater@2/0": "Confidence: 40", "rater@2/1": "Confidence: 90", "coder": RIGHT}
    played = follow("mapcoder", words, **TESTS)
    assert played.told == cleandoc("""
        recall 0: retriever
        plan 1: planner/0 planner/1 < retriever@0
        rate 2: rater/0 < planner@1/0
        rate 2: rater/1 < planner@1/1
        code 3: coder < planner@1/1
        test 4: runner < coder@3
        = 1, 6 calls, stopped by test.passed""")
    assert results(played.debate) == ["yes"]
    assert "Repeat the plan" in header(played.prompts["coder@3"])


def test_mapcoder_debugs_each_plan_in_turn(follow):
    """Of equal plans the first; the debugger reads the program at hand and its test results."""
    played = follow("mapcoder", {"coder": WRONG, "coder@13": program("x + 3", 3)}, **TESTS)
    assert played.told == cleandoc("""
        recall 0: retriever
        plan 1: planner/0 planner/1 < retriever@0
        rate 2: rater/0 < planner@1/0
        rate 2: rater/1 < planner@1/1
        code 3: coder < planner@1/0
        test 4: runner < coder@3
        debug 5: coder < coder@3 runner@4
        test 6: runner < coder@5
        debug 7: coder < coder@5 runner@6
        test 8: runner < coder@7
        code 9: coder < planner@1/1
        test 10: runner < coder@9
        debug 11: coder < coder@9 runner@10
        test 12: runner < coder@11
        debug 13: coder < coder@11 runner@12
        test 14: runner < coder@13
        = 3, 11 calls""")
    assert results(played.debate) == ["no"] * 6 and played.debate.cost.actions == 6
    debugging = played.prompts["coder@5"]
    assert f"#answer:{WRONG}##tests:0 of 2 tests passed" in debugging
    assert "expected: 2\ngot: 1" in debugging and "Find the mistake" in header(debugging)


@pytest.mark.parametrize(
    ("words", "tests", "calls"),
    [
        ({"coder@5": RIGHT}, "no yes", 7),
        ({"coder@7": RIGHT}, "no no yes", 8),
        ({"coder@9": RIGHT}, "no no no yes", 9),
        ({"coder@13": RIGHT}, "no no no no no yes", 11),
        # A message without a program is none that passes, whatever stood in those before it.
        ({"coder@5": "so 3", "coder@7": "```python\nwhile", "coder@9": RIGHT}, "no no no yes", 9),
    ],
)
def test_mapcoder_ends_when_the_tests_pass(follow, words, tests, calls):
    debate = follow("mapcoder", {"coder": WRONG} | words, **TESTS).debate
    assert results(debate) == tests.split()
    assert (debate.cost.calls, debate.answer) == (calls, "1")
    # What passes in the very last place ends nothing early.
    assert debate.stopped == ("test.passed" if calls < 11 else "")


def test_mapcoder_rates_by_numbers_alone(follow):
    """A rating that cannot be read comes last, and plans may be more."""
    words = {"rater@2/0": "quite", "rater@2/1": "Confidence: 5", "rater@2/2": "Confidence: 60/100"}
    told = follow("mapcoder:plans=3,fixes=0", words | {"coder": WRONG}, **TESTS).told
    assert told.endswith(
        cleandoc("""
        code 3: coder < planner@1/2
        test 4: runner < coder@3
        code 5: coder < planner@1/1
        test 6: runner < coder@5
        code 7: coder < planner@1/0
        test 8: runner < coder@7
        = 2, 10 calls""")
    )


def test_without_public_tests_a_program_passes_that_runs(follow):
    failing = {"coder": "```python\n1 / 0\n```\nso 1", "programmer": "```python\n1 / 0\n```"}
    for words, passed in (({"coder": WRONG, "programmer": WRONG}, "yes"), (failing, "no")):
        for name in ("mapcoder:plans=1,fixes=0", "chatdev:fixes=1", "evomac:iterations=1"):
            played = follow(name, {"code": words["coder"], **words})
            assert results(played.debate)[0] == passed, name


# --- ChatDev --------------------------------------------------------------------------------------


def test_chatdev_when_all_goes_well(follow):
    """Each phase reads what those before it have yielded, and no talk."""
    words = {"programmer": RIGHT, "reviewer": "Nothing to mend. Verdict: yes"}
    played = follow("chatdev", words, **TESTS)
    assert played.told == cleandoc("""
        demand 0: cpo
        language 1: cto < cpo@0
        code 2: programmer < cpo@0 cto@1
        review 3: reviewer < programmer@2
        test 4: runner < programmer@2
        manual 5: cpo < programmer@2
        = 1, 5 calls, stopped by test.passed""")
    for name, asks in (("cpo@0", "The CEO asks"), ("programmer@2", "The CTO asks")):
        assert asks in header(played.prompts[name])


def test_chatdev_when_nothing_does(follow):
    """Each review ends in a rework, each failed test in a summary and a fix."""
    words = {"programmer": WRONG, "reviewer": "Verdict: no", "programmer@12": program("x - 1", 3)}
    played = follow("chatdev", words, **TESTS)
    assert played.told == cleandoc("""
        demand 0: cpo
        language 1: cto < cpo@0
        code 2: programmer < cpo@0 cto@1
        review 3: reviewer < programmer@2
        rework 4: programmer < programmer@2 reviewer@3
        review 5: reviewer < programmer@4
        rework 6: programmer < programmer@4 reviewer@5
        test 7: runner < programmer@6
        summary 8: debugger < programmer@6 runner@7
        fix 9: programmer < programmer@6 runner@7 debugger@8
        test 10: runner < programmer@9
        summary 11: debugger < programmer@9 runner@10
        fix 12: programmer < programmer@9 runner@10 debugger@11
        manual 13: cpo < programmer@12
        = 3, 12 calls""")
    assert results(played.debate) == ["no", "no"]
    assert header(played.prompts["debugger@8"]).startswith("You are the programmer.\nThe test eng")


@pytest.mark.parametrize(
    ("words", "tests", "stages"),
    [
        ({"reviewer": "no", "reviewer@5": "yes"}, "yes", "review rework review test"),
        ({"reviewer": "hm"}, "yes", "review rework review rework test"),
        (
            {"reviewer": "yes", "programmer@2": WRONG},
            "no yes",
            "review test summary fix test",
        ),
        (
            {"reviewer": "yes", "programmer@2": WRONG, "programmer@6": "I cannot."},
            "no no",
            "review test summary fix test summary fix",
        ),
    ],
)
def test_chatdev_ends_reviews_and_fixes(follow, words, tests, stages):
    debate = follow("chatdev", {"programmer": RIGHT} | words, **TESTS).debate
    assert results(debate) == tests.split()
    played = [call.stage for call in debate.calls]
    assert played == ["demand", "language", "code", *stages.split(), "manual"]
    assert debate.answer == "1"


def test_chatdev_has_bounds(follow):
    words = {"programmer": WRONG, "reviewer": "no"}
    played = [c.stage for c in follow("chatdev:reviews=1,fixes=3", words, **TESTS).debate.calls]
    assert (played.count("review"), played.count("rework")) == (1, 1)
    assert (played.count("test"), played.count("summary"), played.count("fix")) == (3, 3, 3)


# --- EvoMAC ---------------------------------------------------------------------------------------

PARTS = '{"coder-1": "You write f.", "coder-2": "You check f."}'


def test_evomac(follow):
    """Coders write one after the other; where tests fail, blame leads to new parts for them."""
    words = {
        "organiser": PARTS,
        "code": WRONG,
        "updater": '{"coder-2": "You add one."}',
        "coder-2@7": RIGHT,
    }
    played = follow("evomac", words, **TESTS)
    assert played.told == cleandoc("""
        organise 0: organiser
        code 1: coder-1
        code 1: coder-2 < coder-1@1
        plan_tests 2: test-organiser
        write_tests 3: tester < coder-1@1 coder-2@1 test-organiser@2
        test 4: runner < coder-1@1 coder-2@1
        blame 5: gradient < organiser@0 coder-1@1 coder-2@1 tester@3 runner@4
        update 6: updater < organiser@0 gradient@5
        code 7: coder-1 < coder-1@1 coder-2@1
        code 7: coder-2 < coder-2@1 coder-1@7
        test 8: runner < coder-1@7 coder-2@7
        = 1, 9 calls""")
    assert results(played.debate) == ["no", "yes"]
    roles = {
        "coder-1@1": "You write f.",
        "coder-2@1": "You check f.",
        # Whom the update leaves out keeps its part.
        "coder-1@7": "You write f.",
        "coder-2@7": "You add one.",
    }
    for name, role in roles.items():
        assert header(played.prompts[name]).startswith(role)


def test_evomac_ends_when_the_tests_pass(follow):
    """The last coder's program is the one that is tested, and its answer counts."""
    words = {"organiser": "You all know.", "coder-1": WRONG, "coder-2": RIGHT}
    played = follow("evomac", words, **TESTS)
    assert played.told.endswith(
        "test 4: runner < coder-1@1 coder-2@1\n= 1, 5 calls, stopped by test.passed"
    )
    # Without parts that can be read they have the role that all coders have.
    assert header(played.prompts["coder-1@1"]).startswith("You carry out your part of the task.")


def test_evomac_tests_are_planned_once_and_iterations_bounded(follow):
    words = {"organiser": PARTS, "updater": PARTS, "code": WRONG}
    debate = follow("evomac:iterations=4,coders=3", words, **TESTS).debate
    played = [call.stage for call in debate.calls]
    assert (played.count("plan_tests"), played.count("write_tests")) == (1, 1)
    assert (played.count("code"), played.count("test"), played.count("update")) == (12, 4, 3)
    assert (debate.answer, debate.stopped) == ("2", "")
    # The updater reads its own former parts, and the latest blame.
    update = [call for call in debate.calls if call.stage == "update"][1]
    authors = {call.call_id: call.agent for call in debate.calls}
    assert [authors[parent] for parent in update.parents] == ["organiser", "updater", "gradient"]
