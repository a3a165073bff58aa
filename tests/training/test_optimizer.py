"""The optimizer against arithmetic by hand, and its state."""

import numpy as np
import pytest
from example_models import training_settings

from gpt2.checkpoints import release
from gpt2.checkpoints.files import CheckpointError
from gpt2.system.tensorflow import tf
from gpt2.training import optimizer as optimizers


def test_learning_rate_warms_up_and_falls_to_a_tenth():
    plan = training_settings(steps=105, warmup=5, learning_rate=1.0)
    rates = [optimizers.learning_rate(plan, step) for step in range(105)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize(('steps', 'warmup', 'rates'), [
    (3, 0, [1, 0.55, 0.1]), (2, 0, [1, 0.1]), (3, 1, [1, 0.55, 0.1]), (4, 2, [0.5, 1, 0.55, 0.1]), (1, 0, [1]),
    (2, 2, [0.5, 1]),
])  # fmt: skip
def test_the_rate_of_short_runs(steps, warmup, rates):
    plan = training_settings(steps=steps, warmup=warmup, learning_rate=1.0)
    assert [optimizers.learning_rate(plan, step) for step in range(steps)] == pytest.approx(rates)


def test_the_optimizer_equals_arithmetic_by_hand():
    """Three updates of a matrix and a vector against AdamW's paper in NumPy: the decay on the matrix only, the
    gradients of the second, whose norm is above 1, clipped together, the others as they are."""
    random, shapes = np.random.default_rng(0), {'matrix': [3, 2], 'vector': [4]}
    expected = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    variables = [tf.Variable(tf.cast(value, tf.float32), name=name) for name, value in expected.items()]
    optimizer = optimizers.make_optimizer(variables, training_settings())
    optimizer.learning_rate.assign(0.01)
    mean, square = dict.fromkeys(shapes, 0), dict.fromkeys(shapes, 0)
    for step, norm in enumerate([0.5, 7.0, 1.0], start=1):
        gradients = {name: random.standard_normal(shape) for name, shape in shapes.items()}
        together = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
        given = [tf.cast(gradient * norm / together, tf.float32) for gradient in gradients.values()]
        optimizers.apply(optimizer, given, variables, tf.constant(norm))
        for name, gradient in gradients.items():
            clipped = gradient * min(norm, 1) / together
            mean[name] = 0.9 * mean[name] + 0.1 * clipped
            square[name] = 0.95 * square[name] + 0.05 * clipped**2
            adam = mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - 0.95**step)) + 1e-8)
            decay = 0.1 if name == 'matrix' else 0
            expected[name] = expected[name] - 0.01 * (adam + decay * expected[name])
    for variable, value in zip(variables, expected.values()):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)


def test_lion_equals_its_paper():
    """Chen et al. 2023, program 1, in NumPy: the sign of one mean of gradients, and another that is kept."""
    random, value, mean = np.random.default_rng(0), np.ones([3, 2]), np.zeros([3, 2])
    variable = tf.Variable(tf.cast(value, tf.float32), name='matrix')
    optimizer = optimizers.make_optimizer([variable], training_settings(optimizer='lion', weight_decay=0.5))
    optimizer.learning_rate.assign(0.01)
    for _ in range(20):
        gradient = random.standard_normal([3, 2]) / 10  # of a norm below 1
        optimizer.apply([tf.cast(gradient, tf.float32)], [variable])
        value = value - 0.01 * (np.sign(0.9 * mean + 0.1 * gradient) + 0.5 * value)
        mean = 0.99 * mean + 0.01 * gradient
    np.testing.assert_allclose(variable.numpy(), value, atol=2e-5)


@pytest.mark.parametrize(
    'how', [*({'optimizer': kind} for kind in optimizers.OPTIMIZERS), {'precision': 'float16'}], ids=str
)
def test_a_restored_optimizer_goes_on_as_the_saved_one(tmp_path, how):
    """Every part of its state tells: without any of it the next update would be another."""

    def start():
        variables = [tf.Variable(tf.ones([1, 2, 3]), name='model/c_fc/w'), tf.Variable(tf.ones([3]), name='model/g')]
        optimizer = optimizers.make_optimizer(variables, training_settings(**how))
        optimizer.learning_rate.assign(0.01)
        return variables, optimizer

    random = np.random.default_rng(0)
    gradients = [[tf.constant(random.standard_normal(shape), tf.float32) for shape in ([1, 2, 3], [3])]
                 for _ in range(4)]  # fmt: skip
    variables, optimizer = start()
    for each in gradients[:3]:
        optimizer.apply([gradient * optimizers.loss_scale(optimizer) for gradient in each], variables)
    release.write_values(str(tmp_path / 'model-1.optimizer'), optimizers.saved_values(optimizer))
    others, restored = start()
    for other, variable in zip(others, variables):
        other.assign(variable)
    optimizers.restore(restored, str(tmp_path / 'model-1.optimizer'))
    for each, trained in ((optimizer, variables), (restored, others)):
        each.apply(gradients[3], trained)
        assert int(each.iterations.numpy()) == 4
    for found, expected in zip([*others, *restored.variables], [*variables, *optimizer.variables]):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    variable, prefix = tf.Variable(tf.zeros([2]), name='model/wte'), str(tmp_path / 'model-1.optimizer')
    lion = optimizers.make_optimizer([variable], training_settings(optimizer='lion'))
    release.write_values(prefix, optimizers.saved_values(lion))
    with pytest.raises(CheckpointError, match='the state of another optimizer'):
        optimizers.restore(optimizers.make_optimizer([variable], training_settings()), prefix)


def test_a_state_of_another_form_is_one_line(tmp_path):
    old = {'model/wte/adam_m': tf.zeros([2]), 'model/wte/adam_v': tf.zeros([2]), 'step': tf.zeros([])}
    release.write_values(str(tmp_path / 'model-1.optimizer'), old)
    optimizer = optimizers.make_optimizer([tf.Variable(tf.zeros([2]), name='model/wte')], training_settings())
    with pytest.raises(CheckpointError, match='start a new run') as caught:
        optimizers.restore(optimizer, str(tmp_path / 'model-1.optimizer'))
    assert '\n' not in str(caught.value)
