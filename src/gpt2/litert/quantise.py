"""Matrices as integers and their scales."""

import numpy as np

BLOCK = 32  # values of a row that share a scale in int4; XNNPACK takes multiples of it
# How often a scale goes into the largest of its values: beyond 8 it would take levels from the others for nothing,
# below 6 too much is cut off.
SCALES_TRIED = np.arange(6, 8.6, 0.25)
SMALLEST_SCALE = np.float32(2.0**-14)  # float16's smallest that keeps all of eight bits


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales [rows] whose product is nearest to matrix, float32 [rows, columns]."""
    scales = np.abs(matrix).max(axis=1) / 127
    scales[scales == 0] = 1
    return np.rint(matrix / scales[:, np.newaxis]).astype(np.int8), scales


def quantise_blocks(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values from -8 to 7, two in a byte, uint8 [rows, columns / 2] with the even column in the low half, and float16
    scales, one for 32 values of a row. Of some scales for each block that with the least sum of squared errors, where
    those of large values weigh more: what is cut off of them changes the logits more than what is rounded.

    matrix: float32 [rows, columns]
    """
    blocks = matrix.reshape(len(matrix), -1, BLOCK)
    largest = np.abs(blocks).max(axis=-1, keepdims=True)
    weights = np.abs(blocks) + np.sqrt((blocks**2).mean(axis=-1, keepdims=True))
    best = np.full_like(largest, np.inf)
    values, scales = np.zeros(blocks.shape, np.int8), np.ones_like(largest)
    for reach in SCALES_TRIED:
        scale = as_scale(largest / np.float32(reach))
        rounded = np.clip(np.rint(blocks / scale), -8, 7)
        error = (weights * (rounded * scale - blocks) ** 2).sum(axis=-1, keepdims=True)
        better = error < best
        np.copyto(values, rounded, where=better, casting='unsafe')
        np.copyto(scales, scale, where=better)
        np.copyto(best, error, where=better)
    halves = values.reshape(len(matrix), -1, 2).astype(np.uint8) & 15
    return halves[..., 0] | halves[..., 1] << 4, scales[..., 0].astype(np.float16)


def as_scale(scale: np.ndarray) -> np.ndarray:
    """The nearest of what XNNPACK computes with, float32 of eight bits (bfloat16), and the file can hold (float16)."""
    near = ((scale.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
    return np.maximum(near, SMALLEST_SCALE)
