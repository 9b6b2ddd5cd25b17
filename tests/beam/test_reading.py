"""Shards as somebody else may have written them: read, or told why not; no Beam is needed."""

import base64
import collections
import dataclasses
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkjax.beam import files
from arkjax.beam.elements import (
    COLUMNS,
    block,
    call_of,
    ids_of,
    ids_text,
    packed,
    part_of,
    unblocked,
    unpacked,
)
from arkjax.beam.reading import RAW_BYTES, read_shard
from arkjax.beam.tally import Tally, total
from arkjax.errors import DataError
from arkjax.synthesis.counts import Counts, Passed
from arkjax.trajectories.schema import SCHEMA, Call, to_table
from arkjax.trajectories.shards import write_shard
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


def call(number: int, **changes) -> Call:
    made = Call(
        call_id=f"c{number}",
        problem_id=f"p{number // 3}",
        system="debate",
        stage="opening",
        round=0,
        agent="a",
        sample=number,
        parents=("x", "ÿ"),
        prompt_segments=(("template", 0, 2),),
        prompt_ids=(3, 4),
        prefix_len=1,
        cached_len=0,
        gen_ids=(5, 6, number),
        logprobs=(-0.5,) * 3,
        sampling_logprobs=(-0.5,) * 3,
        text="words",
        parsed={"answer": f"{number}"},
        parse_ok=True,
        finish_reason="stop",
        sampling={},
        seed=0,
        model="base",
        correct=None if number % 2 else True,
        seconds=0.1,
    )
    return dataclasses.replace(made, **changes)


def written(path, rows) -> files.Source:
    """A shard of rows as Arrow takes them, with a right checksum."""
    table = pa.Table.from_pylist(rows, SCHEMA) if isinstance(rows, list) else rows
    write_shard(path, table)
    return files.Source(7, str(path))


def rows_of(calls):
    return to_table(calls).to_pylist()


def read(source):
    """Rows by problem, dead letters, and how many rows were told of."""
    calls, dead, rows = collections.defaultdict(list), [], 0
    for some in read_shard(source):
        for problem, found in some.calls.items():
            calls[problem] += found
        dead += some.dead
        rows += some.rows
    return calls, dead, rows


def test_a_shard_is_read_as_what_selection_looks_at(tmp_path):
    calls = [call(number) for number in range(10)]
    found, dead, rows = read(written(tmp_path / "calls-00000.parquet", to_table(calls)))
    assert (dead, rows) == ([], 10)
    assert list(found) == ["p0", "p1", "p2", "p3"]
    back = [call_of(name, row) for name, some in found.items() for row in some]
    for before, after in zip(calls, back, strict=True):
        assert all(getattr(before, name) == getattr(after, name) for name in COLUMNS)
    assert [row[:2] for some in found.values() for row in some] == [[7, n] for n in range(10)]


class Evil:
    """What would leave a file behind if anybody unpickled it."""

    def __reduce__(self):
        return open, ("unpickled", "w")


HOSTILE = {
    "parsed": [
        ("not json", "JSONDecodeError"),
        (pickle.dumps(Evil(), 0).decode("latin-1"), "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ("[]", "no JSON object"),
        ('{"answer": 3}', "no JSON object of texts"),
        (None, "parsed is null"),
    ],
    "gen_ids": [(None, "null"), ([1, None], "null"), ([5, -1], "negative")],
    "parents": [(["x", None], "null")],
    "call_id": [("", "empty"), (None, "null")],
    "problem_id": [("", "empty"), (None, "null")],
    "round": [(None, "null")],
}


@pytest.mark.parametrize(
    ("field", "value", "why"), [(f, *case) for f, cases in HOSTILE.items() for case in cases]
)
def test_a_hostile_row_is_a_dead_letter_and_no_other_row_is(
    tmp_path, monkeypatch, field, value, why
):
    monkeypatch.chdir(tmp_path)
    rows = rows_of([call(number) for number in range(6)])
    rows[3][field] = value
    found, dead, count = read(written(tmp_path / "calls-00000.parquet", rows))
    assert count == 6 and sum(map(len, found.values())) == 5
    (letter,) = dead
    assert letter["kind"] == "row" and letter["row"] == 3 and letter["calls"] == 1
    assert why in letter["reason"] and letter["file"].endswith("calls-00000.parquet")
    raw = base64.b64decode(letter["raw"])
    assert len(raw) <= RAW_BYTES and len(json.dumps(letter)) < 2 * RAW_BYTES + 1000
    if letter["bytes"] <= RAW_BYTES:
        assert json.loads(raw)[field] == value
    assert not (tmp_path / "unpickled").exists()


def test_text_that_is_no_utf8_is_a_dead_letter(tmp_path):
    table = to_table([call(number) for number in range(3)])
    texts = pa.array([b"a", b"\xff\xfe", b"a"], pa.binary()).view(pa.string())
    at = SCHEMA.get_field_index("agent")
    source = written(
        tmp_path / "calls-00000.parquet", table.set_column(at, SCHEMA.field(at), texts)
    )
    found, (letter,), rows = read(source)
    assert rows == 3 and sum(map(len, found.values())) == 2
    assert letter["row"] == 1 and "UnicodeDecodeError" in letter["reason"]


def test_a_shard_that_cannot_be_read_is_one_dead_letter(tmp_path):
    table = to_table([call(number) for number in range(6)])
    whole = tmp_path / "calls-00000.parquet"
    source = written(whole, table)
    sidecar, data = whole.with_name(whole.name + ".sha256"), whole.read_bytes()
    whole.write_bytes(data[:-1] + b"?")
    (damaged,) = read(source)[1]
    assert damaged["kind"] == "shard" and "SHA-256" in damaged["reason"]
    assert base64.b64decode(damaged["raw"]) == data[:RAW_BYTES]
    sidecar.unlink()
    assert "no readable checksum" in read(source)[1][0]["reason"]
    whole.unlink()
    assert "cannot be read" in read(source)[1][0]["reason"]


@pytest.mark.parametrize("data", [b"", b"PAR1", pickle.dumps(Evil(), 0), b"PAR1" * 100])
def test_what_is_no_parquet_is_a_dead_letter(tmp_path, monkeypatch, data):
    import hashlib

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "calls-00000.parquet"
    path.write_bytes(data)
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(data).hexdigest())
    calls, (letter,), rows = read(files.Source(0, str(path)))
    assert (dict(calls), rows, letter["kind"], letter["calls"]) == ({}, 0, "shard", 0)
    assert not (tmp_path / "unpickled").exists()


def test_other_columns_are_a_dead_letter_and_older_records_are_not(tmp_path):
    table = to_table([call(number) for number in range(6)])
    older = written(tmp_path / "a.parquet", table.drop_columns(["step", "top_ids"]))
    assert read(older)[2] == 6 and read(older)[1] == []
    without = written(tmp_path / "b.parquet", table.drop_columns(["gen_ids"]))
    at = table.schema.names.index("round")
    other = written(tmp_path / "c.parquet", table.set_column(at, "round", pa.array(["0"] * 6)))
    for source in (without, other):
        calls, (letter,), rows = read(source)
        assert not calls and rows == 0 and "other columns" in letter["reason"]


def test_a_row_group_that_cannot_be_decoded_is_counted_and_the_others_are_read(tmp_path):
    import hashlib

    path = tmp_path / "calls-00000.parquet"
    table = to_table([call(number) for number in range(9)])
    pq.write_table(table, path, row_group_size=3, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(COLUMNS.index("call_id"))
    data = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\0" * column.total_compressed_size
    path.write_bytes(data)
    path.with_name(path.name + ".sha256").write_text(hashlib.sha256(data).hexdigest())
    calls, (letter,), rows = read(files.Source(0, str(path)))
    assert rows == 9 and letter["kind"] == "row_group" and letter["calls"] == 3
    kept = sorted(row[1] for some in calls.values() for row in some)
    assert kept == [0, 1, 2, 6, 7, 8]


# --- places ---------------------------------------------------------------------------------------


def test_shards_are_found_once_each_in_order(tmp_path):
    for name in ("b", "a"):
        with CallStore(tmp_path / name, shard_calls=2) as store:
            store.append([call(number) for number in range(5)])
    found = files.sources([str(tmp_path / "b"), str(tmp_path), str(tmp_path / "*")])
    places = [(s.path.split("/")[-2], s.path[-7:-8:-1]) for s in found]
    assert [name for name, _ in places] == ["b"] * 3 + ["a"] * 3
    assert [s.number for s in found] == list(range(6))
    one = files.sources([str(tmp_path / "a/calls-0000[12].parquet")])
    assert [s.path[-9] for s in one] == ["1", "2"]
    with pytest.raises(DataError, match="nothing"):
        files.sources([str(tmp_path / "nothing")])


# --- what travels ---------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=8,
)


@given(JSON, st.binary())
def test_what_is_packed_comes_back(told, data):
    assert unpacked(packed(told)) == told
    assert unblocked(block(told, data)) == (told, data)


@given(st.lists(st.integers(0, 2**31 - 1)), st.text(), st.integers(1, 100))
def test_ids_come_back_and_parts_are_few(ids, name, parts):
    assert ids_of(ids_text(ids)) == tuple(ids)
    assert 0 <= int(part_of(name, parts)) < parts


# --- the account ----------------------------------------------------------------------------------


def account() -> Tally:
    records = {"shards": 3, "dead_shard": 1, "calls": 20, "dead_row": 2, "repeated": 3}
    records |= {"actions": 4, "foreign": 1, "dead_problem": 3, "dead_letters": 4}
    filters = {"gate": Passed(3, 0, 7, 2), "near_duplicates": Passed(3, 1, 5, 1)}
    shards = {"examples-00000.parquet": {"examples": 4, "sha256": ""}}
    shards["dead-letters-00000.jsonl"] = {"letters": 4, "sha256": ""}
    counts = Counts(calls=7, examples=4, forms={"made": 2}, filters=filters)
    return Tally(collections.Counter(records), counts, shards)


def test_an_account_that_adds_up_is_let_pass_and_no_other():
    account().check(4)
    for name in ("shards", "dead_shard", "calls", "dead_row", "repeated", "actions", "foreign"):
        off = account()
        off.records[name] += 1
        with pytest.raises(DataError, match="does not add up"):
            off.check(4)
    for change in ({"calls": 8}, {"examples": 5}):
        off = account()
        off.counts = dataclasses.replace(off.counts, **change)
        with pytest.raises(DataError, match="does not add up"):
            off.check(4)
    with pytest.raises(DataError, match="5 shards given, but 3 read"):
        account().check(5)


def test_parts_of_an_account_add_up_in_any_order():
    parts = [account(), Tally(), Tally.of(account().plain())]
    assert total(parts).plain() == total(parts[::-1]).plain()
    assert total(parts).records["calls"] == 40
    assert total(parts).counts.filters["gate"] == Passed(6, 0, 14, 4)
    assert json.loads(json.dumps(account().plain())) == account().plain()
