"""What a task is, and how its files are read."""

import dataclasses
import json
from collections.abc import Callable
from typing import NamedTuple

from gpt2.errors import UsageError


class Source(NamedTuple):
    """Where a file is published: url is its stable address or, with a member, that of the archive it lies in;
    note says it in words where there is none."""

    url: str | None = None
    member: str | None = None
    sha256: str | None = None
    note: str | None = None

    def __str__(self):
        return self.note or (f'{self.member} in {self.url}' if self.member else self.url)


@dataclasses.dataclass(frozen=True)
class Task:
    """One evaluation.

    files: from the names of its files in the data folder to the Source of each. recipe: how
    its examples become ids and its scores become metrics, for whoever would repeat it. read: a function
    from the files' paths to data; raises UsageError. run: a function from a LanguageModel and
    the data to a dict of metrics. published: from metric to the paper's figure by model. requires:
    packages of requirements-evaluate.txt.
    """

    name: str
    files: dict
    recipe: str
    read: Callable
    run: Callable
    published: dict
    requires: tuple = ()


def malformed(path, line, reason):
    return UsageError(f'{path}, line {line}: {reason}; fetch the file again')


def read_bytes(path):
    """Raises UsageError for a file that cannot be read or is empty."""
    try:
        with open(path, 'rb') as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror}') from None
    if not content:
        raise UsageError(f'{path} is empty; fetch the file again')
    return content


def read_lines(path):
    """The lines of a UTF-8 file, which \\n alone divides, without it."""
    lines = read_bytes(path).split(b'\n')
    if not lines[-1]:
        lines.pop()
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.decode('utf-8'))
        except UnicodeDecodeError as error:
            raise malformed(path, number, f'not UTF-8 at byte {error.start} of the line') from None
    return texts


def read_objects(path, **fields):
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


def percentage(correct):
    """Of an iterable of truth values, in per cent."""
    correct = list(correct)
    return 100 * sum(map(bool, correct)) / len(correct)
