"""Multi-agent verification (arXiv 2502.20379): the candidate that most verifiers approve of.

One generator samples `n` solutions; each verifier looks at each of them for one aspect, alone, and
approves of it or not. What cannot be read is no approval; of equals the first counts. Five aspects
of the paper's ten are shipped, and the verdict is read from the check itself, where most of the
paper's verifiers are asked for it in a second call. Options: n (the paper has 16), temperature (of
the generator), max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

ASPECTS = {
    "steps": "Check every step of its mathematics and logic.",
    "units": "Check whether quantities and their units go together.",
    "summary": "Restate what is asked and what is answered, and compare the two.",
    "edges": "Look for edge cases in which it fails.",
    "mistakes": "Look for the mistakes that are common in such problems.",
}


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, n=4, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "mav",
            "agents": [
                {
                    "id": "generator",
                    "role": "answer",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
            ]
            + [
                {
                    "id": f"verifier-{name}",
                    "byline": "judge",
                    "role": f"You verify a solution. {text}",
                    "tags": ["verifier"],
                    "sampling": {"temperature": 0.0, "max_tokens": o.max_tokens},
                }
                for name, text in ASPECTS.items()
            ],
            "stages": [
                {"name": "propose", "speakers": ["generator"], "n_samples": o.n},
                {
                    "name": "verify",
                    "speakers": "tag:verifier",
                    "each": "message",
                    "view": {"authors": ["generator"]},
                    "parser": "verdict",
                    "on_parse_failure": "default",
                    "default": "no",
                    "instruction": "Stop at the first problem. End with: verdict: yes or no.",
                },
            ],
            "schedule": ["propose", "verify"],
            "reducer": {"kind": "approvals", "weight": "verdict", "voters": ["generator"]},
        }
    )
