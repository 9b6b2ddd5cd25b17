"""The shipped world, its negative twin, and a reading of what its authors wrote."""

import dataclasses
import itertools
import re

import pytest

from arkjax.tasks.embedded_sets import EMBEDDED_SETS, SHIPPED_WORLD
from arkjax.tasks.world_documents import make_documents

DOCUMENTS = 10_000
STEP = re.compile(r"(\w+) (\d) (\d) (?:is|makes) (\d) (?:total|sum) (\d) ;")


def read_values(text):
    """Values that an answer gives, by item, after checking that its totals add up."""
    values, total = [], 0
    for domain, a, b, value, claimed in STEP.findall(text):
        total = (total + int(value)) % 10
        assert int(claimed) == total
        values.append(((domain, int(a), int(b)), int(value)))
    assert text.endswith(f"; so {total}")
    return values


def draw(config, count=DOCUMENTS, seed=7, exclude=()):
    return list(itertools.islice(make_documents(config, seed, exclude), count))


@pytest.fixture(scope="session")
def positive():
    return SHIPPED_WORLD


@pytest.fixture(scope="session")
def negative():
    return dataclasses.replace(SHIPPED_WORLD, negative=True)


@pytest.fixture(scope="session")
def documents(positive):
    return draw(positive, exclude=EMBEDDED_SETS.hashes())


@pytest.fixture(scope="session")
def negative_documents(negative):
    return draw(negative, exclude=EMBEDDED_SETS.hashes())


@pytest.fixture(scope="session")
def steady_documents(positive):
    """Documents of authors who never slip."""
    return draw(dataclasses.replace(positive, slip_rate=0.0), 3000)


@pytest.fixture(scope="session")
def reader():
    return read_values


@pytest.fixture(scope="session")
def drawn():
    return draw
