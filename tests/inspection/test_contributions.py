"""What each part adds to a logit, and connections by weights."""

import numpy as np
import pytest
from example_models import BUNDLED, TINY, full_logits, random_tokens

import gpt2
from gpt2 import sample
from gpt2.checkpoints.source import open_source
from gpt2.errors import UsageError
from gpt2.inspection.connections import connections, strongest
from gpt2.inspection.contributions import contributions


@pytest.mark.parametrize('neurons', [False, True])
@pytest.mark.parametrize('other', [None, 17])
def test_the_sum_of_all_parts_is_the_logit(tiny_params, neurons, other):
    ids = random_tokens(TINY, 1, 11)[0].tolist()
    found = contributions(sample.Generator(TINY, tiny_params), ids, 42, other, neurons)
    logits = full_logits(TINY, tiny_params, np.array([ids], np.int32))[0, -1]
    expected = logits[42] - (0 if other is None else logits[other])
    assert found.logit == pytest.approx(expected, abs=1e-4)
    assert sum(found.parts.values()) == pytest.approx(expected, abs=1e-3)
    a_layer = TINY.n_head + 1 + (4 * TINY.n_embd + 1 if neurons else 1)
    assert len(found.parts) == 2 + 2 * a_layer + 1
    assert list(found.parts)[:7] == ['wte', 'wpe', 'h0.head.0', 'h0.head.1', 'h0.head.2', 'h0.head.3', 'h0.attn.b']


def test_neurons_and_their_bias_add_what_their_mlp_adds(tiny_params):
    ids, generator = random_tokens(TINY, 1, 11)[0].tolist(), sample.Generator(TINY, tiny_params)
    whole, each = (contributions(generator, ids, 3, 4, neurons).parts for neurons in (False, True))
    for layer in ('h0', 'h1'):
        assert sum(v for name, v in each.items() if name.startswith(f'{layer}.mlp.')) == pytest.approx(
            whole[f'{layer}.mlp'], abs=1e-4
        )
    assert whole['h1.head.2'] == each['h1.head.2']


def test_a_part_of_the_last_layer_adds_what_its_absence_takes(tiny_params):
    """But for the final norm, whose deviation stays as it was: computed here from the stream itself."""
    ids, generator = random_tokens(TINY, 1, 11)[0].tolist(), sample.Generator(TINY, tiny_params)
    found = contributions(generator, ids, 42, None, True)
    from gpt2.inspection.activations import look_at_window

    seen = look_at_window(generator, ids, {'h1.post', 'h1.mlp.act'})
    stream, act = seen['h1.post'][-1], seen['h1.mlp.act'][-1, 5]
    p = tiny_params['model']
    without = stream - act * p['h1']['mlp']['c_proj']['w'].numpy()[0, 5]
    g, wte = p['ln_f']['g'].numpy(), p['wte'].numpy()[42]

    def logit(x):
        return (x - x.mean()) / np.sqrt(stream.var() + 1e-5) * g @ wte

    assert found.parts['h1.mlp.5'] == pytest.approx(logit(stream) - logit(without), abs=1e-4)


def test_the_bundled_model_tells_what_makes_a_token_likelier():
    model = gpt2.load('7M', engine='tf')
    text = 'The king said to the queen, " I will give you the'
    found = model.contributions(text, ' king', ' queen')
    first, second = (model.contributions(text, token) for token in (' king', ' queen'))
    assert found.logit == pytest.approx(first.logit - second.logit, abs=1e-3)
    assert sum(found.parts.values()) == pytest.approx(found.logit, abs=1e-3)
    assert found.parts['h3.mlp'] == pytest.approx(first.parts['h3.mlp'] - second.parts['h3.mlp'], abs=1e-3)
    logits = model.activations(text, 'logits')['logits'][-1]
    assert first.logit == pytest.approx(logits[model.encode(' king')[0]], abs=1e-3)
    long = text * 60
    end = model.decode(model.encode(long)[-model.hparams.n_ctx :])
    assert model.contributions(long, 5).logit == pytest.approx(model.contributions(end, 5).logit, abs=1e-3)
    with pytest.raises(UsageError, match=r'token has .* king queen.*, which is 2 tokens'):
        model.contributions(text, ' king queen')
    with pytest.raises(UsageError, match='other has the token id 8192, expected 0 to 8191'):
        model.contributions(text, 5, 8192)


def test_connections_are_those_of_the_definitions():
    source = open_source(str(BUNDLED))
    value = {name: source.value(f'model/{name}').astype(float) for name in (
        'wte', 'ln_f/g', 'h1/mlp/c_proj/w', 'h2/ln_2/g', 'h2/mlp/c_fc/w', 'h2/mlp/c_proj/w', 'h4/ln_2/g',
        'h4/mlp/c_fc/w',
    )}  # fmt: skip
    found = connections(source, 2, 77)
    into = np.diag(value['h2/ln_2/g']) @ value['h2/mlp/c_fc/w'][0, :, 77]
    out = value['h2/mlp/c_proj/w'][0, 77]
    np.testing.assert_allclose(found.tokens_in, value['wte'] @ into, atol=1e-4)
    np.testing.assert_allclose(found.tokens_out, value['wte'] @ np.diag(value['ln_f/g']) @ out, atol=1e-4)
    assert found.neurons_in.shape == (2, 1024) and found.neurons_out.shape == (3, 1024)
    np.testing.assert_allclose(found.neurons_in[1], value['h1/mlp/c_proj/w'][0] @ into, atol=1e-4)
    expected = out @ np.diag(value['h4/ln_2/g']) @ value['h4/mlp/c_fc/w'][0]
    np.testing.assert_allclose(found.neurons_out[1], expected, atol=1e-4)
    # The other end sees the same strength.
    assert connections(source, 4, 5).neurons_in[2, 77] == pytest.approx(found.neurons_out[1, 5], abs=1e-4)
    assert connections(source, 0, 5).neurons_in.shape == (0, 1024)


def test_the_strongest_come_first():
    strengths = np.array([[1.0, -5, 3], [3, 0, -2]])
    assert strongest(strengths, 3) == [((0, 2), 3), ((1, 0), 3), ((0, 0), 1)]
    assert strongest(strengths, 2, -1) == [((0, 1), -5), ((1, 2), -2)]
    assert strongest(np.zeros([0, 4]), 5) == []


def test_a_head_has_no_connections():
    with pytest.raises(UsageError, match=r'h0\.head\.1 is a head, expected a neuron'):
        gpt2.api.open_model('7M').connections('h0.head.1')
