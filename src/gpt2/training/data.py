"""Finding files of training text, and reading the documents in them piece by piece. Imports no TensorFlow.

A file is, by the end of its name, plain text, JSON lines, CSV or Parquet, each also compressed by gzip or
Zstandard. What each of them holds is said in commands/train.py's help.
"""

import contextlib
import csv
import dataclasses
import glob
import gzip
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from gpt2 import token_files
from gpt2.checkpoints.folders import expand
from gpt2.encoder import END_OF_TEXT
from gpt2.errors import Error
from gpt2.system import text
from gpt2.system.files import check_file
from gpt2.system.zstandard_frames import decompressed

PACKED = ('.gz', '.zst')
SUFFIXES = ('.txt', '.jsonl', '.csv', '.parquet')  # of what is taken from a folder
PIECE = 2**20  # characters; a longer document is encoded piece by piece
FIELDS = ('text', 'prompt', 'completion', 'messages')  # of a record
LONGEST = 4 * PIECE  # of a piece in which there is no place to cut
# Before white space a text can be cut: no token reaches over that place.
CUT = re.compile(r'(?<=\S)(?=\s)')


class DatasetError(Error):
    """Training text that is missing, unreadable or too short."""


class Piece(NamedTuple):
    """Some text of a document. trained: whether its tokens are targets. ends: whether the document ends after it."""

    text: str
    trained: bool
    ends: bool


@dataclasses.dataclass(frozen=True)
class Reading:
    """How records are read. text_field: the field or column that is the text; None means those of the help.
    train_on_prompt: whether prompts are targets too."""

    text_field: str | None = None
    train_on_prompt: bool = False


def find_files(patterns: Iterable[str], suffixes: Iterable[str] = ()) -> list[str]:
    """Paths of all files that the patterns name, sorted, each once, also where links lead to it again.

    A pattern is a file, whatever its name; a folder: every file below it whose name ends in one of suffixes,
    by default SUFFIXES; or a glob. A token file, which is a folder, is one of its own. Raises DatasetError for a
    pattern that names no file.
    """
    wanted = tuple(suffixes) or SUFFIXES
    lower = tuple(suffix.lower() for suffix in wanted)
    found: list[str] = []
    for pattern in patterns:
        path = expand(pattern)
        path = './-' if path == '-' else path  # which else is standard input
        if os.path.isfile(path) or token_files.is_one(path):
            files = [path]
        elif os.path.isdir(path):
            files = [name for name in files_below(path) if unpacked(name)[0].endswith(lower)]
        else:
            files = [name for name in glob.glob(path, recursive=True) if not os.path.isdir(os.path.realpath(name))]
        if not files:
            listed = ', '.join(wanted)
            raise DatasetError(f'no text file at {pattern}; give a file, a folder holding {listed} files, or a glob')
        found += files
    once = {os.path.realpath(path): path for path in sorted(found, reverse=True)}
    return sorted(path for path in once.values() if token_files.is_one(path) or is_readable(path))


def is_readable(path: str) -> bool:
    """True. Raises DatasetError for what is no file of text, such as a link to nothing or a pipe."""
    try:
        check_file(path)
    except OSError as error:
        raise DatasetError(f'{path} cannot be read ({error.strerror}); mend it, or leave it out') from None
    return True


def files_below(folder: str) -> list[str]:
    return [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]


def unpacked(path: str) -> tuple[str, str]:
    """The name of a file in small letters, without the end that says how it is compressed, and that end or ''."""
    path = path.lower()
    return next(((path.removesuffix(end), end) for end in PACKED if path.endswith(end)), (path, ''))


def pieces(path: str, reading: Reading, raw: BinaryIO) -> Iterator[Piece]:
    """Yield the documents of a file, each as one or more pieces of some PIECE characters at most, unless white space is
    rarer. None is empty, but perhaps the one that ends a document. raw: the file, open for reading bytes, whose place
    says how far it has been read. Raises DatasetError, UsageError."""
    name, _ = unpacked(path)
    if name.endswith('.parquet'):
        return records(parquet_rows(path, raw, reading), reading)
    if name.endswith('.jsonl'):
        return records(json_rows(path, raw), reading)
    if name.endswith('.csv'):
        return records(csv_rows(path, raw), reading)
    return plain(text_of(path, raw))


def documents(path: str, reading: Reading) -> Iterator[str]:
    """Yield the whole text of each document of a file."""
    parts: list[str] = []
    with text.open_bytes(path) as raw:
        for piece in pieces(path, reading, raw):
            parts.append(piece.text)
            if piece.ends:
                yield ''.join(parts)
                parts = []


def plain(texts: Iterable[str]) -> Iterator[Piece]:
    """Yield the pieces of plain text, in which END_OF_TEXT divides documents. A document of white space alone is none.
    texts: the pieces of a file, of any sizes."""
    rest, begun = '', False
    for part in batches_of(texts, PIECE):
        *whole, rest = (rest + part).split(END_OF_TEXT)
        for document in whole:
            yield from last_piece(document, begun)
            begun = False
        if place := last_cut(rest):
            yield Piece(rest[:place], True, False)
            rest, begun = rest[place:], True
    yield from last_piece(rest, begun)


def last_cut(content: str) -> int:
    """The last place where a text can be cut; 0 for none. In megabytes without white space any place must do."""
    for start in (max(0, len(content) - 2**12), 0):
        if places := [match.start() for match in CUT.finditer(content, start)]:
            return places[-1]
    return len(content) - len(END_OF_TEXT) if len(content) > LONGEST else 0


def last_piece(document: str, begun: bool) -> Iterator[Piece]:
    if begun or document.strip():
        yield Piece(document, True, True)


def batches_of(texts: Iterable[str], size: int) -> Iterator[str]:
    """Yield texts joined until each is of so many characters or more, but the last."""
    parts, length = [], 0
    for part in texts:
        parts.append(part)
        length += len(part)
        if length >= size:
            yield ''.join(parts)
            parts, length = [], 0
    if parts:
        yield ''.join(parts)


def records(rows: Iterable[tuple[str, Any]], reading: Reading) -> Iterator[Piece]:
    """Yield the pieces of records: (where each is, for a message, and its fields)."""
    for where, row in rows:
        parts = [part for part in parts_of(row, reading, where) if part[0]]
        for place, (content, trained) in enumerate(parts, start=1):
            *cuts, last = cut(content)
            yield from (Piece(each, trained, False) for each in cuts)
            yield Piece(last, trained, place == len(parts))


def cut(content: str) -> Iterator[str]:
    """Yield a text in pieces that are encoded as the whole is."""
    start = 0
    while len(content) - start > PIECE and (place := CUT.search(content, start + PIECE)):
        yield content[start : place.start()]
        start = place.start()
    yield content[start:]


def parts_of(row: Any, reading: Reading, where: str) -> list[tuple[str, bool]]:
    """The text of one record, as (text, whether it is trained on) pairs. Raises DatasetError."""
    fields = row if isinstance(row, dict) else {}
    if reading.text_field is not None:
        return [(field(fields, reading.text_field, where), True)]
    if 'text' in fields:
        return [(field(fields, 'text', where), True)]
    if {'prompt', 'completion'} <= set(fields):
        return [
            (field(fields, 'prompt', where), reading.train_on_prompt), (field(fields, 'completion', where), True)
        ]  # fmt: skip
    if 'messages' in fields:
        return messages(fields['messages'], reading, where)
    raise DatasetError(f'{where} has no text, no prompt and completion, and no messages; name one with --text_field')


def field(fields: dict[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        found = f'is {type(value).__name__}, not text' if name in fields else 'is not there'
        raise DatasetError(f'{where}: the field {name} {found}; name another with --text_field, or mend the file')
    return value


def messages(turns: Any, reading: Reading, where: str) -> list[tuple[str, bool]]:
    """A conversation as text: `User: ...`, an empty line, `Assistant: ...`. The assistant's words are trained on."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DatasetError(f'{where}: messages is no list of objects with role and content; mend the file')
    parts = []
    for place, turn in enumerate(turns):
        role, content = field(turn, 'role', where), field(turn, 'content', where)
        parts.append((f'{chr(10) * 2 if place else ""}{role.capitalize()}:', reading.train_on_prompt))
        parts.append((f' {content}', reading.train_on_prompt or role.lower() == 'assistant'))
    return parts


def json_rows(path: str, raw: BinaryIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split_lines(text_of(path, raw)), start=1):
        if line.strip():
            where = f'{path}, line {number}'
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f'{where} is no JSON ({error}); mend or remove the line') from None


def csv_rows(path: str, raw: BinaryIO) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader((f'{line}\n' for line in text.split_lines(text_of(path, raw))), strict=True)
    try:
        for row in rows:
            yield f'{path}, line {rows.line_num}', row
    except csv.Error as error:
        raise DatasetError(f'{path}, line {rows.reader.line_num} is no CSV ({error}); mend the file') from None


def parquet_rows(path: str, raw: BinaryIO, reading: Reading) -> Iterator[tuple[str, Any]]:
    with contextlib.ExitStack() as stack:
        file = raw
        if unpacked(path)[1]:  # its table of contents is at its end
            file = stack.enter_context(tempfile.TemporaryFile())
            file.writelines(chunks(path, raw))
        number = 0
        for rows in parquet_batches(path, file, reading):
            for row in rows:
                number += 1
                yield f'{path}, row {number}', row


def parquet_batches(path: str, file: Any, reading: Reading) -> Iterator[list[dict[str, Any]]]:
    """Yield rows, of which only the columns that are read: others may hold what Python has no value for."""
    parquet = needed('pyarrow.parquet', path)
    from pyarrow import ArrowException

    wanted = FIELDS if reading.text_field is None else (reading.text_field,)
    try:
        table = parquet.ParquetFile(file)
        columns = [name for name in table.schema_arrow.names if name in wanted]
        if not columns:
            parts_of({}, reading, path)  # which says so
        for batch in table.iter_batches(batch_size=256, columns=columns):
            yield batch.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise DatasetError(f'{path} cannot be read ({error}); mend or leave out the file') from None


def needed(package: str, path: str) -> Any:
    """A package that only some files need. Raises DatasetError."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.partition('.')[0]
        raise DatasetError(f'{path} needs the {name} package; pip install {name}') from None


def text_of(path: str, raw: BinaryIO) -> Iterator[str]:
    """Yield the text of a file, compressed or not, in pieces, as system/text.py has it. Raises UsageError."""
    return text.normal(text.characters(chunks(path, raw), path, 'strict', text.CONVERT))


def chunks(path: str, raw: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a file, decompressed. Raises DatasetError."""
    _, end = unpacked(path)
    with named_errors(path):
        if end == '.zst':
            needed('zstandard', path)
            yield from decompressed(raw)
            return
        file = gzip.GzipFile(fileobj=raw) if end == '.gz' else raw
        while chunk := file.read(text.READ_BYTES):
            yield chunk


@contextlib.contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Context in which what goes wrong in decompressing names the file."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError | EOFError | zlib.error) and type(error).__name__ != 'ZstdError':
            raise
        raise DatasetError(f'{path} cannot be read ({error}); it is cut or damaged, so get it again') from None
