"""The debate that AgentArk distils (arXiv 2602.03955): agents without roles, and a synthesiser.

All answer, read one another and answer again, until all agree or the rounds are over; a synthesiser
reads the last answers only and writes the team's. Everybody reads the latest round, its own answer
among it. The paper's code always plays 2 rounds. Options: agents, rounds (the independent opening
included; the paper has at most 3), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

REBUTTAL = (
    "Use the solutions above as advice, check them as critically as your own, and answer once more."
)
SYNTHESISER = (
    "Read the solutions above, reason over them carefully, and write one final solution with "
    "its answer."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, agents=5, rounds=3, temperature=0.5, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    return ConfigDict(
        {
            "name": "agentark",
            "agents": [
                {"id": f"agent-{i + 1}", "role": "answer", "tags": ["debater"], "sampling": talk}
                for i in range(o.agents)
            ]
            + [{"id": "synthesiser", "byline": "judge", "role": SYNTHESISER, "sampling": talk}],
            "stages": [
                {"name": "opening", "speakers": "tag:debater"},
                {"name": "rebuttal", "speakers": "tag:debater", "instruction": REBUTTAL},
                {"name": "synthesis", "speakers": ["synthesiser"], "view": {"own": False}},
            ],
            "schedule": [
                "opening",
                {"repeat": ["rebuttal"], "max": o.rounds - 1, "min": 0},
                "synthesis",
            ],
            "stop": {"agree": 1.0},
            "reducer": {"kind": "synthesize", "agent": "synthesiser"},
        }
    )
