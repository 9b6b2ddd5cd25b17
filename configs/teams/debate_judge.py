"""Four experts debate; a judge reads the last round and decides.

Options: rounds (how often every expert speaks, the independent opening included), temperature (of
the experts), max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, rounds=2, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "debate_judge",
            "agents": [
                {
                    "id": name,
                    "role": name,
                    "tags": ["expert"],
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
                for name in ("accountant", "watchman", "surveyor", "climber")
            ]
            + [
                {
                    "id": "judge",
                    "role": "judge",
                    # A verdict is read once, so it is the most probable one.
                    "sampling": {"temperature": 0.0, "max_tokens": o.max_tokens},
                }
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
                # The judge reads the latest message of every expert.
                {
                    "name": "verdict",
                    "speakers": ["judge"],
                    "view": {"graph": "full", "rounds": "last", "own": False},
                    "parser": "task",
                },
            ],
            "schedule": ["opening", {"repeat": ["rebuttal"], "max": o.rounds - 1}, "verdict"],
            "reducer": {"kind": "judge", "agent": "judge"},
        }
    )
