"""Graders of real benchmarks: what they read as the answer, and when it is right."""

from arkjax.tasks.graders.choice_grader import ChoiceGrader
from arkjax.tasks.graders.math_grader import MathGrader
from arkjax.tasks.graders.rouge_grader import RougeGrader
from arkjax.tasks.graders.span_grader import SpanGrader
from arkjax.tasks.graders.truthful_grader import TruthfulGrader, mc1, mc2

__all__ = [
    "ChoiceGrader",
    "MathGrader",
    "RougeGrader",
    "SpanGrader",
    "TruthfulGrader",
    "mc1",
    "mc2",
]
