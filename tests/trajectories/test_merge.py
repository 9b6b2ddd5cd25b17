"""Several stores as one: each call once, conflicts named, and nothing half done."""

import dataclasses
import json
import os

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.trajectories import merge as merging
from arkjax.trajectories.merge import merge
from arkjax.trajectories.schema import content_hash
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast


def test_overlapping_stores_become_one_with_each_call_once(debate, store_of, tmp_path):
    calls = [c for n in range(12) for c in debate(n)]
    slower = [dataclasses.replace(c, seconds=9.0, cached_len=1) for c in calls[20:50]]
    sources = [store_of(calls[:30], "a"), store_of(slower, "b"), store_of(calls[45:], "c")]
    out = tmp_path / "merged"
    assert merge(out, sources) == len(calls)
    merged = CallStore(out)
    assert merged.content_hash() == content_hash(calls)
    # Of a call that several have, the first store's record is kept.
    assert merged.get(calls[25].call_id) == calls[25]
    assert merged.get(calls[40].call_id).seconds == 9.0
    told = json.loads((out / "merge.json").read_text())
    assert [source["store"] for source in told["sources"]] == [str(path) for path in sources]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    # Done before: nothing is done, and nothing is wrong.
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert merge(out, sources) == len(calls)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_conflict_names_both_records_and_what_differs(debate, store_of, tmp_path):
    calls = [c for n in range(6) for c in debate(n)]
    other = [*calls[10:20], dataclasses.replace(calls[21], text="else", correct=None)]
    a, b, out = store_of(calls, "a"), store_of(other, "b"), tmp_path / "merged"
    with pytest.raises(DataError) as raised:
        merge(out, [a, b])
    said = str(raised.value)
    assert calls[21].call_id in said and "(text, correct)" in said
    assert str(a / "calls-00002.parquet") in said and str(b / "calls-00001.parquet") in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert merge(out, [a, b], prefer_first=True) == len(calls)
    assert CallStore(out).content_hash() == content_hash(calls)


def test_a_conflict_within_one_shard_is_found(debate, store_of, tmp_path):
    from arkjax.trajectories.schema import to_table
    from arkjax.trajectories.shards import write_shard

    calls = debate(1)
    (tmp_path / "a").mkdir()
    twice = [*calls, dataclasses.replace(calls[2], text="else")]
    write_shard(tmp_path / "a/calls-00000.parquet", to_table(twice))
    with pytest.raises(DataError, match=f"{calls[2].call_id} is recorded differently"):
        merge(tmp_path / "merged", [tmp_path / "a"])


def test_log_probabilities_that_are_no_numbers_are_no_conflict(debate, store_of, tmp_path):
    # Some servers report none, and NaN is not equal to itself.
    calls = [dataclasses.replace(c, logprobs=(float("nan"),) * len(c.gen_ids)) for c in debate(1)]
    assert merge(tmp_path / "out", [store_of(calls, "a"), store_of(calls, "b")]) == 6


def test_an_interrupted_merge_goes_on_and_never_shows_a_part(
    debate, store_of, tmp_path, monkeypatch
):
    calls = [c for n in range(12) for c in debate(n)]
    sources, out = [store_of(calls[:40], "a"), store_of(calls[30:], "b")], tmp_path / "merged"
    real, count = CallStore.append, 0

    class Killed(BaseException):
        pass

    def dying(store, some):
        nonlocal count
        count += 1
        if count == 4:
            raise Killed
        real(store, some)
        store.flush()

    with monkeypatch.context() as patch:
        patch.setattr(merging.CallStore, "append", dying)
        with pytest.raises(Killed):
            merge(out, sources)
    assert not out.exists()
    (work,) = tmp_path.glob(".merged*")
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*.parquet")}
    assert kept
    assert merge(out, sources) == len(calls)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()}.items() >= kept.items()
    assert CallStore(out).content_hash() == content_hash(calls)
    # What an interrupted merge of other stores has left is not mixed into this one.
    os.rename(out, work)
    assert merge(out, sources[:1]) == 40


def test_something_else_is_never_replaced(debate, store_of, tmp_path):
    source, mine = store_of(debate(1), "a"), tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for out in (mine, source, mine / "notes.txt"):
        with pytest.raises(ConfigError, match="is there already"):
            merge(out, [source])
    assert (mine / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert merge(tmp_path / "empty", [source]) == 6
