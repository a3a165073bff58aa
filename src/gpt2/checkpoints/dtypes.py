"""Floats of 16 bits, in NumPy: widened exactly, narrowed to the nearest, half to even."""

import numpy as np

from gpt2.errors import Error

FLOATS = ('float32', 'float16', 'bfloat16')  # the widest first
STORED_AS = {'float32': '<f4', 'float16': '<f2', 'bfloat16': '<u2'}  # bfloat16 is the upper half of a float32


def widened(stored: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values of an array as it is stored."""
    if dtype == 'bfloat16':
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def narrowed(value: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as they are stored in dtype. Raises Error where a finite one would become infinite."""
    if dtype == 'bfloat16':
        bits = value.view(np.uint32)
        # A NaN keeps its upper half: rounding could make it an infinity.
        odd = np.where(np.isnan(value), 0, 0x7FFF + (bits >> 16 & 1)).astype(np.uint32)
        stored = ((bits + odd) >> 16).astype('<u2')
    else:
        with np.errstate(over='ignore'):
            stored = value.astype(STORED_AS[dtype], copy=False)
    if dtype != 'float32' and (np.isfinite(value) & ~np.isfinite(widened(stored, dtype))).any():
        raise Error(f'a weight of {np.abs(value).max():.6g} is too large for {dtype}; convert to float32')
    return stored


def rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    """The nearest float32 values that dtype can hold."""
    return value if dtype == 'float32' else widened(narrowed(value, dtype), dtype)
