"""Chain of thought (arXiv 2201.11903, zero-shot as in 2205.11916): one agent, told to think first.

One call: the answer is read from the same text, where the zero-shot paper asks for it in a second.
Options: temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, temperature=0.0, max_tokens=64)
    return ConfigDict(
        {
            "name": "chain_of_thought",
            "agents": [
                {
                    "id": "answer",
                    "role": "answer",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
            ],
            "stages": [{"name": "opening", "instruction": "Let's think step by step."}],
            "schedule": ["opening"],
            "reducer": {"kind": "last"},
        }
    )
