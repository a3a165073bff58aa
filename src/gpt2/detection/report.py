"""What is said of a detector, as Markdown, and of the texts it judges."""

from typing import Any

from gpt2.detection.detector import CAVEAT
from gpt2.system.text import one_line

KINDS = {'words': 'TF-IDF of words and pairs', 'model': 'what the model says', 'both': 'both'}


def report(about: dict[str, Any]) -> str:
    """about: of a Detector, with `human` and `machine`, what its texts are called, `model` and `published`."""
    found = about['figures']
    columns = ['Detector', 'Right', 'Human taken for machine', 'Machine taken for human', 'Calibration error']
    published = about['published'] is not None and 'words' in found
    rows = [
        [KINDS[name], *map(share_text, list(figures.values())[:3]), f'{figures["calibration_error"]:.3f}']
        + ([f'{about["published"]} %' if name == 'words' else ''] if published else [])
        for name, figures in found.items()
    ]
    parts = [
        one_line(f'# {about["machine"]} against {about["human"]}, read by {about["model"]["name"]}'),
        'Texts of people and of the machine: '
        + '; '.join(f'{split} {people:,} and {machines:,}' for split, (people, machines) in about['texts'].items()),
        table(columns + ['Published, right'] * published, rows),
        'Right, by length in tokens:',
        table(['Tokens', 'Texts', *map(KINDS.get, found)], map(length_row, about['by_length'])),
        'Shares in per cent with their 95 % intervals (Wilson), on the test, of texts that training has not seen.',
        CAVEAT,
    ]
    return '\n\n'.join(parts) + '\n'


def table(heads: Any, rows: Any) -> str:
    lines = [heads, ['---'] * len(heads), *rows]
    return '\n'.join(f'| {" | ".join(map(str, cells))} |' for cells in lines)


def length_row(row: dict[str, Any]) -> list[Any]:
    rights = list(row['right'].values())
    return [length_text(row), rights[0]['texts'], *map(share_text, rights)]


def length_text(row: dict[str, Any]) -> str:
    """The lengths that a row by length is of."""
    least, beyond = row['tokens']
    return f'{least} to {beyond - 1}' if beyond else f'{least} and more'


def share_text(share: dict[str, Any]) -> str:
    """A share with its interval, in per cent."""
    if share['share'] is None:
        return '–'
    low, high = share['interval']
    return f'{100 * share["share"]:.1f} ({100 * low:.1f}–{100 * high:.1f})'


def experience(about: dict[str, Any], name: str, length: int) -> str:
    """How the detector called name did on test texts about as long, in a sentence."""
    for row in about['by_length']:
        least, beyond = row['tokens']
        if least <= length and (beyond is None or length < beyond):
            right = row['right'][name]
            return f'of {right["texts"]} texts of {length_text(row)} tokens it judged {share_text(right)} % right'
    return 'it was not tested on texts of such a length'
