"""Scores of texts, with a function that scores in place of a model."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from gpt2.encoder import END_OF_TEXT
from gpt2.scoring import scores
from gpt2.scoring.scores import Score, Text, TokenScore, score_rows, score_text
from gpt2.text_stream import Measure


class GivenScore:
    """Gives id n the log-probability -n and rank n, and keeps the batches it was given."""

    def __init__(self, likeliest=0):
        self.likeliest, self.batches = likeliest, []

    def __call__(self, batch):
        self.batches.append([list(ids) for ids, _ in batch])
        return [self.row(ids[-count:]) for ids, count in batch]

    def row(self, ids):
        ids = np.array(ids)
        found = -ids.astype(np.float32), ids, np.zeros_like(ids)
        others = ids[:, np.newaxis] + np.arange(self.likeliest)
        return (*found, others, -others.astype(np.float32)) if self.likeliest else found


TEXT = 'Once upon a time there was a café 中😀'


@pytest.mark.parametrize('end_of_text', [True, False])
@pytest.mark.parametrize('likeliest', [0, 2])
@pytest.mark.parametrize('stride', [1, 3, 5])
def test_the_score_of_a_text_is_that_of_its_tokens(encoder, stride, likeliest, end_of_text):
    ids = encoder.encode(TEXT)
    expected = ids if end_of_text else ids[1:]
    given = GivenScore(likeliest)
    found = score_text(given, encoder, TEXT, 5, stride, end_of_text, batch_size=2)
    assert isinstance(found, Score) and found.log_probability == -sum(expected)
    assert [token.id for token in found.tokens] == [token.rank for token in found.tokens] == expected
    assert b''.join(token.bytes for token in found.tokens) == TEXT.encode()[len(TEXT.encode()) - sum(
        len(encoder.decode_bytes([token])) for token in expected) :]  # fmt: skip
    others = tuple((expected[0] + index, -float(expected[0] + index)) for index in range(likeliest))
    assert found.tokens[0] == TokenScore(
        expected[0], encoder.decode_bytes(expected[:1]), -expected[0], expected[0], others
    )
    start = [encoder.encoder[END_OF_TEXT]] if end_of_text else []
    assert given.batches[0][0] == [*start, *ids][:6]
    assert max(map(len, itertools.chain(*given.batches))) <= 6 and max(map(len, given.batches)) == 2


def test_a_score_cannot_be_changed(encoder):
    found = score_text(GivenScore(), encoder, TEXT, 5, 5)
    for thing in (found, found.tokens[0]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            thing.log_probability = 0.0


@pytest.mark.parametrize(('text', 'end_of_text'), [('', True), ('', False), ('a', False)])
def test_a_text_of_which_nothing_is_scored_has_log_probability_0(encoder, text, end_of_text):
    given = GivenScore()
    assert score_text(given, encoder, text, 5, 2, end_of_text) == Score(0.0, ())
    assert given.batches == []


def test_texts_share_batches_and_each_ends_in_its_turn():
    lengths = [1, 4, 2, 1, 1, 12, 3, 1]
    texts = [Text({'line': n}, iter(range(length)), Measure()) for n, length in enumerate(lengths)]
    given, found, open_texts = GivenScore(), {}, []
    for text, ids, _ in score_rows(given, iter(texts), 4, 4, 2):
        line = text.labels['line']
        if ids is None:
            open_texts.append(line)
            assert text.tokens == len(found.get(line, [])) and text.log_probability == -sum(found.get(line, []))
        else:
            assert line not in open_texts
            found.setdefault(line, []).extend(ids)
    assert open_texts == list(range(8))
    assert found == {n: list(range(1, length)) for n, length in enumerate(lengths) if length > 1}
    assert [[len(ids) for ids in batch] for batch in given.batches] == [[4, 2], [5, 5], [4, 3]]


def test_what_was_scored_is_given_out_before_more_is_read():
    def ids():
        yield from range(10)
        raise ValueError('read too far')

    rows = score_rows(GivenScore(), [Text({}, ids(), Measure())], 4, 4, 1)
    assert next(rows)[1] == [1, 2, 3, 4]


def test_figures_that_are_no_number_are_none():
    assert scores.summary(-10.0, 2, 0, 8)['perplexity_per_word'] is None
    assert scores.summary(-1e6, 10**4, 1, 8)['perplexity_per_word'] is None
    nothing = scores.summary(0.0, 0, 0, 0)
    assert nothing['perplexity_per_token'] is nothing['bits_per_byte'] is None


def test_figures():
    found = scores.summary(-12.0, 6, 3, 8)
    assert (found['perplexity_per_token'], found['perplexity_per_word']) == (math.exp(2), math.exp(4))
    assert found['log_probability_bits'] == -8 * found['bits_per_byte'] == pytest.approx(-12 / math.log(2))
