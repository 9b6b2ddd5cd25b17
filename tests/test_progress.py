"""Lines of progress: what they say of rate and time left."""

import io

import pytest

from arkjax.progress import Progress

pytestmark = pytest.mark.fast


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_compiling_does_not_count_into_what_is_left(clock):
    with Progress(stream=io.StringIO(), clock=clock).task("train", 101, "steps") as task:
        clock.now = 60.0
        task.advance(1)
        # Nothing is known yet but that the first step is done.
        assert task.describe() == "1/101 steps"
        clock.now = 62.0
        task.advance(1)
        assert task.describe() == "2/101 steps, 0.5 steps/s, 3m18s left"
        clock.now = 260.0
        task.advance(99, "loss 0.5")
        assert task.describe() == "101/101 steps, 0.388 steps/s, took 4m20s, loss 0.5"


def test_what_an_earlier_run_did_took_no_time(clock):
    with Progress(stream=io.StringIO(), clock=clock).task("play", 100, "problems", 50) as task:
        for now in (10.0, 11.0):
            clock.now = now
            task.advance(1)
        assert task.describe() == "52/100 problems, 1 problems/s, 48s left"
        clock.now = 20.0
        task.restart()
        for now in (25.0, 26.0):
            clock.now = now
            task.advance(2)
        assert task.describe() == "56/100 problems, 2 problems/s, 22s left"


def test_lines_come_now_and_then_and_at_the_end(clock):
    stream = io.StringIO()
    with Progress(stream=stream, clock=clock).task("score", 4, "rows") as task:
        for now in (1.0, 10.0, 20.0, 40.0):
            clock.now = now
            task.advance(1)
    assert stream.getvalue().splitlines() == [
        "score: 3/4 rows, 0.105 rows/s, 10s left",
        "score: 4/4 rows, 0.1 rows/s, took 40s",
    ]
