"""Text of any length to token ids in bounded memory. Imports no TensorFlow.

A file is decoded and encoded piece by piece, and the ids are those of the whole text at once: a
piece ends only where no pre-token (see encoder.PRETOKEN) can reach across.
"""

import codecs
import contextlib
import dataclasses

import regex

from gpt2.encoder import utf8
from gpt2.errors import UsageError

READ_BYTES = 2**14
# No pre-token goes on from a letter to what is no letter, from a digit to what is no digit, or from
# any other mark to white space. The text before such a place ends in no white space, whose division
# alone depends on what follows, and nothing in the pattern looks back: each side is split as in the
# whole.
CUT = regex.compile(r'(?r)\p{L}(?=\P{L})|\p{N}(?=\P{N})|[^\s\p{L}\p{N}](?=\s)')


@dataclasses.dataclass
class Measure:
    """Size of a text so far: UTF-8 bytes, and words, which are what white space divides."""

    bytes: int = 0
    words: int = 0
    within_word: bool = False

    def add(self, text):
        self.bytes += len(utf8(text))
        self.words += len(text.split()) - (self.within_word and not text[0].isspace())
        self.within_word = not text[-1].isspace()


def open_bytes(path):
    """Binary file at path; - is standard input. Raises UsageError."""
    try:
        return open(0 if path == '-' else path, 'rb', closefd=path != '-')
    except (OSError, ValueError) as error:
        raise UsageError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}') from None


def decoded(path, errors):
    """Yield the text of a UTF-8 file in pieces.

    errors: 'strict' or 'replace', a codec error handler. Raises UsageError for a file that cannot be
    read and, where errors is strict, for one that is not UTF-8, with the offset of the first such byte.
    """
    decoder = codecs.getincrementaldecoder('utf-8')(errors)
    offset = 0  # of what the decoder has not turned into text yet
    with open_bytes(path) as file:
        while True:
            try:
                chunk = file.read(READ_BYTES)
            except OSError as error:
                raise UsageError(f'{path} cannot be read: {error.strerror}') from None
            held_back = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise UsageError(
                    f'{path} is not UTF-8 at byte {offset + error.start}; convert it, or give --errors replace'
                ) from None
            offset += held_back + len(chunk) - len(decoder.getstate()[0])
            if text:
                yield text
            if not chunk:
                return


def whole_pretokens(texts):
    """Regroup an iterable of texts, without changing what they are together, so that none but the
    last ends within a pre-token."""
    rest = ''
    for text in texts:
        searched = max(0, len(rest) - 1)
        rest += text
        if found := CUT.search(rest, searched):
            yield rest[: found.end()]
            rest = rest[found.end() :]
    if rest:
        yield rest


def encode_stream(encoder, texts, measure):
    """Yield the token ids of texts, an iterable of pieces of one text; measure grows with what was read."""
    with contextlib.closing(whole_pretokens(texts)) as pieces:
        for piece in pieces:
            measure.add(piece)
            yield from encoder.encode(piece)
