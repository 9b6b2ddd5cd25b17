"""Specialists with hand-over (OpenAI's Swarm): one agent at a time, until one answers.

A triage agent names the specialist who begins; it does not answer itself, and nobody hands back to
it. A specialist answers, or hands the whole conversation to another by a last line "HANDOFF: name";
where it names nobody who is there, whoever has spoken least goes on. After `turns` specialists the
last answer counts. Options: experts (bylines, joined by "+"), turns, temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor", "climber")
TRIAGE = "Name the specialist who should handle this, and nothing else:"
HANDOFF = 'Answer, or if it takes another specialist, end with a line "HANDOFF: name", with one of:'


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, turns=3, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    listed = ", ".join(o.experts)
    return ConfigDict(
        {
            "name": "handover",
            "agents": [
                {"id": "triage", "role": f"{TRIAGE} {listed}", "byline": "triage", "sampling": talk}
            ]
            + [
                {"id": name, "role": name, "tags": ["expert"], "sampling": talk}
                for name in o.experts
            ],
            "stages": [
                {"name": "triage", "speakers": ["triage"], "parser": "speaker"},
                {
                    "name": "work",
                    "speakers": {"by": "next", "among": "tag:expert"},
                    "view": {"rounds": "all"},
                    "parser": "task+regex",
                    "optional": ["next"],
                    "pattern": r"HANDOFF:\W{0,3}(?P<next>[\w-]{1,40})",
                    "instruction": f"{HANDOFF} {listed}",
                },
            ],
            "schedule": ["triage", {"repeat": ["work"], "max": o.turns}],
            "stop": {"when": [{"field": "work.next", "missing": True}]},
            "reducer": {"kind": "last", "voters": "tag:expert"},
        }
    )
