import dataclasses

import numpy as np
import pytest
import reference_numpy
from example_models import TINY, as_params, full_logits, random_tokens, random_values

from gpt2 import model
from gpt2.hparams import RELEASED_HPARAMS, HParams, variable_shapes, weights_bytes
from gpt2.system.tensorflow import tf

ODD_SHAPES = [
    HParams(n_vocab=17, n_ctx=9, n_embd=5, n_head=1, n_layer=1),
    HParams(n_vocab=31, n_ctx=12, n_embd=15, n_head=3, n_layer=3),
    HParams(n_vocab=11, n_ctx=7, n_embd=6, n_head=6, n_layer=2),
]


@pytest.mark.parametrize('hparams', ODD_SHAPES)
def test_logits_equal_the_numpy_reference(hparams):
    values = random_values(hparams)
    tokens = random_tokens(hparams, 3, hparams.n_ctx)
    found = full_logits(hparams, as_params(values), tokens)
    for row in range(3):
        expected = reference_numpy.logits(values, hparams.n_head, hparams.n_layer, tokens[row])
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_loss_equals_the_numpy_reference():
    hparams = ODD_SHAPES[1]
    values = random_values(hparams)
    tokens = random_tokens(hparams, 3, 10)
    expected = np.mean([reference_numpy.loss(values, hparams.n_head, hparams.n_layer, row) for row in tokens])
    assert float(model.loss(hparams, as_params(values), tf.constant(tokens))) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('prompt', [1, 5, 39])
def test_cached_decoding_equals_the_uncached_forward(tiny_params, batch, prompt):
    tokens = random_tokens(TINY, batch, TINY.n_ctx)
    expected = full_logits(TINY, tiny_params, tokens)
    cache = model.new_cache(TINY, batch, TINY.n_ctx)
    features = model.forward(TINY, tiny_params, tf.constant(tokens[:, :prompt]), cache, 0)
    found = [model.logits(tiny_params, features).numpy()]
    for position in range(prompt, TINY.n_ctx):
        features = model.forward(TINY, tiny_params, tf.constant(tokens[:, position : position + 1]), cache, position)
        found.append(model.logits(tiny_params, features).numpy())
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-4)


def test_a_resized_cache_keeps_what_it_holds(tiny_params):
    tokens = random_tokens(TINY, 1, 12)
    cache = model.new_cache(TINY, 1, 6)
    model.forward(TINY, tiny_params, tf.constant(tokens[:, :5]), cache, 0)
    cache = model.resized_cache(TINY, cache, 6, [0, 0, 0], 12)
    features = model.forward(TINY, tiny_params, tf.constant(np.repeat(tokens[:, 5:], 3, axis=0)), cache, 5)
    expected = full_logits(TINY, tiny_params, tokens)[:, 5:]
    np.testing.assert_allclose(model.logits(tiny_params, features), np.repeat(expected, 3, axis=0), atol=1e-4)


def test_the_cache_is_updated_in_place(tiny_params):
    cache = model.new_cache(TINY, 1, TINY.n_ctx)

    def addresses():
        return [np.asarray(memoryview(layer['k'])).ctypes.data for layer in cache]

    before = addresses()
    step = tf.function(lambda tokens, cache: model.forward(TINY, tiny_params, tokens, cache, 0))
    step(tf.constant([[1, 2, 3]]), cache)
    assert addresses() == before
    rows = cache[0]['k'].numpy().reshape(TINY.n_head, TINY.n_ctx, -1)
    assert rows[:, :3].any(axis=-1).all()
    assert not rows[:, 3:].any()


def test_layers_do_not_share_cache_memory(tiny_params):
    cache = model.new_cache(TINY, 2, TINY.n_ctx)
    model.forward(TINY, tiny_params, tf.constant(random_tokens(TINY, 2, 4)), cache, 0)
    contents = [variable.numpy() for layer in cache for variable in layer.values()]
    assert len({content.tobytes() for content in contents}) == 2 * TINY.n_layer


def test_later_tokens_do_not_change_earlier_logits(tiny_params):
    tokens = random_tokens(TINY, 1, 20)
    changed = tokens.copy()
    changed[0, 12:] = (changed[0, 12:] + 1) % TINY.n_vocab
    before, after = full_logits(TINY, tiny_params, tokens), full_logits(TINY, tiny_params, changed)
    np.testing.assert_array_equal(before[:, :12], after[:, :12])
    assert np.abs(before[:, 12:] - after[:, 12:]).max() > 1e-3


def test_the_path_of_a_parameter_is_its_checkpoint_name():
    values = {name: name for name in variable_shapes(TINY)}
    nested = model.nest(values)
    assert nested['model']['h1']['attn']['c_attn']['w'] == 'model/h1/attn/c_attn/w'
    assert model.flatten(nested) == values


@pytest.mark.parametrize(
    ('name', 'size'), [('124M', 497759232), ('355M', 1419292672), ('774M', 3096120320), ('1558M', 6230444800)]
)
def test_sizes_of_the_weights_are_the_released_ones(name, size):
    assert weights_bytes(RELEASED_HPARAMS[name]) == size


def test_initial_parameters_have_the_published_distributions():
    hparams = dataclasses.replace(TINY, n_vocab=500, n_ctx=300, n_embd=80)
    values = {name: variable.numpy() for name, variable in model.flatten(model.initial_params(hparams, 3)).items()}
    for name, value in values.items():
        if name.endswith('/g'):
            assert (value == 1).all()
        elif name.endswith('/b'):
            assert (value == 0).all()
        else:
            assert value.std() == pytest.approx(0.01 if name.endswith('wpe') else 0.02, rel=0.05)
            assert abs(value.mean()) < 0.002
    again = model.flatten(model.initial_params(hparams, 3))
    assert all((again[name].numpy() == values[name]).all() for name in values)
    assert (model.initial_params(hparams, 4)['model']['wte'].numpy() != values['model/wte']).any()
