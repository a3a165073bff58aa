"""From pages to text, and which texts are kept: English, long enough and, where asked for, of some quality."""

import functools
import multiprocessing
import os
import threading
from typing import Any

import py3langid
from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter

from gpt2.encoder import Encoder, read_encoder
from gpt2.preparation.words import Words

LONGEST_EXTRACTION = 60.0  # seconds; what takes longer was made to
JUDGED = 5000  # characters by which a text's language is told
ENGLISH = 'en'


class Text(Trafilatura):
    """The main text of pages, by trafilatura, in a process of its own that may fail. Nothing depends on the pages
    before, so that any number of tasks gives the same."""

    name = 'no text'

    def __init__(self) -> None:
        super().__init__(timeout=LONGEST_EXTRACTION, deduplicate=False)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        import trafilatura  # noqa: F401  # before the process is forked, which then has it

        return super().run(data, rank, world_size)

    def extract(self, text: str) -> str:
        if not text:  # the first call
            end_with_parent(multiprocessing.parent_process())
            return ''
        return (super().extract(text) or '').encode('utf-8', 'replace').decode()  # no half of a pair


def end_with_parent(parent: Any) -> None:
    """Let this process, a child, end with its parent, should that be killed."""
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


class English(BaseFilter):
    """Keeps English, as py3langid's model has it, and counts languages as `language_<code>`."""

    name = 'language'

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        language, _ = py3langid.classify(doc.text[:JUDGED])
        self.stat_update(f'language_{language}')
        return language == ENGLISH or (False, 'not English')


class Length(BaseFilter):
    """Keeps documents of so many tokens or more. vocabulary: a folder."""

    name = 'length'

    def __init__(self, vocabulary: str, tokens: int) -> None:
        super().__init__()
        self.vocabulary, self.tokens = vocabulary, tokens

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        doc.metadata['tokens'] = len(encoder_of(self.vocabulary).encode(doc.text))
        return doc.metadata['tokens'] >= self.tokens or (False, 'too short')


@functools.cache
def encoder_of(folder: str) -> Encoder:
    """The vocabulary in a folder, read once a process."""
    return read_encoder(folder)


QUALITY = {
    'gopher': lambda words: [GopherRepetitionFilter(language=words), GopherQualityFilter(language=words)],
    'c4': lambda words: [C4QualityFilter(filter_no_terminal_punct=False, language=words)],
    'fineweb': lambda words: [FineWebQualityFilter(language=words)],
}  # by the names of those who published the rules; words: what divides text


def quality(names: tuple[str, ...]) -> list[BaseFilter]:
    """datatrove's filters of these names."""
    return [each for name in names for each in QUALITY[name](Words())]
