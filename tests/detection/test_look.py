"""How a text is shown with a model's eyes: terminals of any kind, pages, pictures."""

import html.parser
import io
import re

import numpy as np
import pytest

from gpt2.detection import look, picture
from gpt2.detection.reading import Reading, read_texts

TEXT = 'A <b>king</b> & "queen"\x1b[31m\n\tof café 中\u202e\x00 $x$ said: \'no\''


@pytest.fixture(scope='module')
def reading(engine, encoder):
    [reading] = read_texts(engine, encoder, [TEXT])
    return reading


@pytest.fixture(scope='module')
def tokens(reading, encoder):
    return look.tokens_of(reading, encoder)


def test_tokens_are_the_text_and_a_character_comes_with_its_last_byte(tokens, reading):
    assert ''.join(token.text for token in tokens) == TEXT
    assert b''.join(token.bytes for token in tokens) == TEXT.encode()
    chinese = next(place for place, token in enumerate(tokens) if token.text == '中')
    assert tokens[chinese - 1].text == '' and tokens[chinese].bytes == '中'.encode()[-1:]
    assert [token.rank for token in tokens] == reading.ranks.tolist()
    assert tokens[0].probability == pytest.approx(np.exp(reading.log_probabilities[0]))


@pytest.mark.parametrize(
    ('environment', 'terminal', 'colours'),
    [
        ({'TERM': 'xterm-256color'}, True, 256),
        ({'TERM': 'xterm', 'COLORTERM': 'truecolor'}, True, 256),
        ({'TERM': 'xterm'}, True, 16),
        ({'TERM': 'xterm-256color'}, False, 0),
        ({'TERM': 'xterm-256color', 'NO_COLOR': '1'}, True, 0),
        ({'TERM': 'xterm-256color', 'NO_COLOR': ''}, True, 256),
        ({'TERM': 'dumb'}, True, 0),
    ],
)
def test_colours_are_what_the_output_has(environment, terminal, colours):
    assert look.colours_of(environment, terminal) == colours


@pytest.mark.parametrize(('colours', 'sgr'), [(16, 'sgr16'), (256, 'sgr256')])
def test_a_terminal_gets_the_text_in_the_colours_of_its_ranks_and_nothing_that_steers_it(tokens, colours, sgr):
    shown = look.terminal_text(tokens, colours)
    plain = re.sub(r'\x1b\[[\d;]*m', '', shown)
    assert plain == TEXT.replace('\x1b', '\\x1b').replace('\u202e', '\\u202e').replace('\x00', '\\x00')
    codes = re.findall(r'\x1b\[([\d;]+)m', shown)
    assert set(codes) <= {'0', *(getattr(band, sgr) for band in look.BANDS)}
    assert codes[0] == getattr(look.BANDS[tokens[0].band], sgr)
    assert '\n\x1b[0m' not in shown  # the colour ends with its line


def test_lines_have_rank_probability_surprise_entropy_and_token(tokens):
    lines = look.token_lines(tokens, 0)
    rank, probability, surprise, entropy, text = lines[0].split('\t')
    assert (int(rank), text) == (tokens[0].rank, 'A') and len(lines) == len(tokens)
    assert float(surprise) == pytest.approx(tokens[0].surprise, abs=0.006)
    assert float(entropy) == pytest.approx(tokens[0].entropy, abs=0.006)
    assert float(probability) == pytest.approx(tokens[0].probability, rel=0.01)
    assert not any('\x1b' in line for line in lines)


def test_shares_and_the_sums_below(reading):
    found = look.shares(reading)
    assert sum(each.tokens for each in found) == len(reading.ids)
    assert sum(each.share for each in found) == pytest.approx(1)
    lines = look.terminal_figures(reading, 0)
    assert re.fullmatch(rf'ranks 1-10 +{found[0].tokens} +{100 * found[0].share:.1f} %', lines[0])
    assert lines[-1] == look.CAVEAT and 'not who wrote' in look.CAVEAT


def test_surprise_goes_with_entropy_by_how_sure_the_model_was():
    arrays = np.array([[-0.5, -1.5, -4, -9], [1, 2, 3, 4], [0.5, 0.7, 3, 8], [1, 1, 1, 1]], np.float32)
    found = look.sureness(Reading(np.arange(4), *arrays))
    assert found == [
        ('0 to 1', 2, pytest.approx(0.6), pytest.approx(1)), ('2 to 4', 1, 3, 4), ('6 and more', 1, 8, 9)
    ]  # fmt: skip


class Parser(html.parser.HTMLParser):
    """Tags that open, titles of tokens, and the text within the element called text."""

    def __init__(self):
        super().__init__()
        self.tags, self.titles, self.text, self.within = [], [], '', False

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.within |= attributes.get('id') == 'text'
        if tag == 'span':
            self.titles.append(attributes['title'])

    def handle_endtag(self, tag):
        self.within &= tag != 'p'

    def handle_data(self, data):
        self.text += data if self.within else ''


def test_a_page_has_every_token_and_nothing_of_the_text_is_markup(reading, tokens):
    parser = Parser()
    page = look.page('<i>a & b</i>', reading, tokens)
    parser.feed(page)
    assert parser.text == look.seen(TEXT)
    assert not {'b', 'i', 'script'} & set(parser.tags)
    assert parser.tags.count('span') == parser.tags.count('circle') == len(tokens)
    assert parser.titles[0].startswith(f'rank {tokens[0].rank}, probability {tokens[0].probability:.3g}')
    assert look.CAVEAT in page and '<title>&lt;i&gt;a &amp; b' in page and '\x1b' not in page


def test_a_picture_has_the_text_in_its_cells(monkeypatch, reading, tokens):
    monkeypatch.setattr(picture, 'COLUMNS', 10)
    parts = list(picture.cells(tokens))
    expected = look.seen(TEXT).replace('\n', '').replace('\t', ' ' * 4)
    assert ''.join(characters for *_, characters, _ in parts) == expected
    assert all(column + len(characters) <= 10 for _, column, characters, _ in parts)
    places = [(line, column) for line, column, *_ in parts]
    assert places == sorted(set(places)) and places[0] == (0, 0)
    assert {band for *_, band in parts} <= {0, 1, 2, 3}


@pytest.mark.filterwarnings('error')
def test_a_picture_is_drawn_and_says_what_it_leaves_out(monkeypatch, reading, tokens):
    monkeypatch.setattr(picture, 'MOST_LINES', 1)
    figure, file = picture.draw('$a title$', reading, tokens), io.BytesIO()
    picture.save(figure, file)
    texts = [text.get_text() for text in figure.texts]
    assert texts[0] == '$a title$ (the first 1 lines)' and look.CAVEAT in texts[-1]
    assert ''.join(texts[1:-1]) == look.seen(TEXT).split('\n')[0]
    assert file.getvalue().startswith(b'\x89PNG')
    assert [len(axes.patches) for axes in figure.axes] == [4, 0]
