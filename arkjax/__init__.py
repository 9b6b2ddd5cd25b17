"""Distill a team of language-model agents into one model with Flax, on TPUs and GPUs.

    model, tokenizer = arkjax.load("path/to/checkpoint", mesh=arkjax.make_mesh())
    problems = arkjax.problems("embedded_world", "train", limit=100)
    calls = arkjax.sample(arkjax.teams.debate(rounds=2), problems, model, tokenizer)
    student = arkjax.distill(model, arkjax.synthesize(calls, strategy="da"), teacher=model)

Importing this package loads nothing heavy: each name below is fetched when it is first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_FUNCTIONS = (
    "load",
    "make_mesh",
    "problems",
    "sample",
    "synthesize",
    "score",
    "distill",
    "evaluate",
)
__all__ = ["__version__", "teams", *_FUNCTIONS]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("arkjax.api"), name)
    if name == "teams":
        return importlib.import_module("arkjax.teams")
    raise AttributeError(f"module 'arkjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
