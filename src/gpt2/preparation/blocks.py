"""What the blocks of the pipeline share: reading a task's files, counting, and what was counted.

Every block that leaves documents out counts them as `dropped_<reason>`, as datatrove's filters do.
"""

import collections
import glob
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers.jsonl import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter

from gpt2.errors import Error
from gpt2.system.files import check_file, make_folder, whole_file

DROPPED = 'dropped_'
# What datatrove's own blocks count under other names: an extractor, and filters that say no reason.
REASONS = {
    'timeout': 'extraction took too long', 'broken_process': 'extraction died', 'clean_error': 'extraction failed',
}  # fmt: skip
REMEDY = 'free space, or choose another --output'


def matching(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    """The files that a pattern names: a file, a glob, or a folder, of which those with a suffix."""
    if os.path.isdir(pattern):
        below = (os.path.join(root, name) for root, _, names in os.walk(pattern) for name in names)
        return [path for path in below if path.lower().endswith(suffixes)]
    if os.path.isfile(pattern):
        return [pattern]
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]


def unexpected(error: Exception) -> str:
    """The reason why one item is left out over an error that no rule foresees. Raises those that are of no item: of
    the disk, of memory, of the user."""
    if isinstance(error, OSError | MemoryError | Error):
        raise error
    return f'unexpected content ({type(error).__name__})'


class Reader(PipelineStep):
    """Reads files, of which a task has its share. A subclass has `raw`, which yields what a file holds, one after
    another, and `item`, which makes of each a Document, the reason why there is none, or None for what does not count.
    """

    type = 'reader'
    suffixes: tuple[str, ...] = ()

    def __init__(self, files: Sequence[str]) -> None:
        super().__init__()
        self.files = files

    def raw(self, path: str) -> Iterator[Any]:
        raise NotImplementedError

    def item(self, raw: Any) -> Document | str | None:
        raise NotImplementedError

    def items(self, path: str) -> Iterator[Document | str]:
        try:
            check_file(path)
        except OSError:
            yield 'unreadable file'
            return
        for each in self.raw(path):
            try:
                found = self.item(each)
            except Exception as error:
                found = unexpected(error)
            if found is not None:
                yield found

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for path in self.files[rank::world_size]:
            yield from self.counted(self.items(path))

    def counted(self, items: Iterator[Document | str]) -> Iterator[Document]:
        """Yield the Documents; count them and the reasons."""
        for item in items:
            self.stat_update('total')
            if isinstance(item, str):
                self.stat_update(f'{DROPPED}{item}')
            else:
                self.stat_update('forwarded')
                yield item


class Documents(JsonlReader):
    """Reads what an earlier stage has written, which may be nothing."""

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if self.data_folder.list_files():
            yield from super().run(data, rank, world_size)


def writer(folder: str) -> JsonlWriter:
    return JsonlWriter(folder, '${rank}.jsonl.gz')


class Survey(PipelineStep):
    """Counts what a stage lets through: documents, bytes, their lengths and domains; into a file a task."""

    type = name = 'survey'

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        found = {'documents': 0, 'bytes': 0}
        lengths: collections.Counter[str] = collections.Counter()
        domains: collections.Counter[str] = collections.Counter()
        for document in data:
            size = len(document.text.encode('utf-8', 'replace'))
            found['documents'] += 1
            found['bytes'] += size
            lengths[str(size.bit_length())] += 1
            domains[document.metadata.get('domain', '')] += 1
            yield document
        make_folder(self.folder, REMEDY)
        with whole_file(os.path.join(self.folder, f'{rank:05d}.json'), remedy=REMEDY) as file:
            json.dump(found | {'lengths': lengths, 'domains': domains}, file)


def surveyed(folder: str) -> dict[str, Any]:
    """The sum of what Survey has written: documents, bytes, lengths {bits of a size in bytes: documents}, domains."""
    lengths: collections.Counter[str] = collections.Counter()
    domains: collections.Counter[str] = collections.Counter()
    documents = size = 0
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.json'))):
        with open(path, encoding='utf-8') as file:
            part = json.load(file)
        documents, size = documents + part['documents'], size + part['bytes']
        lengths.update(part['lengths'])
        domains.update(part['domains'])
    return {'documents': documents, 'bytes': size, 'lengths': dict(lengths), 'domains': dict(domains)}


def statistics(folder: str) -> dict[str, dict[str, int]]:
    """What the blocks of a step counted, from datatrove's files of all its tasks: {block: {label: total}}."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'stats', '*.json'))):
        with open(path, encoding='utf-8') as file:
            blocks = json.load(file)
        for block in blocks:
            totals = found.setdefault(block['name'].partition(': ')[2], {})
            for label, value in block['stats'].items():
                totals[label] = totals.get(label, 0) + int(value['total'] if isinstance(value, dict) else value)
    return found


def skipped(blocks: dict[str, dict[str, int]]) -> dict[str, int]:
    """{reason: documents} of what statistics() found. A filter that gives none is a reason by its name."""
    found: collections.Counter[str] = collections.Counter()
    for name, totals in blocks.items():
        reasons = {label.removeprefix(DROPPED): count for label, count in totals.items() if label.startswith(DROPPED)}
        if (rest := totals.get('dropped', 0) - sum(reasons.values())) > 0:
            reasons[name] = rest
        found.update(reasons | {reason: totals[label] for label, reason in REASONS.items() if label in totals})
    return dict(found)
