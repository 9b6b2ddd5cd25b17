"""The record of calls: what goes in comes out, and a kill at any instant costs only new calls."""

import dataclasses
import hashlib
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest

from arkjax.errors import DataError, StorageError
from arkjax.sampling.params import SamplingParams
from arkjax.trajectories.schema import (
    COLUMNS,
    SCHEMA,
    Call,
    call_id,
    call_seed,
    canonical_order,
    content_hash,
    from_table,
    sampling_dict,
    to_table,
)
from arkjax.trajectories.store import CallStore, read_run_info, write_run_info

pytestmark = pytest.mark.fast


def make_call(i, **changes):
    generated = i % 5
    call = Call(
        call_id=f"{i:032x}",
        problem_id=f"p{i // 4}",
        system="debate",
        stage="opening",
        round=i % 2,
        agent=f"a{i % 4}",
        sample=0,
        parents=tuple(f"{j:032x}" for j in range(i % 3)),
        prompt_segments=(("template", 0, 3), (f"{i:032x}", 3, 5 + i % 7)),
        prompt_ids=tuple(range(5 + i % 7)),
        prefix_len=3,
        cached_len=i % 4,
        gen_ids=tuple(range(generated)),
        logprobs=tuple(float(np.float32(-0.1 * j)) for j in range(generated)),
        sampling_logprobs=(-0.5,) * generated,
        text="so 3 ; naïve \x00 “…” 数",
        parsed={"answer": "3"} if i % 2 else {},
        parse_ok=bool(i % 2),
        finish_reason="stop",
        sampling=sampling_dict(SamplingParams(stop_ids=(0,))),
        seed=2**31 - 1 - i,
        model="policy",
        correct=(None, True, False)[i % 3],
        seconds=0.1 * i,
        step=i % 2,
        top_ids=tuple(range(2 * generated)),
        top_logprobs=(-0.25, -2.0) * generated,
    )
    return dataclasses.replace(call, **changes)


def test_calls_survive_the_table_exactly():
    calls = [make_call(i) for i in range(50)]
    table = to_table(calls)
    assert table.schema.equals(SCHEMA)
    assert from_table(table) == calls
    assert from_table(table.slice(7, 5)) == calls[7:12]
    assert from_table(to_table([])) == []


def test_a_record_from_before_a_column_was_added_is_read(tmp_path):
    added = {"step": 0, "top_ids": (), "top_logprobs": ()}
    calls = [make_call(i, **added) for i in range(5)]
    shard = tmp_path / "calls-00000.parquet"
    pq.write_table(to_table(calls).drop_columns(list(added)), shard)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    (tmp_path / f"{shard.name}.sha256").write_text(f"{digest}  {shard.name}\n")
    assert CallStore(tmp_path).load() == canonical_order(calls)


def test_columns_are_the_fields_of_the_design():
    assert {"call_id", "problem_id", "prompt_segments", "sampling_logprobs", "correct"} < set(
        COLUMNS
    )
    assert [field.name for field in dataclasses.fields(Call)] == SCHEMA.names


def test_call_id_depends_on_what_determines_the_tokens_and_not_on_number_types():
    base = {
        "problem_id": "p",
        "model": "policy",
        "stage": "opening",
        "round": 0,
        "agent": "a",
        "sample": 0,
        "prompt_ids": (1, 2, 3),
        "sampling": sampling_dict(SamplingParams(temperature=1.0)),
        "seed": 7,
    }
    name = call_id(**base)
    assert len(name) == 32 and int(name, 16) >= 0
    assert name == call_id(**{**base, "prompt_ids": [1, 2, 3]})
    assert name == call_id(**{**base, "sampling": sampling_dict(SamplingParams(temperature=1))})
    changes = {
        "problem_id": "q",
        "model": "other",
        "stage": "x",
        "round": 1,
        "agent": "b",
        "sample": 1,
        "prompt_ids": (1, 2),
        "sampling": sampling_dict(SamplingParams(temperature=0.5)),
        "seed": 8,
    }
    names = {call_id(**{**base, key: value}) for key, value in changes.items()}
    assert len(names | {name}) == len(changes) + 1


def test_seeds_are_31_bits_and_differ_by_place():
    seeds = {
        call_seed(0, f"p{i}", a, "opening", r, 0) for i in range(99) for a in "ab" for r in (0, 1)
    }
    assert len(seeds) == 99 * 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert call_seed(0, "p", "a", "s", 0, 0) != call_seed(1, "p", "a", "s", 0, 0)


def test_content_hash_ignores_order_shards_and_clock_only(tmp_path):
    calls = [make_call(i) for i in range(20)]
    reference = content_hash(calls)
    later = [dataclasses.replace(call, seconds=9.0, cached_len=0) for call in calls]
    with CallStore(tmp_path, shard_calls=3) as store:
        store.append(reversed(later))
    assert len(list(tmp_path.glob("*.parquet"))) == 7
    assert CallStore(tmp_path).content_hash() == reference
    for change in ({"text": "x"}, {"gen_ids": (9,)}, {"logprobs": (-9.0,)}, {"correct": None}):
        assert content_hash([dataclasses.replace(calls[1], **change), *calls[2:]]) != content_hash(
            calls[1:]
        )


def test_store_appends_resumes_and_loads_in_canonical_order(tmp_path):
    calls = [make_call(i) for i in range(30)]
    with CallStore(tmp_path, shard_calls=8) as store:
        store.append(calls[20:])
        assert calls[25].call_id in store and store.get(calls[25].call_id) == calls[25]
    with CallStore(tmp_path, shard_calls=8) as store:
        assert len(store) == 10
        store.append(calls)
        assert len(store) == 30
    store = CallStore(tmp_path)
    assert store.load() == canonical_order(calls)
    assert store.ids() == {call.call_id for call in calls}
    assert [store.get(call.call_id) for call in calls] == calls
    assert store.get("nobody") is None
    rows = sum(pq.read_metadata(path).num_rows for path in tmp_path.glob("*.parquet"))
    assert rows == 30


def test_a_waiting_buffer_is_flushed_in_time(tmp_path):
    store = CallStore(tmp_path, flush_seconds=0.0)
    store.append(make_call(1))
    assert len(CallStore(tmp_path)) == 1


def test_checksums_are_those_of_sha256sum(tmp_path):
    with CallStore(tmp_path) as store:
        store.append(make_call(1))
    subprocess.run(["sha256sum", "--check", "calls-00000.parquet.sha256"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("instant", range(1, 8))
def test_a_kill_at_any_instant_leaves_whole_shards_or_nothing(tmp_path, monkeypatch, instant):
    """Die at the n-th file operation of a flush; the rest is as a power cut would leave it."""
    import arkjax.storage as storage

    class Killed(BaseException):
        pass

    calls = [make_call(i) for i in range(8)]
    with CallStore(tmp_path) as store:
        store.append(calls[:4])
    count = 0

    def dying(real):
        def operation(*args, **kwargs):
            nonlocal count
            count += 1
            if count == instant:
                raise Killed
            return real(*args, **kwargs)

        return operation

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", dying(storage.os.fsync))
        patch.setattr(storage.os, "replace", dying(storage.os.replace))
        patch.setattr(storage.os, "unlink", lambda *args, **kwargs: None)
        store = CallStore(tmp_path)
        store.append(calls[4:])
        try:
            store.flush()
        except Killed:
            pass
    # Two files are written, each with a sync, a rename and a sync of the directory.
    assert count == min(instant, 6)
    survived = CallStore(tmp_path)
    assert len(survived) == (8 if instant > 5 else 4)
    with survived:
        survived.append(calls)
    assert CallStore(tmp_path).content_hash() == content_hash(calls)
    names = sorted(path.name for path in tmp_path.iterdir())
    shards = [name for name in names if name.endswith(".parquet")]
    assert names == sorted(shards + [name + ".sha256" for name in shards])


@pytest.mark.parametrize("damage", ["truncate", "flip", "no checksum", "empty"])
def test_a_damaged_shard_is_named_with_its_remedy(tmp_path, damage):
    calls = [make_call(i) for i in range(8)]
    with CallStore(tmp_path, shard_calls=4) as store:
        store.append(calls)
    path = tmp_path / "calls-00001.parquet"
    data = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.with_name(path.name + ".sha256").unlink()
    with pytest.raises(DataError, match="calls-00001.parquet.*delete calls-00001.parquet"):
        CallStore(tmp_path)
    path.unlink()
    with CallStore(tmp_path) as store:
        assert store.load() == canonical_order(calls[:4])
        store.append(calls)
    assert CallStore(tmp_path).content_hash() == content_hash(calls)


def test_a_foreign_parquet_file_is_no_record(tmp_path):
    import hashlib

    import pyarrow as pa

    path = tmp_path / "calls-00000.parquet"
    pq.write_table(pa.table({"call_id": [1]}), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    with pytest.raises(DataError, match="other columns"):
        CallStore(tmp_path)


def test_other_files_beside_the_shards_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "calls-00000.parquet.backup").write_text("mine")
    with CallStore(tmp_path) as store:
        store.append(make_call(1))
    assert (tmp_path / "notes.txt").exists()
    assert (tmp_path / "calls-00000.parquet.backup").exists()


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = CallStore(tmp_path / "file" / "calls")
    store.append(make_call(1))
    with pytest.raises(StorageError, match="file/calls"):
        store.flush()


def test_run_info(tmp_path):
    with pytest.raises(DataError, match="run.json is missing"):
        read_run_info(tmp_path)
    write_run_info(tmp_path / "new", {"team": "abc", "seed": 3})
    assert read_run_info(tmp_path / "new") == {"team": "abc", "seed": 3}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_run_info(tmp_path)


def test_twenty_thousand_calls_convert_in_about_a_second():
    import time

    template = make_call(1)
    ids = tuple(range(200))
    calls = [
        dataclasses.replace(
            template, call_id=str(i), prompt_ids=ids, gen_ids=ids[:60], logprobs=(-0.5,) * 60
        )
        for i in range(20_000)
    ]
    start = time.process_time()
    table = to_table(calls)
    assert len(from_table(table)) == 20_000
    # Measured 0.7 s; the bound leaves room for a loaded machine and still catches a row-wise path.
    assert time.process_time() - start < 5
