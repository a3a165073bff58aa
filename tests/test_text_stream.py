import itertools
import random

import pytest
from example_models import MODELS

from gpt2 import text_stream
from gpt2.encoder import PRETOKEN, get_encoder

CHARACTERS = "ab1'sretvlmd !,.\n\t\r\u00a0\u3000é\u0301中２ⅷ\x1c\x85😀"


@pytest.fixture(scope='module')
def encoder():
    return get_encoder('7M', str(MODELS))


def random_texts(count, longest):
    chosen = random.Random(0)
    return [''.join(chosen.choices(CHARACTERS, k=chosen.randint(1, longest))) for _ in range(count)]


def test_no_pretoken_reaches_across_a_cut():
    cuts = 0
    for text in random_texts(20_000, 12):
        whole = PRETOKEN.findall(text)
        for start in range(len(text)):
            if found := text_stream.CUT.search(text[: start + 2]):
                cuts += 1
                parts = text[: found.end()], text[found.end() :]
                assert [*PRETOKEN.findall(parts[0]), *PRETOKEN.findall(parts[1])] == whole
    assert cuts > 20_000


@pytest.mark.parametrize('size', [1, 2, 3, 7])
def test_pieces_give_the_ids_and_the_measure_of_the_whole_text(encoder, size):
    for text in [*random_texts(300, 60), 'a' * 50, ' ' * 50, 'x\n' * 20, "it's 3rd, isn't it?  \n\n Yes.  "]:
        measure = text_stream.Measure()
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        assert list(text_stream.encode_stream(encoder, pieces, measure)) == encoder.encode(text)
        assert (measure.bytes, measure.words) == (len(text.encode()), len(text.split()))


def test_pieces_stay_small_however_long_the_text():
    endless = itertools.cycle(['It was the best of times, it was the wor', 'st of times.\n'])
    sizes = [len(piece) for piece in itertools.islice(text_stream.whole_pretokens(endless), 10_000)]
    assert max(sizes) < 100


NOT_MEASURED = [
    ('The king', 1),  # " king" is left
    ('king The', 1),
    ('unicorns', 1),  # a part of a word is left, which counts
    (' \n\n x', 1),
    ('a', 0),
    ('a  ', 0),
    ('\u3000', 0),  # a space whose three bytes are several tokens
    ('😀', 1),
    ('\u3000x y', 2),
]


@pytest.mark.parametrize(('text', 'words'), NOT_MEASURED)
@pytest.mark.parametrize('size', [1, 100])
def test_the_first_token_may_be_left_out_of_the_measure(encoder, text, words, size):
    measure = text_stream.Measure()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    ids = list(text_stream.encode_stream(encoder, pieces, measure, all_measured=False))
    assert ids == encoder.encode(text)
    assert (measure.bytes, measure.words) == (len(encoder.decode_bytes(ids[1:])), words)
