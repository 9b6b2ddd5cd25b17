"""Arrays on the disk: files that grow, and directories that know whether they are whole."""

import numpy as np
import pytest

from arkjax.distillation.arrays import ArrayFile, load_arrays, save_arrays
from arkjax.errors import DataError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("shape", [(), (3,), (2, 0)])
@pytest.mark.parametrize("parts", [[], [0], [1, 9, 0, 990], [99_999, 1]])
def test_a_file_grows_into_what_numpy_reads(tmp_path, shape, parts):
    path = tmp_path / "grown.npy"
    file = ArrayFile(path, np.int16, shape)
    rng = np.random.default_rng(0)
    written = [rng.integers(-9, 9, (n, *shape), np.int16) for n in parts]
    for rows in written:
        # Of any layout in memory.
        file.append(np.asfortranarray(rows))
    file.close()
    found = np.load(path, allow_pickle=False)
    expected = np.concatenate([np.zeros((0, *shape), np.int16), *written])
    assert found.dtype == np.int16 and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    np.save(tmp_path / "whole.npy", expected)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_rows_of_another_kind_are_refused(tmp_path):
    file = ArrayFile(tmp_path / "a.npy", np.int16, (3,))
    for rows in (np.zeros((2, 3), np.int32), np.zeros((2, 4), np.int16)):
        with pytest.raises(ValueError, match="int16"):
            file.append(rows)
    file.abandon()


def test_what_is_saved_is_loaded_without_being_read(tmp_path):
    arrays = {
        "numbers": np.arange(12, dtype=np.float32).reshape(3, 4),
        "none": np.zeros((0, 4), np.uint8),
    }
    save_arrays(tmp_path, arrays, {"kind": "thing", "of": 3})
    found, meta = load_arrays(tmp_path, "thing", "make it again")
    assert meta["of"] == 3 and meta["arrays"] == ["none", "numbers"]
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert isinstance(found["numbers"], np.memmap)
    (tmp_path / "numbers.npy").unlink()
    with pytest.raises(DataError, match=r"numbers.npy is missing; make it again"):
        load_arrays(tmp_path, "thing", "make it again", hashes=False)
