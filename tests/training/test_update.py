"""The train step on a tiny model."""

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, save

from gpt2 import model
from gpt2.checkpoints.source import open_source
from gpt2.training import optimizer as optimizers
from gpt2.training.folder import starting_point
from gpt2.training.update import make_train_step


def fresh(seed=0):
    params = as_params(random_values(TINY, seed))
    return params, optimizers.make_optimizer(list(model.flatten(params).values()), 0.1)


def moments(optimizer, kind):
    return [each.numpy().ravel() for name, each in optimizers.state(optimizer).items() if name.endswith(kind)]


def test_gradients_are_clipped_to_norm_1():
    """With a huge loss gradient, the first moments are those of a gradient of norm 1."""
    params, optimizer = fresh()
    params['model']['ln_f']['g'].assign(np.full([TINY.n_embd], 1000.0))
    make_train_step(TINY, params, optimizer)(np.arange(18).reshape(2, 9), 0.01)
    assert np.linalg.norm(np.concatenate(moments(optimizer, 'momentum'))) == pytest.approx(0.1, rel=1e-4)


def test_gradients_reach_every_variable():
    params, optimizer = fresh()
    make_train_step(TINY, params, optimizer)(np.arange(18).reshape(2, 9), 0.01)
    found = moments(optimizer, 'momentum') + moments(optimizer, 'velocity')
    assert len(found) == 2 * len(random_values(TINY)) and all(np.abs(value).max() > 0 for value in found)


def test_training_lowers_the_loss():
    params, optimizer = fresh()
    step = make_train_step(TINY, params, optimizer)
    batch = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    found = [step(batch, 0.01) for _ in range(30)]
    assert found[0] == pytest.approx(float(model.loss(TINY, fresh()[0], batch)), rel=1e-5)
    assert found[-1] < found[0] / 3


def test_starting_point_takes_the_weights_of_another_model(tmp_path):
    save(tmp_path, TINY, as_params(random_values(TINY, seed=9)))
    source = open_source(str(tmp_path))
    params, optimizer = starting_point(str(tmp_path / 'new'), source, TINY, seed=0, weight_decay=0.1)
    found = {name: variable.numpy() for name, variable in model.flatten(params).items()}
    assert all((found[name] == value).all() for name, value in random_values(TINY, seed=9).items())
    assert not any(value.numpy().any() for value in optimizers.state(optimizer).values())
