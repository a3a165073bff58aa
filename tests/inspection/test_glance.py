"""What a page shows of a short text, in one pass: as the library sees it, and traced once."""

import numpy as np
import pytest
from example_models import TINY, random_tokens

from gpt2 import model, sample
from gpt2.errors import Error
from gpt2.inspection.activations import lens, look
from gpt2.inspection.changes import parse, tap_of_changes
from gpt2.inspection.glance import make_glance
from gpt2.inspection.names import find

LIKELIEST = 5


def changed(params, text):
    def nothing(names):
        raise AssertionError(names)

    return sample.Generator(TINY, params, tap_of_changes(TINY, parse(TINY, text), nothing, model.untapped))


def test_a_glance_is_what_passes_of_their_own_see_and_is_traced_once(tiny_params):
    traces = []
    glance = make_glance(
        sample.Generator(TINY, tiny_params, lambda name, value: traces.append(name) or value), LIKELIEST
    )
    cases = [
        (5, 0, 3, 79, None), (1, 1, 0, 5, None), (TINY.n_ctx, 1, 2, 7, 'h1.mlp.7=3'),
        (9, 0, 1, 4, 'h0.head.1, h0.mlp.4*-2, h1.head.0=0.5'),
    ]  # fmt: skip
    for n, layer, head, neuron, changes in cases:
        ids = random_tokens(TINY, 1, n)[0].tolist()
        found = glance(ids, layer, head, neuron, parse(TINY, changes) if changes else ())
        plain = sample.Generator(TINY, tiny_params)
        generator = changed(tiny_params, changes) if changes else plain
        expected = lens(generator, ids, LIKELIEST, 1)
        np.testing.assert_array_equal(found.lens.ids, expected.ids[..., 0])
        np.testing.assert_allclose(found.lens.probabilities, expected.probabilities[..., 0], atol=1e-5)
        seen = look(generator, ids, find(TINY, 'attn.pattern, mlp.act'), 1)
        np.testing.assert_allclose(found.pattern, seen['attn.pattern'][layer, head], atol=1e-5)
        np.testing.assert_allclose(found.activations, seen['mlp.act'][layer, :, neuron], atol=1e-5)
        for likeliest, by in ((found.next, expected), (found.before, lens(plain, ids, LIKELIEST, 1))):
            np.testing.assert_array_equal(likeliest.ids, by.ids[-1, -1])
            np.testing.assert_allclose(likeliest.probabilities, by.probabilities[-1, -1], atol=1e-5)
        assert (changes is None) == np.array_equal(found.next.probabilities, found.before.probabilities)
    assert traces.count('ln_f') == 1


def test_changes_come_on_top_of_those_the_model_has(tiny_params):
    glance = make_glance(changed(tiny_params, 'h1.mlp.7=3'), LIKELIEST)
    assert set(glance([1, 2, 3], 1, 0, 7, parse(TINY, 'h0.head.0')).activations) == {3}


def test_a_model_that_is_closed_is_not_looked_into(tiny_params):
    generator = sample.Generator(TINY, tiny_params)
    glance = make_glance(generator, LIKELIEST)
    generator.close()
    with pytest.raises(Error, match='closed'):
        glance([1], 0, 0, 0, ())
