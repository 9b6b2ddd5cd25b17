"""Four experts, no communication, one vote: what roles alone are worth.

Options: n (samples of each agent), experts (bylines, joined by "+"), agents (who are experts by
turns; 0: one of each; "answer" as the only expert gives agents without roles), temperature,
max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import cast, options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, n=1, experts=EXPERTS, agents=0, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "roles",
            "agents": [
                {
                    "id": name,
                    "role": role,
                    "tags": ["expert"],
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
                for name, role in cast(o.experts, o.agents or len(o.experts))
            ],
            "stages": [
                # Said before hearing anybody: the same calls in roles, debate and judge.
                {"name": "opening", "speakers": "tag:expert", "n_samples": o.n, "parser": "task"},
            ],
            "schedule": ["opening"],
            "reducer": {"kind": "vote", "tie": "first"},
        }
    )
