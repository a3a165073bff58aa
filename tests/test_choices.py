"""Continuations that are one of several: their probabilities, and that they are drawn by them."""

import numpy as np
import pytest
import reference_numpy
from example_models import TINY, random_values
from litert.test_engine import both_engines
from test_drawing import kept

import gpt2
from gpt2 import choices
from gpt2.errors import UsageError
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling

PROMPT = [3, 1, 4, 1, 5]
CHOICES = [[7], [7, 8], [7, 8, 9, 10], [7, 9], [20, 21, 22], [30], [7, 8, 9, 11], [31, 31, 31, 31, 31, 31]]


@pytest.fixture(scope='module')
def engines(tmp_path_factory, tiny_params):
    return both_engines(tmp_path_factory.mktemp('choices'), TINY, tiny_params)


@pytest.fixture(scope='module')
def expected():
    """The log-probability of each choice, by the NumPy reference."""
    found = []
    for choice in CHOICES:
        logits = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, [*PROMPT, *choice[:-1]])
        rows = logits[len(PROMPT) - 1 :]
        found.append(sum(np.log(reference_numpy.softmax(row)[token]) for row, token in zip(rows, choice)))
    return np.array(found)


@pytest.mark.parametrize('at_once', [1, 3, 64])
def test_scores_are_the_sums_of_the_tokens_log_probabilities(engines, expected, monkeypatch, at_once):
    monkeypatch.setattr(choices, 'AT_ONCE', at_once)
    for engine in engines:
        np.testing.assert_allclose(choices.choice_scores(engine, PROMPT, CHOICES), expected, atol=1e-3)
    with engines[1].alone():
        assert engines[1].cache.in_use() == 0  # nothing is left in the cache


@pytest.mark.parametrize('how', [{}, {'temperature': 3}, {'top_k': 2}, {'min_p': 0.1}, {'temperature': 0}])
def test_choices_are_drawn_by_their_probabilities(expected, how):
    """By the race: whose noise is least by its weight wins, which is the definition of the draw."""
    weights = reference_numpy.probabilities(expected, **how)
    for number in range(1, 300):
        noise = noise_stream(5, PROMPT, number).standard_exponential(len(CHOICES))
        with np.errstate(divide='ignore'):
            winner = (noise / weights).argmin()
        assert choices.choose(expected, 5, PROMPT, number, Sampling(**how)) == winner
    assert kept(expected, Sampling(**how)).tolist() == (weights > 0).tolist() or not how.get('temperature', 1)


def test_rows_that_go_on_in_several_ways(engines):
    """Each as if it had been alone; both engines, forked again and again, dropped and forked once more."""
    for engine in engines:
        lines = [[*PROMPT]]
        rows = engine.start(lines, numbers=[1], seed=0, sampling=Sampling())
        random = np.random.default_rng(2)
        for step in range(20):
            found = rows.next_logits()
            wanted = np.concatenate([engine.map_logits(np.array, line, len(line) - 1)[0] for line in lines])
            np.testing.assert_allclose(found, wanted, atol=1e-3)
            # The last from step 12 on have one ancestor, so what they share becomes the prompt's.
            parents = [0] * 4 if step in (0, 12) else random.integers(len(lines), size=1 + step % 4 + 1).tolist()
            tokens = random.integers(TINY.n_vocab, size=len(parents)).tolist()
            lines = [[*lines[parent], token] for parent, token in zip(parents, tokens)]
            rows.keep(parents)
            rows.take(tokens)
        rows.close()


def test_the_library_chooses(monkeypatch):
    texts = [' king', ' queen', ' old woman who lived', '.']
    found = []
    for engine in ('litert', 'tf'):
        with gpt2.load('7M', engine=engine) as model:
            many = model.complete('There was once a', samples=40, seed=3, choices=texts)
            likeliest = model.complete('There was once a', choices=texts, temperature=0)
            pieces = list(model.stream('There was once a', seed=3, choices=texts, sample=2))
            scores = dict(likeliest.choices)
            for text in texts:
                whole = model.score('There was once a' + text, end_of_text=False)
                first = len(model.encode('There was once a')) - 1
                assert scores[text] == pytest.approx(sum(t.log_probability for t in whole.tokens[first:]), abs=2e-3)
            told = model.complete('There was once a', choices=texts, temperature=0, logprobs=1)
            assert [token.id for token in told.logprobs] == told.ids == likeliest.ids
            total = sum(token.log_probability for token in told.logprobs)
            assert total == pytest.approx(dict(told.choices)[told.text], abs=1e-3)
        assert likeliest.text == max(scores, key=scores.get) and likeliest.finish_reason == 'choice'
        assert ''.join(pieces) == many[1].text
        found.append([each.text for each in many])
        assert {each.text for each in many} <= set(texts) and len({each.text for each in many}) > 1
    assert found[0] == found[1]


def test_what_choices_exclude_is_refused():
    model = gpt2.api.open_model('7M')
    for how, message in (
        ({'length': 5}, 'choices and length exclude each other'),
        ({'stop': 'a'}, 'choices and stop exclude each other'),
        ({'stop_at_end': True}, 'choices and stop_at_end exclude each other'),
        ({'beyond_window': True}, 'choices and beyond_window exclude each other'),
        ({'ban': 'a'}, 'choices and ban exclude each other'),
        ({'no_repeat_ngram': 2}, 'choices and no_repeat_ngram exclude each other'),
        ({'logit_bias': {5: 1}}, 'choices and logit_bias exclude each other'),
        ({'choices': ['a', 'b', 'a']}, "choices has 'a' twice"),
        ({'choices': ['a', '']}, 'choices is empty'),
        ({'choices': ['a b' * 300]}, 'the longest of choices'),
    ):
        with pytest.raises(UsageError, match=message):
            model.plan(['The'], seed=1, **{'choices': ['a', 'b']} | how)
