"""A record that is whole has no faults, and every kind of fault is found and named."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from arkjax.trajectories.consistency import verify
from arkjax.trajectories.schema import from_table, to_table
from arkjax.trajectories.shards import write_shard

pytestmark = pytest.mark.fast


def faults(path):
    return [(finding.call_id, finding.what) for finding in verify(path)]


def rewrite(path, number, change):
    """Replace a shard by what `change` makes of its table, with a checksum that fits."""
    shard = path / f"calls-{number:05d}.parquet"
    write_shard(shard, change(pq.read_table(shard)))


def test_a_whole_record_has_none_and_every_call_is_counted(debate, store_of):
    calls = [c for n in range(20) for c in debate(n, tool=n % 2 == 0)]
    counted = []
    path = store_of(list(reversed(calls)), shard_calls=9)
    assert list(verify(path, counted.append)) == []
    assert sum(counted) == len(calls)


# What is done to one field, and what must be said of it.
CHANGES = {
    "gen_ids": (lambda c: (*c.gen_ids[:-1], 3), "is not what"),
    "logprobs": (lambda c: c.logprobs[:-1], "logprobs are not as many as gen_ids"),
    "sampling_logprobs": (lambda c: (), "sampling_logprobs are not as many"),
    "prefix_len": (lambda c: len(c.prompt_ids) + 1, "prefix_len is not within"),
    "cached_len": (lambda c: -1, "cached_len is not within"),
    "finish_reason": (lambda c: "tired", "finish_reason is none of"),
    "model": (lambda c: "other", "its id does not follow"),
    "seed": (lambda c: c.seed + 1, "its id does not follow"),
    "sampling": (lambda c: {**c.sampling, "temperature": 0.8}, "its id does not follow"),
    "top_ids": (lambda c: (1, 2), "top_ids and top_logprobs differ"),
    "parents": (lambda c: ("f" * 32,), f"its parent {'f' * 32} is not recorded"),
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_is_found(debate, store_of, field):
    change, said = CHANGES[field]
    calls = debate(3)
    calls[1] = dataclasses.replace(calls[1], **{field: change(calls[1])})
    found = faults(store_of(calls))
    # Whoever heard the changed call has its words otherwise.
    culprits = {c.call_id for c in calls[3:]} if field == "gen_ids" else {calls[1].call_id}
    assert {name for name, what in found if said in what} == culprits


def test_segments_that_leave_gaps_overlap_or_end_early_are_found(debate, store_of):
    call = debate(2)[4]
    (a, b, *rest) = call.prompt_segments
    wrong = [
        (a, (b[0], b[1] + 1, b[2]), *rest),
        (a, (b[0], b[1] - 1, b[2]), *rest),
        (a, b, *rest[:-1]),
        ((a[0], 1, a[2]), b, *rest),
        (),
        (b, a, *rest),
        (*call.prompt_segments, ("template", rest[-1][2], rest[-1][2])),
    ]
    for segments in wrong:
        calls = debate(2)
        calls[4] = dataclasses.replace(call, prompt_segments=segments)
        assert (call.call_id, "its segments do not cover its prompt in order and without gaps") in (
            faults(store_of(calls, name=f"{len(segments)}-{wrong.index(segments)}"))
        )


def test_a_source_that_is_unknown_or_no_parent_is_found(debate, store_of):
    calls = debate(2)
    source = calls[4].prompt_segments[1][0]
    orphan = dataclasses.replace(
        calls[4], parents=tuple(p for p in calls[4].parents if p != source)
    )
    found = faults(store_of([*calls[:4], orphan, *calls[5:]]))
    assert found == [(orphan.call_id, f"the source {source} of a segment is not among its parents")]
    missing = faults(store_of([c for c in calls if c.call_id != source], name="missing"))
    assert {name for name, _ in missing} == {c.call_id for c in calls[3:]}
    assert all(source in what and "is not recorded" in what for _, what in missing)


def test_damage_of_one_shard_is_said_once_and_the_rest_is_verified(debate, store_of):
    calls = [c for n in range(4) for c in debate(n)]
    calls[20] = dataclasses.replace(calls[20], cached_len=-1)
    path = store_of(calls, shard_calls=4)
    data = (path / "calls-00000.parquet").read_bytes()
    (path / "calls-00000.parquet").write_bytes(data[:50] + b"x" + data[51:])
    (path / "calls-00002.parquet.sha256").unlink()
    found = list(verify(path))
    assert [(f.file.name, f.call_id) for f in found[:2]] == [
        ("calls-00000.parquet", ""),
        ("calls-00002.parquet", ""),
    ]
    assert "is damaged: its SHA-256" in found[0].what
    assert "no readable checksum file" in found[1].what
    # Calls whose parents were in the damaged shards are not blamed for it.
    assert [(f.call_id, f.what) for f in found[2:]] == [
        (calls[20].call_id, "cached_len is not within its prompt")
    ]


def test_a_shard_that_is_gone_is_said_once(debate, store_of):
    """And not of every call whose parents were in it."""
    path = store_of([c for n in range(20) for c in debate(n)], shard_calls=9)
    gone = path / "calls-00001.parquet"
    gone.unlink()
    (found,) = verify(path)
    assert found.file == gone and found.what == "it is missing, and the calls in it are lost"
    # One that a killed writer never finished has left its checksum, and nothing is lost.
    last = max(path.glob("calls-*.parquet"))
    number = int(last.stem.removeprefix("calls-"))
    (path / f"calls-{number + 1:05d}.parquet.sha256").write_text("0  x\n")
    assert [finding.file for finding in verify(path)] == [gone]


def test_what_a_column_may_not_hold_is_found(debate, store_of):
    import pyarrow as pa

    path = store_of(debate(1))
    broken = pa.array(["{", *["{}"] * 5])
    rewrite(path, 0, lambda t: t.set_column(t.schema.get_field_index("parsed"), "parsed", broken))
    found = faults(path)
    assert [what for _, what in found] == ["parsed is no JSON object"]
    absent = pa.array([None, *["x"] * 5], pa.string())
    rewrite(path, 0, lambda t: t.set_column(t.schema.get_field_index("agent"), "agent", absent))
    assert "agent is missing" in [what for _, what in faults(path)]


def test_a_call_that_is_recorded_twice_is_found(debate, store_of):
    calls = debate(1)
    path = store_of(calls)
    write_shard(path / "calls-00001.parquet", to_table(calls[2:3]))
    (finding,) = verify(path)
    assert finding.call_id == calls[2].call_id and "recorded before" in finding.what
    assert str(finding).startswith(f"{path / 'calls-00001.parquet'}: call {calls[2].call_id}: ")


def test_an_empty_shard_and_an_empty_directory_have_no_faults(tmp_path):
    assert list(verify(tmp_path)) == []
    write_shard(tmp_path / "calls-00000.parquet", to_table([]))
    assert list(verify(tmp_path)) == []
    assert from_table(pq.read_table(tmp_path / "calls-00000.parquet")) == []
