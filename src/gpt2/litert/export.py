"""Export a checkpoint for the LiteRT engine."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from gpt2.checkpoints.folders import PACKAGE
from gpt2.checkpoints.source import Source
from gpt2.errors import Error
from gpt2.hparams import HParams, weights_bytes
from gpt2.litert.quantise import quantise, quantise_blocks
from gpt2.system import locks, progress
from gpt2.system.cores import usable_cores
from gpt2.system.files import WriteError, check_space, make_folder, whole_file

# The exported file: LiteRT's graph, then the weights it names, then tables of our own (what is needed
# to embed tokens), a directory of these as JSON, and the footer. LiteRT reads the first two.
PRECISIONS = ('float32', 'int8', 'int4')
FORMAT_VERSION = 4  # another one for every change to what is exported
MAGIC = b'GPT2LRT\0'
FOOTER = struct.Struct('<8sQQ')  # magic, bytes of the directory, checksum of all before the footer
ALIGNMENT = 64  # bytes; XNNPACK reads whole vectors
CHUNK = 1 << 19  # bytes read at once: they are summed while they are in the processor's cache
SHARE = 1 << 25  # bytes that one thread sums
NOT_THERE = 'is not there'
REMEDY = 'free space, or export it on a machine where the folder can be written'


def exported_file(source: Source, precision: str) -> str:
    """Path of the exported file of a model, which is exported if it is not there, damaged, of another
    checkpoint or of another version of this program: to the model's folder, or if it has none, cannot be
    written in or is a part of the installed package, to the user's cache.

    Of two processes that export at once the second waits for the first and takes its file. Raises Error.
    """
    wanted = identity(source, precision)
    # What is added to a package stays behind when the package is removed, and then passes for it.
    installed = os.path.realpath(source.path).startswith(PACKAGE + os.sep)
    places = [source.path] if os.path.isdir(source.path) and not installed else []
    paths = [os.path.join(place, f'litert-{precision}.tflite') for place in [*places, cache_folder(wanted)]]
    for path in paths:
        if not defect(path, wanted):
            return path
    path = paths[0] if os.access(os.path.dirname(paths[0]), os.W_OK) else paths[-1]
    with locked(os.path.dirname(path)):
        if reason := defect(path, wanted):
            if reason != NOT_THERE:
                progress.note(f'{path} {reason}; exporting anew')
            export(path, source, precision, wanted)
    return path


def cache_folder(wanted: dict[str, Any]) -> str:
    """Where a user's export lies whose model folder is not theirs to write in."""
    caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return os.path.join(caches, 'gpt-2', hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16])


def identity(source: Source, precision: str) -> dict[str, Any]:
    """What an exported file is made from: the model's own identity, its hyperparameters, and what this program
    makes of them."""
    shape = dataclasses.asdict(source.hparams)
    return {'version': FORMAT_VERSION, 'precision': precision, 'hparams': shape, 'model': source.identity}


def defect(path: str, wanted: dict[str, Any]) -> str | None:
    """Why the file at path is not the export that `wanted` identifies; None if it is.

    Reads the whole file, at the speed of memory once it is cached: any cut, and any change but that
    of the order of its 8-byte words, is found.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait
        return 'is no file'
    try:
        directory, length, checksum = read_directory(path)
        if sum_words(path, length) == checksum:
            return None if directory['identity'] == wanted else 'is of another checkpoint or another version'
    except FileNotFoundError:
        return NOT_THERE
    except (OSError, ValueError, RecursionError, TypeError, KeyError, struct.error):
        pass
    return 'is damaged'


def read_directory(path: str) -> tuple[dict[str, Any], int, int]:
    """(directory, bytes before the footer, their checksum). Raises ValueError if the end is not ours."""
    with open(path, 'rb') as file:
        length = file.seek(-FOOTER.size, os.SEEK_END)
        magic, size, checksum = FOOTER.unpack(file.read())
        if magic != MAGIC or size > length:
            raise ValueError('no footer')
        file.seek(length - size)
        return json.loads(file.read(size)), length, checksum


def sum_words(path: str, length: int) -> int:
    """Sum modulo 2**64 of the 8-byte words in the first `length` bytes of a file."""
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as threads:
        sums = threads.map(lambda start: sum_share(path, start, min(start + SHARE, length)), range(0, length, SHARE))
        return sum(sums) % 2**64


def sum_share(path: str, start: int, end: int) -> int:
    """Sum of the 8-byte words in bytes start to end of a file. Raises ValueError for a file that ends before."""
    total = 0
    chunk = np.empty(CHUNK // 8, np.uint64)
    with open(path, 'rb', buffering=0) as file:
        file.seek(start)
        while start < end:
            size = file.readinto(memoryview(chunk).cast('B')[: min(end - start, CHUNK)])
            if not size:
                raise ValueError(f'{path} ends after {start} bytes')
            total += int(chunk[: size // 8].sum())
            start += size
    return total


def stored_array(path: str, name: str) -> np.ndarray:
    """An array of the exported file's directory, read as it is used: [n_vocab, n_embd] model/wte, its
    scales [n_vocab] if it is int8, and [n_ctx, n_embd] model/wpe."""
    place = read_directory(path)[0]['arrays'][name]
    return np.memmap(path, place['dtype'], 'r', place['offset'], tuple(place['shape']))


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the exports of a folder, made if need be, for one process at a time. Raises WriteError where it cannot."""
    make_folder(folder, REMEDY)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(os.path.join(folder, 'litert')))
        except OSError as error:
            raise WriteError(f'{folder} cannot be locked ({error.strerror}); {REMEDY}') from None
        yield


def export(path: str, source: Source, precision: str, wanted: dict[str, Any]) -> None:
    share = 1 if precision == 'float32' else 4  # of float32's bytes; int4 takes fewer than int8
    check_space(os.path.dirname(path), weights_bytes(source.hparams) // share, REMEDY)
    progress.begin(f'exporting {source.path} for LiteRT')
    values = progress.bar(source.values(), 'exporting', len(source.shapes), unit='variable')

    def stored() -> Iterator[tuple[str, np.ndarray]]:
        for name, value in values:
            if precision != 'float32' and not np.isfinite(value).all():
                raise Error(f'{source.path}: {name} holds what is no number, of which {precision} can make nothing')
            yield name, as_stored(name, value, source.hparams)

    with contextlib.suppress(OSError):  # of an export that was killed; no other is being written, see locked()
        os.remove(f'{path}.part')
    with whole_file(path, 'w+b', REMEDY) as file:
        directory = write_model(file, stored(), source.hparams, precision)
        write_end(file, {'identity': wanted, 'arrays': directory})


def as_stored(name: str, value: np.ndarray, hparams: HParams) -> np.ndarray:
    """A variable as the graph takes it: matrices [outputs, inputs], queries scaled."""
    if '/c_attn/' in name:
        queries = np.arange(3 * hparams.n_embd) < hparams.n_embd
        value = np.where(queries, value / np.float32(math.sqrt(hparams.n_embd // hparams.n_head)), value)
    return np.ascontiguousarray(value[0].T) if value.ndim == 3 else value


def write_model(
    file: IO[bytes], values: Iterable[tuple[str, np.ndarray]], hparams: HParams, precision: str
) -> dict[str, Any]:
    """Write graph, weights and tables; returns where the tables are. values yields (name, array)."""
    from gpt2.litert import graph as litert_graph

    graph = litert_graph.gpt2(hparams, precision)
    size = len(graph.serialise())  # as many bytes as later, when places and scales are known
    file.write(bytes(size))
    directory = {}

    def append(array: np.ndarray) -> dict[str, Any]:
        offset = align(file)
        file.write(array)
        return {'offset': offset, 'dtype': array.dtype.name, 'shape': array.shape}

    for name, value in values:
        if name == 'model/wpe':
            directory[name] = append(value)
            continue
        tensor, buffer = graph.weights[name]
        if f'{name}/scales' in graph.weights:
            value, scales = quantise_blocks(value)
            graph.weights[f'{name}/scales'][1].offset = append(scales)['offset']
            graph.weights[f'{name}/scales'][1].size = scales.nbytes
        elif tensor.quantization:
            value, tensor.quantization.scale = quantise(value)
        place = append(value)
        buffer.offset, buffer.size = place['offset'], value.nbytes
        if name == 'model/wte':
            directory[name] = place
            if tensor.quantization:
                directory['model/wte/scales'] = append(tensor.quantization.scale)
    align(file)
    file.seek(0)
    file.write(graph.serialise())
    if file.tell() != size:
        raise RuntimeError(f'the graph took {file.tell()} bytes, foreseen were {size}')
    return directory


def align(file: IO[bytes]) -> int:
    """Pad the end of file with zeros; returns the offset there."""
    end = file.seek(0, os.SEEK_END)
    file.write(bytes(-end % ALIGNMENT))
    return file.tell()


def write_end(file: IO[bytes], directory: dict[str, Any]) -> None:
    """Append directory and footer."""
    text = json.dumps(directory).encode()
    text += b' ' * (-len(text) % 8)
    length = file.seek(0, os.SEEK_END) + file.write(text)
    file.flush()
    file.write(FOOTER.pack(MAGIC, len(text), sum_words(file.name, length)))
