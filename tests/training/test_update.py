"""The train step on a tiny model."""

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, save

from gpt2 import model
from gpt2.checkpoints.source import open_source
from gpt2.training import optimizer as optimizers
from gpt2.training.batches import Batch
from gpt2.training.folder import starting_point
from gpt2.training.settings import Settings
from gpt2.training.update import make_evaluate, make_train_step


def fresh(seed=0):
    params = as_params(random_values(TINY, seed))
    return params, optimizers.make_optimizer(list(model.flatten(params).values()), 0.1)


def whole(tokens):
    """A batch in which every target counts."""
    return Batch(tokens.astype(np.int32), np.ones([len(tokens), tokens.shape[1] - 1], np.float32))


def moments(optimizer, kind):
    return [each.numpy().ravel() for name, each in optimizers.state(optimizer).items() if name.endswith(kind)]


def test_gradients_are_clipped_to_norm_1():
    """With a huge loss gradient, the first moments are those of a gradient of norm 1."""
    params, optimizer = fresh()
    params['model']['ln_f']['g'].assign(np.full([TINY.n_embd], 1000.0))
    make_train_step(TINY, params, optimizer)(whole(np.arange(18).reshape(2, 9)), 0.01)
    assert np.linalg.norm(np.concatenate(moments(optimizer, 'momentum'))) == pytest.approx(0.1, rel=1e-4)


def test_gradients_reach_every_variable():
    params, optimizer = fresh()
    make_train_step(TINY, params, optimizer)(whole(np.arange(18).reshape(2, 9)), 0.01)
    found = moments(optimizer, 'momentum') + moments(optimizer, 'velocity')
    assert len(found) == 2 * len(random_values(TINY)) and all(np.abs(value).max() > 0 for value in found)


def test_training_lowers_the_loss():
    params, optimizer = fresh()
    step = make_train_step(TINY, params, optimizer)
    batch = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    found = [step(whole(batch), 0.01).loss for _ in range(30)]
    assert found[0] == pytest.approx(float(model.loss(TINY, fresh()[0], batch)), rel=1e-5)
    assert found[-1] < found[0] / 3


def test_starting_point_takes_the_weights_of_another_model(tmp_path):
    save(tmp_path, TINY, as_params(random_values(TINY, seed=9)))
    source = open_source(str(tmp_path))
    plan = Settings(1, 1, 8, 0.1, 0, 0.1, 0.0, 0)
    params, optimizer = starting_point(None, source, TINY, plan)
    found = {name: variable.numpy() for name, variable in model.flatten(params).items()}
    assert all((found[name] == value).all() for name, value in random_values(TINY, seed=9).items())
    assert not any(value.numpy().any() for value in optimizers.state(optimizer).values())


def test_only_what_has_weight_is_learnt_from():
    """The loss is the mean over the targets that count, and the update is that of them alone."""
    tokens = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    weights = np.zeros([2, 8], np.float32)
    weights[0, :5] = 1
    params, optimizer = fresh()
    masked = make_train_step(TINY, params, optimizer)(Batch(tokens, weights), 0.01)
    other, another = fresh()
    alone = make_train_step(TINY, other, another)(whole(tokens[:1, :6]), 0.01)
    assert masked == pytest.approx(alone, rel=1e-5)
    for gradient, expected in zip(moments(optimizer, 'momentum'), moments(another, 'momentum')):
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    nothing = make_train_step(TINY, params, optimizer)(Batch(tokens, 0 * weights), 0.01)
    assert nothing == (0, 0)


def test_a_loss_is_the_mean_over_targets_whatever_the_batches():
    params, _ = fresh()
    tokens = np.random.default_rng(0).integers(61, size=(5, 9)).astype(np.int32)
    weights = np.ones([5, 8], np.float32)
    weights[1:3, 2:] = 0
    found = [make_evaluate(TINY, params, size)(Batch(tokens, weights)) for size in (1, 2, 5)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
