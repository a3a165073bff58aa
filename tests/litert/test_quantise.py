"""Matrices as integers: the nearest ones, as LiteRT reads them, and logits beside TensorFlow's."""

import numpy as np
import pytest
from example_models import as_params, full_logits, random_tokens, random_values, save

from gpt2.checkpoints.source import open_source
from gpt2.hparams import HParams
from gpt2.litert.engine import Generator
from gpt2.litert.export import exported_file
from gpt2.litert.quantise import quantise, quantise_blocks

WIDE = HParams(n_vocab=61, n_ctx=80, n_embd=64, n_head=4, n_layer=2)


def matrix(rows=20, columns=320):
    return np.random.default_rng(0).standard_normal([rows, columns]).astype(np.float32) / 10


def read(packed, scales):
    """Integers and what they stand for, as LiteRT reads them."""
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    values = np.where(halves > 7, halves.astype(int) - 16, halves)
    return values, values * np.repeat(scales.astype(np.float32), 32, axis=1)


def test_integers_of_eight_bits_are_the_nearest():
    exact = matrix()
    exact[3] = 0
    values, scales = quantise(exact)
    assert (values.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (20,))
    assert (np.abs(values).max(axis=1) == np.where(np.arange(20) == 3, 0, 127)).all()
    assert (np.abs(values * scales[:, None] - exact) <= scales[:, None] * 0.5001).all()


def test_blocks_of_four_bits_have_less_error_than_by_their_largest_value():
    exact = matrix()
    packed, scales = quantise_blocks(exact)
    assert (packed.dtype, packed.shape, scales.dtype, scales.shape) == (np.uint8, (20, 160), np.float16, (20, 10))
    blocks = exact.reshape(20, 10, 32)
    weights = np.abs(blocks) + np.sqrt((blocks**2).mean(axis=-1, keepdims=True))
    error = (weights * (read(packed, scales)[1].reshape(blocks.shape) - blocks) ** 2).sum(axis=-1)
    for reach in (7, 8):
        plain = np.abs(blocks).max(axis=-1, keepdims=True) / reach
        theirs = (weights * (np.clip(np.rint(blocks / plain), -8, 7) * plain - blocks) ** 2).sum(axis=-1)
        assert (error <= theirs * 1.02).all()  # their scales have all of float32's bits
        assert error.sum() < theirs.sum() * 0.97


def test_scales_of_blocks_are_exact_in_what_xnnpack_computes_with():
    scales = quantise_blocks(matrix())[1].astype(np.float32)
    assert not (scales.view(np.uint32) & 0xFFFF).any()  # bfloat16
    assert (scales > 0).all()


@pytest.mark.parametrize('scale', [0, 1e-30, 1e-6])
def test_blocks_of_nearly_nothing(scale):
    exact = matrix() * np.float32(scale)
    packed, scales = quantise_blocks(exact)
    assert np.isfinite(scales).all()
    assert np.abs(read(packed, scales)[1] - exact).max() < 4e-5


def test_logits_of_int4_are_those_of_tensorflow_with_the_rounded_matrices(tmp_path):
    values = random_values(WIDE)
    folder = save(tmp_path, WIDE, as_params(values))
    tokens = random_tokens(WIDE, 1, 80)
    generator = Generator(exported_file(open_source(folder), 'int4'), WIDE)
    found = np.concatenate(generator.map_logits(np.copy, tokens[0]))
    for name, value in values.items():
        if name.endswith(('/c_proj/w', '/c_fc/w')):
            values[name] = read(*quantise_blocks(np.ascontiguousarray(value[0].T)))[1].T[None].astype(np.float32)
    expected = full_logits(WIDE, as_params(values), tokens)[0]
    far = np.abs(expected - full_logits(WIDE, as_params(random_values(WIDE)), tokens)[0]).mean()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999
    assert np.abs(found - expected).mean() < far / 2  # what is left is the 8 bits of what they are multiplied with


def test_matrices_that_blocks_do_not_divide_stay_in_eight_bits(tmp_path):
    hparams = HParams(n_vocab=61, n_ctx=40, n_embd=20, n_head=4, n_layer=1)
    source = open_source(save(tmp_path, hparams, as_params(random_values(hparams))))
    logits = [
        Generator(exported_file(source, precision), hparams).map_logits(np.copy, [1, 2, 3])[0]
        for precision in ('int8', 'int4')
    ]
    np.testing.assert_array_equal(*logits)
