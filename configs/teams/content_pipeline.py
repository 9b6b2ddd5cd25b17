"""Planner, writer, quality critic: a plan, a text, and a score that it must reach.

The writer writes anew, with the critic's words before its eyes, until the score is high enough.
Options: drafts (most of them), score (that must be reached, of 10), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

PLANNER = "Plan what the text has to say, point by point. Do not write it."
WRITER = "Write the text after the plan. If there is a review above, improve the text by it."
CRITIC = (
    "You check quality. Score the text from 1 to 10, one line each: Faithfulness: 7, "
    "Completeness: 7, Style: 7. Then say what to improve."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, drafts=3, score=8.0, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    return ConfigDict(
        {
            "name": "content_pipeline",
            "agents": [
                {"id": "planner", "role": PLANNER, "byline": "planner", "sampling": talk},
                {"id": "writer", "role": WRITER, "byline": "answer", "sampling": talk},
                {"id": "critic", "role": CRITIC, "byline": "judge"}
                | {"sampling": {"temperature": 0.0, "max_tokens": o.max_tokens}},
            ],
            "stages": [
                {"name": "plan", "speakers": ["planner"], "parser": "none"},
                {"name": "write", "speakers": ["writer"]},
                {
                    "name": "review",
                    "speakers": ["critic"],
                    "view": {"authors": ["writer"]},
                    "parser": "scores",
                },
            ],
            "schedule": ["plan", {"repeat": ["write", "review"], "max": o.drafts}],
            "stop": {"when": [{"field": "review.score", "at_least": o.score}]},
            "reducer": {"kind": "last", "agent": "writer"},
        }
    )
