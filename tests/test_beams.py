"""Beam search: against transformers', and against all there is."""

import itertools
import json
import math

import numpy as np
import pytest
import reference_numpy
from example_models import HERE, TINY, random_values
from litert.test_engine import both_engines

import gpt2
from gpt2.api import open_model
from gpt2.beams import search
from gpt2.commands.complete import interact_model
from gpt2.errors import UsageError
from gpt2.sampling import Sampling

GOLDENS = json.loads((HERE / 'sampling_goldens.json').read_text(encoding='utf-8'))['beams']
PROMPT = 'Once upon a time'


@pytest.fixture(scope='module', params=['litert', 'tf'])
def engine(request, tmp_path_factory):
    """An engine of the model of tests/huggingface."""
    folder = tmp_path_factory.mktemp('beams') / 'tiny'
    folder.mkdir()
    for path in (HERE / 'huggingface' / 'tiny').iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with gpt2.load(str(folder), engine=request.param) as model:
        yield model.engine


def beams_of(engine, prompt, beams, length, penalty=1, ends=(), **how):
    rows = engine.start([prompt], numbers=[1], seed=0, sampling=Sampling(**how))
    steps = search(rows, beams, length, penalty, lambda ids: ids[-1] in ends, len(ends))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value
    finally:
        rows.close()


@pytest.mark.parametrize('case', GOLDENS, ids=lambda case: str(case['asked']))
def test_what_is_found_is_what_transformers_finds(engine, case):
    prompt, beams, length, penalty, ends = case['asked']
    found = beams_of(engine, prompt, beams, length, penalty, ends)
    assert [list(each.ids) for each in found] == [ids for ids, _ in case['found']]
    ranks = [each.rank(penalty) for each in found]
    assert ranks == pytest.approx([rank for _, rank in case['found']], rel=1e-3)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, tiny_params):
    return both_engines(tmp_path_factory.mktemp('tiny beams'), TINY, tiny_params)[1]


@pytest.mark.parametrize('how', [{}, {'no_repeat_ngram': 1, 'repetition_penalty': 1.5, 'logit_bias': ((3, 2.0),)}])
def test_with_as_many_beams_as_tokens_the_likeliest_of_all_are_found(tiny, how):
    prompt, n = [3, 1], TINY.n_vocab

    def log_probabilities(ids):
        row = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, ids)[-1]
        if how:
            for token in set(ids):
                row[token] = row[token] / 1.5 if row[token] > 0 else row[token] * 1.5
            row[3] += 2
            row[ids] = -np.inf
        with np.errstate(divide='ignore'):
            return np.log(reference_numpy.softmax(row))

    first = log_probabilities(prompt)
    second = {token: log_probabilities([*prompt, token]) for token in range(n) if first[token] > -math.inf}
    pairs = itertools.product(second, range(n))
    expected = sorted(pairs, key=lambda pair: -(first[pair[0]] + second[pair[0]][pair[1]]))
    found = beams_of(tiny, prompt, n, 2, **how)
    assert [each.ids for each in found[:20]] == expected[:20]
    one, other = expected[0]
    assert found[0].log_probability == pytest.approx(first[one] + second[one][other], abs=1e-3)


def test_nothing_is_left_in_the_cache(tiny):
    beams_of(tiny, [5, 6, 7], 5, 30)
    with tiny.alone():
        assert tiny.cache.in_use() == 0


def test_the_library_searches():
    found = []
    for engine in ('litert', 'tf'):
        with gpt2.load('7M', engine=engine) as model:
            how = {'length': 12, 'beams': 4, 'no_repeat_ngram': 3}
            groups = model.complete([PROMPT, 'The'], samples=3, **how)
            likeliest = groups[0][0]
            assert model.complete(PROMPT, **how).text == likeliest.text
            for group in groups:
                values = [each.log_probability for each in group]
                assert values == sorted(values, reverse=True) and len({each.text for each in group}) == 3
                assert {each.finish_reason for each in group} == {'length'}
            greedy = model.complete(PROMPT, length=12, temperature=0, no_repeat_ngram=3)
            scored = model.score(PROMPT + greedy.text, end_of_text=False).tokens[-12:]
            assert likeliest.log_probability >= sum(token.log_probability for token in scored) - 1e-3
            assert ''.join(model.stream(PROMPT, **how)) == likeliest.text
            stop = likeliest.text[3:6]
            stopped = model.complete(PROMPT, **how, samples=4, stop=stop)
            assert all(stop not in each.text and each.finish_reason in ('stop', 'length') for each in stopped)
            found.append([each.text for group in [*groups, stopped] for each in group])
    assert found[0] == found[1]


def test_where_rules_leave_fewer_than_are_asked_for():
    with gpt2.load('7M', engine='litert') as model:
        others = [bytes([code]).decode('utf-8', 'surrogateescape') for code in range(256) if code not in b'ab']
        found = model.complete(PROMPT, samples=4, beams=4, length=1, ban=[*others, 'aa', 'bb', 'ab', 'ba'])
        assert sorted(each.text for each in found) == ['', '', 'a', 'b']
        assert [each.finish_reason for each in found] == ['length', 'length', 'nothing_left', 'nothing_left']


def test_log_probabilities_of_beams_are_those_by_which_they_are_compared():
    with gpt2.load('7M', engine='litert') as model:
        for each in model.complete(PROMPT, samples=3, beams=3, length=5, logprobs=2):
            assert [token.id for token in each.logprobs] == each.ids
            total = sum(token.log_probability for token in each.logprobs)
            assert total == pytest.approx(each.log_probability, abs=1e-3)
            assert {len(token.likeliest) for token in each.logprobs} == {2}


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ({'beams': 0}, '--beams is 0, expected at least 1'),
        ({'beams': 2, 'nsamples': 3}, '--nsamples is 3, expected 1 to 2, as many as there are --beams'),
        ({'beams': 2, 'stream': True}, '--stream and --beams exclude each other'),
        ({'beams': 2, 'temperature': 0}, '--beams and --temperature exclude each other'),
        ({'beams': 2, 'typical_p': 0.5}, '--beams and --typical_p exclude each other'),
        ({'beams': 2, 'beyond_window': True}, '--beams and --beyond_window exclude each other'),
        ({'length_penalty': 2}, '--length_penalty means nothing without --beams'),
        ({'beams': 2, 'length_penalty': 11}, '--length_penalty is 11, expected a number from -10 to 10'),
    ],
)
def test_what_beams_exclude_is_refused(how, message):
    with pytest.raises(UsageError) as caught:
        interact_model(model_name='7M', prompt='a', **how)
    assert str(caught.value).startswith(message)


def test_more_samples_than_beams_are_refused():
    with pytest.raises(UsageError, match='3 samples are asked for, the limit is beams 2'):
        open_model('7M').complete('a', samples=3, beams=2)
