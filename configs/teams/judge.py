"""Four experts answer independently; a judge reads all answers and decides.

Options: temperature (of the experts), max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "judge",
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
                # The judge reads the latest message of every expert.
                {
                    "name": "verdict",
                    "speakers": ["judge"],
                    "view": {"graph": "full", "rounds": "last", "own": False},
                    "parser": "task",
                },
            ],
            "schedule": ["opening", "verdict"],
            "reducer": {"kind": "judge", "agent": "judge"},
        }
    )
