"""The settings that the release lacks: against transformers' processors, and against their definitions."""

import json

import numpy as np
import pytest
import reference_numpy
from example_models import HERE
from samples import PLAIN, TEXTBOOK, TIED

from gpt2 import drawing
from gpt2.history import History
from gpt2.sampling import Sampling

GOLDENS = json.loads((HERE / 'sampling_goldens.json').read_text(encoding='utf-8'))['logits']
CUTS = [
    {'top_p': 0.9, 'top_p_rule': 'inclusive'}, {'top_p': 0.4, 'top_p_rule': 'inclusive'},
    {'top_p': 1e-6, 'top_p_rule': 'inclusive'}, {'min_p': 0.05}, {'min_p': 0.3}, {'min_p': 1}, {'typical_p': 0.2},
    {'typical_p': 0.9}, {'typical_p': 1e-6}, {'temperature': 0.5, 'min_p': 0.1}, {'temperature': 3, 'typical_p': 0.5},
    {'top_k': 3, 'typical_p': 0.5}, {'top_k': 4, 'top_p': 0.7, 'top_p_rule': 'inclusive', 'min_p': 0.2},
    {'temperature': 0.7, 'top_k': 6, 'top_p': 0.95, 'min_p': 0.01, 'typical_p': 0.8}, {'top_p': 0.9, 'typical_p': 0.5},
]  # fmt: skip


def kept(logits, how):
    """Which tokens can be drawn, bool [n_vocab], found by noise that lets each of them win the race if it may."""
    logits = np.asarray(logits, np.float32)
    settings = how.drawing(len(logits))
    noises = np.where(np.eye(len(logits), dtype=bool), np.float32(1e-45), np.float32(3e38))  # the least and the most
    return np.array([drawing.draw(logits, noise, *settings) for noise in noises]) == np.arange(len(logits))


def sampling(how):
    return Sampling(**how | {'logit_bias': tuple(map(tuple, how.get('logit_bias', ())))})


@pytest.mark.parametrize('case', GOLDENS, ids=lambda case: json.dumps(case['how']))
def test_logits_are_those_of_transformers(case):
    how, before = sampling(case['how']), case['before']
    history = History(how, before[:6])
    for token in before[6:]:
        history.take(token)
    adjusted = history.adjusted(np.float32(case['logits']))
    found = np.where(np.isfinite(adjusted) & kept(adjusted, how), adjusted / np.float32(how.temperature), -np.inf)
    expected = np.array([-np.inf if value is None else value for value in case['expected']])
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize('how', CUTS)
@pytest.mark.parametrize('logits', [PLAIN, TIED, TEXTBOOK])
def test_what_is_kept_is_what_the_definition_keeps(logits, how):
    expected = reference_numpy.probabilities(logits, **how)
    assert kept(logits, Sampling(**how)).tolist() == (expected > 0).tolist()


@pytest.mark.parametrize('scale', [0.3, 2, 6])
@pytest.mark.parametrize('p', [0.1, 0.5, 0.9, 0.999])
def test_large_vocabularies(scale, p):
    row = np.random.default_rng(0).standard_normal(50257).astype(np.float32) * np.float32(scale)
    count = np.count_nonzero(row >= drawing.top_p_edge(np.sort(row), p, inclusive=True))
    expected = np.count_nonzero(reference_numpy.probabilities(row, top_p=p, top_p_rule='inclusive'))
    assert count == pytest.approx(expected, rel=2e-3, abs=1)  # float32 sums move the edge by a few tokens
    expected = reference_numpy.probabilities(row, typical_p=p) > 0
    found = drawing.nearest(*drawing.distances_to_mean(row - row.max()), p)
    assert np.count_nonzero(found != expected) <= 2e-3 * expected.sum() + 1


def test_the_race_among_what_is_kept_is_that_of_what_is_kept_alone():
    """So that draws follow the probabilities of what a cut keeps, renormalised, exactly."""
    random = np.random.default_rng(1)
    for how in CUTS:
        row = random.standard_normal(60).astype(np.float32) * 2
        cut = kept(row, Sampling(**how))
        for seed in range(20):
            noise = drawing.exponential_noise(np.random.default_rng(seed), 60)
            found = drawing.draw(row, noise, *Sampling(**how).drawing(60))
            alone = {'temperature': how.get('temperature', 1)}
            left = drawing.draw(np.where(cut, row, -np.inf), noise, *Sampling(**alone).drawing(60))
            assert found == left


@pytest.mark.parametrize('scale', [0.01, 1, 9])
def test_looking_at_the_likeliest_first_changes_no_draw(scale, monkeypatch):
    random = np.random.default_rng(2)
    rows = [(random.standard_normal(20_000) * scale).astype(np.float32) for _ in range(4)]
    rows += [np.round(row, 1) for row in rows] + [np.zeros(20_000, np.float32)]  # with ties at the edge
    settings = [
        Sampling(temperature=temperature, top_k=k, **how).drawing(20_000)
        for temperature in (1, 0.6, 1e-38) for k in (1, 2, 40)
        for how in ({}, {'top_p': 0.8}, {'typical_p': 0.7}, {'min_p': 0.3})
    ]  # fmt: skip
    cases = [(row, drawing.exponential_noise(random, len(row)), how) for row in rows for how in settings]
    found = [drawing.draw(row, noise, *how) for row, noise, how in cases]
    monkeypatch.setattr(drawing, 'surely_in_top_k', lambda *_: None)
    assert found == [drawing.draw(row, noise, *how) for row, noise, how in cases]


def test_excluded_tokens_are_never_drawn_and_where_all_are_none_is():
    logits = np.float32([-np.inf, 3, -np.inf, 2])
    noises = [drawing.exponential_noise(np.random.default_rng(seed), 4) for seed in range(200)]
    for how in ({}, {'top_k': 3}, {'top_p': 0.99}, {'typical_p': 0.999}, {'min_p': 0.01}, {'temperature': 0}):
        settings = Sampling(**how).drawing(4)
        drawn = {drawing.draw(logits, noise, *settings) for noise in noises}
        assert drawn == ({1} if how in ({'temperature': 0}, {'top_p': 0.99}) else {1, 3}), how
        for row in ([-np.inf] * 4, [np.nan] * 4, [1, np.nan, 2, 3], [1, np.inf, 2, 3]):  # the others are no logits
            assert drawing.draw(np.float32(row), noises[0], *settings) == drawing.NO_TOKEN


def test_penalties_and_bias():
    logits = np.float32([1, 2, 3, 4, -1])
    history = History(Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((0, 10), (3, -1))), [2, 2])
    for token in (1, 1, 3):
        history.take(token)
    np.testing.assert_allclose(history.adjusted(logits), [11, 2 - 0.5 - 0.5, 3, 4 - 1 - 0.5 - 0.25, -1])
    history = History(Sampling(repetition_penalty=2), [2, 2, 4])
    history.take(1)
    np.testing.assert_allclose(history.adjusted(logits), [1, 1, 1.5, 4, -2])
    history = History(Sampling(), [1, 2])
    history.take(1)
    assert history.adjusted(logits) is logits
    np.testing.assert_array_equal(logits, [1, 2, 3, 4, -1])


def test_a_forked_history_goes_its_own_way():
    logits = np.zeros(6, np.float32)
    one = History(Sampling(repetition_penalty=2, presence_penalty=1, no_repeat_ngram=2), [0, 1])
    one.take(0)
    other = one.fork()
    one.take(3), other.take(4)
    one.take(0), other.take(0)
    assert np.flatnonzero(np.isneginf(one.adjusted(logits))).tolist() == [1, 3]
    assert np.flatnonzero(np.isneginf(other.adjusted(logits))).tolist() == [1, 4]
    assert np.flatnonzero(one.adjusted(logits) == -1).tolist() == [0]


@pytest.mark.parametrize('n', [1, 2, 3, 5])
def test_no_n_tokens_come_twice(n):
    random = np.random.default_rng(n)
    history, ids = History(Sampling(no_repeat_ngram=n, top_k=2), [1, 2, 1]), [1, 2, 1]
    for _ in range(60):
        logits = history.adjusted(random.standard_normal(70).astype(np.float32) + np.float32(5) * (np.arange(70) < 4))
        allowed = [token for token in range(70) if not comes_again([*ids, token], n)]
        assert np.flatnonzero(np.isfinite(logits)).tolist() == allowed
        ids.append(int(logits.argmax()))
        history.take(ids[-1])


def comes_again(ids, n):
    """Whether the last n of ids stand earlier too."""
    return any(ids[start : start + n] == ids[-n:] for start in range(len(ids) - n))


def test_only_what_the_release_has_is_released():
    for how in (
        {}, {'temperature': 0.3, 'top_k': 4, 'top_p': 0.5}, {'top_p_rule': 'inclusive'}, {'temperature': 0, 'min_p': 1},
    ):  # fmt: skip
        assert Sampling(**how).released
    for how in (
        {'top_p': 0.9, 'top_p_rule': 'inclusive'}, {'min_p': 0.1}, {'typical_p': 0.9}, {'repetition_penalty': 1.1},
        {'presence_penalty': -1}, {'frequency_penalty': 1}, {'no_repeat_ngram': 3}, {'logit_bias': ((1, 1),)},
        {'temperature': 0, 'no_repeat_ngram': 1},
    ):  # fmt: skip
        assert not Sampling(**how).released
