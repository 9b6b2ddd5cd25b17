"""Where calls are: the index against a dict, and calls by problem against a filter of all."""

import dataclasses
import random
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.errors import DataError
from arkjax.storage import sha256_file
from arkjax.trajectories.index import IdIndex, key_of, keys_of
from arkjax.trajectories.schema import canonical_order, to_table
from arkjax.trajectories.store import CallStore

pytestmark = pytest.mark.fast

IDS = st.one_of(
    st.integers(0, 40).map("{:032x}".format),
    st.integers(0, 3).map(lambda i: f"{i:016x}" + "0" * 16),
    st.integers(0, 2**128 - 1).map("{:032x}".format),
    st.sampled_from(["", "a", "ABCDEF" + "0" * 26, "g" * 32, "naïve", "x" * 33, "٣" * 32]),
)


@given(st.lists(st.lists(IDS, max_size=30), max_size=12), st.lists(IDS, max_size=10))
@settings(max_examples=150, deadline=None)
def test_the_index_is_a_dict_of_first_places(batches, asked):
    index, reference, position = IdIndex(), {}, 0
    for batch in batches:
        new = index.add(keys_of(pa.chunked_array([pa.array(batch, pa.string())])))
        for i, name in enumerate(batch):
            assert new[i] == (name not in reference)
            reference.setdefault(name, position + i)
        position += len(batch)
    assert (index.size, index.unique) == (position, len(reference))
    every = [*reference, *asked]
    expected = [reference.get(name, -1) for name in every]
    assert [index.find(name) for name in every] == expected
    assert index.find_many(keys_of(pa.array(every, pa.string()))).tolist() == expected


def test_keys_of_a_column_are_those_of_its_ids_also_of_a_slice_of_it():
    rng = random.Random(0)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(50)]
    for array in (pa.array(ids), pa.array(["other", *ids, "end"]).slice(1, 50)):
        assert keys_of(array).tolist() == [list(key_of(name)) for name in ids]
    mixed = pa.chunked_array([pa.array(ids[:3]), pa.array(["short", ids[3]])])
    assert keys_of(mixed).tolist() == [list(key_of(n)) for n in [*ids[:3], "short", ids[3]]]


def test_ids_that_count_upwards_are_found_as_fast_as_any(monkeypatch):
    index = IdIndex()
    index.add(keys_of(pa.array([f"{i:032x}" for i in range(20_000)])))
    # The first halves are what is searched: equal ones would be walked through one by one.
    firsts = np.concatenate([run[0] for run in index._runs])
    assert len(np.unique(firsts)) == 20_000
    assert sum(array.nbytes for run in index._runs for array in run) == 20 * 20_000


def test_calls_of_a_problem_are_those_that_a_filter_finds(debate, tmp_path):
    rng = random.Random(1)
    calls = [call for number in range(30) for call in debate(number)]
    shuffled = rng.sample(calls, len(calls))
    with CallStore(tmp_path, shard_calls=16) as store:
        store.append(shuffled[:100])
        assert set(store.problems()) == {call.problem_id for call in shuffled[:100]}
        store.append(shuffled[100:])
        names = store.problems()
        assert names == list(dict.fromkeys(call.problem_id for call in shuffled))
        for opened in (store, CallStore(tmp_path)):
            for name in ("p0", "p17"):
                expected = canonical_order(c for c in calls if c.problem_id == name)
                assert opened.of_problem(name) == expected
            assert opened.of_problem("nobody") == []
        # Some of the calls are still in the buffer.
        assert [call for _, several in store.by_problem() for call in several] == [
            call
            for name in names
            for call in canonical_order(c for c in calls if c.problem_id == name)
        ]


def test_only_the_shards_of_a_problem_are_read(debate, store_of):
    path = store_of([c for n in range(12) for c in debate(n)], shard_calls=6)
    store = CallStore(path)
    store.problems()
    for shard in sorted(path.glob("*.parquet"))[3:]:
        shard.write_bytes(b"")
    assert len(store.of_problem("p1")) == 6
    with pytest.raises(DataError, match="calls-00007.parquet is damaged"):
        store.of_problem("p7")


def test_problems_in_batches_are_the_same_as_at_once(debate, store_of, monkeypatch):
    calls = [c for n in range(12) for c in debate(n)]
    path = store_of(random.Random(2).sample(calls, len(calls)), shard_calls=5)
    whole = list(CallStore(path).by_problem())
    monkeypatch.setattr("arkjax.trajectories.store._CALLS_IN_MEMORY", 7)
    assert list(CallStore(path).by_problem()) == whole


def test_a_call_that_two_shards_have_is_read_once(debate, store_of):
    calls = [c for n in range(4) for c in debate(n)]
    path = store_of(calls, shard_calls=6)
    for suffix in ("", ".sha256"):
        source = path / f"calls-00001.parquet{suffix}"
        text = source.read_bytes()
        if suffix:
            text = text.replace(b"calls-00001", b"calls-00009")
        (path / f"calls-00009.parquet{suffix}").write_bytes(text)
    store = CallStore(path)
    assert len(store) == 24 == len(list(store))
    assert store.of_problem("p1") == canonical_order(calls[6:12])
    assert sum(len(table) for table in store.unique_tables()) == 24
    agents = [name for table in store.tables(["agent"]) for name in table["agent"].to_pylist()]
    assert agents == [call.agent for call in calls]


def test_columns_come_in_the_order_asked_also_from_before_they_were_recorded(debate, tmp_path):
    import pyarrow.parquet as pq

    calls = debate(1)
    old = to_table(calls).drop_columns(["step", "top_ids", "top_logprobs"])
    pq.write_table(old, tmp_path / "calls-00000.parquet")
    digest = sha256_file(tmp_path / "calls-00000.parquet")
    name = "calls-00000.parquet"
    (tmp_path / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    (table,) = CallStore(tmp_path).tables(["step", "agent", "top_ids", "call_id"])
    assert table.schema.names == ["step", "agent", "top_ids", "call_id"]
    assert table["step"].to_pylist() == [0] * 6
    assert CallStore(tmp_path).of_problem("p1") == canonical_order(calls)


def test_a_property_of_calls_is_looked_up_without_them(debate, store_of):
    calls = debate(3)
    store = CallStore(store_of(calls))
    agent = store.lookup("agent")
    assert [agent(call.call_id) for call in calls] == [call.agent for call in calls]
    assert agent("nobody") is None
    late = dataclasses.replace(calls[0], call_id="late", agent="b")
    store.append(late)
    assert store.lookup("agent")("late") == "b"
    assert store.systems() == {"debate"}


def test_a_shard_that_another_process_adds_is_read_in_its_turn(debate, store_of, tmp_path):
    path = store_of(debate(0))
    store = CallStore(path)
    other = store_of(debate(1), name="other")
    for suffix in ("", ".sha256"):
        shutil.copy(other / f"calls-00000.parquet{suffix}", path / f"calls-00001.parquet{suffix}")
    assert len(list(store)) == 12
    assert len(store.of_problem("p1")) == 6
