"""The release's layout without TensorFlow: its checkpoints read and written, one tensor in memory at a time.

A V2 checkpoint is a table (see table.py) from the names of its variables to where each lies in the
data file, with its shape and checksum, as a protocol buffer; the empty name says how many data files
there are.
"""

import dataclasses
import functools
import math
import os
import struct
from collections.abc import Iterable, Iterator

import google_crc32c
import numpy as np

from gpt2.checkpoints.files import (
    DATA_SUFFIX,
    RELEASED_PREFIX,
    STATE_FILE,
    CheckpointError,
    find_prefix,
    index_digest,
    write_state_file,
)
from gpt2.checkpoints.source import Source, check_layers
from gpt2.checkpoints.table import TableError, mask, read_table, read_varint, varint, write_table
from gpt2.encoder import Encoder, read_encoder, write_encoder
from gpt2.hparams import HParams, HParamsError, load_hparams, save_hparams, variable_shapes
from gpt2.system.files import check_file, make_folder, read_small

DTYPES = ('float32',)
FLOAT32 = 1  # among TensorFlow's dtypes, of which these are the ones that weights come in
DTYPE_NAMES = {FLOAT32: 'float32', 2: 'float64', 14: 'bfloat16', 19: 'float16'}
HEADER = {b'': bytes.fromhex('08011a020801')}  # one data file, little-endian, written as of version 1
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # how a protocol buffer's field is written
CHUNK = 1 << 24  # bytes


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a variable lies. checksum: masked CRC-32C of its bytes. sliced: it lies in several pieces."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int
    sliced: bool = False


def read(path: str) -> Source:
    """The model of a folder, or of a checkpoint's prefix, in the release's layout. Raises Error."""
    prefix = find_prefix(path)
    folder = os.path.dirname(prefix) or '.'
    hparams = load_hparams(os.path.join(folder, 'hparams.json'))
    entries, shards = read_index(prefix)
    check_layers(folder, hparams, entries)
    check_entries(prefix, entries, variable_shapes(hparams))
    encoder = read_encoder(folder) if os.path.lexists(os.path.join(folder, 'encoder.json')) else None
    check_size(folder, encoder, hparams)

    def read_variable(name: str) -> np.ndarray:
        return read_value(prefix, name, entries[name], shards)

    return Source(path, 'release', hparams, encoder, read_variable, index_digest(prefix))


def check_size(folder: str, encoder: Encoder | None, hparams: HParams) -> None:
    """Raise HParamsError unless a folder's vocabulary is as large as its hparams.json says."""
    if encoder is not None and len(encoder) != hparams.n_vocab:
        raise HParamsError(
            f'{folder}: encoder.json has {len(encoder)} tokens, hparams.json says n_vocab {hparams.n_vocab}; '
            'download the model again'
        )


def read_values(prefix: str, shapes: dict[str, list[int]]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, float32 array) of each variable in shapes of a checkpoint, one at a time.

    All are checked to be there before the first is read; variables that shapes does not name, such as an
    optimizer's, are passed over. Raises CheckpointError.
    """
    entries, shards = read_index(prefix)
    check_entries(prefix, entries, shapes)
    for name in shapes:
        yield name, read_value(prefix, name, entries[name], shards)


def read_index(prefix: str) -> tuple[dict[str, Entry], int]:
    """({name: Entry}, the number of data files). Raises CheckpointError."""
    path = f'{prefix}.index'
    try:
        table = read_table(read_small(path))
        header, _ = read_fields(table.pop(b''))
        if header.get(2):
            raise TableError('its data is big-endian')
        return {name.decode(): parse_entry(entry) for name, entry in table.items()}, header[1]
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        why = getattr(error, 'strerror', None) or (error if isinstance(error, TableError) else 'it is damaged')
        raise CheckpointError(f'{path} cannot be read ({why}); download the model again') from None


def read_fields(message: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """The fields of a protocol buffer: ({field: number}, {field: its messages})."""
    numbers: dict[int, int] = {}
    messages: dict[int, list[bytes]] = {}
    place = 0
    while place < len(message):
        key, place = read_varint(message, place)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            numbers[field], place = read_varint(message, place)
        elif kind == BYTES:
            length, place = read_varint(message, place)
            messages.setdefault(field, []).append(message[place : place + length])
            place += length
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
            numbers[field] = int.from_bytes(message[place : place + size], 'little')
            place += size
        else:
            raise TableError(f'a field is of kind {kind}')
    return numbers, messages


def parse_entry(message: bytes) -> Entry:
    numbers, messages = read_fields(message)
    dimensions = read_fields(messages.get(2, [b''])[0])[1].get(2, [])
    dtype, shard, offset, size, checksum = (numbers.get(field, 0) for field in (1, 3, 4, 5, 6))
    shape = tuple(read_fields(dimension)[0].get(1, 0) for dimension in dimensions)
    return Entry(dtype, shape, shard, offset, size, checksum, sliced=7 in messages)


def serialised(entry: Entry) -> bytes:
    """The protocol buffer of an Entry of float32 in the first data file; a field that is 0 is left out."""
    dimensions = [b'\x08' + varint(size) for size in entry.shape]
    shape = b''.join(b'\x12' + varint(len(dimension)) + dimension for dimension in dimensions)
    offset = b'\x20' + varint(entry.offset) if entry.offset else b''
    checksum = struct.pack('<BI', 0x35, entry.checksum)
    return b'\x08\x01\x12' + varint(len(shape)) + shape + offset + b'\x28' + varint(entry.size) + checksum


def check_entries(prefix: str, entries: dict[str, Entry], shapes: dict[str, list[int]]) -> None:
    """Raise CheckpointError unless the checkpoint holds every variable as it should be."""
    remedy = 'download the model again, or mend its hparams.json'
    for name, shape in shapes.items():
        if name not in entries:
            raise CheckpointError(f'{prefix}.index has no variable {name}, expected float32 {shape}; {remedy}')
        entry = entries[name]
        if entry.dtype != FLOAT32 or list(entry.shape) != shape or entry.size != 4 * math.prod(shape) or entry.sliced:
            found = DTYPE_NAMES.get(entry.dtype, f"TensorFlow's dtype {entry.dtype}")
            found += f' {list(entry.shape)}' + ' in slices' * entry.sliced
            raise CheckpointError(
                f'{prefix}.index: {name} does not fit: expected float32 {shape}, found {found}; {remedy}'
            )


def read_value(prefix: str, name: str, entry: Entry, shards: int) -> np.ndarray:
    path = f'{prefix}.data-{entry.shard:05}-of-{shards:05}'
    try:
        check_file(path)
        with open(path, 'rb') as file:
            file.seek(entry.offset)
            value = np.fromfile(file, '<f4', entry.size // 4)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read ({error.strerror}); download the model again') from None
    if value.nbytes < entry.size or mask(checksum_of(value)) != entry.checksum:
        what = 'the file is cut' if value.nbytes < entry.size else 'its checksum does not match'
        raise CheckpointError(f'{path}: {name} cannot be read ({what}); delete it and download the model again')
    return value.reshape(entry.shape)


def checksum_of(value: np.ndarray) -> int:
    """CRC-32C of an array's bytes, chunk by chunk, since the package copies what it is given."""
    data = value.reshape(-1).view(np.uint8)
    chunks = (data[start : start + CHUNK].tobytes() for start in range(0, len(data), CHUNK))
    return functools.reduce(google_crc32c.extend, chunks, 0)


def write_values(prefix: str, values: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write (name, float32 array) pairs, in the order of their names, as one checkpoint. Raises OSError."""
    entries, offset = dict(HEADER), 0
    with open(prefix + DATA_SUFFIX, 'wb') as file:
        for name, value in values:
            value = np.ascontiguousarray(value, '<f4')
            file.write(value.data)
            entry = Entry(FLOAT32, value.shape, 0, offset, value.nbytes, mask(checksum_of(value)))
            entries[name.encode()] = serialised(entry)
            offset += value.nbytes
    with open(f'{prefix}.index', 'wb') as file:
        file.write(write_table(entries))


def write(destination: str, source: Source, dtype: str = 'float32') -> None:
    """Write a source as a new folder in the release's layout: all seven files. Raises Error, OSError.

    TensorFlow is needed for model.ckpt.meta alone, the graph, which comes last.
    """
    from gpt2.checkpoints.meta_graph import write_meta_graph

    make_folder(destination, 'choose another destination')
    prefix = os.path.join(destination, RELEASED_PREFIX)
    write_encoder(destination, source.vocabulary)
    save_hparams(os.path.join(destination, 'hparams.json'), source.hparams)
    write_values(prefix, source.values(sorted(source.shapes)))
    write_meta_graph(f'{prefix}.meta', source.hparams)
    write_state_file(os.path.join(destination, STATE_FILE), RELEASED_PREFIX)
