"""The tape: aligned with its rows, resumable, whole or refused; tapes of all kinds alike."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from arkjax.distillation.arrays import save_arrays, write_meta
from arkjax.distillation.rows import batch
from arkjax.distillation.tape import Tape
from arkjax.distillation.tape_format import TapeFormat, rounded, widened
from arkjax.distillation.targets import SampledTarget
from arkjax.errors import ConfigError, DataError, StaleArtifactError
from arkjax.storage import content_hash

from .tapes import DRAWS, FORMATS, VOCAB, WIDTH, K, Teacher, arrays_of, make_rows, write

pytestmark = pytest.mark.fast
every_kind = pytest.mark.parametrize("kind", FORMATS)


@pytest.fixture(scope="module")
def rows():
    return make_rows()


def head_of(kind):
    return np.ones((WIDTH, VOCAB), np.float32) if kind == "hidden" else None


def dense(target):
    """A target's numbers by name, those of draws as `[B, T, V]` weights."""
    if isinstance(target, SampledTarget):
        weights = np.zeros((*target.ids.shape[:2], VOCAB))
        at = np.arange(weights.shape[0])[:, None, None], np.arange(weights.shape[1])[:, None]
        np.add.at(weights, (*at, target.ids), target.weights)
        return {"weights": weights, "gate": target.gate}
    return {f.name: getattr(target, f.name) for f in dataclasses.fields(target)}


@pytest.mark.parametrize("dtype, error", [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_targets_are_what_the_teacher_said_of_these_rows(tmp_path, rows, dtype, error):
    write(tmp_path, rows, tape_format=TapeFormat(k=K, dtype=dtype, kd_temperature=2.0))
    tape = Tape.open(tmp_path, rows)
    indices = np.array([rows.num_rows - 1, 0, 6, 0])
    target = tape.targets(indices)
    assert target.top_logprobs.dtype == ml_dtypes.finfo(dtype).dtype
    assert target.kd_temperature == 2.0 and target.gate is None
    said = Teacher(rows)(indices)
    valid = batch(rows, indices).weights != 0
    np.testing.assert_array_equal(target.top_ids[valid], said.top_ids[valid])
    np.testing.assert_allclose(
        target.top_logprobs[valid].astype(np.float32), said.top_logprobs[valid], atol=error
    )
    np.testing.assert_allclose(target.log_tail[valid], said.log_tail[valid], rtol=1e-6)
    assert all((x[~valid] == 0).all() for x in (target.top_ids, target.log_tail))
    assert (target.top_logprobs[~valid].astype(np.float32) == 0).all()


@pytest.mark.parametrize("gate", [False, True])
@every_kind
def test_every_kind_gives_back_what_the_teacher_said(tmp_path, rows, kind, gate):
    write(tmp_path, rows, Teacher(rows, kind, gate), FORMATS[kind])
    tape = Tape.open(tmp_path, rows)
    assert tape.kind == kind
    indices = np.array([3, rows.num_rows - 1, 0, 3, 7])
    target, said = tape.targets(indices, head_of(kind)), Teacher(rows, kind, gate)(indices)
    valid = batch(rows, indices).weights != 0
    if gate:
        np.testing.assert_array_equal(target.gate[valid], said.gate[valid])
        valid &= said.gate != 0
    assert type(target) is type(said)
    # One structure on all steps: a jitted step is compiled once.
    other = tape.targets(np.arange(5), head_of(kind))
    assert jax.tree.map(np.shape, other) == jax.tree.map(np.shape, target)
    found, expected = dense(target), dense(said)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray) and name != "head":
            np.testing.assert_allclose(
                found[name][valid].astype(np.float32), value[valid], rtol=4e-3, err_msg=name
            )
            if name != "gate":
                assert (found[name][~valid].astype(np.float32) == 0).all()
    if kind == "sampled":
        assert target.ids.dtype == np.int32 and target.weights.dtype == np.float32
        assert target.ids.shape[-1] == 4, "no more slots than any position needs"
        np.testing.assert_allclose(target.weights[valid].sum(-1), 1, rtol=1e-6)
    if kind == "hidden":
        assert target.soft_cap == 30.0 and target.hidden.dtype == target.head.dtype


def test_a_tape_takes_the_bytes_that_it_says(tmp_path):
    """17 bits for ids and 16 for log-probabilities: 264 bytes for 64 tokens, and 4 for the tail."""
    rows = make_rows(600, 64)
    valid = int((batch(rows, np.arange(rows.num_rows)).weights != 0).sum())

    def teacher(indices):
        said = Teacher(rows)(indices)
        logprobs = np.full((*said.log_tail.shape, 64), np.log(1 / 65))
        ids = np.broadcast_to(131_008 + np.arange(64), logprobs.shape)
        return dataclasses.replace(
            said, top_ids=ids, top_logprobs=logprobs, log_tail=logprobs[..., 0]
        )

    wide = {"vocab_size": 131_072, "shard_rows": 1024, "batch_rows": 16}
    write(tmp_path, rows, teacher, TapeFormat(k=64), **wide)
    tape = Tape.open(tmp_path, rows)
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    assert tape.bytes_per_token == on_disk / valid and tape.predicted == valid
    headers, places = 5 * 128, (rows.num_rows + 1) * 8 + rows.num_rows * 64 // 8
    assert on_disk == valid * (136 + 128 + 4) + headers + places
    np.testing.assert_array_equal(
        tape.targets(np.array([1])).top_ids[batch(rows, np.array([1])).weights != 0][0],
        131_008 + np.arange(64),
    )


def test_the_teacher_always_sees_one_batch_size(tmp_path, rows):
    teacher = Teacher(rows)
    write(tmp_path, rows, teacher)
    assert {len(call) for call in teacher.calls} == {2}
    assert {row for call in teacher.calls for row in call} == set(range(rows.num_rows))


@every_kind
def test_how_rows_are_batched_leaves_no_trace(tmp_path, rows, kind):
    for size in (1, 3, 5):
        write(tmp_path / str(size), rows, tape_format=FORMATS[kind], batch_rows=size)
    assert arrays_of(tmp_path / "1") == arrays_of(tmp_path / "3") == arrays_of(tmp_path / "5")


@every_kind
def test_garbage_without_weight_or_behind_a_closed_gate_is_not_kept(tmp_path, rows, kind):
    def teacher(indices):
        said = Teacher(rows, kind, gate=True)(indices)
        weightless = batch(rows, indices).weights == 0
        closed = said.gate == 0
        assert (closed & ~weightless).any()

        def spoil(x):
            x = np.array(x)
            x[weightless | closed] = -1 if x.dtype.kind == "i" else np.nan
            return x

        gate = np.where(weightless, np.float32(np.nan), said.gate)
        return dataclasses.replace(said.map_tokens(spoil), gate=gate)

    write(tmp_path / "spoilt", rows, teacher, FORMATS[kind])
    write(tmp_path / "clean", rows, Teacher(rows, kind, gate=True), FORMATS[kind])
    assert arrays_of(tmp_path / "spoilt") == arrays_of(tmp_path / "clean")


@every_kind
def test_rows_that_predict_nothing_take_no_room_and_hold_zeros(tmp_path, kind):
    rows = make_rows()
    weights = np.array(rows.loss_weights)
    weights[[0, *range(5, 10)]] = 0
    rows = dataclasses.replace(rows, loss_weights=weights)
    write(tmp_path, rows, tape_format=FORMATS[kind])
    tape = Tape.open(tmp_path, rows)
    every = np.arange(rows.num_rows)
    assert tape.predicted == (batch(rows, every).weights != 0).sum()
    found = dense(tape.targets(every, head_of(kind)))
    name = {"top_k": "top_logprobs", "sampled": "weights", "hidden": "hidden"}[kind]
    numbers = found[name].astype(np.float32)
    assert not numbers[[0, 5, 9]].any() and numbers[[1, 4, 10]].any(axis=(1, 2)).all()


@every_kind
def test_an_interrupted_writer_goes_on_where_it_stopped(tmp_path, rows, kind):
    class Interrupted(Teacher):
        def __call__(self, indices):
            if indices[0] >= 7:
                raise KeyboardInterrupt
            return super().__call__(indices)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "tape", rows, Interrupted(rows, kind), FORMATS[kind])
    with pytest.raises(DataError, match="shard-00001"):
        Tape.open(tmp_path / "tape", rows)
    teacher, done = Teacher(rows, kind), []
    write(tmp_path / "tape", rows, teacher, FORMATS[kind], progress=done.append)
    assert min(row for call in teacher.calls for row in call) == 5
    assert sum(done) == rows.num_rows
    write(tmp_path / "whole", rows, tape_format=FORMATS[kind])
    assert arrays_of(tmp_path / "tape") == arrays_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
@every_kind
def test_a_damaged_shard_is_named_and_alone_made_again(tmp_path, rows, kind, damage):
    write(tmp_path, rows, tape_format=FORMATS[kind])
    before = arrays_of(tmp_path)
    name = {"top_k": "top_logprobs", "sampled": "counts", "hidden": "hidden"}[kind]
    path = tmp_path / "shard-00001" / f"{name}.npy"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-50] ^= 1
    path.write_bytes(content[:-9] if damage == "truncate" else content)
    if damage == "delete":
        path.unlink()
    with pytest.raises(DataError, match="shard-00001.*only its rows are scored anew"):
        Tape.open(tmp_path, rows)
    teacher = Teacher(rows, kind)
    write(tmp_path, rows, teacher, FORMATS[kind])
    assert {row for call in teacher.calls for row in call} == set(range(5, 10))
    Tape.open(tmp_path, rows)
    assert arrays_of(tmp_path) == before


def test_a_file_that_goes_while_the_tape_is_open_is_named(tmp_path, rows):
    write(tmp_path, rows)
    tape = Tape.open(tmp_path, rows)
    (tmp_path / "shard-00001" / "log_tail.npy").unlink()
    tape.targets(np.array([0]))
    with pytest.raises(DataError, match=r"shard-00001/log_tail.npy.*scored anew"):
        tape.targets(np.array([6]))


@every_kind
def test_a_tape_belongs_to_its_rows_its_teacher_and_its_format(tmp_path, rows, kind):
    kept = FORMATS[kind]
    write(tmp_path, rows, tape_format=kept)
    changed = dataclasses.replace(rows, tokens=rows.tokens + 1)
    with pytest.raises(DataError, match="written for other rows"):
        Tape.open(tmp_path, changed)
    with pytest.raises(StaleArtifactError, match="rows: "):
        write(tmp_path, changed, tape_format=kept)
    with pytest.raises(StaleArtifactError, match='teacher_id: "base" -> "team"'):
        write(tmp_path, rows, tape_format=kept, teacher_id="team")
    other = TapeFormat(k=4) if kind != "top_k" else TapeFormat("sampled", draws=3)
    with pytest.raises(StaleArtifactError, match=f'tape_kind: "{kind}" -> "{other.kind}"'):
        write(tmp_path, rows, tape_format=other)
    narrower = {
        "top_k": dataclasses.replace(kept, k=2),
        "sampled": dataclasses.replace(kept, seed=6),
        "hidden": dataclasses.replace(kept, dtype="float32"),
    }[kind]
    with pytest.raises(StaleArtifactError, match="(k: 3 -> 2|seed: 5 -> 6|dtype: )"):
        write(tmp_path, rows, tape_format=narrower)
    # Hidden states serve any temperature.
    if kind == "hidden":
        write(tmp_path, rows, tape_format=dataclasses.replace(kept, kd_temperature=3.0))


def write_older(path, rows, shards=None):
    """A tape as it was before there were kinds: all positions, ids in 32 bits."""
    meta = {
        "kind": "tape",
        "rows": rows.content_hash,
        "num_rows": rows.num_rows,
        "row_length": rows.row_length,
        "teacher_id": "base",
        "k": K,
        "kd_temperature": 1.0,
        "vocab_size": VOCAB,
        "dtype": "bfloat16",
        "shard_rows": 5,
    }
    path.mkdir(parents=True, exist_ok=True)
    write_meta(path / "meta.json", meta)
    count = -(-rows.num_rows // 5)
    for shard in range(count if shards is None else shards):
        indices = np.arange(shard * 5, min(shard * 5 + 5, rows.num_rows))
        said = Teacher(rows)(indices)
        valid = batch(rows, indices).weights != 0
        arrays = {
            "top_ids": np.where(valid[..., None], said.top_ids, 0).astype(np.int32),
            "top_logprobs": np.where(valid[..., None], said.top_logprobs, 0)
            .astype(ml_dtypes.bfloat16)
            .view(np.uint16),
            "log_tail": np.where(valid, said.log_tail, 0).astype(np.float32),
        }
        directory = path / f"shard-{shard:05d}"
        directory.mkdir()
        shard_meta = {"kind": "tape shard", "shard": shard, "tape": content_hash(meta)}
        save_arrays(directory, arrays, shard_meta)


def test_a_tape_from_before_there_were_kinds_still_opens_and_is_not_written_again(tmp_path, rows):
    kept = TapeFormat(k=K, dtype="bfloat16")
    write_older(tmp_path / "old", rows)
    write(tmp_path / "new", rows, tape_format=kept)
    teacher = Teacher(rows)
    write(tmp_path / "old", rows, teacher, kept)
    assert not teacher.calls
    old, new = Tape.open(tmp_path / "old", rows), Tape.open(tmp_path / "new", rows)
    assert old.kind == "top_k" and 22 < old.bytes_per_token < 30 and old.predicted > new.predicted
    indices = np.array([4, 0, rows.num_rows - 1, 4])
    for a, b in zip(
        *map(jax.tree.leaves, (old.targets(indices), new.targets(indices))), strict=True
    ):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32))
    write_older(tmp_path / "unfinished", rows, shards=1)
    with pytest.raises(StaleArtifactError, match="unfinished tape of an older format"):
        write(tmp_path / "unfinished", rows, tape_format=kept)


def test_an_unknown_kind_asks_for_the_version_that_wrote_it(tmp_path, rows):
    write_older(tmp_path, rows)
    meta = {"kind": "tape", "rows": rows.content_hash, "tape_kind": "nucleus"}
    write_meta(tmp_path / "meta.json", meta)
    with pytest.raises(DataError, match="kind 'nucleus'.*use the one that wrote it"):
        Tape.open(tmp_path, rows)


def test_hidden_states_need_the_teachers_head(tmp_path, rows):
    write(tmp_path, rows, tape_format=FORMATS["hidden"])
    tape = Tape.open(tmp_path, rows)
    with pytest.raises(ConfigError, match=r"width 4 and needs the teacher's head.*none is given"):
        tape.targets(np.array([0]))
    with pytest.raises(ConfigError, match=r"one \(3, 50\) is given"):
        tape.targets(np.array([0]), np.ones((3, 50)))


def test_a_gate_in_some_shards_only_is_one_elsewhere(tmp_path, rows):
    def teacher(indices):
        return Teacher(rows, gate=indices[0] < 5)(indices)

    write(tmp_path, rows, teacher)
    tape = Tape.open(tmp_path, rows)
    gate = tape.targets(np.array([0, 9])).gate
    said = Teacher(rows, gate=True)(np.array([0])).gate
    valid = batch(rows, np.array([0])).weights != 0
    np.testing.assert_array_equal(gate[:1][valid], said[valid])
    np.testing.assert_array_equal(gate[1], 1.0)


def test_what_is_no_distribution_is_refused(tmp_path, rows):
    def changing(kind, **changes):
        def teacher(indices):
            said = Teacher(rows, kind, gate=True)(indices)
            return dataclasses.replace(said, **{n: f(getattr(said, n)) for n, f in changes.items()})

        return teacher

    wrong = {
        "sum to nan": ("top_k", {"top_logprobs": lambda x: x + np.nan}),
        "sum to 0.": ("top_k", {"log_tail": lambda x: x - 9}),
        "outside 0 to 49": ("top_k", {"top_ids": lambda x: x + 50}),
        "expected .B, T, k.": ("top_k", {"top_ids": lambda x: x[..., :2]}),
        "token ids outside 0 to 49": ("sampled", {"ids": lambda x: x - 50}),
        f"those of {DRAWS} draws": ("sampled", {"weights": lambda x: x * 0.9}),
        "expected ids and weights": ("sampled", {"weights": lambda x: x[..., :2]}),
        "states are not finite in bfloat16": ("hidden", {"hidden": lambda x: x + np.inf}),
        "expected .B, T, Dt.": ("hidden", {"hidden": lambda x: x[:, :3]}),
        "gate is": ("hidden", {"gate": lambda x: x + np.nan}),
    }
    for message, (kind, change) in wrong.items():
        with pytest.raises(DataError, match=message):
            write(tmp_path / kind, rows, changing(kind, **change), FORMATS[kind])
    narrow = TapeFormat("hidden", dtype="float16")
    with pytest.raises(DataError, match="finite in float16.*take bfloat16"):
        large = changing("hidden", hidden=lambda x: x + 7e4)
        write(tmp_path / "narrow", rows, large, narrow)
    with pytest.raises(DataError, match="returned a TapeTarget; a tape of kind 'hidden'"):
        write(tmp_path / "hidden", rows, Teacher(rows), FORMATS["hidden"])


def test_formats_that_cannot_be(tmp_path, rows):
    for fields, message in (
        ({"kind": "topk"}, "'topk'; expected one of top_k, sampled, hidden"),
        ({"k": 3, "dtype": "int8"}, "dtype"),
        ({}, "k is 0"),
        ({"kind": "sampled"}, "draws are 0; expected 1 to 65535"),
        ({"kind": "sampled", "draws": 70_000}, "draws are 70000"),
        ({"kind": "sampled", "draws": 7, "seed": -1}, "seed is -1"),
        ({"k": 3, "kd_temperature": 0.0}, "kd_temperature is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            TapeFormat(**fields)
    with pytest.raises(ConfigError, match="k is 51"):
        write(tmp_path, rows, tape_format=TapeFormat(k=51))


def test_bfloat16_is_rounded_as_others_round_it():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1.00390625, 1.01171875, 1e-40]
    x = np.concatenate([x, np.array(edges, np.float32)])
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    found = rounded(x, "bfloat16").view(ml_dtypes.bfloat16)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(found.view(np.uint16)[number], expected.view(np.uint16)[number])
    assert np.isnan(found[~number].astype(np.float32)).all()
    back = widened(expected, np.dtype(np.float32))
    np.testing.assert_array_equal(back, expected.astype(np.float32))


def test_more_than_255_draws(tmp_path, rows):
    def teacher(indices):
        said = Teacher(rows, "sampled")(indices)
        weights = np.zeros_like(said.weights) + np.array([300, 1, 0, 0], np.float32) / 301
        return dataclasses.replace(said, weights=weights)

    write(tmp_path, rows, teacher, TapeFormat("sampled", draws=301))
    target = Tape.open(tmp_path, rows).targets(np.array([2]))
    valid = batch(rows, np.array([2])).weights != 0
    np.testing.assert_allclose(target.weights[valid] * 301, [[300, 1]] * valid.sum(), rtol=1e-6)


def test_opening_without_hashes_reads_no_array(tmp_path, rows, monkeypatch):
    """What is opened is a function of sizes alone, and files are mapped when rows are asked for."""
    write(tmp_path, rows, shard_rows=1)
    opened = []
    real = np.load
    monkeypatch.setattr(np, "load", lambda path, **k: (opened.append(path), real(path, **k))[1])
    tape = Tape.open(tmp_path, rows, hashes=False)
    assert not opened
    tape.targets(np.array([2, 2]))
    assert {path.parent.name for path in opened} == {"shard-00002"}
    arrays = tape._arrays(2)
    assert all(isinstance(array, np.memmap) for array in arrays.values())
