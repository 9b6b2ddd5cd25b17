"""DyLAN (arXiv 2310.02170): layers of agents, a ranking that leaves two, a stop by consensus.

All answer, and answer again having read the layer before, in shuffled order. Before the third round
a ranker chooses the best two, and only they go on. More than two thirds of those who speak end it
by giving one answer; that is looked at when all of a round have spoken, where the paper lets off
the last ones. Left out are the scores that agents give one another, from which the paper chooses a
team for later runs, and that of three agents or fewer it ranks none. Options: experts (bylines,
joined by "+"), rounds (3 at least), top (how many the ranking leaves), temperature, max_tokens.
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
    needed_later = {"agree": (2 * o.top // 3 + 1) / o.top}
    chosen = {"by": "ranking.ranking", "among": "tag:expert", "top": o.top}
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
                    "view": layer | {"anonymous": True},
                    "parser": "ranking",
                },
                {
                    "name": "third",
                    "speakers": chosen,
                    "view": layer,
                    "instruction": "Use the solutions above as advice, and answer once more.",
                },
                # Of the layer before, so of nobody who has left.
                {
                    "name": "later",
                    "speakers": chosen,
                    "view": layer | {"stages": ["third", "later"]},
                    "instruction": "Use the solutions above as advice, and answer once more.",
                },
            ],
            "schedule": [
                "first",
                {
                    "repeat": [
                        "second",
                        {
                            "repeat": [
                                "ranking",
                                "third",
                                {"repeat": ["later"], "max": o.rounds - 3, "min": 0}
                                | {"stop": needed_later},
                            ],
                            "max": 1,
                            "min": 0,
                            "stop": needed,
                        },
                    ],
                    "max": 1,
                    "min": 0,
                    "stop": needed,
                },
            ],
            "reducer": {"kind": "vote", "voters": "tag:expert", "latest": True, "tie": "first"},
        }
    )
