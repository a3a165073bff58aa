"""The train step on a tiny model."""

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, save, training_settings

from gpt2 import model
from gpt2.checkpoints.source import open_source
from gpt2.system.tensorflow import tf
from gpt2.training import optimizer as optimizers
from gpt2.training import update as updates
from gpt2.training.batches import Batch
from gpt2.training.folder import starting_point
from gpt2.training.update import make_evaluate, make_train_step

SETTINGS = training_settings()


def fresh(settings=SETTINGS):
    params = as_params(random_values(TINY))
    return params, optimizers.make_optimizer(optimizers.trained(params, settings.freeze), settings)


def whole(tokens):
    """A batch in which every target counts."""
    return Batch(tokens.astype(np.int32), np.ones([len(tokens), tokens.shape[1] - 1], np.float32))


def moments(optimizer, kind):
    return [each.numpy().ravel() for name, each in optimizers.state(optimizer).items() if name.endswith(kind)]


def test_gradients_are_clipped_to_norm_1():
    """With a huge loss gradient, the first moments are those of a gradient of norm 1."""
    params, optimizer = fresh()
    params['model']['ln_f']['g'].assign(np.full([TINY.n_embd], 1000.0))
    make_train_step(TINY, params, optimizer, SETTINGS)(whole(np.arange(18).reshape(2, 9)), 0.01)
    assert np.linalg.norm(np.concatenate(moments(optimizer, 'momentum'))) == pytest.approx(0.1, rel=1e-4)


def test_gradients_reach_every_variable():
    params, optimizer = fresh()
    make_train_step(TINY, params, optimizer, SETTINGS)(whole(np.arange(18).reshape(2, 9)), 0.01)
    found = moments(optimizer, 'momentum') + moments(optimizer, 'velocity')
    assert len(found) == 2 * len(random_values(TINY)) and all(np.abs(value).max() > 0 for value in found)


def test_training_lowers_the_loss():
    params, optimizer = fresh()
    step = make_train_step(TINY, params, optimizer, SETTINGS)
    batch = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    found = [step(whole(batch), 0.01).loss for _ in range(30)]
    assert found[0] == pytest.approx(float(model.loss(TINY, fresh()[0], batch)), rel=1e-5)
    assert found[-1] < found[0] / 3


def test_starting_point_takes_the_weights_of_another_model(tmp_path):
    save(tmp_path, TINY, as_params(random_values(TINY, seed=9)))
    source = open_source(str(tmp_path))
    params, optimizer = starting_point(None, source, TINY, SETTINGS)
    found = {name: variable.numpy() for name, variable in model.flatten(params).items()}
    assert all((found[name] == value).all() for name, value in random_values(TINY, seed=9).items())
    assert not any(value.numpy().any() for value in optimizers.state(optimizer).values())


def test_only_what_has_weight_is_learnt_from():
    """The loss is the mean over the targets that count, and the update is that of them alone."""
    tokens = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    weights = np.zeros([2, 8], np.float32)
    weights[0, :5] = 1
    params, optimizer = fresh()
    masked = make_train_step(TINY, params, optimizer, SETTINGS)(Batch(tokens, weights), 0.01)
    other, another = fresh()
    alone = make_train_step(TINY, other, another, SETTINGS)(whole(tokens[:1, :6]), 0.01)
    assert masked == pytest.approx(alone, rel=1e-5)
    for gradient, expected in zip(moments(optimizer, 'momentum'), moments(another, 'momentum')):
        np.testing.assert_allclose(gradient, expected, atol=1e-6)
    nothing = make_train_step(TINY, params, optimizer, SETTINGS)(Batch(tokens, 0 * weights), 0.01)
    assert nothing == (0, 0)


def test_a_loss_is_the_mean_over_targets_whatever_the_batches():
    params, _ = fresh()
    tokens = np.random.default_rng(0).integers(61, size=(5, 9)).astype(np.int32)
    weights = np.ones([5, 8], np.float32)
    weights[1:3, 2:] = 0
    found = [make_evaluate(TINY, params, size)(Batch(tokens, weights)) for size in (1, 2, 5)]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def random_batches(count, rows):
    """A third of the targets does not count, and in the first rows nearly none does."""
    random = np.random.default_rng(0)
    for _ in range(count):
        weights = (random.random([rows, 8]) < np.linspace(0.1, 1, rows)[:, np.newaxis]).astype(np.float32)
        yield Batch(random.integers(61, size=(rows, 9)).astype(np.int32), weights)


def trained_with(settings, batches):
    params, optimizer = fresh(settings)
    step = make_train_step(TINY, params, optimizer, settings)
    found = [step(batch, 0.01) for batch in batches]
    return found, {name: variable.numpy() for name, variable in model.flatten(params).items()}


def test_twenty_accumulated_updates_are_those_of_the_larger_batch():
    """Though the parts of a batch have different numbers of targets."""
    large, values = trained_with(training_settings(batch_size=6), random_batches(20, 6))
    parts, found = trained_with(training_settings(batch_size=2, accumulate=3), random_batches(20, 6))
    np.testing.assert_allclose(parts, large, rtol=1e-4)
    for name, value in without_key_bias(values).items():
        np.testing.assert_allclose(without_key_bias(found)[name], value, atol=1e-4, err_msg=name)


def without_key_bias(values):
    """Softmax is blind to the keys' bias, whose gradient is nothing but rounding, which Adam makes large."""
    keys = range(TINY.n_embd, 2 * TINY.n_embd)
    return {name: np.delete(value, keys) if name.endswith('c_attn/b') else value for name, value in values.items()}


@pytest.mark.parametrize(
    ('freeze', 'still'),
    [
        ('embeddings', ('model/wte', 'model/wpe')), ('1', ('model/h0/',)),
        ('embeddings,2', ('model/wte', 'model/wpe', 'model/h')),
    ],
)  # fmt: skip
def test_what_is_frozen_stays_and_all_else_moves(freeze, still):
    settings, before = training_settings(freeze=freeze), random_values(TINY)
    _, values = trained_with(settings, random_batches(2, 2))
    for name, value in values.items():
        assert (value == before[name]).all() == name.startswith(still), name
    assert len(moments(fresh(settings)[1], 'momentum')) == sum(not name.startswith(still) for name in values)


def test_dropout_drops_so_many_features_and_keeps_their_mean():
    dropout = model.Dropout(0.3, [1, 2])
    x = model.dropped(tf.ones([200, 500]), dropout, 4).numpy()
    assert (x == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert x[x > 0] == pytest.approx(1 / 0.7)
    assert (model.dropped(tf.ones([200, 500]), dropout, 4).numpy() == x).all()
    for seed, place in (([1, 2], 5), ([1, 3], 4)):
        other = model.dropped(tf.ones([200, 500]), model.Dropout(0.3, seed), place)
        assert (other.numpy() == x).mean() == pytest.approx(0.7**2 + 0.3**2, abs=0.01)


def test_dropout_reaches_embeddings_attention_and_what_each_layer_adds(monkeypatch):
    """A place is dropped of each, and never the same of two."""
    places, dropped = [], model.dropped

    def remembered(x, dropout, place):
        places.append((place, tuple(x.shape)))
        return dropped(x, dropout, place)

    monkeypatch.setattr(model, 'dropped', remembered)
    tokens = np.arange(18).reshape(2, 9)
    model.forward(TINY, fresh()[0], tokens, dropout=model.Dropout(0.3, [1, 3]))
    features, attention = (2, 9, TINY.n_embd), (2, TINY.n_head, 9, 9)
    assert places == list(enumerate([features, *[attention, features, features] * TINY.n_layer]))


def test_losses_with_dropout_are_of_the_seed_and_the_update_alone_and_held_out_ones_of_all_features():
    settings = training_settings(dropout=0.5, accumulate=2, batch_size=1)
    batches = [next(random_batches(1, 2))] * 2  # twice the same
    params, optimizer = fresh(settings)
    first, second = (make_train_step(TINY, params, optimizer, settings)(batch, 0.0).loss for batch in batches)
    assert first != second
    params, optimizer = fresh(settings)
    optimizer.iterations.assign(1)
    assert make_train_step(TINY, params, optimizer, settings)(batches[1], 0.0).loss == second
    without = trained_with(SETTINGS, batches[:1])[0][0].loss
    assert without != pytest.approx(first, rel=1e-2)
    assert make_evaluate(TINY, params, 2)(batches[0]) == pytest.approx(without, rel=1e-5)


@pytest.mark.parametrize(('precision', 'near'), [('bfloat16', 0.03), ('float16', 0.004)])
def test_half_precision_is_near_float32_over_float32_weights(precision, near):
    batches = list(random_batches(3, 2))
    exact, _ = trained_with(SETTINGS, batches)
    found, values = trained_with(training_settings(precision=precision), batches)
    for update, expected in zip(found, exact):
        assert update.loss != expected.loss
        assert update == pytest.approx(expected, rel=near)
    weights = values['model/h0/mlp/c_fc/w']
    assert (weights.astype(np.float16) != weights).mean() > 0.9


def test_an_overflow_in_float16_moves_nothing_but_the_scale_and_counts_as_an_update():
    settings = training_settings(precision='float16')
    params, optimizer = fresh(settings)
    optimizer.dynamic_scale.assign(1e30)
    step = make_train_step(TINY, params, optimizer, settings)
    assert step(next(random_batches(1, 2)), 0.01).norm == 0
    assert float(optimizers.loss_scale(optimizer)) == pytest.approx(0.5e30)
    assert int(optimizer.iterations.numpy()) == 1
    for name, value in random_values(TINY).items():
        np.testing.assert_array_equal(model.flatten(params)[name].numpy(), value)


def test_layers_computed_again_give_the_same_updates(monkeypatch):
    """Also with dropout, though the features that are dropped are drawn twice."""
    batches, computed, layer = list(random_batches(2, 2)), [], model.layer
    kept, values = trained_with(training_settings(dropout=0.3), batches)
    monkeypatch.setattr(model, 'layer', lambda x, **how: computed.append(how['place']) or layer(x, **how))
    found, again = trained_with(training_settings(dropout=0.3, recompute=True), batches)
    assert sorted(computed) == [1, 1, 4, 4]
    np.testing.assert_allclose(found, kept, rtol=1e-5)
    for name, value in without_key_bias(values).items():
        np.testing.assert_allclose(without_key_bias(again)[name], value, atol=1e-4, err_msg=name)


def test_compiled_updates_are_the_same():
    batches = list(random_batches(2, 2))
    plain, _ = trained_with(SETTINGS, batches)
    compiled, _ = trained_with(training_settings(jit_compile=True), batches)
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)


def test_a_trial_of_the_compiler_is_of_the_loss_that_falls():
    params, optimizer = fresh()
    tried = []

    def loss(*arguments, **how):
        tried.append(how)
        return updates.total_loss(*arguments, **how)

    updates.faster_compiled(TINY, params, SETTINGS, next(random_batches(1, 4)), optimizer, loss)
    assert tried


def test_a_trial_of_the_compiler_moves_nothing_and_is_the_faster_s(monkeypatch):
    params, optimizer = fresh()
    seconds = iter(range(1000))
    monkeypatch.setattr(updates.time, 'perf_counter', lambda: next(seconds))
    assert updates.faster_compiled(TINY, params, SETTINGS, next(random_batches(1, 4)), optimizer) is False  # a tie
    for name, value in random_values(TINY).items():
        np.testing.assert_array_equal(model.flatten(params)[name].numpy(), value)
