"""ChatDev (arXiv 2307.07924): a software company whose phases are talks of two.

Modality, language, code, review, test, manual: in every phase one role instructs, in words that are
fixed, and another answers once; only what it yields goes on to the next. A review that finds
nothing ends the reviews, tests that pass end the tests; a problem without tests has passed if its
program runs. Left out are the longer talks about modality and language and their reflection, the
completion of unwritten methods, and the list of requirements. Programs run isolated: see
`arkjax.tools`. Options: reviews (each with a rework), fixes (each after a test that failed; the
published configuration has 3 of each), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

REVIEW = (
    "The programmer asks: review the program, and name the one thing that most needs to be "
    "mended. Verdict: yes if there is nothing left to mend, else no."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, reviews=2, fixes=2, temperature=0.2, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    code = ["code", "rework", "fix"]
    finished = {"when": [{"field": "review.verdict", "equals": "yes"}]}
    passed = {"when": [{"field": "test.passed", "equals": "yes"}]}
    return ConfigDict(
        {
            "name": "chatdev",
            "tools": ["tests"],
            "agents": [
                {"id": "cpo", "role": "You are the chief product officer.", "sampling": talk},
                {"id": "cto", "role": "You are the chief technology officer.", "sampling": talk},
                {"id": "programmer", "role": "You are the programmer.", "byline": "answer"}
                | {"sampling": talk},
                {"id": "reviewer", "role": "You are the code reviewer.", "byline": "judge"}
                | {"sampling": talk},
                # The programmer as well, whose memory begins anew with every phase.
                {"id": "debugger", "role": "You are the programmer.", "byline": "tester"}
                | {"sampling": talk},
                {"id": "runner", "tool": "tests"},
            ],
            "stages": [
                {
                    "name": "demand",
                    "speakers": ["cpo"],
                    "parser": "none",
                    "instruction": "The CEO asks: which form shall the product have?",
                },
                {
                    "name": "language",
                    "speakers": ["cto"],
                    "parser": "none",
                    "view": {"stages": ["demand"]},
                    "instruction": "The CEO asks: in which language shall it be written?",
                },
                {
                    "name": "code",
                    "speakers": ["programmer"],
                    "view": {"stages": ["demand", "language"]},
                    "instruction": "The CTO asks: write the whole program in one ```python block.",
                },
                {
                    "name": "review",
                    "speakers": ["reviewer"],
                    "view": {"stages": code, "authors": ["programmer"]},
                    "parser": "verdict",
                    "instruction": REVIEW,
                },
                {
                    "name": "rework",
                    "speakers": ["programmer"],
                    "view": {"stages": [*code, "review"]},
                    "instruction": "The reviewer asks: write the program anew, whole.",
                },
                {
                    "name": "test",
                    "speakers": ["runner"],
                    "view": {"stages": code},
                    "parser": "fields",
                    "keys": ["passed"],
                    "result_tokens": 128,
                },
                {
                    "name": "summary",
                    "speakers": ["debugger"],
                    "view": {"stages": [*code, "test"]},
                    "parser": "none",
                    "instruction": "The test engineer asks: say what fails and why.",
                },
                {
                    "name": "fix",
                    "speakers": ["programmer"],
                    "view": {"stages": [*code, "test", "summary"]},
                    "instruction": "The test engineer asks: mend the program, and write it whole.",
                },
                {
                    "name": "manual",
                    "speakers": ["cpo"],
                    "parser": "none",
                    "view": {"stages": code},
                    "instruction": "The CEO asks: write the manual.",
                },
            ],
            "schedule": [
                "demand",
                "language",
                "code",
                "review",
                {
                    "repeat": ["rework", "review"],
                    "max": o.reviews - 1,
                    "min": 0,
                    "stop": finished,
                },
                {"repeat": ["rework"], "max": 1, "min": 0, "stop": finished},
                # After the last fix there is no further test.
                {
                    "repeat": [
                        "test",
                        {"repeat": ["summary", "fix"], "max": 1, "min": 0, "stop": passed},
                    ],
                    "max": o.fixes,
                    "stop": passed,
                },
                "manual",
            ],
            "reducer": {"kind": "last", "agent": "programmer"},
        }
    )
