"""The quickstart with three seeds: each has its own base model, debates, students and intervals."""

from ml_collections import ConfigDict

from arkjax.config import load


def get_config(arg: str = "") -> ConfigDict:
    """The quickstart's fields, with more seeds; `arg` is not used."""
    c = load("quickstart")
    c.name = "embedded_study"
    c.seeds = (0, 1, 2)
    return c
