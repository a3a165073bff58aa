import pytest

pytest.importorskip('datatrove')
from datatrove.data import Document
from example_pages import english, jaccard, near

from gpt2.preparation.duplicates import BUCKETS, HASHES, Near
from gpt2.preparation.words import Words


def signature(text):
    block = Near('unused').signature()
    return block.get_signature(block.get_shingles(text))


def chance(similarity):
    """That two documents share a bucket, by theory."""
    return 1 - (1 - similarity**HASHES) ** BUCKETS


def test_half_alike_is_where_the_chance_is_a_half():
    assert [round(chance(each), 3) for each in (0.3, 0.5, 0.6, 0.7, 0.8)] == [0.032, 0.508, 0.884, 0.996, 1.0]


@pytest.mark.parametrize(
    ('similarity', 'least', 'most'), [(0.2, 0, 0.1), (0.5, 0.3, 0.75), (0.7, 0.95, 1), (0.9, 1, 1)]
)
def test_near_duplicates_are_found_as_often_as_theory_has_it(similarity, least, most):
    found = 0
    for number in range(60):
        page = near(1000 + number, number, similarity, 0)
        assert page.similarity == pytest.approx(similarity, abs=0.02)
        pair = signature('\n'.join(english(number, 0))), signature('\n'.join(page.text))
        found += any(first == second for first, second in zip(*pair))
    assert least <= found / 60 <= most


def test_letters_case_and_marks_do_not_matter():
    assert signature('One two, three: four FIVE six!') == signature('one TWO three four five six')
    assert signature('one two three four five six') != signature('six five four three two one')


def test_similarity_of_the_example_pages_is_that_of_sets():
    assert jaccard(['a b c d e f'], ['a b c d e g']) == 1 / 3


def test_words_and_sentences():
    words, text = Words(), 'It isn’t. Is it "so"?  Yes…\nNo'
    assert words.word_tokenize('It isn’t 3.5, a_b!') == ['It', 'isn’t', '3', '.', '5', ',', 'a_b', '!']
    assert words.sent_tokenize(text) == ['It isn’t.', 'Is it "so"?', 'Yes…', 'No']
    assert [text[first:last] for first, last in words.span_tokenize(text)] == words.sent_tokenize(text)


def test_every_quality_rule_runs_and_says_why():
    from gpt2.preparation.text import QUALITY, quality

    good = ' '.join(english(0, 0, 12)) + '\n' + '\n'.join(english(1, 0, 8))
    rules = quality(tuple(QUALITY))
    assert len(rules) == 4
    for rule in rules:
        list(rule.run(iter([Document(good, 'a'), Document('menu\nmenu\n' * 50, 'b')])))
        assert rule.stats['dropped'].total >= 1, rule
