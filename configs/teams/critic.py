"""A solver and a critic: propose, check, revise, until the critic finds the proposal right.

The solver proposes without hearing anybody. The critic checks the latest proposal and ends with a
verdict, "so right" or what is wrong with it; the solver reads all that was said and answers again:
another proposal, or the one that was found right. It ends after that answer, or after `checks`
checks. Nobody looks at the gold answer. Options: checks, temperature (of the solver; the critic's
word is the most probable one), max_tokens, right (the verdict that ends the search), others (the
other verdicts, joined by "+").
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

CHECK = (
    "Check the last proposal step by step. Do not solve the problem anew. End with a verdict: so "
)
REVISE = "Read the verdicts and propose a better answer, or close with the one that was right."


def get_config(arg: str = "") -> ConfigDict:
    o = options(
        arg,
        checks=2,
        temperature=0.7,
        max_tokens=64,
        right="right",
        others=("low", "high"),
    )
    verdicts = [o.right, *o.others]
    return ConfigDict(
        {
            "name": "critic",
            "agents": [
                {
                    "id": "solver",
                    "role": "solver",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                },
                {
                    "id": "critic",
                    "role": "critic",
                    "sampling": {"temperature": 0.0, "max_tokens": o.max_tokens},
                },
            ],
            "stages": [
                # Said before hearing anybody: the same call as in roles.
                {"name": "opening", "speakers": ["solver"], "view": "none"},
                {
                    "name": "check",
                    "speakers": ["critic"],
                    "view": {"rounds": "all"},
                    "parser": "regex",
                    "pattern": rf"\bso (?P<verdict>{'|'.join(verdicts)})\b",
                    "instruction": f"{CHECK}{', '.join(verdicts)}.",
                },
                {
                    "name": "revise",
                    "speakers": ["solver"],
                    "view": {"rounds": "all"},
                    "instruction": REVISE,
                },
            ],
            "schedule": [
                "opening",
                {
                    "repeat": ["check", "revise"],
                    "max": o.checks,
                    "stop": {"when": [{"field": "check.verdict", "equals": o.right}]},
                },
            ],
            "reducer": {"kind": "last", "agent": "solver"},
        }
    )
