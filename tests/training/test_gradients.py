"""What a layer is made of in training, against what TensorFlow derives of the plain parts; and what is kept of it."""

import collections
import dataclasses

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, training_settings

from gpt2 import model
from gpt2.system.tensorflow import tf
from gpt2.training import gradients
from gpt2.training.batches import Batch
from gpt2.training.optimizer import make_optimizer, trained
from gpt2.training.update import make_train_step

RANDOM = np.random.default_rng(0)


def array(*shape):
    return tf.constant(RANDOM.standard_normal(shape).astype(np.float32))


def value_and_gradients(function, inputs, weights):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = function(*inputs)
        total = tf.reduce_sum(value * weights)
    return [value, *map(tf.convert_to_tensor, tape.gradient(total, inputs))]


def same(function, plain, inputs, weights):
    pairs = zip(value_and_gradients(function, inputs, weights), value_and_gradients(plain, inputs, weights))
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_norm():
    def of(norm):
        return lambda x, g, b: norm(x, {'g': g, 'b': b})

    same(of(gradients.norm), of(model.norm), [array(2, 5, 8), array(8), array(8)], array(2, 5, 8))


def test_gelu():
    same(gradients.gelu, model.gelu, [3 * array(2, 5, 8)], array(2, 5, 8))


@pytest.mark.parametrize('n', [3, 11])  # one block, and several, the last of them smaller
@pytest.mark.parametrize('packed', [False, True])
def test_attention(monkeypatch, n, packed):
    monkeypatch.setattr(gradients, 'SHORTEST', 3)
    mask = model.attention_mask(tf.range(n)[tf.newaxis], n)
    if packed:
        starts = np.repeat(np.array([[0], [2]]), n, axis=1) * (np.arange(n) >= 2)
        mask = tf.where(tf.range(n) >= starts[:, np.newaxis, :, np.newaxis], mask, -1e10)
    inputs = [array(2, 3, n, 4) for _ in range(3)]
    attend, plain = ((lambda *qkv, how=how: how(*qkv, mask, None, 0)) for how in (gradients.attend, model.attend))
    same(attend, plain, inputs, array(2, 3, n, 4))


def test_attention_with_dropout_drops_the_same_in_both_passes(monkeypatch):
    """The result is linear in the values: with the gradient at them it gives itself again."""
    monkeypatch.setattr(gradients, 'SHORTEST', 3)
    mask = model.attention_mask(tf.range(11)[tf.newaxis], 11)
    q, k, v, weights = (array(2, 3, 11, 4) for _ in range(4))
    dropout = model.Dropout(0.4, tf.constant([1, 2]))
    found, d_v = value_and_gradients(lambda v: gradients.attend(q, k, v, mask, dropout, 7), [v], weights)
    assert float(tf.reduce_sum(d_v * v)) == pytest.approx(float(tf.reduce_sum(found * weights)), rel=1e-4)
    step = 1e-3 * array(2, 3, 11, 4)
    near, d_q = value_and_gradients(lambda q: gradients.attend(q, k, v, mask, dropout, 7), [q], weights)
    moved = gradients.attend(q + step, k, v, mask, dropout, 7)
    assert float(tf.reduce_sum((moved - near) * weights)) == pytest.approx(float(tf.reduce_sum(d_q * step)), rel=0.02)
    assert np.abs(found - gradients.attend(q, k, v, mask, None, 7)).max() > 0.1


@pytest.mark.parametrize('chunk', [1, 3, 10])
def test_loss_over_the_vocabulary(monkeypatch, chunk):
    monkeypatch.setattr(gradients, 'CHUNK', chunk)
    targets, weights = tf.constant(RANDOM.integers(13, size=(2, 5))), tf.abs(array(2, 5))

    def plain(features, wte):
        logits = model.logits({'model': {'wte': wte}}, features)
        return tf.reduce_sum(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))

    def loss(features, wte):
        return gradients.vocabulary_loss(features, wte, weights, gradients.next_token(targets))

    same(loss, plain, [array(2, 5, 8), array(13, 8)], 1.0)


def test_divergence_from_a_teacher(monkeypatch):
    monkeypatch.setattr(gradients, 'CHUNK', 3)
    theirs, their_wte, weights = array(2, 5, 6), array(13, 6), tf.abs(array(2, 5))

    def plain(features, wte):
        ours, expected = (tf.nn.log_softmax(tf.einsum('bne,ve->bnv', *each) / 3)
                          for each in ((features, wte), (theirs, their_wte)))  # fmt: skip
        return tf.reduce_sum(weights * 9 * tf.reduce_sum(tf.exp(expected) * (expected - ours), axis=-1))

    def loss(features, wte):
        return gradients.vocabulary_loss(features, wte, weights, gradients.divergence(theirs, their_wte, 3.0))

    same(loss, plain, [array(2, 5, 8), array(13, 8)], 1.0)


# What is kept


def update_graph(hparams, **changed):
    """The operations of an update, as TensorFlow has optimized them."""
    from tensorflow.python.eager.context import context  # isort: skip

    settings, params = training_settings(**changed), as_params(random_values(hparams))
    step = make_train_step(hparams, params, make_optimizer(trained(params, None), settings), settings)
    context().enable_run_metadata()
    try:
        step(Batch(np.arange(18).reshape(2, 9).astype(np.int32), np.ones([2, 8], np.float32)), 0.01)
        graphs = [each.post_optimization_graph for each in context().export_run_metadata().function_graphs]
    finally:
        context().disable_run_metadata()
    return max((graph.node for graph in graphs), key=len)


def kept(nodes):
    """How many tensors that were computed of the batch before the loss are used after it."""
    users = collections.defaultdict(list)
    for node in nodes:
        for name in node.input:
            users[name.strip('^').split(':')[0]].append((node.name, name.startswith('^')))

    def later(kinds):
        found, result = [node.name for node in nodes if node.op in kinds], set()
        assert found
        while found:
            if (name := found.pop()) not in result:
                result.add(name)
                found += [user for user, _ in users[name]]
        return result

    after = later(['SparseSoftmaxCrossEntropyWithLogits'])
    before = later(['GatherV2', 'ResourceGather']) - after
    return sum(any(user in after and not waits for user, waits in users[name]) for name in before)


def kept_of_a_layer(**changed):
    few, many = (kept(update_graph(dataclasses.replace(TINY, n_layer=count), **changed)) for count in (1, 2))
    return many - few


@pytest.mark.slow
def test_of_a_layer_that_is_computed_again_nothing_is_kept_but_what_goes_into_it():
    """Else it is what goes into each norm and matrix, into gelu and into attention, whose result is there in two
    orders, the mean and scale of each norm and what weights add up to."""
    assert kept_of_a_layer(recompute=True) == 1
    assert kept_of_a_layer() == 2 + 4 + 1 + 3 + 1 + 4 + 1
