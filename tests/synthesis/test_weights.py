"""Attribution as weights of examples: bounded, of mean one, and in the order of the credit."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import ConfigError
from arkjax.synthesis.attribution import AttributionConfig
from arkjax.synthesis.selection import SelectionConfig
from arkjax.synthesis.weights import credit_of, example_weights
from arkjax.trajectories.attribution import AgentCredit, Attribution, MessageCredit

from .selecting import select

pytestmark = pytest.mark.fast
CREDITS = st.lists(st.none() | st.floats(-1e300, 1e300), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(CREDITS)
def test_weights_follow_the_credit_and_have_the_mean_one(credits):
    weights = example_weights(credits)
    assert sum(weights) / len(weights) == pytest.approx(1.0, abs=1e-12)
    assert all(0.5 < weight < 1.5 for weight in weights)
    known = [(c, w) for c, w in zip(credits, weights, strict=True) if c is not None]
    assert all((a < b) == (x < y) for a, x in known for b, y in known)
    assert all(w == 1 for c, w in zip(credits, weights, strict=True) if c is None)
    # Scale and unit do not matter.
    halves = [None if c is None else c / 2 + 1 for c in [1.0, None, 3.0, 3.0]]
    assert example_weights(halves) == example_weights([1.0, None, 3.0, 3.0])


def test_weights_by_hand():
    assert example_weights([]) == []
    assert example_weights([7.0]) == example_weights([None]) == [1.0]
    assert example_weights([0.0, 2.0, 2.0, -1.0]) == [0.875, 1.25, 1.25, 0.625]


@pytest.fixture
def known(call):
    """Two agents' messages about one problem; the second message of "a" was read by nobody."""
    calls = [call(agent="a"), call(agent="b"), call(agent="a", round=1), call(agent="b", round=1)]
    influence = {calls[0].call_id: 0.5, calls[1].call_id: 2.0}
    messages = [
        MessageCredit(
            c.call_id, "p1", c.agent, c.round, 0.0, 0.0, False, False, influence.get(c.call_id)
        )
        for c in calls
    ]
    agents = [
        AgentCredit("p1", "a", 3.0, 1.0, True, True, 0.5, -1.0, 0.0),
        AgentCredit("p1", "b", 0.0, 1.0, False, False, 2.0, 4.0, 0.0),
    ]
    return calls, Attribution.of(messages, agents)


def test_whose_credit_it_is(known, call):
    (a, b, later, _), attribution = known
    assert credit_of(a, attribution, "influence") == 0.5
    assert credit_of(later, attribution, "influence") == 0.5
    assert credit_of(b, attribution, "shapley") == credit_of(b, attribution, "influence") * 2 == 4
    assert (
        credit_of(later, attribution, "corrected") == 2
        and credit_of(b, attribution, "corrected") == -1
    )
    # A single agent's sample about the same problem is in no debate.
    other = dataclasses.replace(call(agent="a"), call_id="elsewhere")
    assert credit_of(other, attribution, "influence") is None
    assert credit_of(a, attribution, "none") is None


def test_the_most_influential_traces_are_preferred(known, grader):
    calls, attribution = known
    config = SelectionConfig(
        max_traces=1,
        min_agreeing=1,
        prefer_corrective=False,
        attribution=AttributionConfig(kinds=("flips", "influence")),
        prefer="influence",
    )
    traces, _ = select(calls, {}, grader, config, attribution)
    assert [(t.call.agent, t.call.round) for t in traces] == [("b", 1)]
    as_before = dataclasses.replace(config, prefer="none")
    for attributed in (attribution, None):
        traces, _ = select(calls, {}, grader, as_before, attributed)
        assert [(t.call.agent, t.call.round) for t in traces] == [("a", 1)]


@pytest.mark.parametrize("field", ["prefer", "weights"])
def test_credit_that_is_not_worked_out_is_asked_for_by_name(field):
    fields = {"max_traces": 1, "min_agreeing": 1, "prefer_corrective": False}
    with pytest.raises(ConfigError, match=f"synthesis.{field} is 'shapley', .* add 'shapley'"):
        SelectionConfig(**fields, **{field: "shapley"})
    SelectionConfig(**fields, **{field: "corrected"})
