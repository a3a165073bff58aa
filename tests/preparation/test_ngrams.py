import numpy as np
import pytest

from gpt2.preparation.ngrams import Bloom, ngram_hashes, overlap, words


def grams(text, n):
    """The n-grams of a text, by hand."""
    found = words(text)
    return [' '.join(found[place : place + n]) for place in range(len(found) - n + 1)]


def test_words_are_alphanumeric_and_in_lower_case():
    assert words("Don't stop -- it's 3.14, snake_case & Größe!") == [
        'don', 't', 'stop', 'it', 's', '3', '14', 'snake', 'case', 'größe'
    ]  # fmt: skip


@pytest.mark.parametrize('n', [1, 2, 8])
def test_numbers_are_equal_where_n_grams_are(n):
    text = 'a b a b c a b c d e f g h a b a b c a b c d'
    by_text = {}
    for gram, number in zip(grams(text, n), ngram_hashes(text, n).tolist(), strict=True):
        by_text.setdefault(gram, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_text.values())
    assert len(set.union(*by_text.values())) == len(by_text)


def test_order_matters_and_short_texts_have_none():
    assert ngram_hashes('a b', 2)[0] != ngram_hashes('b a', 2)[0]
    assert ngram_hashes('a a b', 3)[0] != ngram_hashes('a b a', 3)[0]
    assert len(ngram_hashes('one two', 3)) == 0


def test_a_filter_forgets_nothing_and_takes_hardly_anything_else_for_its_own():
    random = np.random.default_rng(0)
    inside = random.integers(2**64, size=20_000, dtype=np.uint64)
    outside = random.integers(2**64, size=1_000_000, dtype=np.uint64)  # as the paper did with a million strings
    bloom = Bloom(len(inside))
    bloom.add(inside)
    assert bloom.holds(inside).all()
    assert not bloom.holds(outside).any()
    assert bloom.size / len(inside) == pytest.approx(38.3, abs=0.1)


@pytest.mark.parametrize('rate', [0.1, 0.01])
def test_the_rate_of_what_is_taken_wrongly_is_the_one_asked_for(rate):
    random = np.random.default_rng(1)
    inside, outside = random.integers(2**64, size=[2, 100_000], dtype=np.uint64)
    bloom = Bloom(len(inside), rate)
    bloom.add(inside)
    assert bloom.holds(outside).mean() == pytest.approx(rate, rel=0.2)


def test_overlap_is_that_of_sets_of_n_grams():
    corpus = ['The quick brown fox jumps over the lazy dog, again and again.', 'Something else entirely is here now.']
    tested = ['A quick brown fox jumps over the lazy dog again', 'the quick brown fox jumps OVER the lazy', 'short']
    n = 4
    known = {gram for text in corpus for gram in grams(text, n)}
    expected = [gram in known for text in tested for gram in grams(text, n)]
    bloom = Bloom(100)
    for text in corpus:
        bloom.add(ngram_hashes(text, n))
    assert overlap(tested, bloom, n) == (sum(expected), len(expected)) == (11, 12)
