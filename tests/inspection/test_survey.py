"""What neurons do over a corpus: statistics in one pass, passages, and records."""

import json

import numpy as np
import pytest
from example_models import TINY, random_tokens

from gpt2 import sample
from gpt2.errors import UsageError
from gpt2.inspection import records, survey
from gpt2.inspection.activations import look
from gpt2.inspection.names import find
from gpt2.inspection.passages import batches, passages
from gpt2.inspection.reading import make_read
from gpt2.text_stream import Measure

COUNT, LENGTH = 57, 8


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(survey, 'TOKENS', LENGTH)
    monkeypatch.setattr(survey, 'TOP', 4)
    monkeypatch.setattr(survey, 'RANDOM', 6)
    monkeypatch.setattr(survey, 'OF_A_QUANTILE', 2)


@pytest.fixture(scope='module')
def generator(tiny_params):
    return sample.Generator(TINY, tiny_params)


@pytest.fixture(scope='module')
def corpus():
    return random_tokens(TINY, COUNT, LENGTH, seed=5)


@pytest.fixture(scope='module')
def expected(generator, corpus):
    """float32 [layer, passage, token, neuron]"""
    found = [look(generator, ids.tolist(), find(TINY, 'mlp.act'), 20)['mlp.act'] for ids in corpus]
    return np.stack(found, axis=1)


class Letters:
    """A vocabulary of one letter a token."""

    @staticmethod
    def decode(ids):
        return ''.join(chr(200 + token) for token in ids)


def text_of(ids):
    return tuple(Letters.decode([token]) for token in ids)


def surveyed(generator, corpus, layers=(0, 1), neurons=range(80), size=10, seed=0):
    return survey.survey(make_read(generator, layers, neurons), batches(iter(corpus.tolist()), size), layers, neurons,
                         size, seed)  # fmt: skip


def test_moments_and_top_passages_are_those_of_all_activations_at_once(generator, corpus, expected):
    found = list(surveyed(generator, corpus).records(Letters))
    assert [(record.layer, record.neuron) for record in found] == [(layer, n) for layer in (0, 1) for n in range(80)]
    for record in (found[0], found[17], found[80], found[159]):
        values = expected[record.layer, :, :, record.neuron].astype(np.float64)
        differences = values - values.mean()
        variance = (differences**2).mean()
        assert record.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-6)
        assert record.variance == pytest.approx(variance, rel=1e-4)
        assert record.skewness == pytest.approx((differences**3).mean() / variance**1.5, rel=1e-3, abs=1e-4)
        assert record.kurtosis == pytest.approx((differences**4).mean() / variance**2, rel=1e-3)
        order = np.argsort(-values.max(axis=1), kind='stable')[:4]
        assert [each.tokens for each in record.top] == [text_of(corpus[number]) for number in order]
        for each, number in zip(record.top, order, strict=True):
            np.testing.assert_allclose(each.activations, values[number], atol=1e-5)


def test_random_passages_lie_in_their_quantiles(generator, corpus, expected):
    found = list(surveyed(generator, corpus, layers=[1]).records(Letters))
    places = {text_of(ids): number for number, ids in enumerate(corpus)}
    for record in found[::13]:
        largest = expected[1, :, :, record.neuron].max(axis=1)
        assert record.quantile_boundaries == pytest.approx(np.quantile(largest, [0.5, 0.9, 0.99, 0.999]), abs=1e-5)
        assert len(record.random_sample) == len({each.tokens for each in record.random_sample}) == 6
        ranks = np.argsort(np.argsort(largest, kind='stable'))
        assert [len(part) for part in record.by_quantile] == [2, 2, 2, 0, 1]  # 57 passages: 28, 23, 5, none and 1
        for part, start, end in zip(record.by_quantile, [0, 28, 51, 56, 56], [28, 51, 56, 56, 57], strict=True):
            assert all(start <= ranks[places[each.tokens]] < end for each in part)
        for each in record.passages:
            np.testing.assert_allclose(
                each.activations, expected[1, places[each.tokens], :, record.neuron], atol=1e-5
            )


def test_neither_batches_nor_what_else_is_asked_for_change_a_record(generator, corpus):
    [alone] = surveyed(generator, corpus, layers=[1], neurons=range(7, 8), size=57).records(Letters)
    both = {(each.layer, each.neuron): each for each in surveyed(generator, corpus, size=3).records(Letters)}
    assert [each.tokens for each in both[1, 7].top] == [each.tokens for each in alone.top]
    assert both[1, 7].mean == pytest.approx(alone.mean, rel=1e-4) and alone.kurtosis == pytest.approx(
        both[1, 7].kurtosis, rel=1e-3
    )


def test_a_sample_of_a_larger_corpus_is_random_and_no_passage_comes_twice(generator, corpus, expected, monkeypatch):
    monkeypatch.setattr(survey, 'SAMPLE', 20)
    found = [surveyed(generator, corpus, layers=[0], neurons=range(4), seed=seed) for seed in range(3)]
    assert all(len(set(each.numbers.tolist())) == 20 and max(each.numbers) > 25 for each in found)
    assert found[0].numbers.tolist() != found[1].numbers.tolist()
    record = next(found[2].records(Letters))
    places = {text_of(ids): number for number, ids in enumerate(corpus)}
    assert {places[each.tokens] for each in record.random_sample} <= set(found[2].numbers.tolist())
    largest = expected[0, found[2].numbers, :, 0].max(axis=1)
    assert record.quantile_boundaries[0] == pytest.approx(np.median(largest), abs=1e-5)


def test_top_passages_alone_are_those_of_a_survey(generator, corpus):
    read = make_read(generator, [0, 1], range(80))
    tops = survey.top_passages(read, corpus, 2, 80, 10)
    for record in surveyed(generator, corpus).records(Letters):
        found = [survey.as_passage(Letters, corpus[number], values)
                 for number, values in tops[record.layer].of(record.neuron)]  # fmt: skip
        assert found == list(record.top)


def test_two_passages_are_enough(generator, corpus):
    record = next(surveyed(generator, corpus[:2]).records(Letters))
    assert len(record.top) == len(record.random_sample) == 2
    assert [len(part) for part in record.by_quantile] == [1, 0, 0, 0, 1]


# Passages


def test_passages_stay_within_a_file_and_leave_out_what_is_left(tmp_path, encoder):
    (tmp_path / 'a').write_text('The king was in the garden. ' * 20)
    (tmp_path / 'b').write_text('A queen came by. ' * 20)
    measure = Measure()
    files = [str(tmp_path / name) for name in 'ab']
    found = list(passages(encoder, files, 'strict', measure))
    whole = [encoder.encode((tmp_path / name).read_text()) for name in 'ab']
    expected = [ids[start : start + 64] for ids in whole for start in range(0, len(ids) - 63, 64)]
    assert found == expected and len(found) > 2
    assert measure.bytes == 20 * (28 + 17)


@pytest.mark.parametrize(('text', 'many'), [('', 'no passage'), ('The king. ' * 30, 'one passage')])
def test_a_corpus_of_less_than_two_passages_is_refused(tmp_path, encoder, text, many):
    (tmp_path / 'a').write_text(text)
    with pytest.raises(UsageError, match=f'a: there is {many} of 64 tokens, expected two or more; give more text'):
        list(passages(encoder, [str(tmp_path / 'a')], 'strict', Measure()))


# Records


def test_records_are_written_as_they_are_published_and_read_again(generator, corpus, tmp_path):
    record = list(surveyed(generator, corpus).records(Letters))[100]
    path = records.write_record(str(tmp_path / 'out'), record)
    assert path == str(tmp_path / 'out' / '1' / '20.json')
    value = json.loads((tmp_path / 'out' / '1' / '20.json').read_text())
    assert set(value) == {
        'dataclass_name', 'neuron_id', 'random_sample', 'random_sample_by_quantile', 'quantile_boundaries', 'mean',
        'variance', 'skewness', 'kurtosis', 'most_positive_activation_records',
    }  # fmt: skip
    assert value['neuron_id'] == {'dataclass_name': 'NeuronId', 'layer_index': 1, 'neuron_index': 20}
    assert value['dataclass_name'] == 'NeuronRecord' and len(value['random_sample_by_quantile']) == 5
    assert len(value['quantile_boundaries']) == 4
    first = value['most_positive_activation_records'][0]
    assert first['dataclass_name'] == 'ActivationRecord' and len(first['tokens']) == len(first['activations']) == 8
    again = records.read_record(path)
    assert [each.tokens for each in again.passages] == [each.tokens for each in record.passages]
    assert again.top[0].activations == pytest.approx(record.top[0].activations, rel=1e-5)
    assert (again.mean, again.quantile_boundaries) == (record.mean, record.quantile_boundaries)


def test_a_neuron_that_never_varies_has_no_skewness(tmp_path):
    still = survey.Moments(1)
    still.add(8, np.array([[0.5], [0], [0], [0]]))
    mean, variance, skewness, kurtosis = still.figures[:, 0]
    assert (mean, variance) == (0.5, 0) and np.isnan(skewness) and np.isnan(kurtosis)
    record = records.NeuronRecord(0, 1, (records.Passage(('a',), (0.5,)),), mean=mean, skewness=skewness)
    value = records.as_json(record)
    assert value['skewness'] is None and np.isnan(records.from_json(value).skewness)


GOOD = {'neuron_id': {'layer_index': 0, 'neuron_index': 1}, 'most_positive_activation_records': []}


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('', 'Expecting value'),
        ('[]', 'list indices'),
        ('null', 'subscriptable'),
        ('{}', "it lacks 'neuron_id'"),
        (json.dumps({'neuron_id': GOOD['neuron_id']}), "it lacks 'most_positive_activation_records'"),
        (json.dumps({**GOOD, 'neuron_id': 5}), 'not subscriptable'),
        (json.dumps({**GOOD, 'random_sample': [{'tokens': ['a'], 'activations': []}]}), '1 tokens and 0 activations'),
        (json.dumps({**GOOD, 'random_sample': [{'tokens': [], 'activations': []}]}), '0 tokens and 0 activations'),
        (json.dumps({**GOOD, 'random_sample': [{'tokens': [5], 'activations': [1]}]}), '1 tokens and 1 activations'),
        (json.dumps({**GOOD, 'random_sample': [{'tokens': ['a'], 'activations': ['x']}]}), 'could not convert'),
        (json.dumps({**GOOD, 'random_sample': [{'tokens': ['a'], 'activations': [float('nan')]}]}), 'no finite number'),
        (json.dumps({**GOOD, 'mean': {}}), 'float'),
        ('\xff', 'decode'),
    ],
)
def test_what_is_no_record_is_one_line(tmp_path, text, why):
    (tmp_path / '5.json').write_bytes(text.encode('latin-1'))
    with pytest.raises(UsageError) as raised:
        records.read_record(str(tmp_path / '5.json'))
    assert 'is no record of a neuron (' in str(raised.value) and why in str(raised.value)
    with pytest.raises(UsageError, match=r'none\.json cannot be read'):
        records.read_record(str(tmp_path / 'none.json'))
