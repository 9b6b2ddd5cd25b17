"""Self-consistency: samples of one agent under the bare prompt, which vote (arXiv 2203.11171).

The paper's prompt shows examples of chains of thought; here the question stands alone. Of answers
given equally often the first counts. Options: n (samples), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, n=8, temperature=0.7, max_tokens=64)
    return ConfigDict(
        {
            "name": "self_consistency",
            "agents": [
                {
                    "id": "answer",
                    "role": "answer",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
            ],
            "stages": [{"name": "opening", "n_samples": o.n, "parser": "task"}],
            "schedule": ["opening"],
            "reducer": {"kind": "vote", "tie": "first"},
        }
    )
