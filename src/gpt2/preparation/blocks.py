"""What the blocks of the pipeline share: reading a task's files, counting, and what was counted.

Every block that leaves documents out counts them as `dropped_<reason>`, as datatrove's filters do.
"""

import collections
import glob
import json
import os
from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers.jsonl import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter

from gpt2.system.files import make_folder, whole_file

DROPPED = 'dropped_'
# What datatrove's own blocks count under other names: an extractor, and filters that say no reason.
REASONS = {
    'timeout': 'extraction took too long', 'broken_process': 'extraction died', 'clean_error': 'extraction failed',
}  # fmt: skip
REMEDY = 'free space, or choose another --output'


def matching(patterns: tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    """The files that patterns name, sorted, each once: files and globs, and of folders those with a suffix."""
    found: set[str] = set()
    for pattern in patterns:
        if os.path.isdir(pattern):
            below = (os.path.join(root, name) for root, _, names in os.walk(pattern) for name in names)
            found.update(path for path in below if path.lower().endswith(suffixes))
        else:
            found.update(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
            found.update([pattern] if os.path.isfile(pattern) else [])
    return sorted(found)


class Reader(PipelineStep):
    """Reads files, of which a task has its share. A subclass has `items`, which yields a Document of each item or, in
    place of one, the reason why there is none."""

    type = 'reader'
    suffixes: tuple[str, ...] = ()

    def __init__(self, patterns: tuple[str, ...]) -> None:
        super().__init__()
        self.patterns = patterns

    def items(self, path: str) -> Iterator[Document | str]:
        raise NotImplementedError

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for path in matching(self.patterns, self.suffixes)[rank::world_size]:
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
