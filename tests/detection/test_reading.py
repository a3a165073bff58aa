"""What a model says of the tokens of texts, and the numbers made of it, against plain arithmetic."""

import numpy as np
import pytest

from gpt2.detection.features import NAMES, RANK_BOUNDS, band_counts, curvature, features, rank_bands
from gpt2.detection.reading import NOTHING, Reading, read_logits, read_texts

TEXT = 'Once upon a time there was a café 中😀, and in it sat a king who had three sons and no daughter at all.'


def plain(engine, encoder, text):
    """ids, log-probabilities, ranks, entropies and variances of a text, in float64."""
    ids = encoder.encode(text)
    logits = engine.logits([encoder.end_of_text, *ids[:-1]]).astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    surprises = -np.log(probabilities)
    chosen = surprises[np.arange(len(ids)), ids]
    entropies = (probabilities * surprises).sum(axis=1)
    variances = (probabilities * (surprises - entropies[:, np.newaxis]) ** 2).sum(axis=1)
    return ids, -chosen, 1 + (surprises < chosen[:, np.newaxis]).sum(axis=1), entropies, variances


def test_a_reading_is_what_the_definitions_say_of_texts_of_any_length(engine, encoder):
    texts = [TEXT, '', 'king', 3 * TEXT]
    readings = list(read_texts(engine, encoder, texts))
    assert len(readings) == 4 and len(readings[3].ids) > 3 * engine.hparams.n_ctx
    assert all(len(part) == 0 for part in readings[1])
    for text, reading in zip(texts, readings):
        if text:
            ids, log_probabilities, ranks, entropies, variances = plain(engine, encoder, text)
            assert reading.ids.tolist() == ids and reading.ranks.tolist() == ranks.tolist()
            for found, expected in zip(reading[1:2] + reading[3:], (log_probabilities, entropies, variances)):
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings('error')
def test_what_cannot_come_counts_nothing():
    logits = np.array([[0, 0, -np.inf], [0, -200, -1000]], np.float32)
    found = read_logits(logits, np.array([1, 0]))
    np.testing.assert_allclose(found[0], [-np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found[2], [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found[3], [0, 0], atol=1e-6)


def test_ranks_are_in_four_bands():
    ranks = np.array([1, 10, 11, 100, 101, 1000, 1001, 50000])
    assert rank_bands(ranks).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert band_counts(ranks[:3]).tolist() == [2, 1, 0, 0]
    assert len(RANK_BOUNDS) == 3


def test_features_are_those_of_the_papers(engine, encoder):
    [reading] = read_texts(engine, encoder, [TEXT])
    _, log_probabilities, ranks, entropies, variances = plain(engine, encoder, TEXT)
    found = dict(zip(NAMES, features(reading)))
    # Fast-DetectGPT's: the log-likelihood less its mean, over its deviation, both over all that might have come.
    expected = (log_probabilities.sum() + entropies.sum()) / np.sqrt(variances.sum())
    assert found['curvature'] == pytest.approx(expected, rel=1e-3) == curvature(reading)
    assert found['surprise'] == pytest.approx(-log_probabilities.mean(), rel=1e-4)
    assert found['spread of surprise'] == pytest.approx(log_probabilities.std(), rel=1e-4)
    assert found['log rank'] == pytest.approx(np.log(ranks).mean())
    assert found['entropy'] == pytest.approx(entropies.mean(), rel=1e-4)
    assert found['ranks 11-100'] == pytest.approx(np.mean((ranks > 10) & (ranks <= 100)))
    assert found['ranks 101-1000'] == pytest.approx(np.mean((ranks > 100) & (ranks <= 1000)))
    assert found['ranks 1-10'] == pytest.approx(np.mean(ranks <= 10))
    assert features(NOTHING).tolist() == [0] * len(NAMES)


def test_its_own_samples_have_no_curvature_and_surer_ones_have(engine, encoder):
    """Drawn from the model itself, surprise is entropy on average; at a lower temperature, it is less."""
    random = np.random.default_rng(0)
    logits = engine.logits(np.arange(400)).astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def drawn(weights):
        ids = np.array([random.choice(len(row), p=row / row.sum()) for row in weights])
        return Reading(ids, *read_logits(logits.astype(np.float32), ids))

    assert abs(curvature(drawn(probabilities))) < 3
    assert curvature(drawn(probabilities**2)) > 4
