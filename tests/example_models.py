"""Models that several tests use: tiny random ones, the bundled one, and the release's own files."""

import pathlib

import numpy as np

from gpt2 import model
from gpt2.checkpoints import release
from gpt2.hparams import HParams, save_hparams, variable_shapes
from gpt2.system.tensorflow import tf
from gpt2.training.batches import Batch
from gpt2.training.settings import Settings

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent
MODELS = REPOSITORY / 'models'
BUNDLED = MODELS / '7M'
RELEASE = HERE / 'release'
TINY = HParams(n_vocab=61, n_ctx=40, n_embd=20, n_head=4, n_layer=2)


def random_values(hparams, seed=0, scale=0.2):
    """Random arrays for every variable, far enough from zero that every term shows in the logits."""
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape) * scale + name.endswith('/g')).astype(np.float32)
        for name, shape in variable_shapes(hparams).items()
    }


def as_params(values):
    return model.nest({name: tf.Variable(value, name=name) for name, value in values.items()})


def random_tokens(hparams, batch, n, seed=1):
    return np.random.default_rng(seed).integers(hparams.n_vocab, size=(batch, n)).astype(np.int32)


def full_logits(hparams, params, tokens):
    return model.logits(params, model.forward(hparams, params, tf.constant(tokens))).numpy()


def training_settings(**changed):
    """Settings of a run of the tiny model."""
    values = {
        'steps': 20, 'batch_size': 2, 'window': 8, 'learning_rate': 0.01, 'warmup': 5, 'weight_decay': 0.1,
        'held_out': 0.0, 'seed': 1,
    }  # fmt: skip
    return Settings(**values | changed)


def training_batches(hparams, steps, batch=3, n=12, seed=0):
    """Batches of random tokens; from the second on about a third of the targets does not count."""
    random = np.random.default_rng(seed)
    for step in range(steps):
        tokens = random.integers(hparams.n_vocab, size=(batch, n + 1)).astype(np.int32)
        yield Batch(tokens, (random.random([batch, n]) < (0.7 if step else 1)).astype(np.float32))


def save(folder, hparams, params):
    """A model folder with neither vocabulary nor graph."""
    release.save(str(folder), 'model.ckpt', hparams, params)
    save_hparams(str(folder / 'hparams.json'), hparams)
    return str(folder)
