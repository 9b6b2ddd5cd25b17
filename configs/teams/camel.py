"""CAMEL role-play (arXiv 2303.17760): an AI user instructs, an AI assistant carries out.

The user gives one instruction at a time and writes CAMEL_TASK_DONE when the task is done; the
assistant's last answer counts. The paper first has the task made more specific, which replaces the
question: `specify=1` adds that call, beside the question. A critic who chooses among proposals,
which the paper has as an option, is left out. Options: user, assistant (bylines), turns, specify,
temperature, max_tokens.
"""

from ml_collections import ConfigDict

from arkjax.teams.arguments import options

SPECIFIER = "Make the task above more specific, in at most 50 words."
USER = (
    "You are the user, and never the assistant. You instruct the assistant to solve the task, "
    "with one instruction at a time: Instruction: ... Input: ... When it is solved, write only "
    "CAMEL_TASK_DONE."
)
ASSISTANT = (
    "You are the assistant, and never the user. You carry out the user's last instruction: "
    "Solution: ... End with the answer as far as you have it."
)


def get_config(arg: str = "") -> ConfigDict:
    o = options(
        arg,
        user="accountant",
        assistant="answer",
        turns=3,
        specify=0,
        temperature=0.2,
        max_tokens=64,
    )
    talk = {"temperature": o.temperature, "max_tokens": o.max_tokens}
    return ConfigDict(
        {
            "name": "camel",
            "agents": [
                {"id": "specifier", "byline": "task", "role": SPECIFIER, "sampling": talk},
                {"id": "user", "byline": o.user, "role": USER, "sampling": talk},
                {"id": "assistant", "byline": o.assistant, "role": ASSISTANT, "sampling": talk},
            ],
            "stages": [
                {"name": "specify", "speakers": ["specifier"], "parser": "none"},
                {
                    "name": "instruct",
                    "speakers": ["user"],
                    "view": {"rounds": "all"},
                    "parser": "regex",
                    "optional": ["done"],
                    "pattern": "(?P<done>CAMEL_TASK_DONE)",
                },
                {"name": "solve", "speakers": ["assistant"], "view": {"rounds": "all"}},
            ],
            "schedule": [
                {"repeat": ["specify"], "max": o.specify, "min": o.specify},
                {"repeat": ["instruct", "solve"], "max": o.turns},
            ],
            "stop": {"when": [{"field": "instruct.done", "equals": "CAMEL_TASK_DONE"}]},
            "reducer": {"kind": "last", "agent": "assistant"},
        }
    )
