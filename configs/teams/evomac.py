"""EvoMAC (arXiv 2410.16946): a coding team, a testing team, and an update of the roles by feedback.

An organiser splits the task among coders, who write one after the other; a testing team writes
tests once. Where the program fails, one agent finds out which part is to blame and another writes
the coders' roles anew, until the tests pass. What is run are the problem's own public tests, and
without any the program alone; those that the team writes are read by the agent that blames. The
coders' number and order are fixed, where the paper's updates add agents, remove them and draw their
graph anew. Programs run isolated: see `arkjax.tools`. Options: iterations (rounds of coding; the
paper has about 5), coders, temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

ORGANISER = "Split the programming task among the coders, a sentence each, as a JSON object."
CODER = "You carry out your part of the task."
TESTS = (
    "Say which requirements of the task tests must check, with simple cases that are surely right."
)
TESTER = "Write the tests, as asserts."
GRADIENT = "Read the results of the tests: which coder's part is to blame, and for what?"
UPDATER = (
    "Give each coder a new part, to mend what the review blames and nothing that is done already; "
    "as a JSON object."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, iterations=2, coders=2, temperature=0.2, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    coders = [f"coder-{i + 1}" for i in range(o.coders)]
    keys = f"Keys: {', '.join(coders)}."
    return ConfigDict(
        {
            "name": "evomac",
            "tools": ["tests"],
            "agents": [
                {"id": "organiser", "byline": "organiser", "role": ORGANISER, "sampling": talk}
            ]
            + [
                {
                    "id": name,
                    "byline": "answer",
                    "role": CODER,
                    "role_from": [f"organise.{name}", f"update.{name}"],
                    "tags": ["coder"],
                    "sampling": talk,
                }
                for name in coders
            ]
            + [
                {"id": "test-organiser", "byline": "organiser", "role": TESTS, "sampling": talk},
                {"id": "tester", "byline": "tester", "role": TESTER, "sampling": talk},
                {"id": "runner", "tool": "tests"},
                {"id": "gradient", "byline": "judge", "role": GRADIENT, "sampling": talk},
                {"id": "updater", "byline": "organiser", "role": UPDATER, "sampling": talk},
            ],
            "stages": [
                {"name": "organise", "speakers": ["organiser"], "parser": "json", "keys": coders}
                | {"instruction": keys},
                {
                    "name": "code",
                    "speakers": "tag:coder",
                    "order": "sequential",
                    "view": {"authors": "tag:coder"},
                    "instruction": "Write the program as it then is in one ```python block.",
                },
                {"name": "plan_tests", "speakers": ["test-organiser"], "view": "none"}
                | {"parser": "none"},
                {
                    "name": "write_tests",
                    "speakers": ["tester"],
                    "view": {"stages": ["plan_tests", "code"]},
                    "parser": "none",
                },
                # What the tester wrote is for its readers: the tool runs the problem's own tests.
                {
                    "name": "test",
                    "speakers": ["runner"],
                    "view": {"stages": ["code"]},
                    "parser": "fields",
                    "keys": ["passed"],
                    "result_tokens": 128,
                },
                {
                    "name": "blame",
                    "speakers": ["gradient"],
                    "view": {"stages": ["organise", "update", "code", "write_tests", "test"]},
                    "parser": "none",
                },
                {
                    "name": "update",
                    "speakers": ["updater"],
                    "view": {"stages": ["organise", "update", "blame"]},
                    "parser": "json",
                    "keys": coders,
                    "instruction": keys,
                },
            ],
            "schedule": [
                "organise",
                "code",
                "plan_tests",
                "write_tests",
                "test",
                {
                    "repeat": ["blame", "update", "code", "test"],
                    "max": o.iterations - 1,
                    "min": 0,
                },
            ],
            "stop": {"when": [{"field": "test.passed", "equals": "yes"}]},
            "reducer": {"kind": "last", "voters": "tag:coder"},
        }
    )
