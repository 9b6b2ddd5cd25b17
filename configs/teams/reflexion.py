"""Reflexion (arXiv 2303.11366): an actor tries again, with what it has learned from its failures.

After a failed trial it reflects on why; the next trial sees the last `memory` reflections, and no
earlier trial. Whether a trial has failed is told by the gold answer, as in the paper's question
answering: the team is an oracle's, and every report says so. Options: trials, memory, temperature,
max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

REFLECT = (
    "The answer above is wrong. Say in a few sentences why it may have failed, and what to do "
    "differently the next time. Do not give an answer."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, trials=4, memory=3, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    return ConfigDict(
        {
            "name": "reflexion",
            "agents": [
                {"id": "actor", "role": "answer", "sampling": talk},
                {"id": "reflector", "byline": "reflection", "role": REFLECT, "sampling": talk},
            ],
            "stages": [
                {
                    "name": "trial",
                    "speakers": ["actor"],
                    "view": {"authors": ["reflector"], "rounds": "window", "window": o.memory},
                },
                {
                    "name": "reflection",
                    "speakers": ["reflector"],
                    "view": {"authors": ["actor"]},
                    "parser": "none",
                },
            ],
            "schedule": [
                "trial",
                {"repeat": ["reflection", "trial"], "max": o.trials - 1, "min": 0},
            ],
            "stop": {"oracle": True},
            "reducer": {"kind": "last", "agent": "actor"},
        }
    )
