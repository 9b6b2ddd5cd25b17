"""One agent, one call: the most probable answer under the bare prompt.

Options: temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, temperature=0.0, max_tokens=64)
    return ConfigDict(
        {
            "name": "vanilla",
            "agents": [
                {
                    "id": "answer",
                    "role": "answer",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
            ],
            "stages": [{"name": "opening", "parser": "task"}],
            "schedule": ["opening"],
            "reducer": {"kind": "last"},
        }
    )
