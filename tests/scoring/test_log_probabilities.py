"""Log-probabilities and ranks, and the windows they are computed in."""

import json
import math

import numpy as np
import pytest
import reference_numpy
from example_models import BUNDLED, HERE, TINY, as_params, random_values

from gpt2.checkpoints import release as checkpoint
from gpt2.encoder import END_OF_TEXT, get_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, load_hparams
from gpt2.scoring import log_probabilities as scoring
from gpt2.scoring.logits import score_logits
from gpt2.scoring.windows import batches, conditional, windows

SMALL = HParams(n_vocab=23, n_ctx=8, n_embd=6, n_head=2, n_layer=1)


def random_ids(hparams, count, seed=2):
    return np.random.default_rng(seed).integers(hparams.n_vocab, size=count).tolist()


def score_ids(score, ids, n_ctx, stride, size=10_000):
    """Log-probabilities and ranks of all ids but the first."""
    found = [result for batch in batches(windows(ids, n_ctx, stride), size) for result in score(batch)]
    return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])


# Windows


@pytest.mark.parametrize('stride', [1, 2, 3, 7, 8])
@pytest.mark.parametrize('count', [2, 3, 7, 8, 9, 10, 11, 12, 16, 17, 18, 40])
def test_windows_are_those_of_the_definition(count, stride):
    ids = list(range(count))
    found = [(row[0], index) for row, scored in windows(iter(ids), 8, stride) for index in row[-scored:]]
    assert found == list(zip(reference_numpy.window_starts(count, 8, stride), ids[1:]))
    for row, scored in windows(iter(ids), 8, stride):
        assert row == ids[row[0] : row[0] + len(row)] and len(row) <= 9
        assert row[0] == 0 or len(row) - scored > 8 - stride


@pytest.mark.parametrize('ids', [[], [5]])
def test_nothing_is_scored_where_nothing_has_a_context(ids):
    assert list(windows(ids, 8, 4)) == []


def test_a_conditional_row_keeps_the_end_of_its_context():
    assert conditional([1, 2], [3, 4], 8) == ([1, 2, 3, 4], 2)
    assert conditional(list(range(20)), [98, 99], 4) == ([17, 18, 19, 98, 99], 2)
    with pytest.raises(UsageError, match='9 tokens are to be scored in one window, the limit is n_ctx 8'):
        conditional([1], [0] * 9, 8)


def test_batches_stay_within_their_size_and_lose_no_row():
    rows = [([0] * n, 1) for n in (4, 2, 9, 3, 3, 3, 30, 2)]
    found = list(batches(iter(rows), 10))
    assert [row for batch in found for row in batch] == rows
    assert [[len(row) for row, _ in batch] for batch in found] == [[4, 2], [9], [3, 3, 3], [30], [2]]


# Scores


@pytest.mark.parametrize('stride', [1, 3, 4, 8])
def test_scores_equal_the_definition(stride):
    values, ids = random_values(SMALL), random_ids(SMALL, 29)
    expected = reference_numpy.windowed_log_probabilities(values, 2, 1, ids, SMALL.n_ctx, stride)
    found, _ = score_ids(scoring.make_score(SMALL, as_params(values)), ids, SMALL.n_ctx, stride)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rows_of_any_length_share_a_batch(tiny_params):
    score = scoring.make_score(TINY, tiny_params)
    rows = [(random_ids(TINY, n, seed=n), count) for n, count in ((2, 1), (41, 40), (7, 3), (20, 1))]
    together = score(rows)
    for row, (log_probabilities, ranks, _) in zip(rows, together):
        [(alone, ranks_alone, _)] = score([row])
        assert len(log_probabilities) == row[1]
        np.testing.assert_allclose(log_probabilities, alone, atol=1e-5)
        np.testing.assert_array_equal(ranks, ranks_alone)


def test_ranks_and_likelier_tokens_equal_those_of_sorted_logits(tiny_params):
    ids, excluded = random_ids(TINY, 30), [3, 17, 44]
    logits = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, ids[:-1])
    [(_, ranks, likelier)] = scoring.make_score(TINY, tiny_params, excluded)([(ids, 29)])
    order = np.argsort(-logits, axis=1)
    expected = [int(np.flatnonzero(row == token)[0]) + 1 for row, token in zip(order, ids[1:])]
    assert ranks.tolist() == expected and min(expected) < 10 < max(expected)
    likelier_expected = [sum(row[other] > row[token] for other in excluded) for row, token in zip(logits, ids[1:])]
    assert likelier.tolist() == likelier_expected and max(likelier_expected) == 3


def test_logits_come_in_chunks_without_changing_a_score(tiny_params, monkeypatch):
    rows = [(random_ids(TINY, 41), 40), (random_ids(TINY, 12), 11)]
    whole = scoring.make_score(TINY, tiny_params)(rows)
    monkeypatch.setattr(scoring, 'LOGIT_ROWS', 7)
    for (expected, *_), (found, *_) in zip(whole, scoring.make_score(TINY, tiny_params)(rows)):
        np.testing.assert_allclose(found, expected, atol=1e-5)


# The bundled weights against transformers: see make_score_goldens.py


@pytest.fixture(scope='module')
def bundled():
    hparams = load_hparams(BUNDLED / 'hparams.json')
    return hparams, scoring.make_score(hparams, checkpoint.load_params(str(BUNDLED), hparams))


@pytest.fixture(scope='module')
def goldens():
    return json.loads((HERE / 'score_goldens.json').read_text())


@pytest.mark.parametrize('count', [20, 512, 1300], ids=['shorter', 'equal', 'longer'])
def test_scores_equal_those_of_transformers(bundled, goldens, count):
    hparams, score = bundled
    encoder = get_encoder('7M', BUNDLED.parent)
    ids = [encoder.encoder[END_OF_TEXT], *encoder.encode(goldens['text'])[:count]]
    found, ranks = score_ids(score, ids, hparams.n_ctx, goldens['stride'], size=2 * hparams.n_ctx)
    assert len(found) == count
    np.testing.assert_allclose(found, goldens['log_probabilities'][:count], atol=1e-3)
    assert all(rank == 1 for rank, value in zip(ranks, found) if value > math.log(0.5))


# The likeliest tokens, and the same from logits without TensorFlow


def test_the_likeliest_tokens_come_with_their_log_probabilities(tiny_params, monkeypatch):
    monkeypatch.setattr(scoring, 'LOGIT_ROWS', 7)
    ids = random_ids(TINY, 30)
    logits = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, ids[:-1])
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = [(ids, 29), (ids[:3], 1)]
    for count, kept in ((1, 1), (5, 5), (1000, TINY.n_vocab)):
        whole, short = scoring.make_score(TINY, tiny_params, likeliest=count)(rows)
        assert whole[3].shape == whole[4].shape == (29, kept) and short[3].shape == (1, kept)
        np.testing.assert_array_equal(whole[3], np.argsort(-logits, axis=1)[:, :kept])
        np.testing.assert_allclose(whole[4], -np.sort(-logits, axis=1)[:, :kept], atol=1e-5)
        np.testing.assert_allclose(short[4], whole[4][1:2], atol=1e-5)


@pytest.mark.parametrize('likeliest', [0, 1, 5, 1000])
def test_logits_are_scored_alike_without_tensorflow(tiny_params, likeliest):
    ids, excluded = random_ids(TINY, 30), [3, 17, 44]
    expected = scoring.make_score(TINY, tiny_params, excluded, likeliest)([(ids, 29)])[0]
    logits = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, ids[:-1])
    found = score_logits(logits, np.array(ids[1:]), excluded, likeliest)
    assert [array.dtype for array in found] == [array.dtype for array in expected] and len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_of_equal_logits_the_lower_id_is_the_likelier():
    logits = np.array([[0, 2, 1, 2, 1, 1], [3, 3, 3, 3, 3, 3], [-1e30, 1e30, 0, 0, 0, 0]], np.float32)
    log_probabilities, ranks, likelier, ids, theirs = score_logits(logits, [4, 5, 0], [1, 3], 4)
    assert ids.tolist() == [[1, 3, 2, 4], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert (ranks.tolist(), likelier.tolist()) == ([3, 1, 6], [2, 0, 2])
    assert log_probabilities[1] == pytest.approx(-math.log(6)) and theirs[2].tolist()[:1] == [0.0]


def test_a_batch_without_memory_is_one_line(tiny_params, monkeypatch):
    error = scoring.tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor')
    score = scoring.make_score(TINY, tiny_params)
    monkeypatch.setattr(scoring, 'flat_targets', lambda batch: (_ for _ in ()).throw(error))
    with pytest.raises(Error, match='no memory to score 2 windows at once; lower batch_size'):
        score([([1, 2], 1)] * 2)
