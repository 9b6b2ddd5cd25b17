"""Four experts, no communication, one vote: what roles alone are worth.

Options: experts (bylines, joined by "+"), n (samples of each expert), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, n=1, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "roles",
            "agents": [
                {
                    "id": name,
                    "role": name,
                    "tags": ["expert"],
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
                for name in o.experts
            ],
            "stages": [
                # Said before hearing anybody: the same calls in roles, debate and judge.
                {"name": "opening", "speakers": "tag:expert", "n_samples": o.n, "parser": "task"},
            ],
            "schedule": ["opening"],
            "reducer": {"kind": "vote", "tie": "first"},
        }
    )
