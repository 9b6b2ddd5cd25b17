"""Mixture of agents (arXiv 2406.04692): layers of proposers, each reading the layer before.

The later proposers and the aggregator get one and the same request to synthesise, behind the
responses, which are numbered and not named. The paper has 6 proposers of different models. Options:
proposers (bylines, joined by "+"), models (names of the models that play them in turn, joined by
"+"), aggregator (the model that has the last word), layers (that of the aggregator included),
temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

PROPOSERS = ("accountant", "watchman", "surveyor", "climber")
SYNTHESISE = (
    "Above are responses of several models. Synthesise them into one of high quality: some of "
    "them may be biased or wrong, so evaluate them critically and do not simply repeat them."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(
        arg,
        proposers=PROPOSERS,
        models=("policy",),
        aggregator="policy",
        layers=3,
        temperature=0.7,
        max_tokens=64,
    )
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    layer = {"authors": "tag:proposer", "anonymous": True}
    return ConfigDict(
        {
            "name": "mixture_of_agents",
            "agents": [
                {
                    "id": name,
                    "role": name,
                    "tags": ["proposer"],
                    "model": o.models[i % len(o.models)],
                    "sampling": talk,
                }
                for i, name in enumerate(o.proposers)
            ]
            + [
                {"id": "aggregator", "byline": "judge", "role": SYNTHESISE, "model": o.aggregator}
                | {"sampling": talk}
            ],
            "stages": [
                {"name": "propose", "speakers": "tag:proposer"},
                {
                    "name": "refine",
                    "speakers": "tag:proposer",
                    "view": layer,
                    "instruction": SYNTHESISE,
                },
                {
                    "name": "aggregate",
                    "speakers": ["aggregator"],
                    "view": layer,
                },
            ],
            "schedule": [
                "propose",
                {"repeat": ["refine"], "max": o.layers - 2, "min": o.layers - 2},
                "aggregate",
            ],
            "reducer": {"kind": "synthesize", "agent": "aggregator"},
        }
    )
