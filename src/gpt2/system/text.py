r"""Text that comes from files and pipes: one rule for prompts, scoring, training and evaluation. Imports no TensorFlow.

It is UTF-8. A byte-order mark at its start is no text. A line ends with \n or, as Windows ends it, with \r\n,
which becomes \n. A \r by itself stays what it is: no system of today ends lines with it, so where it
comes (the logs of progress bars, quoted terminals) it is a character that somebody wrote, and the model has a token
for it. Bytes that are not UTF-8 are refused with their place in the file, or become U+FFFD.

    read_text('prompt.txt')         a whole file; '-' is standard input here and below
    pieces('book.txt')              its text in pieces, in bounded memory
    lines('-')                      its lines without their ends, each as soon as it is there: a program that
                                    writes a prompt and waits for the answer gets one
    text_of(b'...', name)           of bytes that were read elsewhere

A command hands `errors` on from its flag --errors, and `remedy`, which ends the refusal: what the user can do there.
"""

import codecs
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Any

from gpt2.errors import UsageError

READ_BYTES = 2**14
BYTE_ORDER_MARK = '\ufeff'
UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONVERT = 'convert it to UTF-8'
CONVERT_OR_REPLACE = 'convert it, or give --errors replace'
LONE_SURROGATE = re.compile('[\ud800-\udfff]')
STEERING = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]')
LINE_ENDS = re.compile('[\x7f-\x9f\u2028\u2029]')


class EncodingError(UsageError):
    """Bytes that are not UTF-8. offset: of the first such byte in the file."""

    def __init__(self, message: str, offset: int):
        super().__init__(message)
        self.offset = offset


def open_bytes(path: str) -> BufferedReader:
    """Binary file at path; - is standard input. Raises UsageError."""
    try:
        return open(0 if path == '-' else path, 'rb', closefd=path != '-')
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def unreadable(path: str, error: Exception) -> UsageError:
    reason = getattr(error, 'strerror', None) or error
    return UsageError(f'{path or repr(path)} cannot be read: {reason}; name a text file that can')


def chunks(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file, or of a pipe as they come. Raises UsageError."""
    with open_bytes(path) as file:
        while True:
            try:
                chunk = file.read1(READ_BYTES)
            except OSError as error:
                raise unreadable(path, error) from None
            if not chunk:
                return
            yield chunk


def characters(source: Iterable[bytes], name: str, errors: str, remedy: str) -> Iterator[str]:
    """Yield what chunks of UTF-8 spell, whole characters even where a chunk ends within one."""
    decoder = codecs.getincrementaldecoder('utf-8')(errors)
    offset = 0  # of what the decoder has not turned into text yet
    for chunk in itertools.chain(source, [b'']):
        held_back = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            bad = offset + error.start
            if not bad and error.object.startswith(UTF_16_MARKS):
                remedy = f'it begins as UTF-16 does; {CONVERT}'  # which U+FFFD in its place would not help
            raise EncodingError(f'{name} is not UTF-8 at byte {bad}; {remedy}', bad) from None
        offset += held_back + len(chunk) - len(decoder.getstate()[0])
        if text:
            yield text


def normal(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts, the pieces of one, without the mark at its start and with \\n for each \\r\\n."""
    start, held_back = True, ''
    for text in texts:
        if start:
            text, start = text.removeprefix(BYTE_ORDER_MARK), False
        text = held_back + text
        held_back = '\r' if text.endswith('\r') else ''  # a \n may follow
        text = text.removesuffix('\r').replace('\r\n', '\n')
        if text:
            yield text
    if held_back:
        yield held_back


def pieces(path: str, errors: str = 'strict', remedy: str = CONVERT) -> Iterator[str]:
    """Yield the text of a file in pieces, none empty; - is standard input.

    errors: 'strict' or 'replace'. Raises UsageError for a file that cannot be read and, where errors is strict,
    EncodingError for one that is not UTF-8: it names the file, the offset of the first such byte, and the remedy.
    """
    return normal(characters(chunks(path), path, errors, remedy))


def read_text(path: str, errors: str = 'strict', remedy: str = CONVERT) -> str:
    """The whole text of a file; else as pieces."""
    return ''.join(pieces(path, errors, remedy))


def lines(path: str, errors: str = 'strict', remedy: str = CONVERT) -> Iterator[str]:
    """Yield the lines of a file without their ends, each as soon as it has been read; else as pieces."""
    return split_lines(pieces(path, errors, remedy))


def text_of(content: bytes, name: str, errors: str = 'strict', remedy: str = CONVERT) -> str:
    """The text of a file's bytes; name says in an EncodingError whose they are."""
    return ''.join(normal(characters([content], name, errors, remedy)))


def split_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines of texts, the pieces of one. What follows the last \\n is a line unless it is empty."""
    parts = []  # of the line that is not whole yet
    for text in texts:
        first, *following = text.split('\n')
        parts.append(first)
        for line in following:
            yield ''.join(parts)
            parts = [line]
    if any(parts):
        yield ''.join(parts)


def printable(text: str) -> str:
    """text with U+FFFD for what no UTF-8 can hold, such as the bytes of a file name that is not UTF-8 (PEP 383)."""
    return LONE_SURROGATE.sub('\ufffd', text)


def one_line(text: str) -> str:
    """text on one line, its white space as single spaces, escaped. Messages may quote what strangers wrote in files."""
    return escaped(' '.join(text.split()))


def escaped(text: str) -> str:
    """text with escapes for what would steer a terminal instead of being seen there: control characters, also the ends
    of lines, and those that turn the direction of writing."""
    return STEERING.sub(lambda found: ascii(found.group())[1:-1], text)


def json_line(value: Any) -> str:
    """value as JSON on one line, letters as they are, printable. Characters that some readers take for the end of a
    line are escaped."""
    text = printable(json.dumps(value, ensure_ascii=False))
    return LINE_ENDS.sub(lambda found: f'\\u{ord(found.group()):04x}', text)


def json_text(value: Any) -> str:
    """value as indented JSON, letters as they are, printable."""
    return printable(json.dumps(value, ensure_ascii=False, indent=1)) + '\n'
