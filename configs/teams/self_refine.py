"""Self-refine (arXiv 2303.17651): one model answers, criticises itself and improves its answer.

Feedback sees the answer at hand, the refinement all answers and feedback so far. It ends when the
feedback finds nothing to improve. Options: iterations (most pairs of feedback and refinement; the
paper has 4), temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

FEEDBACK = (
    "Give feedback on the answer: name what is wrong or could be better, and how to mend it. "
    "Then say whether it is right as it is: verdict: yes or no."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(arg, iterations=3, temperature=0.7, max_tokens=64)
    right = {"when": [{"field": "feedback.verdict", "equals": "yes"}]}
    return ConfigDict(
        {
            "name": "self_refine",
            "agents": [
                {
                    "id": "author",
                    "role": "answer",
                    "sampling": {"temperature": o.temperature, "max_tokens": o.max_tokens},
                }
            ],
            "stages": [
                {"name": "draft"},
                {
                    "name": "feedback",
                    "view": {"graph": "self", "stages": ["draft", "refine"]},
                    "parser": "verdict",
                    "instruction": FEEDBACK,
                },
                {
                    "name": "refine",
                    "view": {"graph": "self", "rounds": "all"},
                    "instruction": "Write the answer once more, improved by the last feedback.",
                },
            ],
            "schedule": [
                "draft",
                "feedback",
                {
                    "repeat": ["refine", "feedback"],
                    "max": o.iterations - 1,
                    "min": 0,
                    "stop": right,
                },
                {"repeat": ["refine"], "max": 1, "min": 0, "stop": right},
            ],
            "reducer": {"kind": "last"},
        }
    )
