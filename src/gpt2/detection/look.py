"""A text as a model sees it: each token in the colour of its rank, on a terminal or in a page. No verdict."""

import codecs
import html
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gpt2.detection.features import band_counts, curvature, rank_bands
from gpt2.detection.reading import Reading
from gpt2.encoder import Encoder
from gpt2.system.text import STEERING, escaped

CAVEAT = (
    'This shows what the model finds likely, and not who wrote the text: people write likely words too, and a machine '
    'that draws otherwise, or a text that was edited, shows other colours.'
)


class Band(NamedTuple):
    """Ranks that share a colour. sgr16, sgr256: that colour as the background, and
    black, as a terminal takes it. colour: as pages take it; each is darker than the one before."""

    name: str
    sgr16: str
    sgr256: str
    colour: str


BANDS = (
    Band('ranks 1-10', '30;42', '38;5;16;48;5;194', '#d7f5d7'),
    Band('ranks 11-100', '30;43', '38;5;16;48;5;222', '#ffdc8c'),
    Band('ranks 101-1000', '30;41', '38;5;16;48;5;209', '#f59a80'),
    Band('ranks above 1000', '30;45', '38;5;16;48;5;140', '#b08ad8'),
)
ENTROPY_BOUNDS = 1, 2, 4, 6  # nats


class Token(NamedTuple):
    """A token as it is shown. text: the characters that are whole with it; bytes: its own; band: of BANDS;
    surprise and entropy, in nats."""

    text: str
    bytes: bytes
    rank: int
    band: int
    surprise: float
    entropy: float

    @property
    def probability(self) -> float:
        return float(np.exp(-self.surprise))


def tokens_of(reading: Reading, encoder: Encoder) -> list[Token]:
    """The tokens of a text. A character that several tokens spell is shown with the last of them."""
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    pieces = [encoder.decode_bytes([int(token)]) for token in reading.ids]
    texts = [decoder.decode(piece) for piece in pieces]
    columns = reading.ranks, rank_bands(reading.ranks), -reading.log_probabilities, reading.entropies
    return list(map(Token, texts, pieces, *(column.tolist() for column in columns)))


def colours_of(environment: Mapping[str, str], terminal: bool) -> int:
    """How many colours an output has: 0, 16 or 256. environment: NO_COLOR (https://no-color.org), TERM, COLORTERM.
    terminal: whether it is one."""
    term = environment.get('TERM', '')
    if not terminal or environment.get('NO_COLOR') or term == 'dumb' or (not term and os.name != 'nt'):
        return 0
    return 256 if '256' in term or environment.get('COLORTERM') else 16


def coloured(text: str, band: int, colours: int) -> str:
    """text in the colour of a band. Ends of lines are left uncoloured, or some terminals colour the whole line."""
    if not colours:
        return text
    sgr = BANDS[band].sgr16 if colours == 16 else BANDS[band].sgr256
    return '\n'.join(f'\x1b[{sgr}m{line}\x1b[0m' if line else '' for line in text.split('\n'))


def seen(text: str) -> str:
    """text with escapes for what would steer a terminal, but for the ends of lines and tabs."""
    return STEERING.sub(lambda found: found[0] if found[0] in '\n\t' else escaped(found[0]), text)


def terminal_text(tokens: Sequence[Token], colours: int) -> str:
    """The text in colour."""
    return ''.join(coloured(seen(token.text), token.band, colours) for token in tokens)


def token_lines(tokens: Sequence[Token], colours: int) -> list[str]:
    """A line a token: rank, probability, surprise and entropy in nats, the token as Python writes its bytes."""
    return [
        f'{token.rank}\t{token.probability:.3g}\t{token.surprise:.2f}\t{token.entropy:.2f}\t'
        + coloured(repr(token.bytes)[2:-1], token.band, colours)
        for token in tokens
    ]


class Share(NamedTuple):
    """How many of a text's tokens are in a band, and what share of all that is, from 0 to 1."""

    band: Band
    tokens: int
    share: float


def shares(reading: Reading) -> list[Share]:
    counts = band_counts(reading.ranks).tolist()
    return [Share(band, count, count / len(reading.ranks)) for band, count in zip(BANDS, counts)]


class Sureness(NamedTuple):
    """Places at which the model was about as sure: their name, their tokens, and over these the mean entropy, which
    is the surprise it expected, and the mean surprise, in nats."""

    name: str
    tokens: int
    entropy: float
    surprise: float


def sureness(reading: Reading) -> list[Sureness]:
    """Entropy against surprise, by ENTROPY_BOUNDS; where there is no token there is no line."""
    bands, found = np.searchsorted(ENTROPY_BOUNDS, reading.entropies, side='right'), []
    edges = ['0', *map(str, ENTROPY_BOUNDS)]
    for band, (low, high) in enumerate(zip(edges, [*edges[1:], ''])):
        if (chosen := bands == band).any():
            name = f'{low} to {high}' if high else f'{low} and more'
            means = (values[chosen].mean(dtype=float) for values in (reading.entropies, -reading.log_probabilities))
            found.append(Sureness(name, int(chosen.sum()), *map(float, means)))
    return found


def summary(reading: Reading) -> str:
    """The text's means in a sentence."""
    surprise, entropy = -reading.log_probabilities.mean(dtype=float), reading.entropies.mean(dtype=float)
    return (
        f'{len(reading.ids)} tokens; surprise {surprise:.3f} nats a token, expected (entropy) {entropy:.3f}; '
        f'curvature {curvature(reading):.2f}'
    )


def terminal_figures(reading: Reading, colours: int) -> list[str]:
    """What is said below the text, a line each."""
    lines = [
        f'{coloured(f"{share.band.name:<17}", band, colours)}{share.tokens:7}  {100 * share.share:5.1f} %'
        for band, share in enumerate(shares(reading))
    ]
    lines += [summary(reading), 'entropy, nats     tokens  entropy  surprise']
    lines += ['{:<17}{:7}  {:7.2f}  {:8.2f}'.format(*each) for each in sureness(reading)]
    return [*lines, CAVEAT]


STYLE = (
    'body{font:16px/1.7 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#111;background:#fff}'
    '#text{white-space:pre-wrap;overflow-wrap:anywhere;font-family:serif;font-size:1.1em}'
    'td,th{padding:0 .8em 0 0;text-align:right}td:first-child,th:first-child{text-align:left}'
    + ''.join(f'.b{number}{{background:{band.colour}}}' for number, band in enumerate(BANDS))
)


def page(title: str, reading: Reading, tokens: Sequence[Token]) -> str:
    """An HTML page of its own, in which nothing of the text is markup. title: what the text and the model are."""
    spans = ''.join(
        f'<span class="b{token.band}" title="rank {token.rank}, probability {token.probability:.3g}, '
        f'entropy {token.entropy:.2f} nats">{html.escape(seen(token.text))}</span>'
        for token in tokens
    )
    rows = ''.join(
        f'<tr><td class="b{band}">{share.band.name}</td><td>{share.tokens}</td><td>{100 * share.share:.1f} %</td></tr>'
        for band, share in enumerate(shares(reading))
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n<p id="text">{spans}</p>\n'
        f'<table><tr><th>rank</th><th>tokens</th><th>share</th></tr>{rows}</table>\n'
        f'<p>{summary(reading)}</p>\n{plot(tokens)}\n<p>{CAVEAT}</p></body></html>\n'
    )


def plot(tokens: Sequence[Token]) -> str:
    """Entropy against surprise as an SVG image, a point a token, with the line on which they are equal."""
    size, most = 320, max(max(token.surprise, token.entropy) for token in tokens) or 1.0
    points = ''.join(
        f'<circle cx="{token.entropy / most * size:.1f}" cy="{size - token.surprise / most * size:.1f}" r="3" '
        f'fill="{BANDS[token.band].colour}" stroke="#555" stroke-width=".5">'
        f'<title>{html.escape(seen(token.text))}</title></circle>'
        for token in tokens
    )
    return (
        f'<svg viewBox="-30 -10 {size + 50} {size + 40}" width="{size + 50}" role="img" '
        f'aria-label="entropy against surprise, a point a token"><path d="M0 0V{size}H{size}M0 {size}L{size} 0" '
        f'fill="none" stroke="#999"/>{points}<text x="{size // 2}" y="{size + 20}" text-anchor="middle" '
        f'font-size="12">entropy, 0 to {most:.1f} nats</text><text transform="translate(-10 {size // 2}) rotate(-90)" '
        f'text-anchor="middle" font-size="12">surprise</text></svg>'
    )
