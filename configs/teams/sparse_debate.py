"""Debate with sparse communication (arXiv 2406.11776): each hears its neighbours in a ring.

Otherwise as the debate of 2305.14325: a fixed number of rounds, then the majority of the last
answers. As there, the paper's agents have no roles and keep their earlier rounds; these are experts
who read their own and their neighbours' latest messages, so that in a ring of twenty nobody reads
more than in one of three. Options: experts (bylines, joined by "+"), agents (who are experts by
turns; 0: one of each), rounds (the independent opening included), reach (neighbours on either
side), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import cast, options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, agents=0, rounds=3, reach=1, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    return ConfigDict(
        {
            "name": "sparse_debate",
            "agents": [
                {"id": name, "role": role, "tags": ["expert"], "sampling": talk}
                for name, role in cast(o.experts, o.agents or len(o.experts))
            ],
            "stages": [
                {"name": "opening", "speakers": "tag:expert"},
                {
                    "name": "rebuttal",
                    "speakers": "tag:expert",
                    "view": {"graph": "ring", "k": o.reach},
                    "instruction": "Use your neighbours' solutions as advice, and answer again.",
                },
            ],
            "schedule": ["opening", {"repeat": ["rebuttal"], "max": o.rounds - 1}],
            "reducer": {"kind": "vote", "tie": "first"},
        }
    )
