"""When a call may begin."""

import asyncio
import email.utils
import time

import pytest

from arkjax.sampling.pace import Pace, Window, asked_wait, backoff, used_up

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({}, 0, 0),
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": " 1.5 "}, 1.5, 1.5),
        ({"Retry-After": "-3"}, 0, 0),
        ({"Retry-After": "soon"}, 0, 0),
        ({"Retry-After": "9" * 400}, 0, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0),
        ({"Retry-After": "Wed, 99 Foo 99999 99:99:99 GMT"}, 0, 0),
        ({"Retry-After": "30", "Retry-After-Ms": "250"}, 0.25, 0.25),
    ],
)
def test_what_a_server_asks_to_wait(headers, least, most):
    assert least <= asked_wait(headers) <= most


def test_a_date_until_which_to_wait():
    date = email.utils.formatdate(time.time() + 900, usegmt=True)
    assert 800 < asked_wait({"Retry-After": date}) <= 900


@pytest.mark.parametrize(
    ("remaining", "reset", "seconds"),
    [
        ("0", "1s", 1.0),
        ("0", "6m0s", 60.0),
        ("0", "20ms", 0.02),
        ("0", "1m1.5s", 60.0),
        ("0", "12", 12.0),
        ("1", "30s", 0.0),
        ("0", "", 0.0),
        ("0", "1x", 0.0),
        ("0", "1s2", 0.0),
        ("0", "-1s", 0.0),
        ("", "30s", 0.0),
    ],
)
def test_limits_that_are_used_up(remaining, reset, seconds):
    """Waited for a minute at the most: they are refilled little by little."""
    for what in ("requests", "tokens"):
        headers = {f"x-ratelimit-remaining-{what}": remaining, f"x-ratelimit-reset-{what}": reset}
        assert used_up(headers) == pytest.approx(seconds)


def test_waits_double_with_some_chance_in_them_and_end_at_half_a_minute():
    longest = [backoff(attempt, 0.5, 1.0) for attempt in range(1, 9)]
    assert longest == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [2 * backoff(attempt, 0.5, 0.0) for attempt in range(1, 9)] == longest
    assert backoff(10**6, 0.5, 1.0) == 30


class Clock:
    """Seconds that pass only while somebody sleeps, so that rates come out exactly."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.sleep = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", self.pass_by)

    def __call__(self):
        return self.now

    async def pass_by(self, seconds):
        self.now += seconds
        await self.sleep(0)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def starts(pace, clock, costs, back=0):
    """Seconds at which calls of these tokens begin, all asking at once."""
    began = []

    async def call(tokens):
        await pace.turn(tokens)
        began.append(clock() - 100)
        pace.give_back(back)

    async def all_of_them():
        await asyncio.gather(*map(call, costs))

    asyncio.run(all_of_them())
    return began


def test_no_minute_has_more_requests_than_its_limit(clock):
    began = starts(Pace(30, 0, clock), clock, [5] * 100)
    assert began == pytest.approx([2.0 * i for i in range(100)])


def test_a_call_of_many_tokens_leaves_a_debt(clock):
    """At 60 tokens a second: the second's worth that is there, then what each call costs."""
    began = starts(Pace(0, 3600, clock), clock, [30, 600, 6, 6, 60])
    assert began == pytest.approx([0, 0.5, 9.6, 9.7, 10.7], abs=1e-6)


def test_tokens_that_come_back_let_others_begin(clock):
    assert starts(Pace(0, 3600, clock), clock, [60] * 5)[-1] == pytest.approx(4)
    clock.now = 100.0
    assert starts(Pace(0, 3600, clock), clock, [60] * 5, back=45)[-1] == pytest.approx(1)


def test_a_hold_holds_all_and_no_limit_is_none(clock):
    assert starts(Pace(0, 0, clock), clock, [10**6] * 50) == [0] * 50
    pace = Pace(0, 0, clock)
    pace.hold(7)
    pace.hold(3)
    assert starts(pace, clock, [1, 1]) == pytest.approx([7, 7])
    assert pace.held == 0
    pace.hold(5)
    assert pace.held == pytest.approx(5)


def test_a_window_lets_in_whoever_came_first_and_is_never_overfull():
    """Attempts that are cancelled, waiting or inside, leave their places to others."""

    async def play():
        window, inside, order = Window(3), set(), []
        go = asyncio.Event()

        async def attempt(rank):
            async with window.place(rank):
                inside.add(rank)
                order.append(rank)
                assert len(inside) <= window.size
                try:
                    await go.wait()
                finally:
                    inside.discard(rank)

        tasks = {rank: asyncio.create_task(attempt(rank)) for rank in (5, 9, 7, 4, 8, 2, 6)}
        await asyncio.sleep(0)
        assert order == [5, 9, 7]
        tasks[4].cancel()
        tasks[9].cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == [5, 9, 7, 2]
        go.set()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert order == [5, 9, 7, 2, 6, 8] and not inside
        await asyncio.wait_for(attempt(1), 5)

    asyncio.run(play())


def test_a_window_halves_once_for_all_that_were_refused_together_and_opens_slowly(clock):
    window = Window(16, clock)
    for _ in range(10):
        window.narrow(began=99.0)
    assert window.size == 8
    for began in (101.0, 102.0, 103.0, 104.0, 105.0):
        clock.now = began + 0.5
        window.narrow(began)
    assert window.size == 1
    widths = []
    for _ in range(200):
        window.widen()
        widths.append(window.size)
    # One more for every round of answers, and no more than at first.
    assert widths[:6] == [2, 2, 2, 3, 3, 3] and widths[-1] == 16
