"""DyLAN (arXiv 2310.02170): layers of agents, a ranking that leaves two, a stop by consensus.

All answer, and answer again having read the layer before, in shuffled order. From the third round
on a ranker chooses the best two, and only they go on. More than two thirds of those who speak end
it by giving one answer. Options: experts (bylines, joined by "+"), rounds, top (how many the
ranking leaves), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")
RANKER = (
    "Which of the solutions above are best? Name the agents, the best first, as a list: [1, 2]."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, rounds=3, top=2, temperature=0.2, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    # More than floor(2/3) of n: 3 of 4, and both of 2.
    needed = {"agree": (2 * len(o.experts) // 3 + 1) / len(o.experts)}
    layer = {"authors": "tag:expert", "order": "shuffled"}
    return ConfigDict(
        {
            "name": "dylan",
            "agents": [
                {"id": name, "role": name, "tags": ["expert"], "sampling": talk}
                for name in o.experts
            ]
            + [{"id": "ranker", "byline": "judge", "role": RANKER, "sampling": talk}],
            "stages": [
                {"name": "first", "speakers": "tag:expert"},
                {
                    "name": "second",
                    "speakers": "tag:expert",
                    "view": layer,
                    "instruction": "Use the solutions above as advice, and answer once more.",
                },
                {
                    "name": "ranking",
                    "speakers": ["ranker"],
                    "view": {"authors": "tag:expert", "anonymous": True},
                    "parser": "ranking",
                },
                {
                    "name": "later",
                    "speakers": {"by": "ranking.ranking", "among": "tag:expert", "top": o.top},
                    "view": layer,
                    "instruction": "Use the solutions above as advice, and answer once more.",
                },
            ],
            "schedule": [
                "first",
                {"repeat": ["second"], "max": 1, "min": 0, "stop": needed},
                {"repeat": ["ranking", "later"], "max": 1, "min": 0, "stop": needed},
                {"repeat": ["later"], "max": o.rounds - 3, "min": 0, "stop": {"agree": 1.0}},
            ],
            "reducer": {"kind": "vote", "voters": "tag:expert", "latest": True, "tie": "first"},
        }
    )
