"""A group chat whose manager selects the next speaker (AutoGen, arXiv 2308.08155).

Everybody reads the whole conversation. Before each turn a manager names who speaks next; asked
three times in vain, the one who has spoken least does, where AutoGen takes the next in the list. It
ends when a speaker writes TERMINATE. Options: experts (bylines, joined by "+"), turns, temperature,
max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")
MANAGER = "Read the conversation above and select who speaks next, one of:"


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, turns=4, temperature=0.7, max_tokens=64)
    chat = {"authors": "tag:expert", "rounds": "all"}
    return ConfigDict(
        {
            "name": "selected_speaker",
            "agents": [
                {
                    "id": name,
                    "role": name,
                    "tags": ["expert"],
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
                for name in o.experts
            ]
            + [
                {
                    "id": "manager",
                    "role": f"{MANAGER} {', '.join(o.experts)}. Reply with the name only.",
                    "sampling": {"temperature": o.temperature, "max_tokens": 16},
                }
            ],
            "stages": [
                {
                    "name": "selection",
                    "speakers": ["manager"],
                    "view": chat,
                    "parser": "speaker",
                    "on_parse_failure": "resample",
                    "resamples": 2,
                },
                {
                    "name": "talk",
                    "speakers": {"by": "selection.next", "among": "tag:expert"},
                    "view": chat,
                    "parser": "task+regex",
                    "optional": ["done"],
                    "pattern": "(?P<done>TERMINATE)",
                    "instruction": "Write TERMINATE behind your answer if the problem is solved.",
                },
            ],
            "schedule": [{"repeat": ["selection", "talk"], "max": o.turns}],
            "stop": {"when": [{"field": "talk.done", "equals": "TERMINATE"}]},
            "reducer": {"kind": "last", "voters": "tag:expert"},
        }
    )
