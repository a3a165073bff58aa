"""A text as a model sees it, as a picture. Needs matplotlib, which is imported when one is drawn."""

import warnings
from collections.abc import Iterator, Sequence
from typing import IO, Any

from gpt2.detection.look import BANDS, CAVEAT, Token, seen, shares, summary
from gpt2.detection.reading import Reading

COLUMNS = 100  # characters a line
MOST_LINES = 200  # of text; more are left out, and the picture says so
CELL = 0.085, 0.2  # inches a character
BELOW = 3.6  # inches for the figures
MARGIN = 0.3  # inches


def cells(tokens: Sequence[Token]) -> Iterator[tuple[int, int, str, int]]:
    """Yield (line, column, characters, band) of the parts of tokens in lines of COLUMNS characters."""
    line = column = 0
    for token in tokens:
        for place, part in enumerate(seen(token.text).expandtabs(4).split('\n')):
            if place:
                line, column = line + 1, 0
            while part:
                if column == COLUMNS:
                    line, column = line + 1, 0
                fitting = part[: COLUMNS - column]
                yield line, column, fitting, token.band
                column, part = column + len(fitting), part[len(fitting) :]


def draw(title: str, reading: Reading, tokens: Sequence[Token]) -> Any:
    """A matplotlib figure: the text in colour, the shares of the ranks, entropy against surprise. Raises ImportError
    without matplotlib."""
    from matplotlib.figure import Figure

    parts = list(cells(tokens))
    lines = min(parts[-1][0] + 1 if parts else 1, MOST_LINES)
    left_out = sum(line >= MOST_LINES for line, *_ in parts)
    width, height = COLUMNS * CELL[0] + 2 * MARGIN, (lines + 3) * CELL[1] + BELOW
    figure = Figure(figsize=(width, height))
    rest = f' (the first {lines} lines)' if left_out else ''
    figure.text(MARGIN / width, 1 - CELL[1] / height, title + rest, va='top', weight='bold', parse_math=False)
    draw_text(figure, [part for part in parts if part[0] < lines], width, height)
    across, upwards = 3 / width, (BELOW - 1.6) / height
    draw_shares(figure.add_axes((1.6 / width, 1.1 / height, across, upwards)), reading)
    draw_sureness(figure.add_axes((1 - 3.4 / width, 1.1 / height, across, upwards)), tokens)
    notes = f'{summary(reading)}\n{CAVEAT}'
    figure.text(MARGIN / width, 0.1 / height, notes, fontsize=7, wrap=True, parse_math=False)
    return figure


def draw_text(figure: Any, parts: Sequence[tuple[int, int, str, int]], width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    for line, column, characters, band in parts:
        x, y = (MARGIN + column * CELL[0]) / width, 1 - (line + 3) * CELL[1] / height
        size = len(characters) * CELL[0] / width, CELL[1] / height
        figure.add_artist(Rectangle((x, y), *size, facecolor=BANDS[band].colour, linewidth=0))
        # Each character in its cell, whatever the width of the font's.
        for place, character in enumerate(characters):
            centre, settings = x + (place + 0.5) * CELL[0] / width, {'ha': 'center', 'fontsize': 9}
            figure.text(centre, y + size[1] / 4, character, family='monospace', parse_math=False, **settings)


def draw_shares(axes: Any, reading: Reading) -> None:
    found = shares(reading)
    axes.barh(
        [each.band.name for each in found], [100 * each.share for each in found],
        color=[each.band.colour for each in found], edgecolor='#555',
    )  # fmt: skip
    axes.invert_yaxis()
    axes.set(xlabel='% of the tokens')


def draw_sureness(axes: Any, tokens: Sequence[Token]) -> None:
    entropies, surprises = [token.entropy for token in tokens], [token.surprise for token in tokens]
    most = max(*entropies, *surprises, 1)
    axes.plot([0, most], [0, most], color='#999', linewidth=1)
    colours = [BANDS[token.band].colour for token in tokens]
    axes.scatter(entropies, surprises, c=colours, s=12, edgecolors='#555', linewidths=0.4)
    axes.set(xlabel='entropy, nats', ylabel='surprise, nats')


def save(figure: Any, file: IO[bytes]) -> None:
    """Write a figure as PNG. Characters that the font lacks are boxes, of which nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        figure.savefig(file, format='png', dpi=120)
