"""Text of any length to token ids in bounded memory. Imports no TensorFlow.

The pieces that a file is read in (see system/text.py) are encoded one after the other, and the ids are those of
the whole text at once: a text is cut only where no pre-token (see encoder.PRETOKEN) can reach across.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator

import regex

from gpt2.encoder import Encoder, utf8

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

    def add(self, text: str, skipped: int = 0) -> None:
        """Count text but for its first `skipped` bytes. A word or character that they end within counts as a word."""
        encoded = utf8(text)
        self.bytes += len(encoded) - skipped
        text = text[len(encoded[:skipped].decode('utf-8', 'ignore')) :]
        if text:
            self.words += len(text.split()) - (self.within_word and not text[0].isspace())
            self.within_word = not text[-1].isspace()


def whole_pretokens(texts: Iterable[str]) -> Generator[str, None, None]:
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


def encode_stream(
    encoder: Encoder, texts: Iterable[str], measure: Measure, all_measured: bool = True
) -> Iterator[int]:
    """Yield the token ids of texts, an iterable of pieces of one text; measure grows with what was read.

    all_measured: whether the first token counts, or the text after it alone.
    """
    with contextlib.closing(whole_pretokens(texts)) as pieces:
        for piece in pieces:
            ids = encoder.encode(piece)
            measure.add(piece, 0 if all_measured else len(encoder.decode_bytes(ids[:1])))
            all_measured = True
            yield from ids
