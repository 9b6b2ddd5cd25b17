"""What tests of graders share: texts that nobody should write, and real problem sets."""

import os
import runpy
from pathlib import Path

import pytest

from arkjax.tasks.problems import Problem

NASTY = runpy.run_path(str(Path(__file__).parents[1] / "nasty_outputs.py"))


def pytest_generate_tests(metafunc):
    for name in ("nasty", "heavy"):
        if name in metafunc.fixturenames:
            texts = NASTY[name.upper()]
            metafunc.parametrize(name, texts.values(), ids=texts.keys())


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real problem sets."""
    folder = os.environ.get("ARKJAX_DATASETS")
    if not folder:
        pytest.skip("ARKJAX_DATASETS does not say where the real problem sets are")
    return Path(folder)


@pytest.fixture
def problem():
    def make(answer: str, **meta) -> Problem:
        return Problem("p", "What is it?", answer, "task", "domain", meta)

    return make
