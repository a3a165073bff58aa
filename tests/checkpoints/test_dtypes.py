"""Floats of 16 bits, against NumPy's own and ml_dtypes', which TensorFlow brings."""

import ml_dtypes
import numpy as np
import pytest

from gpt2.checkpoints.dtypes import narrowed, rounded, widened
from gpt2.errors import Error

ALL_16_BITS = np.arange(2**16, dtype=np.uint16)
SPECIAL = np.array([0, -0.0, 1, 1 + 2**-9, 1 + 3 * 2**-9, 1e-40, -1e-45, 65504, np.inf, -np.inf, np.nan], np.float32)


def same(one, other):
    return np.array_equal(one, other, equal_nan=True) and (np.signbit(one) == np.signbit(other)).all()


def test_every_bfloat16_is_widened():
    expected = ALL_16_BITS.view(ml_dtypes.bfloat16).astype(np.float32)
    assert (widened(ALL_16_BITS, 'bfloat16').view(np.uint32) == expected.view(np.uint32)).all()
    finite = expected[~np.isnan(expected)]
    assert same(widened(narrowed(finite, 'bfloat16'), 'bfloat16'), finite)


def test_every_float16_is_widened():
    halves = ALL_16_BITS.view(np.float16)
    assert same(widened(halves, 'float16'), halves.astype(np.float32))


@pytest.mark.parametrize('dtype, oracle', [('bfloat16', ml_dtypes.bfloat16), ('float16', np.float16)])
def test_the_nearest_is_taken_half_to_even(dtype, oracle):
    values = np.concatenate([SPECIAL, np.random.default_rng(0).standard_normal(10000).astype(np.float32)])
    assert same(rounded(values, dtype), values.astype(oracle).astype(np.float32))


def test_float32_stays_as_it_is():
    assert rounded(SPECIAL, 'float32') is SPECIAL


@pytest.mark.parametrize('value, dtype', [(65520, 'float16'), (-1e6, 'float16'), (3.4e38, 'bfloat16')])
def test_what_is_too_large_is_refused(value, dtype):
    with pytest.raises(Error, match=f'is too large for {dtype}; convert to float32'):
        narrowed(np.array([1, value], np.float32), dtype)
