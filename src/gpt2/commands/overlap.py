"""How much of test sets a corpus has too, as the paper counts it."""

import json as json_format
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2.commands.flags import boolean, integer, number, print_utf8, reject_unknown, texts
from gpt2.errors import UsageError
from gpt2.preparation.ngrams import Bloom, ngram_hashes, overlap
from gpt2.system import progress
from gpt2.training.data import Reading, documents, find_files

HELP = """\
Print what part of the 8-grams of test sets a corpus has too (Radford et al. 2019, section 4, table 6), in per cent.

    python src/overlap.py wikitext.test.txt lambada.jsonl --corpus webtext/duplicates/documents --corpus train.txt

Each word is a test set: a file, a folder or a glob, of every kind that train.py reads. An n-gram is of words in lower
case, runs of letters and digits, and does not reach over documents. The corpus is kept as a Bloom filter, 4.8 bytes for
each n-gram at the default rate; it is read twice, first to count them.

--corpus FILE         a corpus, likewise; may be repeated, a line of the table each; needed
--n N                 words of an n-gram, at least 1. Default: 8
--rate X              of n-grams that the corpus does not have, at most this part is taken for its, above 0 and below 1.
                      Default: 1e-8
--text_field NAME     the field or column that is the text
--json                print an object a corpus: corpus, test_set, shared, n_grams
"""


def measure_overlap(
    *tests: str, corpus: list | None = None, n: Any = 8, rate: Any = 1e-8, text_field: str | None = None,
    json: bool = False, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    progress.show()
    n, json = integer('n', n, 1), boolean('json', json)
    rate = number('rate', rate, lambda value: 0 < value < 1, 'above 0 and below 1')
    if not tests or not texts(corpus):
        raise UsageError('give test sets, and --corpus; --help shows how')
    reading = Reading(text_field)
    sets = {test: find_files([test]) for test in map(str, tests)}
    corpora = {name: find_files([name]) for name in texts(corpus)}
    rows = []
    for name, paths in corpora.items():
        bloom = filled(paths, reading, n, rate)
        rows.append((name, {test: overlap(read(files, reading, test), bloom, n) for test, files in sets.items()}))
    print_utf8()
    print(as_objects(rows) if json else as_table(rows, list(sets), n))


measure_overlap.__doc__ = HELP


def read(paths: Sequence[str], reading: Reading, what: str) -> Iterator[str]:
    """Yield the documents of files, below a bar."""
    for path in progress.bar(paths, what, unit='file', delay=1):
        yield from documents(path, reading)


def filled(paths: Sequence[str], reading: Reading, n: int, rate: float) -> Bloom:
    """A filter that holds the n-grams of files."""
    count = sum(len(ngram_hashes(text, n)) for text in read(paths, reading, 'counting'))
    bloom = Bloom(max(1, count), rate)
    for text in read(paths, reading, 'filling'):
        bloom.add(ngram_hashes(text, n))
    return bloom


def as_table(rows: Sequence[tuple[str, dict[str, tuple[int, int]]]], sets: Sequence[str], n: int) -> str:
    heads = [f'{n}-grams also in', *sets]
    lines = [heads, ['---', *['---:'] * len(sets)]]
    lines += [[name, *(percent(*found[test]) for test in sets)] for name, found in rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def percent(shared: int, whole: int) -> str:
    return f'{100 * shared / whole:.2f} %' if whole else '–'


def as_objects(rows: Sequence[tuple[str, dict[str, tuple[int, int]]]]) -> str:
    return '\n'.join(
        json_format.dumps({'corpus': name, 'test_set': test, 'shared': shared, 'n_grams': whole})
        for name, found in rows
        for test, (shared, whole) in found.items()
    )
