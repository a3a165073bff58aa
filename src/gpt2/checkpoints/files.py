"""The files of a checkpoint, and which of a folder's is current. Imports no TensorFlow.

A checkpoint is a prefix: `<prefix>.index` names every variable, `<prefix>.data-00000-of-00001`
holds the values, `<prefix>.meta` an exported graph. The folder's state file `checkpoint` names
the current prefix.
"""

import hashlib
import ntpath
import os
import re

from gpt2.errors import Error
from gpt2.system.files import read_small, whole_file

STATE_FILE = 'checkpoint'
RELEASED_PREFIX = 'model.ckpt'
INDEX_SUFFIX = '.index'
DATA_SUFFIX = '.data-00000-of-00001'
OPTIMIZER_SUFFIX = '.optimizer'
# How C, and so TensorFlow, writes the bytes of a text that are not plain letters.
ESCAPE = re.compile(rb'\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))', re.DOTALL)
ESCAPED = {b'n': b'\n', b'r': b'\r', b't': b'\t', b'a': b'\a', b'b': b'\b', b'f': b'\f', b'v': b'\v'}


class CheckpointError(Error):
    """A checkpoint that is missing, damaged or not of the model its hparams.json describes."""


def find_prefix(path: str) -> str:
    """The checkpoint prefix that path means: a model folder, or a prefix itself.

    In a folder the state file decides (only the last component of the path in it counts: a checkpoint
    that was copied from elsewhere may name a folder of that machine); without one, a lone .index
    file does. Raises CheckpointError.
    """
    if not os.path.isdir(path):
        if is_prefix(path):
            return path
        raise CheckpointError(f'{path} is neither a model folder nor the prefix of a checkpoint')
    state = os.path.join(path, STATE_FILE)
    if not os.path.lexists(state):
        return lone_prefix(path)
    prefixes = [os.path.join(path, name) for name in read_state_file(state)]
    for prefix in prefixes:
        if is_prefix(prefix):
            return prefix
    raise CheckpointError(
        f'{prefixes[0]}.index is not there, which {state} names; '
        'download the model again, or name a checkpoint by its path without .index'
    )


def is_prefix(path: str) -> bool:
    return os.path.isfile(path + INDEX_SUFFIX)


def read_state_file(state: str) -> list[str]:
    """The file names that a state file may mean by the path it names, likeliest first.

    Which system wrote it is not said, and a backslash can divide folders or belong to a name, and be
    escaped, as TensorFlow does, or not, as people and other programs do.
    """
    try:
        content = read_small(state)
    except OSError as error:
        raise CheckpointError(f'{state} cannot be read ({error.strerror}); download the model again') from None
    names = []
    if match := re.search(rb'^(?:\xef\xbb\xbf)?\s*model_checkpoint_path:\s*(["\'])(.+)\1', content, re.MULTILINE):
        named, escaped = os.fsdecode(unescaped(match[2])), os.fsdecode(match[2])
        names = [os.path.basename(named), ntpath.basename(named), ntpath.basename(escaped)]
    if not any(names):
        raise CheckpointError(f'{state} has no line `model_checkpoint_path: "..."`; download the model again')
    return [name for name in names if name]


def unescaped(text: bytes) -> bytes:
    """A text without the escapes of C."""

    def byte(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, character = match.groups()
        if character:
            return ESCAPED.get(character, character)
        return bytes([int(octal, 8) % 256 if octal else int(hexadecimal, 16)])

    return ESCAPE.sub(byte, text)


def lone_prefix(folder: str) -> str:
    """The prefix of the only checkpoint in a folder that has no state file."""
    prefixes = prefixes_in(folder)
    if len(prefixes) != 1:
        raise CheckpointError(
            f'{folder} has no state file `{STATE_FILE}` and {len(prefixes)} .index files; '
            + (f'name one checkpoint by its path, such as {prefixes[0]}' if prefixes else 'download the model again')
        )
    return prefixes[0]


def prefixes_in(folder: str) -> list[str]:
    """Prefixes of the checkpoints in a folder, in order; none where there is no folder. Raises CheckpointError."""
    if not os.path.isdir(folder):
        return []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CheckpointError(f'{folder} cannot be read ({error.strerror}); choose another') from None
    prefixes = [os.path.join(folder, name.removesuffix(INDEX_SUFFIX)) for name in names if name.endswith(INDEX_SUFFIX)]
    return [prefix for prefix in prefixes if not prefix.endswith(OPTIMIZER_SUFFIX)]


def files_of(prefix: str) -> list[str]:
    """Paths of the files of a checkpoint and of the optimizer beside it, whole or cut short."""
    folder, name = os.path.split(prefix)
    suffix = re.compile(r'(\.optimizer)?\.(index|meta|data-)')
    try:
        names = os.listdir(folder or '.')
    except OSError:
        return []
    return [os.path.join(folder, other) for other in sorted(names)
            if other.startswith(name) and suffix.match(other.removeprefix(name))]  # fmt: skip


def index_digest(prefix: str) -> str:
    """SHA-256, in hexadecimal, of a checkpoint's index, which holds shape, place and checksum of every variable."""
    try:
        return hashlib.sha256(read_small(prefix + INDEX_SUFFIX)).hexdigest()
    except OSError as error:
        raise CheckpointError(f'{prefix}.index cannot be read ({error.strerror}); download the model again') from None


def write_state_file(state: str, prefix_name: str) -> None:
    with whole_file(state) as file:
        for field in ('model_checkpoint_path', 'all_model_checkpoint_paths'):
            file.write(f'{field}: "{prefix_name}"\n')
