"""Token files: documents encoded once, on disk, and read from there by memory map. Imports no TensorFlow.

A token file is a folder: `ids`, the ids of all documents one after another, each followed by the end-of-text
id, as little-endian uint16, or uint32 for more than 65,536 tokens; `ends`, int64, where each document
ends; `trained`, one byte an id, whether it is a target, unless all are; `about.json`, which is written last.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.system.files import make_folder, whole_file

ABOUT, IDS, ENDS, TRAINED = 'about.json', 'ids', 'ends', 'trained'
CHUNK = 2**20  # values that are read at once
VOCABULARY = 'vocabulary'  # in about.json of a token file that is not a training run's own


@dataclasses.dataclass(frozen=True)
class Tokens:
    """ids: uint16 or uint32 [count]. ends: int64 [documents], the place after each document's end-of-text id.
    trained: bool [count], or None where every id is a target. digest: CRC-32 of ids and of trained. path: of the token
    file."""

    ids: np.ndarray
    ends: np.ndarray
    trained: np.ndarray | None
    digest: list[int]
    path: str = ''


def read(path: str) -> Tokens | None:
    """A token file by memory map; None if it is not there or not whole."""
    try:
        about = read_about(path)
        parts = {name: mapped(os.path.join(path, name), *form) for name, form in about['files'].items()}
        digest = [int(crc) for crc in about['digest']]
        return Tokens(parts[IDS], np.array(parts[ENDS]), parts.get(TRAINED), digest, path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def is_intact(tokens: Tokens) -> bool:
    """Whether a token file holds what its digest says. It is read whole."""
    parts = [tokens.ids, *([] if tokens.trained is None else [tokens.trained])]
    sizes = np.diff(tokens.ends, prepend=0)
    return [crc32(part) for part in parts] == tokens.digest[: len(parts)] and bool((sizes > 0).all())


def crc32(values: np.ndarray) -> int:
    crc = 0
    for start in range(0, len(values), CHUNK):
        crc = zlib.crc32(values[start : start + CHUNK], crc)
    return crc


def is_one(path: str) -> bool:
    """Whether a path is that of a token file."""
    return all(os.path.isfile(os.path.join(path, name)) for name in (ABOUT, IDS, ENDS))


def read_about(path: str) -> dict[str, Any]:
    """What about.json says. Raises OSError, ValueError."""
    with open(os.path.join(path, ABOUT), encoding='utf-8') as file:
        return json.load(file)


def mapped(path: str, dtype: str, count: int) -> np.ndarray:
    """An array of so many numbers. Raises ValueError for a file of another size."""
    if os.path.getsize(path) != count * np.dtype(dtype).itemsize:
        raise ValueError(path)
    return np.memmap(path, dtype, 'r', shape=(count,)) if count else np.empty(0, dtype)


@contextlib.contextmanager
def made(path: str, remedy: str) -> Iterator[str]:
    """Context with a folder that gets its name, path, when the context ends; of which an error leaves nothing.
    remedy: what a user can do where no folder can be made."""
    part = f'{path}.part'
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part, remedy)
    try:
        yield part
        if os.path.islink(path) or os.path.isfile(path):
            os.remove(path)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_about(folder: str, files: Mapping[str, Sequence[Any]], digest: Sequence[int], **more: Any) -> None:
    """Say what lies in a token file: {file: (dtype, count)}, and the digest of Tokens."""
    with whole_file(os.path.join(folder, ABOUT)) as file:
        json.dump({'files': files, 'digest': digest, **more}, file)


def dtype_for(encoder: Encoder) -> np.dtype:
    """Of the ids of a vocabulary."""
    return np.dtype('<u2' if len(encoder) <= 2**16 else '<u4')


def vocabulary_parts(encoder: Encoder) -> list[Any]:
    """What of a vocabulary decides which ids a text has."""
    parts: list[Any] = [list(encoder.encoder.items()), list(encoder.added.items()), encoder.end_of_text]
    matching = sorted((text, sorted(flags - {'special'})) for text, flags in encoder.flags.items())
    return parts + ([matching] if any(flags for _, flags in matching) else [])


def vocabulary_digest(encoder: Encoder) -> str:
    """16 hexadecimal digits that tell one vocabulary from another."""
    whole = repr(vocabulary_parts(encoder)).encode('utf-8', 'surrogatepass')
    return hashlib.sha256(whole).hexdigest()[:16]
