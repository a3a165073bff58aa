"""Neurons and heads that are ablated, set, scaled or patched while a model scores and draws."""

import numpy as np
import pytest
from example_models import TINY, as_params, full_logits, random_tokens, random_values

import gpt2
import gpt2.api
from gpt2 import model, sample
from gpt2.errors import UsageError
from gpt2.inspection.activations import look
from gpt2.inspection.changes import parse, tap_of_changes
from gpt2.inspection.names import find

FEATURES = TINY.n_embd // TINY.n_head


def changed(params, text, reference=None):
    """An engine of the tiny model with changes."""

    def see(names):
        return look(sample.Generator(TINY, params), reference, find(TINY, names), 20).values

    return sample.Generator(TINY, params, tap_of_changes(TINY, parse(TINY, text), see, model.untapped))


def logits(generator, ids):
    """What an engine scores by, without a graph, whose tracing takes a second for each engine."""
    features = model.forward(TINY, generator.params, np.array([ids], np.int32), tap=generator.tap)
    return model.logits(generator.params, features)[0].numpy()


@pytest.fixture(scope='module')
def ids():
    return random_tokens(TINY, 1, 12)[0].tolist()


@pytest.fixture(scope='module')
def other_ids():
    return random_tokens(TINY, 1, 7, seed=9)[0].tolist()


def edited(neuron=None, head=None, features=0.0):
    """Weights in which a neuron of layer 1 is a number, or a head of layer 0 some features, for every token: what they
    add to the stream has moved into the bias."""
    values = random_values(TINY)
    layer, rows = ('h1/mlp', slice(*neuron)) if neuron else ('h0/attn', slice(*head))
    w, b = (values[f'model/{layer}/c_proj/{part}'] for part in 'wb')
    b += np.broadcast_to(np.float32(features), [rows.stop - rows.start]) @ w[0, rows]
    w[0, rows] = 0
    return as_params(values)


def test_what_is_ablated_or_set_is_as_weights_without_it(tiny_params, ids, other_ids):
    plain = sample.Generator(TINY, tiny_params)
    mean = look(plain, other_ids, find(TINY, 'h1.mlp.act, h0.attn.z'), 20)
    head = [2 * FEATURES, 3 * FEATURES]
    cases = {
        'h1.mlp.5': edited(neuron=[5, 6]), 'h1.mlp.5=zero': edited(neuron=[5, 6]), 'h0.head.2': edited(head=head),
        'h1.mlp.5=2.5': edited(neuron=[5, 6], features=2.5), 'h0.head.2=-1': edited(head=head, features=-1),
        'h1.mlp.5=mean': edited(neuron=[5, 6], features=mean['h1.mlp.act'][:, 5].mean()),
        'h0.head.2=mean': edited(head=head, features=mean['h0.attn.z'][2].mean(axis=0)),
    }  # fmt: skip
    before = logits(plain, ids)
    for text, params in cases.items():
        found = logits(changed(tiny_params, text, other_ids), ids)
        np.testing.assert_allclose(found, full_logits(TINY, params, np.array([ids], np.int32))[0], atol=1e-4)
        assert np.abs(found - before).max() > 1e-3, text


def test_what_is_scaled_is_as_scaled_weights(tiny_params, ids):
    values = random_values(TINY)
    values['model/h1/mlp/c_proj/w'][0, 7] *= 0.5
    values['model/h0/attn/c_proj/w'][0, :FEATURES] *= -2
    found = logits(changed(tiny_params, 'h1.mlp.7*0.5, h0.head.0*-2'), ids)
    np.testing.assert_allclose(found, full_logits(TINY, as_params(values), np.array([ids], np.int32))[0], atol=1e-4)


def test_what_is_patched_is_that_of_the_other_text_at_the_same_positions(tiny_params, ids, other_ids):
    plain = sample.Generator(TINY, tiny_params)
    theirs = look(plain, other_ids, find(TINY, 'h0.attn.z, h1.mlp.act'), 20)
    mine = look(plain, ids, find(TINY, 'h0.attn.z'), 20)
    generator = changed(tiny_params, 'h0.head.1=patch, h1.mlp.3=patch, h1.mlp.4=0', other_ids)
    found = look(generator, ids, find(TINY, 'h0.attn.z, h1.mlp.act'), 20)
    np.testing.assert_allclose(found['h0.attn.z'][1, :7], theirs['h0.attn.z'][1], atol=1e-6)
    np.testing.assert_allclose(found['h0.attn.z'][1, 7:], mine['h0.attn.z'][1, 7:], atol=1e-6)
    np.testing.assert_allclose(found['h0.attn.z'][0], mine['h0.attn.z'][0], atol=1e-6)
    np.testing.assert_allclose(found['h1.mlp.act'][:7, 3], theirs['h1.mlp.act'][:, 3], atol=1e-6)
    assert not found['h1.mlp.act'][:, 4].any()
    np.testing.assert_allclose(logits(changed(tiny_params, 'h0.head.1=patch', ids), ids), logits(plain, ids), atol=1e-5)


def test_samples_and_a_batch_of_prompts_are_changed_at_their_positions(tiny_params, ids, other_ids):
    """Drawn with a cache, token by token, as from all that came before at once."""
    reference = random_tokens(TINY, 1, 30)[0].tolist()
    generator = changed(tiny_params, 'h0.head.1=patch, h1.mlp.3=patch, h1.mlp.4', reference)
    prompts = [ids[:3], other_ids]
    steps = list(generator.generate(prompts, 5, numbers=[1, 1], seed=1, temperature=0))
    for row, prompt in enumerate(prompts):
        drawn = [int(tokens[row]) for tokens in steps]
        expected = logits(generator, [*prompt, *drawn])[len(prompt) - 1 : -1].argmax(axis=-1)
        assert drawn == expected.tolist()
    untouched = list(sample.Generator(TINY, tiny_params).generate(prompts, 5, numbers=[1, 1], seed=1, temperature=0))
    assert not np.array_equal(steps, untouched)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('h2.mlp.0', 'h2.mlp.0 names layer 2; this model has layers 0 to 1'),
        ('h0.mlp.80', 'h0.mlp.80 names neuron 80; this model has neurons 0 to 79'),
        ('h0.head.4', 'h0.head.4 names head 4; this model has heads 0 to 3'),
        ('h0.attn.4', "'h0.attn.4' is neither a neuron, as h5.mlp.131 is, nor a head, as h9.head.6"),
        ('', "'' is neither a neuron"),
        ('h0.mlp.1,', "'' is neither a neuron"),
        ('h0.mlp.1=half', "'h0.mlp.1=half' is no change; expected h0.mlp.1, h0.mlp.1=zero, =mean, =patch or =NUMBER"),
        ('h0.mlp.1=nan', 'is no change'),
        ('h0.mlp.1*', 'is no change'),
        ('h0.mlp.1*mean', 'is no change'),
        ('h0.mlp.1=1e39', 'or h0.mlp.1*NUMBER, a NUMBER from -1e.12 to 1e.12'),
        ('h0.mlp.1*-1e300', 'is no change'),
        ('h0.mlp.01', "'h0.mlp.01' is neither a neuron"),
        ('h0.mlp.\u0661', 'is neither a neuron'),
        (f'h{"9" * 5000}.mlp.1', 'is neither a neuron'),
        (None, 'the changes are None, expected a text such as h5.mlp.131,h9.head.6'),
        ('h0.mlp.1,h0.mlp.1=2', 'h0.mlp.1 is changed twice; give each part once'),
    ],
)
def test_changes_of_nothing_are_refused(text, message):
    with pytest.raises(UsageError, match=message.replace('*', r'\*')):
        parse(TINY, text)


# The model as a user has it


@pytest.fixture(scope='module')
def bundled():
    return gpt2.load('7M', engine='tf')


def test_an_ablated_model_scores_draws_and_shows_its_inside(bundled):
    ablated = bundled.ablated('h2.mlp.9=3, h4.head.1')
    found = ablated.activations('The king', 'h2.mlp.act, h4.attn.z')
    assert (found['h2.mlp.act'][:, 9] == 3).all() and not found['h4.attn.z'][1].any()
    assert ablated.score('The king').log_probability != bundled.score('The king').log_probability
    drawn = ablated.complete('The king', length=4, temperature=0)
    assert ablated.score('The king' + drawn.text).tokens[-1].rank == 1
    assert ablated.inside.params is not None and ablated.ablated('h0.head.0').activations('a', 'h2.mlp.act')[
        'h2.mlp.act'
    ][0, 9] == 3  # changes add up  # fmt: skip


def test_the_weights_of_an_ablated_model_are_in_memory_once(bundled):
    ablated = bundled.ablated('h0.head.0')
    here, there = (np.asarray(memoryview(each.inside.params['model']['wte'])) for each in (bundled, ablated))
    assert here.ctypes.data == there.ctypes.data


def test_ablations_that_cannot_be_are_refused_before_anything_is_loaded():
    closed = gpt2.api.open_model('7M')
    with pytest.raises(UsageError, match=r'h0\.mlp\.1=mean is taken from another text; give reference'):
        closed.ablated('h0.mlp.1=mean')
    with pytest.raises(UsageError, match=r'h6\.mlp\.1 names layer 6; this model has layers 0 to 5'):
        closed.ablated('h6.mlp.1')
    for how in ({'engine': 'litert'}, {'precision': 'int8'}):
        with pytest.raises(UsageError, match='ablate needs engine tf'):
            gpt2.api.open_model('7M', **how).ablated('h0.mlp.1')
    assert closed.tapped is None and closed.loaded is None
