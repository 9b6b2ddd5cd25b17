"""Multi-agent debate (arXiv 2305.14325): four experts answer, read all answers, and answer again.

The paper's agents have no roles and keep all rounds before their eyes; these are experts who read
the latest one, which with two rounds is the same. The majority counts, of equals the first.
Options: agents (experts by turns, so that of 8 two are of each kind), rounds (how often everybody
speaks, the independent opening included), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import cast, options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, agents=4, rounds=2, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "debate",
            "agents": [
                {
                    "id": name,
                    "role": role,
                    "tags": ["expert"],
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
                for name, role in cast(EXPERTS, o.agents)
            ],
            "stages": [
                # Said before hearing anybody: the same calls in roles, debate and judge.
                {"name": "opening", "speakers": "tag:expert", "parser": "task"},
                # Everybody reads the latest message of everybody, its own among them, so that all
                # share one transcript.
                {
                    "name": "rebuttal",
                    "speakers": "tag:expert",
                    "view": {"graph": "full", "rounds": "last"},
                    "parser": "task",
                },
            ],
            "schedule": ["opening", {"repeat": ["rebuttal"], "max": o.rounds - 1}],
            "reducer": {"kind": "vote", "tie": "first"},
        }
    )
