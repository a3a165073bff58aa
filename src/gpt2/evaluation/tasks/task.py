"""What a task is, and how its files are read."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gpt2.errors import UsageError
from gpt2.system.text import EncodingError, split_lines, text_of

Metrics = dict[str, float | None]  # None where a figure is no number
READING = 'a line of the file ends with \\n or \\r\\n, a byte-order mark at its start is no text'


class Source(NamedTuple):
    """Where a file is published: url is its stable address or, with a member, that of the archive it lies in;
    note says it in words where there is none."""

    url: str | None = None
    member: str | None = None
    sha256: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        return self.note or (f'{self.member} in {self.url}' if self.member else str(self.url))


@dataclasses.dataclass(frozen=True)
class Task:
    """One evaluation.

    title: its name as a paper prints it. files: from the names of its files in the data folder to the Source of
    each. recipe: how its examples become ids and its scores become metrics, for whoever would repeat it. read: a
    function from the files' paths to data, a sequence; raises UsageError. run: a function from a LanguageModel and
    the data to a dict of metrics. published: from metric to the paper's figure by model. requires: from packages
    it imports to what pip calls them. unit: the metric that counts what the others are over. item: what a
    limit counts, in the plural; item_size: how much of the data one is; shown: how many of the data are none but
    examples for the prompts. draws: tokens that are drawn after each prompt.
    """

    name: str
    title: str
    files: dict[str, Source]
    recipe: str
    read: Callable
    run: Callable
    published: dict
    requires: dict[str, str] = dataclasses.field(default_factory=dict)
    unit: str = 'words'
    item: str = 'lines'
    shown: int = 0
    item_size: int = 1
    draws: int = 0

    def first(self, data: Any, limit: int) -> Any:
        """Of the data what the first `limit` items need."""
        return data[: self.shown + limit * self.item_size]


def malformed(path: str, line: int, reason: str) -> UsageError:
    return UsageError(f'{path}, line {line}: {reason}; fetch the file again')


def read_bytes(path: str) -> bytes:
    """What a file holds, as it is: some sets count every byte. Raises UsageError for one that cannot be read or is
    empty."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}; fetch the file again') from None
    if not content:
        raise empty(path)
    return content


def empty(path: str) -> UsageError:
    return UsageError(f'{path} is empty; fetch the file again')


def read_lines(path: str) -> list[str]:
    """The lines of a file without their ends, as READING and system/text.py have it. Raises UsageError for none."""
    content = read_bytes(path)
    try:
        lines = list(split_lines([text_of(content, path)]))
    except EncodingError as error:
        line = content.count(b'\n', 0, error.offset) + 1
        start = content.rfind(b'\n', 0, error.offset) + 1
        raise malformed(path, line, f'not UTF-8 at byte {error.offset - start} of the line') from None
    if not lines:
        raise empty(path)
    return lines


def read_objects(path: str, **fields: type) -> list[dict]:
    """The JSON objects of a file of one a line; fields are the names and types that each must have."""
    objects = []
    for number, line in enumerate(read_lines(path), start=1):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise malformed(path, number, f'no JSON ({error})') from None
        for name, kind in fields.items():
            if not isinstance(found, dict) or not isinstance(found.get(name), kind):
                raise malformed(path, number, f'no object with a {kind.__name__} "{name}"')
        objects.append(found)
    return objects


def percentage(correct: Iterable) -> float:
    """Of an iterable of truth values, in per cent."""
    correct = list(correct)
    return 100 * sum(map(bool, correct)) / len(correct)
