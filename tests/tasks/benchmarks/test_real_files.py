"""The real files, where `ARKJAX_DATASETS` points to them."""

import collections
import os
from pathlib import Path

import pytest

from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.registry import get_task

pytestmark = pytest.mark.fast

ROOT = os.environ.get("ARKJAX_DATASETS", "")


def load(task, split):
    folder = Path(ROOT, task)
    if not ROOT or not folder.is_dir():
        pytest.skip(f"ARKJAX_DATASETS names no folder with {task}/")
    return get_task(task).load(split)


@pytest.mark.parametrize(
    ("task", "split", "count"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("svamp", "test", 1000),
        ("aqua", "validation", 254),
        ("aqua", "test", 254),
        ("qmsum", "validation", 199),
    ],
)
def test_every_record_is_read(task, split, count):
    problems = load(task, split)
    assert len(problems) == len({p.id for p in problems}) == count
    assert problems == sorted(problems, key=lambda p: p.id)
    ending = BENCHMARKS[task].instruction
    assert all(p.question.endswith(ending) and p.answer and p.domain for p in problems)


def test_gsm8k_has_the_published_first_and_last_answers():
    problems = load("gsm8k", "test")
    assert problems[0].answer == "18" and problems[0].meta["difficulty"] == 2
    assert all(p.meta["difficulty"] >= 1 for p in problems if "<<" in p.meta["solution"])
    assert not any("<<" in p.meta["solution"] or "####" in p.answer for p in problems)


def test_svamp_has_the_published_kinds():
    kinds = collections.Counter(p.domain for p in load("svamp", "test"))
    assert kinds == {
        "Subtraction": 531,
        "Addition": 195,
        "Common-Division": 166,
        "Multiplication": 108,
    }


@pytest.mark.parametrize("split", ["validation", "test"])
def test_aqua_has_five_options_without_letters(split):
    for problem in load("aqua", split):
        assert len(problem.meta["options"]) == 5
        assert not any(text.startswith(("A)", "B)")) for text in problem.meta["options"])


def test_qmsum_meetings_are_told_apart_by_their_files():
    problems = load("qmsum", "validation")
    assert collections.Counter(p.domain for p in problems) == {"product": 145, "academic": 54}
    assert collections.Counter(p.meta["part"] for p in problems)["general"] > 0
