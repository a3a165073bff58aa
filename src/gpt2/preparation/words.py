"""Dividing text into words and sentences for datatrove's blocks, whose own ways need spaCy."""

import re
from collections.abc import Iterator

from datatrove.utils.word_tokenizers import WordTokenizer, simple_span_tokenize

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
SENTENCE = re.compile(r'(?<=[.!?…])["”’)]*\s+|\n+')


class Words(WordTokenizer):
    """Words are runs of letters and digits, and each mark by itself. Sentences end with a mark or a line."""

    def word_tokenize(self, text: str) -> list[str]:
        return WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [part.strip() for part in SENTENCE.split(text) if part.strip()]

    def span_tokenize(self, text: str) -> Iterator[tuple[int, int]]:
        return simple_span_tokenize(text, self.sent_tokenize(text))
