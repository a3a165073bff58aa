"""The texts of files and pipes, opened for scoring. Imports no TensorFlow."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.scoring.scores import Text
from gpt2.system.text import CONVERT_OR_REPLACE, pieces, split_lines
from gpt2.text_stream import Measure, encode_stream

Open = Callable[[str], Iterator[Text]]


def whole_texts(encoder: Encoder, errors: str, start: Sequence[int]) -> Open:
    """A function that opens a file as one Text. It raises UsageError for less than two tokens.

    start: ids to put before the text, or none, which leaves the first token out of what is scored and measured.
    """

    def open_file(file: str) -> Iterator[Text]:
        text = text_of_pieces(encoder, start, {'file': file}, pieces(file, errors, CONVERT_OR_REPLACE))
        first = list(itertools.islice(text.ids, len(start) + 2))
        if len(first) < len(start) + 2:
            found = 'no text' if first == start else 'a text of one token'
            raise UsageError(f'{file} holds {found}, expected two tokens or more; give a longer text')
        text.ids = itertools.chain(first, text.ids)
        return iter([text])

    return open_file


def texts_by_line(encoder: Encoder, errors: str, start: Sequence[int]) -> Open:
    """A function that opens a file as a Text for each line, the empty ones too. It raises UsageError for no line."""

    def open_file(file: str) -> Iterator[Text]:
        found = split_lines(pieces(file, errors, CONVERT_OR_REPLACE))
        first = next(found, None)
        if first is None:
            raise UsageError(f'{file} holds no text, expected a line or more; give another file')
        return (
            text_of_pieces(encoder, start, {'file': file, 'line': number}, [line])
            for number, line in enumerate(itertools.chain([first], found), start=1)
        )

    return open_file


def text_of_pieces(
    encoder: Encoder, start: Sequence[int], labels: dict[str, Any], found: Iterable[str]
) -> Text:
    measure = Measure()
    ids = encode_stream(encoder, filter(None, found), measure, all_measured=bool(start))
    return Text(labels, itertools.chain(start, ids), measure)


def check_files(files: Sequence[str], errors: str, open_file: Open) -> Callable[[str], Iterator[Text]]:
    """A function that gives the texts of each of files, once. Raises UsageError for files that cannot be scored.

    Regular files are read to their end here, so that a bad byte in the last does not end an hour's work. What can
    be read only once is opened here and not again.
    """
    opened = {}
    for file in files:
        if is_regular(file):
            for _ in pieces(file, errors, CONVERT_OR_REPLACE):
                pass
            open_file(file)
        elif [place(other) for other in files if not is_regular(other)].count(place(file)) > 1:
            raise UsageError(f'{file} can be read only once; give it once, or a regular file')
        else:
            opened[file] = open_file(file)
    return lambda file: opened.pop(file, None) or open_file(file)


def is_regular(file: str) -> bool:
    """Whether a file can be read again from its start."""
    return file != '-' and os.path.isfile(file)


def place(file: str) -> str | tuple[int, int]:
    """What is the same for all names of a pipe, such as - and /dev/stdin."""
    try:
        found = os.stat(0 if file == '-' else file)
    except (OSError, ValueError):  # whoever opens it says why
        return file
    return found.st_dev, found.st_ino
