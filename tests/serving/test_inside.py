"""POST /v1/inside: what goes on inside a model, from a process of its own."""

import functools
import json
import os
import signal

import numpy as np
import pytest
from example_models import REPOSITORY

import gpt2
from gpt2.hparams import load_hparams
from gpt2.inspection import records
from gpt2.serving import inside
from serving.conftest import PROMPT, wait_until


@pytest.fixture(scope='module')
def model(models):
    return gpt2.load('7M', str(models), engine='tf')


def test_what_is_seen_is_what_the_library_sees(looking, model):
    asked = {'text': PROMPT, 'layer': 2, 'head': 3, 'neuron': 7}
    status, found, _ = looking.ask('/v1/inside', asked)
    assert (status, found['model'], ''.join(found['tokens'])) == (200, '7M', PROMPT)
    assert [found[name] for name in ('n_layer', 'n_head', 'n_neuron')] == [6, 8, 1024]
    seen, lens = model.activations(PROMPT, 'h2.attn.pattern, h2.mlp.act'), model.lens(PROMPT, likeliest=10)
    np.testing.assert_allclose(found['pattern'], seen['h2.attn.pattern'][3], atol=1e-4)
    np.testing.assert_allclose(found['activations'], seen['h2.mlp.act'][:, 7], atol=1e-4)
    assert [[each['id'] for each in row] for row in found['lens']] == lens.ids[:, :, 0].tolist()
    assert [each['id'] for each in found['next']] == lens.ids[-1, -1].tolist() and found['next'] == found['before']
    assert found['next'][0]['token'] == model.decode([found['next'][0]['id']])
    assert found['source'] == 'a few chapters of Heidi' and found['explanations'] == []
    largest = [max(each['activations']) for each in found['passages']]
    assert largest == sorted(largest, reverse=True) and len(largest) == 5 and largest[0] > 0
    assert ''.join(found['passages'][0]['tokens']) in (REPOSITORY / 'examples' / 'heidi.txt').read_text()
    asked |= {'ablate': 'h2.mlp.7=3,h4.head.1', 'passages': False}
    changed = looking.ask('/v1/inside', asked)[1]
    assert (changed['source'], changed['passages']) == (None, [])
    assert set(changed['activations']) == {3} and changed['before'] != changed['next']
    assert [each['id'] for each in changed['before']] == [each['id'] for each in found['next']]
    assert changed['before'][0]['probability'] == pytest.approx(found['next'][0]['probability'], abs=1e-4)
    expected = model.ablated('h2.mlp.7=3,h4.head.1').lens(PROMPT).probabilities[-1, -1, 0]
    assert changed['next'][0]['probability'] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ('asked', 'message'),
    [
        ({'text': ''}, "the text is '', expected one of a character or more"),
        ({'text': 'a b ' * 100}, 'up to 128 can be looked into, shorten it'),
        ({'text': 'a', 'layer': 6}, 'names layer 6; this model has layers 0 to 5'),
        ({'text': 'a', 'head': 8}, 'names head 8; this model has heads 0 to 7'),
        ({'text': 'a', 'neuron': 1024}, 'names neuron 1024'),
        ({'text': 'a', 'ablate': 'h9.mlp.1'}, 'h9.mlp.1 names layer 9'),
        ({'text': 'a', 'ablate': 'h0.mlp.1=mean'}, 'is taken from another text, of which a request has none'),
        ({'text': 'a', 'layer': -1}, 'layer'),
    ],
)
def test_what_is_not_there_is_refused(looking, asked, message):
    assert message in looking.error('/v1/inside', **asked)['message']


@pytest.mark.slow
def test_the_process_that_looks_may_die(looking):
    asked = {'text': 'a', 'passages': False}
    looking.ask('/v1/inside', asked)
    children = [int(line) for line in os.popen(f'pgrep -P {looking.process.pid} -f spawn_main').read().split()]
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert children

    def answered():
        return looking.ask('/v1/inside', asked)[0] == 200

    wait_until(answered)


def test_without_tensorflow_it_says_so(server):
    assert 'needs TensorFlow' in server.error('/v1/inside', text='a')['message']


def test_what_is_known_of_a_neuron_is_shown(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    hparams = load_hparams(str(models / '7M' / 'hparams.json'))
    record = records.NeuronRecord(2, 7, tuple(records.Passage(('a', ' b'), (1.0, float(n))) for n in range(9)))
    monkeypatch.setattr(inside, 'EXAMPLE', 'none')
    known = functools.partial(inside.known_of, str(tmp_path), 'models', hparams, 2, 7, True)
    assert known() == {'source': None, 'passages': [], 'explanations': []}
    records.write_record(str(tmp_path / 'neurons'), record)
    monkeypatch.setattr(inside, 'MAPS', {hparams: 'data'})
    where = tmp_path / 'neuron-map' / 'data' / 'explanations' / '2'
    where.mkdir(parents=True)
    explained = {'explanation': ' kings', 'scored_simulation': {'ev_correlation_score': float('nan')}}
    (where / '7.jsonl').write_text(json.dumps({'scored_explanations': [explained]}))
    found = known()
    assert found['source'] == "this model's records"
    assert found['explanations'] == [{'explanation': 'kings', 'score': None}]
    assert found['passages'][1] == {'tokens': ('a', ' b'), 'activations': (1.0, 1.0)} and len(found['passages']) == 5
