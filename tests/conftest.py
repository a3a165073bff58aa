"""What several test files share: tiny random models, and the release's own files."""

import os
import pathlib
import signal

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'

import numpy as np
import pytest

import model
from hparams import HParams, variable_shapes
from quiet_tensorflow import tf

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every script they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

RELEASE = pathlib.Path(__file__).parent / 'release'
TINY = HParams(n_vocab=61, n_ctx=40, n_embd=20, n_head=4, n_layer=2)


def random_values(hparams, seed=0, scale=0.2):
    """Random arrays for every variable, far enough from zero that every term shows in the logits."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape) * scale + name.endswith('/g')).astype(np.float32)
        for name, shape in variable_shapes(hparams).items()
    }


def as_params(values):
    return model.nest({name: tf.Variable(value) for name, value in values.items()})


@pytest.fixture(scope='session')
def tiny_params():
    return as_params(random_values(TINY))
