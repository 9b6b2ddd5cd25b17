"""Packed ids: the bits are where NumPy's own packing puts them, and nothing is lost."""

import numpy as np
import pytest

from arkjax.distillation.bits import bits_for, pack, packed_bytes, unpack

pytestmark = pytest.mark.fast


def test_the_fewest_bits():
    assert [bits_for(n) for n in (1, 2, 3, 256, 257)] == [1, 1, 2, 8, 9]
    assert bits_for(131_072) == 17 and bits_for(131_073) == bits_for(151_936) == 18
    assert packed_bytes(64, 17) == 136 and packed_bytes(3, 17) == 7 and packed_bytes(0, 17) == 0


@pytest.mark.parametrize("bits", [1, 5, 8, 16, 17, 18, 25, 26, 31])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64])
def test_packing_puts_each_bit_where_it_belongs(bits, count):
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (3, 2, count)).astype(np.int32)
    if count:
        values[0, 0, 0], values[-1, -1, -1] = 2**bits - 1, 0
    packed = pack(values, bits)
    # One number a line of bits, all of them after one another.
    single = (values[..., None] >> np.arange(bits)) & 1
    expected = np.packbits(single.reshape(3, 2, -1).astype(np.uint8), axis=-1, bitorder="little")
    np.testing.assert_array_equal(packed, expected)
    assert packed.shape[-1] == packed_bytes(count, bits)
    back = unpack(packed, bits, count)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, values)


def test_eight_numbers_fill_whole_bytes_so_that_a_row_is_read_alone():
    values = np.random.default_rng(0).integers(0, 2**17, 80)
    packed = pack(values, 17)
    part = unpack(packed[3 * 17 : 5 * 17], 17, 13)
    np.testing.assert_array_equal(part, values[24:37])
