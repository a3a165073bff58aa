"""Samples that match a pattern."""

import contextlib
import gc
import re
import sys
import weakref

import numpy as np
import pytest
from example_models import BUNDLED, HERE

import gpt2
from gpt2 import patterns
from gpt2.api import open_model
from gpt2.encoder import read_encoder
from gpt2.errors import Error, UsageError
from gpt2.patterns import Pattern

PATTERN = r'(yes|no), [0-9]{1,3}( [a-zé]{1,6}){1,4}[.!]'
PROMPT = 'Once upon a time'


@pytest.fixture(scope='module', params=['litert', 'tf'])
def model(request):
    with gpt2.load('7M', engine=request.param) as model:
        yield model


@pytest.mark.parametrize(
    ('pattern', 'language'),
    [
        ('the (king|queen)s?', ['the king', 'the kings', 'the queen', 'the queens']),
        (
            '(é|漢字|[ab]{2})[.,!]',
            [one + end for one in ('é', '漢字', 'aa', 'ab', 'ba', 'bb') for end in '.,!'],
        ),
        ('n{1,3}', ['n', 'nn', 'nnn']), ('and|an|', ['and', 'an', '']),
    ],
)  # fmt: skip
def test_just_those_tokens_are_left_with_which_the_pattern_can_still_be_matched(encoder, pattern, language):
    texts = [text.encode() for text in language]
    rule = Pattern(encoder, pattern)
    for wanted in [*language[:3], language[-1]]:
        walk, before = rule.begin([]), b''
        for token in encoder.encode(wanted):
            expected = {
                index for index, spelt in enumerate(encoder.token_bytes)
                if index != encoder.end_of_text and any(text.startswith(before + spelt) for text in texts)
            } | ({encoder.end_of_text} if before in texts else set())  # fmt: skip
            found = left(walk, encoder)
            sole = len({text[len(before) : len(before) + 1] for text in texts if text.startswith(before)}) == 1
            assert found == expected or (sole and found == {token})  # what must come may be spelt as the encoder does
            walk.take(token)
            before += encoder.token_bytes[token]
        assert encoder.end_of_text in left(walk, encoder)


def left(walk, encoder):
    logits = np.zeros(len(encoder), np.float32)
    walk.exclude(logits)
    return set(np.flatnonzero(np.isfinite(logits)).tolist())


def test_samples_match(model):
    found = model.complete([PROMPT, 'The'], samples=4, seed=3, regex=PATTERN, length=60)
    for completion in (each for group in found for each in group):
        assert completion.finish_reason == 'end_of_text' and re.fullmatch(PATTERN, completion.text)
        assert completion.ids[-1] == model.encoder.end_of_text
    assert len({each.text for group in found for each in group}) > 4
    assert ''.join(model.stream(PROMPT, seed=3, regex=PATTERN, length=60)) == found[0][0].text
    cut = model.complete(PROMPT, seed=3, regex=PATTERN, length=3)
    assert (cut.finish_reason, cut.ids) == ('length', found[0][0].ids[:3])
    likeliest = model.complete(PROMPT, regex='(north|south)(east|west)?', temperature=0)
    assert likeliest.text in ('north', 'south', 'northeast', 'northwest', 'southeast', 'southwest')
    for beam in model.complete(PROMPT, samples=3, beams=4, regex='[abc] ?[def]', length=5):
        assert re.fullmatch('[abc] ?[def]', beam.text) and beam.finish_reason == 'end_of_text'


def test_both_engines_draw_the_same_matches():
    texts = []
    for engine in ('litert', 'tf'):
        with gpt2.load('7M', engine=engine) as model:
            texts.append([each.text for each in model.complete(PROMPT, samples=5, seed=9, regex=PATTERN, min_p=0.01)])
    assert texts[0] == texts[1]


def test_rows_of_the_vocabulary_that_no_token_owns_are_excluded(encoder):
    logits = np.zeros(len(encoder) + 7, np.float32)
    Pattern(encoder, '.*').begin([]).exclude(logits)
    assert np.isneginf(logits[len(encoder) :]).all() and np.isfinite(logits[: len(encoder)]).any()


def test_a_pattern_that_is_too_large_is_told_and_stops_soon(encoder, capfd):
    for pattern in ('(a{1000}){1000}', '(a{300}){1000}'):  # the second one's fault is that it takes too long
        with pytest.raises(Error, match='regex has grown beyond the limits'):
            walk = Pattern(encoder, pattern).begin([])
            for _ in range(5):
                walk.exclude(logits := np.zeros(len(encoder), np.float32))
                walk.take(int(logits.argmax()))
    assert capfd.readouterr() == ('', '')  # the library prints nothing by itself


def test_how_far_a_pattern_goes_does_not_depend_on_other_samples(encoder):
    rule = Pattern(encoder, '(?s:.*(a.{4,30}|e.{5,35}|t.{6,40})x)')
    text = (HERE / 'held_out.txt').read_text(encoding='utf-8').replace('x', 'y')
    texts = [encoder.encode(text[start : start + 1500]) for start in (0, 5000, 9000)]

    def steps(walks):
        """How many tokens of its text each takes before the library gives up."""
        counts = [0] * len(walks)
        for place in range(200):
            for index, (walk, ids) in enumerate(walks):
                with contextlib.suppress(Error):
                    walk.exclude(np.zeros(len(encoder), np.float32))
                    walk.take(ids[place])
                    counts[index] += 1
        return counts

    alone = [steps([(rule.begin([]), ids)]) for ids in texts]
    assert alone == [[count] for count in steps([(rule.begin([]), ids) for ids in texts])]
    assert max(alone) < [200]  # the limit was met


def test_an_encoder_is_freed():
    encoder = read_encoder(str(BUNDLED))
    Pattern(encoder, 'a+').begin([])
    kept = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ({'regex': '('}, "regex is '(', which is no pattern that is understood: unclosed group"),
        ({'regex': r'(a)\1'}, 'backreferences are not supported'),
        ({'regex': r'\bfoo'}, 'lookarounds not supported yet'),
        ({'regex': r'[^\s\S]'}, r"regex is '[^\\s\\S]', which no text matches; let it match one"),
        ({'regex': 'a\udce9'}, r"regex is 'a\udce9', which is not UTF-8; convert it to UTF-8"),
        ({'regex': ''}, "regex is '', expected a pattern of at least one character"),
        ({'regex': 'a', 'ban': 'b'}, 'regex and ban exclude each other'),
        ({'regex': 'a', 'no_repeat_ngram': 2}, 'regex and no_repeat_ngram exclude each other'),
        ({'regex': 'a', 'choices': ['b']}, 'choices and regex exclude each other'),
    ],
)
def test_what_means_nothing_is_refused(how, message):
    with pytest.raises(UsageError) as caught:
        open_model('7M').plan(['The'], seed=1, **how)
    assert message in str(caught.value) and '\n' not in str(caught.value)


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'llguidance', None)
    with pytest.raises(Error, match=r'a pattern needs a package \(.*\); pip install -r requirements-regex.txt'):
        patterns.check_pattern('a')


def test_of_a_text_that_is_left_alone_little_is_spelt(encoder, monkeypatch):
    """However long it is; before every token that took a tenth of a second, in which no other sample went on."""
    asked, encode = [], encoder.encode
    monkeypatch.setattr(encoder, 'encode', lambda text: asked.append(len(text)) or encode(text))
    walk, ids, text = Pattern(encoder, 'the (king ){300}was').begin([]), [], 'the ' + 'king ' * 300 + 'was'
    for _ in range(500):
        walk.exclude(logits := np.zeros(len(encoder), np.float32))
        ids.append(int(logits.argmax()))
        walk.take(ids[-1])
        if ids[-1] == encoder.end_of_text:
            break
    assert ids[:-1] == encode(text)
    assert 0 < max(asked) < len(text)
