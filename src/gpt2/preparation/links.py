"""Links that people voted for, out of Reddit's submissions (Radford et al. 2019, section 2.1)."""

import contextlib
import gzip
import html
import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import zstandard
from datatrove.data import Document

from gpt2.preparation.addresses import domain_of, normal, refusal
from gpt2.preparation.blocks import Reader
from gpt2.system.zstandard_frames import Decompressed

LONGEST_LINE = 2**24  # bytes
LARGEST_SCORE = 2**63 - 1  # that JSON is written with here
DAMAGED = 'damaged file'


class Submissions(Reader):
    """Reads submissions, a JSON object a line, perhaps compressed: `url`, `score`, `created_utc`.

    score: the lowest that counts. before: seconds since 1970. blocked: domains that are left out.
    """

    name = 'submissions'
    suffixes = ('.jsonl', '.ndjson', '.zst', '.gz')

    def __init__(self, files: Sequence[str], score: int, before: float, blocked: frozenset[str]) -> None:
        super().__init__(files)
        self.score, self.before, self.blocked = score, before, blocked

    def raw(self, path: str) -> Iterator[bytes | str]:
        return lines(path)

    def item(self, line: bytes | str) -> Document | str:
        if isinstance(line, str):
            return line
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            return 'no JSON'
        try:
            address = html.unescape(fields['url'])  # as the dumps have it
            score, created = int(fields['score']), float(fields['created_utc'])
        except (KeyError, TypeError, ValueError, OverflowError):
            return 'no link'
        if not isinstance(address, str) or abs(score) > LARGEST_SCORE or not math.isfinite(created):
            return 'no link'
        return self.link(address, score, created)

    def link(self, address: str, score: int, created: float) -> Document | str:
        if score < self.score:
            return 'score too low'
        if created >= self.before:
            return 'too late'
        if (found := normal(address)) is None:
            return 'no web address'
        if reason := refusal(found, self.blocked):
            return reason
        return Document(found, found, metadata={'domain': domain_of(found), 'score': score, 'created': created})


def lines(path: str) -> Iterator[bytes | str]:
    """Yield the lines of a file; in place of one that is too long, and of what is damaged, the reason."""
    with open(path, 'rb') as raw, unpacked(raw, path) as file:
        try:
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE and not line.endswith(b'\n'):
                    while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b'\n'):
                        pass
                    yield 'line too long'
                elif line.strip():
                    yield line
        except (OSError, EOFError, zlib.error, zstandard.ZstdError):
            yield DAMAGED


@contextlib.contextmanager
def unpacked(raw: BinaryIO, path: str) -> Iterator[Any]:
    """Context with the bytes that a file has been compressed from."""
    if path.endswith('.zst'):
        yield io.BufferedReader(Decompressed(raw))
    elif path.endswith('.gz'):
        yield gzip.GzipFile(fileobj=raw)
    else:
        yield raw
