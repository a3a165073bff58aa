"""From any format that is read to any that is written: whole or not at all, one tensor in memory at a time."""

import contextlib
import dataclasses
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from gpt2.checkpoints.dtypes import FLOATS, rounded
from gpt2.checkpoints.source import Source, combined_digest, value_digest
from gpt2.encoder import END_OF_TEXT, KEPT_ROLES, Encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import parameter_count
from gpt2.system import progress
from gpt2.system.files import WriteError, check_space, new_folder
from gpt2.system.locks import locked

# Each format's module has write(destination, source, dtype), which makes a new folder or file, and DTYPES.
WRITERS = {
    'release': 'gpt2.checkpoints.bundle',
    'huggingface': 'gpt2.checkpoints.huggingface',
    'gguf': 'gpt2.checkpoints.gguf',
    'saved_model': 'gpt2.checkpoints.saved_model',
}
# Of each format that does not hold all that is known of added tokens: the roles that it holds.
KEPT = {'release': KEPT_ROLES, 'gguf': ('bos_token', 'unk_token', 'pad_token')}
MATCHING = {'lstrip', 'rstrip', 'single_word'}
BYTES = {'float32': 4, 'float16': 2, 'bfloat16': 2, 'q8_0': 1}  # a weight takes at least
REMEDY = 'free space, or choose another destination'
WAITING = 'another process writes it; waiting for it to end'


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was done.

    digest: of the weights as they were written, the same in every format; for q8_0 of the float32 values that were
    rounded. notices: what the format cannot hold of the vocabulary, a sentence each.
    """

    source: Source
    destination: str
    dtype: str
    digest: str
    notices: tuple[str, ...] = ()


def convert(source: Source, destination: str, to: str, dtype: str = 'float32') -> Conversion:
    """Write source to destination, where nothing may be yet, in a format of WRITERS.

    dtype: one of the format's DTYPES. Raises UsageError, Error; then nothing is at destination.
    """
    writer = importlib.import_module(WRITERS[to])
    if dtype not in writer.DTYPES:
        raise UsageError(f'--dtype is {dtype!r}, and --to {to} holds {" or ".join(writer.DTYPES)}')
    digests: dict[str, str] = {}
    with (
        new_at(destination, BYTES[dtype] * parameter_count(source.hparams)) as part,
        progress.bar(desc='converting', total=len(source.shapes), unit='variable', delay=1) as bar,
    ):
        writer.write(part, watched(source, dtype, digests, bar), dtype)
    return Conversion(source, destination, dtype, combined_digest(digests), tuple(losses(source.encoder, to)))


def losses(encoder: Encoder | None, to: str) -> Iterator[str]:
    """Yield what a format does not hold of a vocabulary, a sentence each."""
    if encoder is None or to not in KEPT:
        return
    for text, flags in encoder.flags.items():
        if lost := sorted(flags & MATCHING):
            yield f'{" and ".join(lost)} of {text!r} is lost: there the token matches as it stands'
    kept = {encoder.added[text] for role, text in encoder.roles.items() if role in KEPT[to]} | set(encoder.end_ids)
    for text, flags in encoder.flags.items() if to == 'release' else ():
        if 'special' in flags and encoder.added[text] not in kept and text != END_OF_TEXT:
            yield f'{text!r} is a special token no longer: programs that leave those out when they decode show it'
    end = encoder.end_ids[0] if encoder.end_ids else None
    for role, text in encoder.roles.items():
        if role not in KEPT[to] and encoder.added[text] != end:
            yield f'{role} {text!r} is lost as such; the token stays'
    if to == 'gguf':
        others = [text for text, index in encoder.added.items() if index in encoder.end_ids[1:]]
        yield from (f'{text!r} is lost as an end token; the token stays' for text in others)


def watched(source: Source, dtype: str, digests: dict[str, str], bar: tqdm) -> Source:
    """source, its values those that dtype can hold, of which each leaves its digest and moves the bar on."""
    stored_as = dtype if dtype in FLOATS else 'float32'  # other dtypes are the writer's affair

    def read(name: str) -> np.ndarray:
        try:
            value = rounded(source.value(name), stored_as)
        except Error as error:
            raise type(error)(f'{source.path}: {name}: {error}') from None
        bar.update(name not in digests)
        digests[name] = value_digest(value)
        return value

    return dataclasses.replace(source, read=read)


@contextlib.contextmanager
def new_at(destination: str, size: int) -> Iterator[str]:
    """A path to write a file or a folder at, which becomes destination when the context ends without an error.

    size: bytes that it takes at least. Raises UsageError where something is there already, WriteError
    where it cannot be written.
    """
    if not destination:
        raise UsageError("the destination is '', expected a path")
    destination = os.path.abspath(destination)
    check_free(destination)
    folder, name = os.path.split(destination)
    try:
        with (
            new_folder(folder, REMEDY),
            locked(os.path.join(folder, f'.{name}'), lambda: progress.note(f'{destination}: {WAITING}')),
            new_place(folder, name) as place,
        ):
            check_free(destination)  # another process may have been waited for
            check_space(folder, size, REMEDY)
            part = os.path.join(place, name)
            yield part
            if os.path.lexists(destination):
                raise UsageError(f'{destination} came to be in the meantime; choose another destination')
            os.rename(part, destination)
    except OSError as error:
        if error.errno is None:
            raise
        raise WriteError(f'{destination} cannot be written ({error.strerror}); {REMEDY}') from None


def check_free(destination: str) -> None:
    if os.path.lexists(destination):
        raise UsageError(f'{destination} is there already; choose another destination, or remove it')


def new_place(folder: str, name: str) -> tempfile.TemporaryDirectory:
    """A new folder in folder to write name in. Others that a killed process left are removed; whoever calls this must
    hold the lock, which keeps those of a living one from being here."""
    ours = re.compile(rf'\.{re.escape(name)}\.[a-z0-9_]{{8}}\.part')
    for left in filter(ours.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, left)
        if os.path.isdir(path) and not os.path.islink(path) and set(os.listdir(path)) <= {name}:
            shutil.rmtree(path)
    return tempfile.TemporaryDirectory(prefix=f'.{name}.', suffix='.part', dir=folder)
