"""Group debate (arXiv 2409.14051): groups debate among themselves and exchange summaries.

The first half of the experts is one group, the rest the other. In each of the `stages` all speak
`rounds` times, hearing their own group; between stages a summary of each group is read by all. The
majority of the last answers counts. The paper draws groups at random, of any number, and marks the
summary of one's own. Options: experts (bylines, joined by "+"), stages, rounds, temperature,
max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")
SUMMARY = "Summarise the opinions above in at most 80 words, the final answers among them."


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, stages=2, rounds=2, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    half = len(o.experts) // 2
    groups = {"summary-1": o.experts[:half], "summary-2": o.experts[half:]}
    return ConfigDict(
        {
            "name": "group_debate",
            "agents": [
                {"id": name, "role": name, "tags": ["expert"], "sampling": talk}
                for name in o.experts
            ]
            + [
                {
                    "id": name,
                    "byline": "judge",
                    "role": SUMMARY,
                    "tags": ["summary"],
                    "sampling": {"temperature": 0.0, "max_tokens": o.max_tokens},
                }
                for name in groups
            ],
            "stages": [
                {"name": "opening", "speakers": "tag:expert"},
                # Within a group.
                {
                    "name": "rebuttal",
                    "speakers": "tag:expert",
                    "view": {"graph": "groups", "groups": list(groups.values())},
                    "instruction": "Use your group's solutions as advice, and answer once more.",
                },
                {
                    "name": "summary",
                    "speakers": "tag:summary",
                    "view": {
                        "graph": "edges",
                        "edges": [(n, name) for name, group in groups.items() for n in group],
                        "own": False,
                    },
                    "parser": "none",
                },
                # Between groups: summaries, and one's own last answer.
                {
                    "name": "exchange",
                    "speakers": "tag:expert",
                    "view": {
                        "graph": "edges",
                        "edges": [(name, n) for name in groups for n in o.experts],
                    },
                    "instruction": "Use the groups' summaries as advice, and answer once more.",
                },
            ],
            "schedule": [
                "opening",
                {"repeat": ["rebuttal"], "max": o.rounds - 1, "min": o.rounds - 1},
                {
                    "repeat": [
                        "summary",
                        "exchange",
                        {"repeat": ["rebuttal"], "max": o.rounds - 1, "min": o.rounds - 1},
                    ],
                    "max": o.stages - 1,
                    "min": o.stages - 1,
                },
            ],
            "reducer": {"kind": "vote", "voters": "tag:expert", "tie": "first"},
        }
    )
