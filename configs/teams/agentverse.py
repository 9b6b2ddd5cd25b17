"""AgentVerse (arXiv 2308.10848), vertical, solver first: recruit, solve, criticise, evaluate.

A recruiter writes the roles of solver and critics. The solver proposes; critics review at once;
while any disagrees the solver rewrites. An evaluator accepts, or its advice goes to all in the next
turn, which begins with another recruitment. What the paper does besides is left out: its horizontal
form, the execution of what was decided, and memories that reach further back than the latest plan,
reviews and advice. Critics who agree are heard as well, not only those who do not. Options: critics
(bylines, joined by "+"), turns (of the whole), reviews (of one plan), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

CRITICS = ("accountant", "watchman")
RECRUITER = (
    "Who can solve this problem? Describe the experts that it takes, a sentence each, as a JSON "
    "object."
)
EVALUATOR = "Is the solution right? Give advice on what to do better, then say: verdict: yes or no."
CRITIQUE = "Review the solution. End with: verdict: yes if you agree with it, no if you do not."


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, critics=CRITICS, turns=2, reviews=2, temperature=0.0, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    names = [f"critic-{i + 1}" for i in range(len(o.critics))]
    agreed = {"when": [{"field": "critique.verdict", "equals": "yes", "share": 1.0}]}
    advice = {"graph": "full", "authors": ["evaluator"]}
    return ConfigDict(
        {
            "name": "agentverse",
            "agents": [
                {"id": "recruiter", "role": RECRUITER, "byline": "recruiter", "sampling": talk},
                {
                    "id": "solver",
                    "role": "answer",
                    "role_from": ["recruit.solver"],
                    "sampling": talk,
                },
            ]
            + [
                {"id": name, "role": byline, "role_from": [f"recruit.{name}"], "tags": ["critic"]}
                | {"sampling": talk}
                for name, byline in zip(names, o.critics, strict=True)
            ]
            + [{"id": "evaluator", "byline": "judge", "role": EVALUATOR, "sampling": talk}],
            "stages": [
                {
                    "name": "recruit",
                    "speakers": ["recruiter"],
                    "view": advice,
                    "parser": "json",
                    "keys": ["solver", *names],
                    "instruction": f"Keys: solver, {', '.join(names)}.",
                },
                {
                    "name": "solve",
                    "speakers": ["solver"],
                    "view": {"authors": ["solver", "evaluator"]},
                    "instruction": "Solve the problem.",
                },
                {
                    "name": "critique",
                    "speakers": "tag:critic",
                    "view": {"authors": ["solver", "evaluator"]},
                    "parser": "verdict",
                    "instruction": CRITIQUE,
                },
                {
                    "name": "revise",
                    "speakers": ["solver"],
                    "view": {"authors": ["solver", *names, "evaluator"]},
                    "instruction": "Rewrite your solution in the light of the reviews.",
                },
                {
                    "name": "evaluate",
                    "speakers": ["evaluator"],
                    "view": {"authors": ["recruiter", "solver"]},
                    "parser": "verdict",
                },
            ],
            "schedule": [
                {
                    "repeat": [
                        "recruit",
                        "solve",
                        "critique",
                        {
                            "repeat": ["revise", "critique"],
                            "max": o.reviews - 1,
                            "min": 0,
                            "stop": agreed,
                        },
                        {"repeat": ["revise"], "max": 1, "min": 0, "stop": agreed},
                        "evaluate",
                    ],
                    "max": o.turns,
                    "stop": {"when": [{"field": "evaluate.verdict", "equals": "yes"}]},
                }
            ],
            "reducer": {"kind": "last", "agent": "solver"},
        }
    )
