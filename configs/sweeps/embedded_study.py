"""The study on the embedded world: every system and control, three seeds, two splits.

Each seed has its own base model, debates, students and intervals. With the argument `world=search`
it is the second world's, `configs/search_quickstart.py`.
"""

from typing import Any

from ml_collections import ConfigDict

from arkjax.config import load, nearest
from arkjax.errors import ConfigError
from arkjax.teams.arguments import options

# By name: the config of a world's main job, which this one repeats with more of everything.
WORLDS = {"embedded": "quickstart", "search": "search_quickstart"}

STUDENTS = {
    "embedded": (
        "student_rsft",
        "student_rsft_unverified",
        "student_da",
        "student_da_unverified",
        "student_logit",
        "student_on_policy",
        "student_pad",
        "student_da_then_pad",
    ),
    # Where the way to the answer is what there is to learn.
    "search": (
        "student_deliberation",
        "student_deliberation_unverified",
        "student_rsft",
        "student_rsft_unverified",
    ),
}
CONTROLS = ("control_single_agent", "control_no_debate", "control_answer_only")


def get_config(arg: str = "") -> ConfigDict:
    """The study of one world."""
    o = options(arg, world="embedded")
    if o.world not in WORLDS:
        raise ConfigError(
            f"argument {arg!r}: world is {o.world!r}{nearest(o.world, list(WORLDS))}: there are "
            f"{', '.join(WORLDS)}"
        )
    c = load(WORLDS[o.world])
    c.name = "embedded_study" if o.world == "embedded" else f"embedded_study-{o.world}"
    c.seeds = (0, 1, 2)
    c.students = STUDENTS[o.world] + CONTROLS
    c.evaluation.splits = ("test", "ood")
    return c


def get_sweep(arg: str = "") -> list[dict[str, Any]]:
    """The one point of this study, which is the config as it is."""
    return [{"name": get_config(arg).name}]
