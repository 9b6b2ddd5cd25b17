"""Packed rows: nothing lost, nothing mixed, read in an order that one integer resumes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkjax.distillation.rows import Rows, batch, order, pack
from arkjax.errors import DataError
from arkjax.synthesis.examples import Example

pytestmark = pytest.mark.fast


def example(name, prompt, target, weight=1.0):
    return Example(tuple(prompt), tuple(target), weight, {"problem_id": name, "kind": "verified"})


def some_examples(seed=0, count=40):
    rng = np.random.default_rng(seed)
    return [
        example(f"p{i}", rng.integers(1, 99, a), rng.integers(1, 99, b), float(weight))
        for i, (a, b, weight) in enumerate(rng.integers(1, 9, (count, 3)))
    ]


def spans(rows, index):
    at = rows.placements[index]
    middle = at.target_start
    return at.row, slice(at.start, middle), slice(middle, middle + at.target_length)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(18, 40),
)
def test_every_token_is_packed_once_with_its_own_segment_position_and_weight(lengths, row_length):
    examples = [
        example(str(i), range(1, a + 1), range(50, 50 + b), 0.5 + i)
        for i, (a, b) in enumerate(lengths)
    ]
    rows = pack(examples, row_length)
    assert np.count_nonzero(rows.segment_ids) == sum(map(sum, lengths))
    for index, given_example in enumerate(examples):
        assert rows.example(index) == given_example
        row, prompt, target = spans(rows, index)
        whole = slice(prompt.start, target.stop)
        assert (rows.example_ids[row, whole] == index).all()
        assert len(set(rows.segment_ids[row, whole])) == 1
        np.testing.assert_array_equal(
            rows.positions[row, whole], np.arange(target.stop - prompt.start)
        )
        assert (rows.loss_weights[row, prompt] == 0).all()
        assert (rows.loss_weights[row, target] == np.float32(0.5 + index)).all()
    padding = rows.segment_ids == 0
    assert (rows.tokens[padding] == 0).all() and (rows.loss_weights[padding] == 0).all()
    assert (rows.example_ids[padding] == -1).all()
    segments = rows.segment_ids[:, 1:] - rows.segment_ids[:, :-1]
    assert (segments[~padding[:, 1:]] >= 0).all()


def test_packing_is_tight_and_the_same_each_time():
    examples = some_examples(count=400)
    rows, again = pack(examples, 64), pack(examples, 64)
    assert rows.content_hash == again.content_hash
    tokens = sum(len(e.prompt_ids) + len(e.target_ids) for e in examples)
    assert rows.num_rows <= 1.05 * tokens / 64


def test_inputs_predict_the_next_token_of_the_same_example():
    rows = pack(some_examples(), 32)
    out = batch(rows, np.arange(rows.num_rows))
    total = 0.0
    for index, placement in enumerate(rows.placements):
        row, _, target = spans(rows, index)
        predicting = slice(target.start - 1, target.stop - 1)
        np.testing.assert_array_equal(out.targets[row, predicting], rows.tokens[row, target])
        assert (out.weights[row, predicting] == np.float32(placement.weight)).all()
        total += placement.weight * placement.target_length
    # Nothing else has weight: no prompt, no padding, no step from one example into the next.
    assert out.weights.sum() == total
    assert (out.weights[:, -1] == 0).all()


def test_batches_repeat_and_reorder_rows_as_asked():
    rows = pack(some_examples(), 32)
    out = batch(rows, np.array([2, 0, 2]))
    np.testing.assert_array_equal(out.tokens, rows.tokens[[2, 0, 2]])
    np.testing.assert_array_equal(out.weights[0], out.weights[2])


@pytest.mark.parametrize("num_rows, batch_size", [(10, 3), (4, 4), (3, 8), (1, 5)])
def test_order_visits_every_row_once_an_epoch_and_depends_on_the_step_alone(num_rows, batch_size):
    steps = [order(num_rows, batch_size, seed=7, step=step) for step in range(12)]
    flat = np.concatenate(steps)
    for start in range(0, len(flat) - num_rows, num_rows):
        assert sorted(flat[start : start + num_rows]) == list(range(num_rows))
    np.testing.assert_array_equal(order(num_rows, batch_size, 7, 11), steps[11])


def test_order_is_shuffled_by_epoch_and_seed_and_never_changes():
    first, second = order(50, 50, 0, 0), order(50, 50, 0, 1)
    assert (first != second).any() and (first != order(50, 50, 1, 0)).any()
    # A change of these numbers would change what every resumed run sees.
    assert order(10, 10, 0, 0).tolist() == [6, 1, 0, 5, 3, 8, 7, 9, 2, 4]


def test_saved_rows_come_back_and_stay_on_the_disk(tmp_path):
    rows = pack(some_examples(), 32)
    rows.save(tmp_path / "rows")
    loaded = Rows.load(tmp_path / "rows")
    assert isinstance(loaded.tokens, np.memmap)
    assert loaded.placements == rows.placements and loaded.content_hash == rows.content_hash
    del loaded.__dict__["content_hash"]
    assert loaded.content_hash == rows.content_hash
    for name, got in zip(("tokens", "weights"), batch(loaded, np.array([1, 0]))[::4], strict=True):
        np.testing.assert_array_equal(got, getattr(batch(rows, np.array([1, 0])), name))


@pytest.mark.parametrize("name", ["tokens.npy", "loss_weights.npy", "examples.jsonl", "meta.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_rows_are_refused_by_name(tmp_path, name, damage):
    pack(some_examples(), 32).save(tmp_path)
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-len(content) // 3] ^= 1
    path.write_bytes(content[:-9] if damage == "truncate" else content)
    if damage == "delete":
        path.unlink()
    with pytest.raises(DataError, match=name):
        Rows.load(tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "meta.json").write_text('{"kind": "tape"}')
    with pytest.raises(DataError, match="does not describe a set of rows"):
        Rows.load(tmp_path)


@pytest.mark.parametrize(
    "examples, named",
    [
        ([], "no examples to pack"),
        ([example("q7", range(20), range(13))], r"q7.*20 prompt and 13 target.*33.*holds 32"),
        ([example("q8", [], [1])], "q8.*empty prompt"),
        ([example("q9", [1], [])], "q9.*empty target"),
        ([example("q1", [1], [1], float("nan"))], "q1.*weight nan"),
    ],
)
def test_what_cannot_be_packed_is_named(examples, named):
    with pytest.raises(DataError, match=named):
        pack(examples, 32)
