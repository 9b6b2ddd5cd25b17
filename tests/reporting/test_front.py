"""The Pareto front: exact on small sets of points, with ties."""

import copy
import itertools

import pytest

from arkjax.reporting.front import costs, front, front_sentence, listed, pareto

pytestmark = pytest.mark.fast


def test_dominated_points_are_off_the_front():
    points = {"cheap": (1.0, 0.4), "best": (8.0, 0.9), "worse": (9.0, 0.9), "between": (4.0, 0.3)}
    assert pareto(points) == ["cheap", "best"]
    assert pareto({}) == [] and pareto({"only": (3.0, 0.0)}) == ["only"]


def test_of_equal_costs_the_most_accurate_and_of_equal_accuracy_the_cheapest():
    assert pareto({"a": (1, 0.5), "b": (1, 0.6), "c": (1, 0.4)}) == ["b"]
    assert pareto({"a": (3, 0.5), "b": (1, 0.5), "c": (2, 0.5)}) == ["b"]


def test_equal_points_are_on_it_together_or_not_at_all():
    assert pareto({"b": (1, 0.5), "a": (1, 0.5), "c": (2, 0.7), "d": (2, 0.7)}) == [*"abcd"]
    assert pareto({"a": (2, 0.5), "b": (2, 0.5), "c": (1, 0.5)}) == ["c"]


def test_it_is_what_the_definition_says():
    grid = list(itertools.product((1, 2, 3), (0.1, 0.2, 0.3)))
    for chosen in itertools.combinations_with_replacement(grid, 4):
        points = {f"{index}": point for index, point in enumerate(chosen)}
        expected = {
            name
            for name, (cost, right) in points.items()
            if not any(
                other[0] <= cost and other[1] >= right and other != (cost, right)
                for other in points.values()
            )
        }
        found = pareto(points)
        assert set(found) == expected and len(found) == len(expected)
        assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)


def entry(accuracy, tokens, calls, seconds):
    return {
        "accuracy": accuracy, "generated_tokens": tokens, "calls": calls, "seconds": seconds,
        "device_seconds": 2 * seconds,
    }  # fmt: skip


REPORT = {
    "splits": {
        "test": {
            "systems": {
                "base": entry(0.4, 30, 1, 0.1),
                "team": entry(0.9, 240, 8, 0.9),
                "student_da": entry(0.9, 30, 1, 0.2),
            }
        }
    }
}


def test_sentence_names_the_front_of_each_cost():
    assert front(REPORT, "test", "generated_tokens") == ["student_da"]
    said = front_sentence(REPORT, "test")
    assert "by generated tokens and calls student DA; by device-seconds base and student DA" in said
    assert "Point estimates decide" in said


def test_reports_without_device_seconds_show_seconds():
    old = copy.deepcopy(REPORT)
    for of_system in old["splits"]["test"]["systems"].values():
        del of_system["device_seconds"]
    assert costs(old["splits"]["test"]["systems"]) == ["generated_tokens", "calls", "seconds"]
    assert "by seconds base" in front_sentence(old, "test")


def test_listed():
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a", "a and b", "a, b and c",
    ]  # fmt: skip
