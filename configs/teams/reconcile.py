"""ReConcile (arXiv 2309.13007): a round table of different models that weigh each other's words.

All answer and say how confident they are; then they read all answers, reasons and confidences and
answer again, until all agree or `rounds` discussions are over. The vote counts confidences, scaled
as in the paper; one that cannot be read counts nothing, and of equal sums that of the answer given
more often over all rounds wins. Left out are the paper's convincing samples, which are examples
from other data, and its grouping of the solutions by their answers. Options: experts (bylines,
joined by "+"), models (names of the models that play them in turn, joined by "+"), rounds,
temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

EXPERTS = ("accountant", "watchman", "surveyor")
OPENING = "Think step by step and answer. Then say how sure you are, from 0 to 1: confidence: 0.8"
DISCUSSION = (
    "Review the solutions above, think anew step by step, and answer. Then say how sure you "
    "are, from 0 to 1: confidence: 0.8"
)
CONFIDENCE = r"[Cc]onfidence\W{1,6}(?P<confidence>1(?:\.0{1,3})?|0?\.[0-9]{1,4}|0)(?!\.?[0-9])"


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, experts=EXPERTS, models=("policy",), rounds=3, temperature=0.7, max_tokens=64)
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    answer = {"speakers": "tag:expert", "parser": "task+regex", "pattern": CONFIDENCE}
    return ConfigDict(
        {
            "name": "reconcile",
            "agents": [
                {
                    "id": name,
                    "role": name,
                    "tags": ["expert"],
                    "model": o.models[i % len(o.models)],
                    "sampling": talk,
                }
                for i, name in enumerate(o.experts)
            ],
            "stages": [
                {"name": "opening", "instruction": OPENING, "view": "none", **answer},
                {
                    "name": "discussion",
                    "instruction": DISCUSSION,
                    "view": {"anonymous": True},
                    **answer,
                },
            ],
            "schedule": ["opening", {"repeat": ["discussion"], "max": o.rounds, "min": 0}],
            "stop": {"agree": 1.0},
            "reducer": {
                "kind": "weighted_vote",
                "weight": "confidence",
                # 1 counts whole; down to .9 as .8, to .8 as .5, above .6 as .3, all others as .1.
                "scale": [(1.0, 1.0), (0.9, 0.8), (0.8, 0.5), (0.600001, 0.3), (0.0, 0.1)],
                "tie": "plurality_then_first",
            },
        }
    )
