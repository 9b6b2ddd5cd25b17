"""MAD, multi-agent debate "tit for tat" (arXiv 2305.19118): two sides, a moderator, a judge.

The affirmative side answers, the negative side disagrees, and a moderator says after every round
whether one is right. If none is after the last round, a judge lists the candidates and decides.
Everybody has the whole dispute before its eyes; the sides never read the moderator. Options: sides
(two bylines, joined by "+"), rounds (the first included; the paper has 3), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

SIDES = ("accountant", "watchman")
DEBATER = (
    "You debate the question. It is not necessary to agree with the other side: the aim is to "
    "find the right answer."
)
MODERATOR = (
    "You moderate. Weigh both sides, and give the answer that is best supported. Then say "
    "whether one side is clearly right: verdict: yes or no."
)
JUDGE = "You judge the debate."
REPLY = "Do you agree with the other side? Give your reasons, and answer."


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, sides=SIDES, rounds=2, temperature=0.0, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    dispute = {"authors": "tag:side", "rounds": "all"}
    decided = {"when": [{"field": "moderation.verdict", "equals": "yes"}]}
    return ConfigDict(
        {
            "name": "mad",
            "agents": [
                {"id": "affirmative", "byline": o.sides[0], "tags": ["side"]}
                | {"role": DEBATER, "sampling": talk},
                {"id": "negative", "byline": o.sides[1], "tags": ["side"]}
                | {"role": DEBATER, "sampling": talk},
                {"id": "moderator", "byline": "judge", "role": MODERATOR, "sampling": talk},
                {"id": "judge", "role": JUDGE, "byline": "judge", "sampling": talk},
            ],
            "stages": [
                {
                    "name": "thesis",
                    "speakers": ["affirmative"],
                    "view": dispute,
                    "instruction": "Say what you hold to be right, and why.",
                },
                {
                    "name": "antithesis",
                    "speakers": ["negative"],
                    "view": dispute,
                    "instruction": "You disagree with the other side. Answer, and give reasons.",
                },
                # From the second round on.
                {
                    "name": "affirm",
                    "speakers": ["affirmative"],
                    "view": dispute,
                    "instruction": REPLY,
                },
                {
                    "name": "oppose",
                    "speakers": ["negative"],
                    "view": dispute,
                    "instruction": REPLY,
                },
                {
                    "name": "moderation",
                    "speakers": ["moderator"],
                    "view": {"authors": ["affirmative", "negative", "moderator"], "rounds": "all"},
                    "parser": "verdict+task",
                },
                {
                    "name": "candidates",
                    "speakers": ["judge"],
                    "view": dispute,
                    "parser": "none",
                    "instruction": "List the candidate answers, without reasons.",
                },
                {
                    "name": "decision",
                    "speakers": ["judge"],
                    "view": {"authors": ["affirmative", "negative", "judge"], "rounds": "all"},
                    "instruction": "Choose among the candidates: give your reasons and the answer.",
                },
            ],
            "schedule": [
                "thesis",
                "antithesis",
                "moderation",
                {"repeat": ["affirm", "oppose", "moderation"], "max": o.rounds - 1, "min": 0},
                {"repeat": ["candidates", "decision"], "max": 1, "min": 0},
            ],
            "stop": decided,
            "reducer": {"kind": "last", "voters": ["moderator", "judge"]},
        }
    )
