"""Activations in files of arrays: .npz, as NumPy reads them, and .safetensors. Written whole, in bounded memory."""

import contextlib
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import numpy as np

from gpt2.errors import UsageError
from gpt2.inspection.activations import NewArray
from gpt2.system.files import WriteError, check_replaceable, check_space, whole_file

CODES = {'float32': 'F32', 'int32': 'I32'}  # of safetensors
REMEDY = 'free space, or name another file'


def check_path(path: str) -> str:
    """path, if its end names a form. Raises UsageError."""
    if not path.endswith(('.npz', '.safetensors')):
        raise UsageError(f'{path or repr(path)} is no name of a file of arrays; end it with .npz or .safetensors')
    return path


@contextlib.contextmanager
def array_file(path: str, metadata: Mapping[str, str]) -> Iterator[NewArray]:
    """A function that makes arrays, for a context at whose end they are the content of a file.

    Until then they lie on the disk beside it, where they are filled, so that both need the room for a while. metadata:
    texts by name, which a safetensors file takes along.
    """
    check_path(path)
    check_replaceable(path, REMEDY)
    with beside(path) as folder:
        arrays: dict[str, np.memmap] = {}

        def new_array(name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            # This one, and the file, in which those before it come once more.
            check_space(os.path.dirname(path) or '.', 2 * size + sum(array.nbytes for array in arrays.values()), REMEDY)
            place = os.path.join(folder, f'{len(arrays)}.npy')
            try:
                arrays[name] = np.lib.format.open_memmap(place, 'w+', dtype, tuple(shape))
                reserve(place)
            except OSError as error:
                raise WriteError(f'{path} cannot be written ({error.strerror or error}); {REMEDY}') from None
            return arrays[name]

        yield new_array
        with whole_file(path, 'wb', REMEDY) as file:
            (write_npz if path.endswith('.npz') else write_safetensors)(file, arrays, metadata)


def reserve(path: str) -> None:
    """Take the room of a file on the disk. Raises OSError where there is none: a mapped file that finds none when it is
    filled ends the process (SIGBUS)."""
    if hasattr(os, 'posix_fallocate'):
        with open(path, 'r+b') as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))


def beside(path: str) -> tempfile.TemporaryDirectory:
    """A new folder beside a file, which goes with its context. Raises WriteError."""
    try:
        # A system that holds mapped files for a moment longer than us shall not fail a file that is whole.
        where = os.path.dirname(path) or '.'
        return tempfile.TemporaryDirectory(prefix='.activations-', dir=where, ignore_cleanup_errors=True)
    except OSError as error:
        raise WriteError(f'{path} cannot be written ({error.strerror}); {REMEDY}') from None


def write_npz(file: IO[bytes], arrays: Mapping[str, np.memmap], metadata: Mapping[str, str]) -> None:
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            array.flush()
            archive.write(str(array.filename), f'{name}.npy')


def write_safetensors(file: IO[bytes], arrays: Mapping[str, np.memmap], metadata: Mapping[str, str]) -> None:
    header: dict = {'__metadata__': dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {'dtype': CODES[str(array.dtype)], 'shape': list(array.shape), 'data_offsets': [start, end]}
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    file.write(struct.pack('<Q', len(text)) + text)
    for array in arrays.values():
        file.write(array.data)
