"""The tape: aligned with its rows, resumable, whole or refused."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from arkjax.distillation.rows import batch, pack
from arkjax.distillation.tape import Tape, write_tape
from arkjax.errors import ConfigError, DataError, StaleArtifactError
from arkjax.synthesis.examples import Example

pytestmark = pytest.mark.fast

K, VOCAB = 3, 50


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    examples = [
        Example(tuple(rng.integers(1, 50, a).tolist()), tuple(range(1, b + 1)), 1.0, {})
        for a, b in rng.integers(1, 9, (40, 2))
    ]
    return pack(examples, 16)


class Teacher:
    """A teacher whose tape is a function of row and position, so that misalignment shows."""

    def __init__(self, rows):
        self.row_length = rows.row_length
        self.calls = []

    def __call__(self, indices):
        self.calls.append(list(indices))
        place = indices[:, None] * self.row_length + np.arange(self.row_length)
        ids = (place[..., None] + np.arange(K)) % VOCAB
        top = np.exp(-1.0 - np.arange(K) - (place[..., None] % 7) / 10)
        return ids, np.log(top), np.log(1 - top.sum(-1))


def write(path, rows, teacher=None, **options):
    options = {"teacher_id": "base", "k": K, "vocab_size": VOCAB, "batch_rows": 2, **options}
    write_tape(path, rows, teacher or Teacher(rows), **{"shard_rows": 5, **options})


@pytest.mark.parametrize(
    "dtype, error, size", [("float32", 1e-6, 28), ("float16", 2e-3, 22), ("bfloat16", 2e-2, 22)]
)
def test_targets_are_what_the_teacher_said_of_these_rows(tmp_path, rows, dtype, error, size):
    write(tmp_path, rows, dtype=dtype, kd_temperature=2.0)
    tape = Tape.open(tmp_path, rows)
    indices = np.array([rows.num_rows - 1, 0, 6, 0])
    target = tape.targets(indices)
    assert target.top_logprobs.dtype == ml_dtypes.finfo(dtype).dtype
    assert target.kd_temperature == 2.0 and tape.bytes_per_token == size
    ids, logprobs, tail = Teacher(rows)(indices)
    valid = batch(rows, indices).weights != 0
    np.testing.assert_array_equal(target.top_ids[valid], ids[valid])
    np.testing.assert_allclose(
        target.top_logprobs[valid].astype(np.float32), logprobs[valid], atol=error
    )
    np.testing.assert_allclose(target.log_tail[valid], tail[valid], rtol=1e-6)
    assert all((x[~valid] == 0).all() for x in (target.top_ids, target.log_tail))
    assert (target.top_logprobs[~valid].astype(np.float32) == 0).all()


def test_the_teacher_always_sees_one_batch_size(tmp_path, rows):
    teacher = Teacher(rows)
    write(tmp_path, rows, teacher)
    assert {len(call) for call in teacher.calls} == {2}
    assert {row for call in teacher.calls for row in call} == set(range(rows.num_rows))


def test_garbage_at_positions_without_weight_is_not_kept(tmp_path, rows):
    def teacher(indices):
        ids, logprobs, tail = Teacher(rows)(indices)
        invalid = batch(rows, indices).weights == 0
        ids[invalid], logprobs[invalid], tail[invalid] = -1, np.nan, np.nan
        return ids, logprobs, tail

    write(tmp_path, rows, teacher)
    target = Tape.open(tmp_path, rows).targets(np.arange(rows.num_rows))
    assert np.isfinite(target.top_logprobs).all() and np.isfinite(target.log_tail).all()


def test_a_killed_writer_goes_on_where_it_stopped(tmp_path, rows):
    class Killed(Teacher):
        def __call__(self, indices):
            if indices[0] >= 7:
                raise KeyboardInterrupt
            return super().__call__(indices)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "tape", rows, Killed(rows))
    with pytest.raises(DataError, match="shard-00001"):
        Tape.open(tmp_path / "tape", rows)
    teacher, done = Teacher(rows), []
    write(tmp_path / "tape", rows, teacher, progress=done.append)
    assert min(row for call in teacher.calls for row in call) == 5
    assert sum(done) == rows.num_rows
    write(tmp_path / "whole", rows)
    for path in sorted((tmp_path / "whole").rglob("*.npy")):
        other = tmp_path / "tape" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_shard_is_named_and_alone_made_again(tmp_path, rows, damage):
    write(tmp_path, rows)
    path = tmp_path / "shard-00001" / "top_logprobs.npy"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-50] ^= 1
    path.write_bytes(content[:-9] if damage == "truncate" else content)
    if damage == "delete":
        path.unlink()
    with pytest.raises(DataError, match="shard-00001.*only its rows are scored anew"):
        Tape.open(tmp_path, rows)
    teacher = Teacher(rows)
    write(tmp_path, rows, teacher)
    assert {row for call in teacher.calls for row in call} == set(range(5, 10))
    Tape.open(tmp_path, rows)


def test_a_tape_belongs_to_its_rows_and_its_teacher(tmp_path, rows):
    write(tmp_path, rows)
    changed = dataclasses.replace(rows, tokens=rows.tokens + 1)
    with pytest.raises(DataError, match="written for other rows"):
        Tape.open(tmp_path, changed)
    with pytest.raises(StaleArtifactError, match="rows: "):
        write(tmp_path, changed)
    with pytest.raises(StaleArtifactError, match='teacher_id: "base" -> "team"'):
        write(tmp_path, rows, teacher_id="team")


def test_hosts_write_their_shards_side_by_side(tmp_path, rows):
    for host in (1, 0):
        write(tmp_path, rows, process_index=host, process_count=2)
    Tape.open(tmp_path, rows, hashes=False)


def test_what_is_no_distribution_is_refused(tmp_path, rows):
    def teacher(change):
        return lambda indices: change(*Teacher(rows)(indices))

    wrong = {
        "sum to nan": lambda ids, top, tail: (ids, top + np.nan, tail),
        "sum to 0.": lambda ids, top, tail: (ids, top, tail - 9),
        "outside 0 to 49": lambda ids, top, tail: (ids + 50, top, tail),
        "expected .B, T, k.": lambda ids, top, tail: (ids[..., :2], top, tail),
    }
    for message, change in wrong.items():
        with pytest.raises(DataError, match=message):
            write(tmp_path, rows, teacher(change))
    with pytest.raises(ConfigError, match="dtype"):
        write(tmp_path, rows, dtype="int8")
    with pytest.raises(ConfigError, match="k is 51"):
        write(tmp_path, rows, k=51)
