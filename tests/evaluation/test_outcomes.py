"""The outcome table: round trips, alignment, and errors that name what is wrong."""

import dataclasses

import numpy as np
import pytest

from arkjax.errors import DataError
from arkjax.evaluation import cost
from arkjax.evaluation.outcomes import Outcome, Outcomes


def outcome(**changes):
    costs = dict(calls=1, prompt_tokens=40, generated_tokens=10, seconds=0.5)
    talk = dict(in_pool=True, opening_correct=True, confidence=0.75, rounds=1)
    row = Outcome(
        seed=0, split="test", system="base", problem_id="p0", part="plain", domain="coins",
        correct=True, answer="3", difficulty="Level 2", **costs, **talk,
    )  # fmt: skip
    return dataclasses.replace(row, **changes)


def grid(systems=("base", "team"), seeds=(1, 0), problems=("p2", "p0", "p1")):
    return [
        outcome(seed=s, system=name, problem_id=p, correct=(len(name) + s + int(p[1])) % 2 == 0)
        for name in systems
        for s in seeds
        for p in problems
    ]


def test_round_trip_through_parquet_keeps_every_value(tmp_path):
    rows = [*grid(), outcome(split="ood", answer="", domain="größe |x−y|", seconds=1 / 3)]
    path = tmp_path / "outcomes.parquet"
    Outcomes.from_records(rows).save(path)
    assert Outcomes.load(path).records() == rows
    assert [p.name for p in tmp_path.iterdir()] == ["outcomes.parquet"]


def test_empty_table_round_trips(tmp_path):
    Outcomes.from_records([]).save(tmp_path / "o.parquet")
    assert len(Outcomes.load(tmp_path / "o.parquet")) == 0


@pytest.mark.parametrize("cut", [0, 3, 200])
def test_damaged_file_is_named(tmp_path, cut):
    path = tmp_path / "outcomes.parquet"
    Outcomes.from_records(grid()).save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="outcomes.parquet: damaged"):
        Outcomes.load(path)


def test_missing_file_and_foreign_table_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match="arkjax evaluate"):
        Outcomes.load(tmp_path / "none.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="other.parquet: has columns"):
        Outcomes.load(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("change", "named"),
    [({"correct": "yes"}, "correct"), ({"calls": 1.5}, "calls"), ({"problem_id": 7}, "problem_id")],
)
def test_wrong_type_names_row_and_field(change, named):
    with pytest.raises(DataError, match=f"outcome 1, field '{named}'"):
        Outcomes.from_records([outcome(), outcome(**change)])


def test_missing_and_unknown_fields_are_named():
    record = vars(outcome()).copy()
    record["colour"] = record.pop("domain")
    with pytest.raises(DataError, match=r"\['domain'\].*\['colour'\]"):
        Outcomes.from_records([record])


def test_matrix_is_aligned_whatever_the_order_of_rows():
    rows = grid()
    table = Outcomes.from_records(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = Outcomes.from_records([rows[i] for i in order])
    assert table.problems("test")["problem_id"].tolist() == ["p0", "p1", "p2"]
    for name in ("base", "team"):
        expected = [[(len(name) + s + p) % 2 == 0 for p in range(3)] for s in (0, 1)]
        assert table.matrix(name, "test").tolist() == expected
        assert shuffled.matrix(name, "test").tolist() == expected
    assert table.matrix("team", "test").dtype == bool


def test_matrix_refuses_systems_on_other_problems():
    rows = grid()
    with pytest.raises(DataError, match="'team': problem 'p1' of seed 0 was answered 0 times"):
        Outcomes.from_records(rows[:-1]).matrix("team", "test")
    with pytest.raises(DataError, match="answered 2 times"):
        Outcomes.from_records([*rows, rows[-1]]).matrix("team", "test")
    with pytest.raises(DataError, match="'student' was not evaluated"):
        Outcomes.from_records(rows).matrix("student", "test")


@pytest.mark.parametrize("fact", ["domain", "part", "difficulty"])
def test_problem_of_which_two_things_are_said_is_refused(fact):
    table = Outcomes.from_records([outcome(), outcome(system="team", **{fact: "gap"})])
    with pytest.raises(DataError, match=f"problem 'p0': {fact}"):
        table.problems("test")


def test_table_of_fewer_columns_is_refused_with_the_remedy(tmp_path):
    import pyarrow.parquet as pq

    path = tmp_path / "outcomes.parquet"
    Outcomes.from_records(grid()).save(path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["confidence"]), path)
    with pytest.raises(DataError, match="outcomes.parquet: has columns.*--redo evaluate"):
        Outcomes.load(path)


def test_confidence_that_is_not_known_stays_unknown(tmp_path):
    path = tmp_path / "outcomes.parquet"
    Outcomes.from_records([outcome(confidence=float("nan")), outcome()]).save(path)
    assert np.isnan(Outcomes.load(path)["confidence"]).tolist() == [True, False]


def test_select_and_costs():
    rows = [
        outcome(calls=4, generated_tokens=100, correct=True),
        outcome(problem_id="p1", calls=2, generated_tokens=50, correct=False, part="multi"),
        outcome(system="team", correct=False),
    ]
    table = Outcomes.from_records(rows)
    assert len(table.select(system="base", part="multi")) == 1
    base = table.select(system="base")
    assert cost.cost_per_problem(base)["calls"] == 3
    assert cost.cost_per_correct(base)["generated_tokens"] == 150
    assert cost.cost_per_correct(table.select(system="team"))["calls"] is None
    assert set(cost.cost_by_system(table, "test")) == {"base", "team"}


def test_all_devices_are_held_while_the_generator_works():
    rows = [outcome(seconds=3.0), outcome(problem_id="p1", correct=False, seconds=1.0)]
    table = Outcomes.from_records(rows)
    assert cost.cost_per_problem(table, devices=8)["device_seconds"] == 16
    assert cost.cost_per_problem(table, devices=8)["seconds"] == 2
    assert cost.cost_per_correct(table, devices=8)["device_seconds"] == 32
    nothing = cost.cost_per_problem(Outcomes.from_records([]))
    assert set(nothing.values()) == {0.0} and "device_seconds" in nothing
