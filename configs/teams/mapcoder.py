"""MapCoder (arXiv 2405.11403): recall, plan, code, debug, with the problem's public tests.

One call recalls similar problems; `plans` plans are made and rated; the best is coded, run on the
public tests and debugged up to `fixes` times, then the next best, until the tests pass. The last
code counts. Where a problem has no tests, code passes that runs. Each plan is made from all that
was recalled, where the paper's go by one recalled problem each; the coder reads the plan alone, not
the name of the algorithm. Coder and debugger are one agent, who reads its latest program. Programs
run isolated: see `arkjax.tools`. Options: plans (the paper has 3 or 5), fixes (the paper has 5),
temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

RETRIEVER = (
    "Recall problems like this one, each with its solution and how it was found, and name the "
    "algorithm."
)
PLANNER = "Write a plan for the problem, step by step and without code."
RATER = "How sure can one be that this plan solves the problem? Confidence: 0 to 100, on a line."
# The plan goes on in the coder's words, as the debugger may have to mend it.
CODER = "Repeat the plan, and write the program after it, whole, in one ```python block."
DEBUGGER = (
    "The program above fails. Find the mistake in plan or program, and write both anew, the "
    "program whole in one ```python block."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, plans=2, fixes=2, temperature=0.3, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    passed = {"when": [{"field": "test.passed", "equals": "yes"}]}
    return ConfigDict(
        {
            "name": "mapcoder",
            "tools": ["tests"],
            "agents": [
                {"id": "retriever", "byline": "retriever", "role": RETRIEVER, "sampling": talk},
                {"id": "planner", "byline": "planner", "role": PLANNER, "sampling": talk},
                {"id": "rater", "byline": "judge", "role": RATER, "sampling": talk},
                {"id": "coder", "role": "answer", "sampling": talk},
                {"id": "runner", "tool": "tests"},
            ],
            "stages": [
                {"name": "recall", "speakers": ["retriever"], "parser": "none"},
                {"name": "plan", "speakers": ["planner"], "n_samples": o.plans, "parser": "none"}
                | {"view": {"stages": ["recall"]}},
                {
                    "name": "rate",
                    "speakers": ["rater"],
                    "each": "message",
                    "view": {"stages": ["plan"]},
                    "parser": "scores",
                },
                # Each time the next best plan.
                {
                    "name": "code",
                    "speakers": ["coder"],
                    "view": {"stages": ["plan"], "pick": "next", "pick_by": "rate.score"},
                    "instruction": CODER,
                },
                {
                    "name": "test",
                    "speakers": ["runner"],
                    "view": {"stages": ["code", "debug"]},
                    "parser": "fields",
                    "keys": ["passed"],
                    "result_tokens": 128,
                },
                {
                    "name": "debug",
                    "speakers": ["coder"],
                    "view": {"stages": ["code", "debug", "test"]},
                    "instruction": DEBUGGER,
                },
            ],
            "schedule": [
                "recall",
                "plan",
                "rate",
                {
                    "repeat": [
                        "code",
                        "test",
                        {"repeat": ["debug", "test"]} | {"max": o.fixes, "min": 0, "stop": passed},
                    ],
                    "max": o.plans,
                    "stop": passed,
                },
            ],
            "reducer": {"kind": "last", "agent": "coder"},
        }
    )
