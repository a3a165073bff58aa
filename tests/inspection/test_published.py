"""The published map, played by a local server, and explanations that are scored."""

import functools
import http.server
import json
import math
import os
import threading

import numpy as np
import pytest
from example_models import BUNDLED

import gpt2
from gpt2.errors import Error, UsageError
from gpt2.hparams import RELEASED_HPARAMS, load_hparams
from gpt2.inspection import published, records, simulation
from gpt2.inspection.reading import make_read
from gpt2.inspection.records import Explanation, Passage
from gpt2.inspection.simulation import Completions, by_words, expected, score_explanation
from gpt2.system.download import DownloadError


@pytest.fixture(scope='module')
def model():
    return gpt2.load('7M', engine='tf')


@pytest.fixture(scope='module')
def record(model):
    """A record of what the bundled model does, of passages of several lengths, one with a piece of a character."""
    read = make_read(model.inside, [3], range(131, 132))

    def passage(text):
        ids = model.encode(text)
        [reading] = read(np.array([ids], np.int32))
        return Passage(tuple(model.decode([each]) for each in ids), tuple(reading.activations[0, :, 0].tolist()))

    texts = ['"It is so," said the king to the queen.', 'Once upon a time there was a fox, she said']
    return records.NeuronRecord(3, 131, tuple(map(passage, texts)), (passage('It was a 漢 of'),), mean=0.5)


@pytest.fixture
def server(tmp_path, record):
    """The address of a server that has the files of a map, and the folder in which they lie."""
    root = tmp_path / 'served'
    records.write_record(str(root / 'data' / 'collated-activations'), record)
    where = root / 'data' / 'explanations' / '3'
    where.mkdir(parents=True)
    explained = {'explanation': ' words for speech', 'scored_simulation': {'ev_correlation_score': 0.31}}
    (where / '131.jsonl').write_text(json.dumps({'scored_explanations': [explained]}) + '\n')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{serving.server_port}', root
        serving.shutdown()


def test_a_record_is_fetched_once_and_the_model_is_compared_with_it(server, tmp_path, record, model):
    url, root = server
    found, explanations = published.fetch(url, 'data', 3, 131, str(tmp_path / 'kept'))
    assert explanations == [Explanation('words for speech', 0.31)] and found.layer == 3
    assert (tmp_path / 'kept' / 'data' / 'explanations' / '3' / '131.jsonl').exists()
    for path in root.rglob('131.*'):
        path.unlink()
    assert published.fetch(url, 'data', 3, 131, str(tmp_path / 'kept')) == (found, explanations)
    read = make_read(model.inside, [3], range(131, 132))
    comparison = published.compare(read, model.encoder, found.passages, 512)
    assert (len(comparison.ours), comparison.passed_over) == (2, 1)
    assert comparison.correlation == pytest.approx(1, abs=1e-6) and comparison.largest_difference < 1e-4
    other = published.compare(make_read(model.inside, [2], range(9, 10)), model.encoder, found.passages, 512)
    assert other.correlation < 0.9 and other.largest_difference > 0.1
    with pytest.raises(UsageError, match=r'a published passage has 1\d tokens; this model reads up to 9'):
        published.compare(read, model.encoder, found.passages, 9)


def test_what_is_not_there_or_no_record_is_not_kept(server, tmp_path):
    url, root = server
    with pytest.raises(DownloadError, match='404'):
        published.fetch(url, 'data', 3, 132, str(tmp_path / 'kept'))
    (root / 'data' / 'collated-activations' / '3' / '131.json').write_text('{"neuron_id": 5}')
    with pytest.raises(DownloadError, match=r'is no record of a neuron .*; it was not kept'):
        published.fetch(url, 'data', 3, 131, str(tmp_path / 'kept'))
    another = records.NeuronRecord(3, 130, (Passage(('a',), (1.0,)),))
    where = root / 'data' / 'collated-activations'
    os.rename(records.write_record(str(where), another), where / '3' / '131.json')
    with pytest.raises(DownloadError, match=r'is of h3\.mlp\.130, not h3\.mlp\.131; it was not kept'):
        published.fetch(url, 'data', 3, 131, str(tmp_path / 'kept'))
    assert not [path for path in (tmp_path / 'kept').rglob('*') if path.is_file() and path.suffix == '.json']


def test_no_more_is_fetched_than_a_record_may_have(server, tmp_path, monkeypatch):
    monkeypatch.setattr(published, 'LARGEST_SMALL', 100)
    with pytest.raises(DownloadError, match=r'131\.json is longer than 100 bytes, and was not kept'):
        published.fetch(server[0], 'data', 3, 131, str(tmp_path / 'kept'))


def test_one_that_lies_there_and_is_none_is_the_users_to_remove(tmp_path):
    where = tmp_path / 'data' / 'collated-activations' / '3'
    where.mkdir(parents=True)
    (where / '131.json').write_text('{}')
    with pytest.raises(UsageError, match=r"131\.json is no record of a neuron \(it lacks 'neuron_id'\); remove it"):
        published.fetch('http://localhost:1', 'data', 3, 131, str(tmp_path))


@pytest.mark.parametrize(
    'change',
    [
        '{"most_positive_activation_records": ' * 50_000,
        '[' * 100_000,
        {'neuron_id': {'layer_index': math.inf, 'neuron_index': 131}},
        {'mean': 10**400},
        {'quantile_boundaries': [10**400]},
        {'most_positive_activation_records': [{'tokens': ['a'], 'activations': [10**400]}]},
        {'most_positive_activation_records': [{'tokens': ['a'], 'activations': [math.nan]}]},
        {'most_positive_activation_records': [{'tokens': ['a'], 'activations': [-1e39]}]},
        {'most_positive_activation_records': [{'tokens': 'ab', 'activations': [1, 2]}]},
        {'most_positive_activation_records': [{'tokens': ['a', 'b'], 'activations': '12'}]},
        {'most_positive_activation_records': 5},
    ],
    ids=str,
)
def test_records_that_are_none_are_one_line(tmp_path, record, change):
    path = tmp_path / '131.json'
    path.write_text(change if isinstance(change, str) else json.dumps(records.as_json(record) | change))
    with pytest.raises(UsageError, match=r'131\.json is no record of a neuron \(.*\); remove it, and get it again'):
        records.read_record(str(path))


def test_explanations_may_hold_any_character_and_nothing_else_is_one(tmp_path):
    path = tmp_path / '131.jsonl'
    explained = {'explanation': 'a\u2028b\x85c', 'scored_simulation': {'ev_correlation_score': 0.5}}
    path.write_text(json.dumps({'scored_explanations': [explained]}, ensure_ascii=False) + '\n', encoding='utf-8')
    assert records.read_explanations(str(path)) == [Explanation('a\u2028b\x85c', 0.5)]
    for content in ('', '[' * 100_000, '{"scored_explanations": [5]}'):
        path.write_text(content)
        with pytest.raises(UsageError, match='is no record of a neuron'):
            records.read_explanations(str(path))


def test_models_of_a_published_shape_have_a_map():
    assert published.map_of(RELEASED_HPARAMS['124M']) == 'gpt2_small_data'
    assert published.map_of(RELEASED_HPARAMS['1558M']) == 'data'
    with pytest.raises(UsageError, match='the published map is of 124M and 1558M'):
        published.map_of(load_hparams(str(BUNDLED / 'hparams.json')))


# Explanations


def test_a_score_is_the_correlation_over_all_tokens():
    passages = [Passage(('a', ' b'), (1.0, 2.0)), Passage((' c',), (-1.0,))]
    told = {'a': 3.0, ' b': 5.0, ' c': 4.0}
    score = score_explanation(lambda _, tokens: [told[token] for token in tokens], 'x', passages)
    assert score == pytest.approx(np.corrcoef([3, 5, 4], [1, 2, -1])[0, 1])
    assert math.isnan(score_explanation(lambda _, tokens: [0.0] * len(tokens), 'x', passages))
    for explanation, given in (('  ', passages), ('x', [])):
        with pytest.raises(UsageError):
            score_explanation(by_words, explanation, given)


def test_words_that_are_named_are_simulated():
    tokens = ['The', ' K', 'ings', ' of', ' France', ',', ' the', ' King', "'s", ' men', '\n']
    assert by_words('references to the king or to French things', tokens) == [0, 10, 10, 0, 0, 0, 0, 10, 10, 0, 0]
    assert by_words('words such as these', tokens) == [0] * len(tokens)
    assert by_words('', []) == []


def test_the_bundled_simulator_finds_what_a_neuron_does(record):
    good = score_explanation(by_words, 'said', record.top)
    assert good > 0.5 > score_explanation(by_words, 'foxes', record.top)


class Completing(http.server.BaseHTTPRequestHandler):
    """A server that finds each token of a prompt most likely to be a 7, after `king` a 9."""

    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.server.asked.append((self.path, content, self.headers.get('Authorization')))
        prompt = content['prompt']
        offsets = [0, *(at for at in range(1, len(prompt)) if prompt[at - 1] == '\t')]
        told = [None, *({'9' if 'king\t' in prompt[at - 6 : at] else '7': math.log(0.6), '1': math.log(0.2), 'x': -1.0}
                        for at in offsets[1:])]  # fmt: skip
        answer = {'choices': [{'logprobs': {'text_offset': offsets, 'top_logprobs': told}}]}
        if said := self.server.odd:
            answer = {'choices': [{'logprobs': said(offsets)}]}
        if content.get('model') == 'none':
            answer = {'error': {'message': 'there is no such model'}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.raw or json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def completing():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Completing) as serving:
        serving.asked, serving.odd, serving.raw = [], None, None
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_model_behind_an_api_simulates_by_the_numbers_it_expects(completing):
    url = f'http://127.0.0.1:{completing.server_port}/v1'
    found = Completions(url + '/', 'big', 'secret')('kings', ['A', ' king', '\n'])
    assert found == pytest.approx([(7 * 0.6 + 0.2) / 0.8, (9 * 0.6 + 0.2) / 0.8, (7 * 0.6 + 0.2) / 0.8])
    [(path, content, key)] = completing.asked
    assert (path, content['model'], content['echo'], key) == ('/v1/completions', 'big', True, 'Bearer secret')
    assert 'kings' in content['prompt'] and '\\n\tunknown\n' in content['prompt']
    with pytest.raises(Error, match='does not say how likely tokens are: there is no such model'):
        Completions(url, 'none')('kings', ['A'])


@pytest.mark.parametrize(
    'odd',
    [
        lambda offsets: {},
        lambda offsets: {'text_offset': None, 'top_logprobs': None},
        lambda offsets: {'text_offset': [[1]], 'top_logprobs': [{}]},
        *(lambda offsets, told=told: {'text_offset': offsets, 'top_logprobs': [told] * len(offsets)}
          for told in ([1], 'x', 5, {'7': 'x'}, {'7': None}, {'7': 1000}, {'7': math.nan}, {'7': 10**400})),
    ],
)  # fmt: skip
def test_what_a_server_says_in_another_form_is_one_line(completing, odd):
    completing.odd = odd
    with pytest.raises(Error, match='does not say how likely tokens are: its logprobs are of another form'):
        Completions(f'http://127.0.0.1:{completing.server_port}/v1')('kings', ['A'])


def test_answers_that_are_too_deep_or_never_end_are_one_line(completing, monkeypatch):
    url = f'http://127.0.0.1:{completing.server_port}/v1'
    completing.raw = b'[' * 100_000
    with pytest.raises(Error, match=r'gives no answer \(RecursionError\)'):
        Completions(url)('kings', ['A'])
    monkeypatch.setattr(simulation, 'LARGEST', 1000)
    completing.raw = b' ' * 2000 + b'{}'
    with pytest.raises(Error, match=r'gives no answer \(ValueError\)'):
        Completions(url)('kings', ['A'])


def test_servers_that_are_none_are_one_line():
    with pytest.raises(UsageError, match="'word' is no address of a server"):
        Completions('word')
    with pytest.raises(Error, match=r'gives no answer \(ConnectionError\)'):
        Completions('http://127.0.0.1:9/v1')('kings', ['A'])


def test_numbers_are_expected_of_what_is_told():
    assert expected({'10': math.log(0.5), ' 0': math.log(0.5)}) == pytest.approx(5)
    assert expected({'11': 0.0, 'x': 0.0}) == 0
