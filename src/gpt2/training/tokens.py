"""Token files: documents encoded once, on disk, and read from there. Imports no TensorFlow.

A token file is a folder: `ids`, the ids of all documents one after another, each followed by the end-of-text
id, as little-endian uint16, or uint32 for more than 65,536 tokens; `ends`, int64, where each document
ends; `trained`, one byte an id, whether it is a target, unless all are; `about.json`, which is written last.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import Error
from gpt2.system import progress, text
from gpt2.system.files import make_folder, whole_file
from gpt2.training.data import PIECE, Piece, Reading, pieces

FOLDER = 'tokens-'  # and a digest of all that the ids depend on
ABOUT, IDS, ENDS, TRAINED = 'about.json', 'ids', 'ends', 'trained'
FORM = 1  # of the files; another one is made again
ALONE_BELOW = 2**23  # bytes of files: for less, starting processes takes longer than encoding
AHEAD = 2  # batches that wait for each process


@dataclasses.dataclass(frozen=True)
class Tokens:
    """ids: uint16 or uint32 [count]. ends: int64 [documents], the place after each document's end-of-text id.
    trained: bool [count], or None where every id is a target. digest: CRC-32 of ids and of trained."""

    ids: np.ndarray
    ends: np.ndarray
    trained: np.ndarray | None
    digest: list[int]


def token_file(paths: Sequence[str], reading: Reading, encoder: Encoder, folder: str, workers: int) -> Tokens:
    """The tokens of all documents of files, from the token file in folder, which is made unless it is there, whole
    and of these files as they are. workers: processes that encode. Raises Error."""
    path = os.path.join(folder, FOLDER + digest(paths, reading, encoder))
    if (found := read(path)) is None:
        with made(path) as part:
            write(part, paths, reading, encoder, workers)
        found = read(path)
    assert found is not None
    return found


def existing_token_file(paths: Sequence[str], reading: Reading, encoder: Encoder, folder: str) -> Tokens:
    """As token_file, of one that another process has made. Raises Error."""
    path = os.path.join(folder, FOLDER + digest(paths, reading, encoder))
    if (found := read(path)) is None:
        raise Error(
            f'{path} is not there, which the first worker has made; all workers need the same files in the same '
            'places, so name a --models_dir and texts on a disk that they share'
        )
    return found


def digest(paths: Sequence[str], reading: Reading, encoder: Encoder) -> str:
    """What the ids depend on: the files by place, size and time of change, how they are read, the vocabulary."""
    files = [[os.path.abspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns] for path in paths]
    vocabulary = [list(encoder.encoder.items()), list(encoder.added.items()), encoder.end_of_text]
    matching = sorted((text, sorted(flags - {'special'})) for text, flags in encoder.flags.items())
    vocabulary += [matching] if any(flags for _, flags in matching) else []
    whole = repr([FORM, files, dataclasses.astuple(reading), vocabulary])
    return hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:16]


def read(path: str) -> Tokens | None:
    """A token file by memory map; None if it is not there or not whole."""
    try:
        with open(os.path.join(path, ABOUT), encoding='utf-8') as file:
            about = json.load(file)
        parts = {name: mapped(os.path.join(path, name), *form) for name, form in about['files'].items()}
        return Tokens(parts[IDS], np.array(parts[ENDS]), parts.get(TRAINED), about['digest'])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def mapped(path: str, dtype: str, count: int) -> np.ndarray:
    """An array of so many numbers. Raises ValueError for a file of another size."""
    if os.path.getsize(path) != count * np.dtype(dtype).itemsize:
        raise ValueError(path)
    return np.memmap(path, dtype, 'r', shape=(count,)) if count else np.empty(0, dtype)


@contextlib.contextmanager
def made(path: str) -> Iterator[str]:
    """Context with a folder that gets its name, path, when the context ends; of which an error leaves nothing."""
    part = f'{path}.part'
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part, 'choose another --models_dir')
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write(folder: str, paths: Sequence[str], reading: Reading, encoder: Encoder, workers: int) -> None:
    """Encode files into a token file."""
    dtype = np.dtype('<u2' if len(encoder) <= 2**16 else '<u4')
    size = sum(map(os.path.getsize, paths))
    batches = read_ahead(paths, reading, size)
    count, documents, crcs, all_trained = 0, 0, [0, 0], True
    with contextlib.ExitStack() as stack:
        ids, ends, trained = (
            stack.enter_context(open(os.path.join(folder, name), 'wb')) for name in (IDS, ENDS, TRAINED)
        )
        encoded = encode_all(batches, encoder, workers if size >= ALONE_BELOW else 0)
        for batch in stack.enter_context(contextlib.closing(encoded)):
            content, flags = batch.ids.astype(dtype).tobytes(), batch.trained.tobytes()
            ids.write(content)
            ends.write((batch.ends + count).astype('<i8').tobytes())
            trained.write(flags)
            crcs = [zlib.crc32(part, crc) for part, crc in zip((content, flags), crcs)]
            count, documents = count + len(batch.ids), documents + len(batch.ends)
            all_trained = all_trained and bool(batch.trained.all())
    files = {IDS: [dtype.str, count], ENDS: ['<i8', documents], TRAINED: ['|b1', count]}
    if all_trained:
        os.remove(os.path.join(folder, TRAINED))
        del files[TRAINED]
    with whole_file(os.path.join(folder, ABOUT)) as file:
        json.dump({'files': files, 'digest': crcs}, file)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What a batch of pieces has become: ids int64 [count]; trained bool [count]; ends int64, places in ids."""

    ids: np.ndarray
    trained: np.ndarray
    ends: np.ndarray


def read_ahead(paths: Sequence[str], reading: Reading, size: int) -> Iterator[list[Piece]]:
    """Yield the pieces of files in batches of some PIECE characters, below a bar. size: bytes of all files."""
    batch: list[Piece] = []
    length, begun = 0, 0  # characters of the batch; bytes of the files before this one
    with progress.bar(total=size, desc='encoding', unit='B', unit_scale=True, delay=1) as bar:
        for path in paths:
            with text.open_bytes(path) as raw:
                for piece in pieces(path, reading, raw):
                    batch.append(piece)
                    length += len(piece.text) + 1
                    if length >= PIECE:
                        yield batch
                        bar.update(max(0, begun + raw.tell() - bar.n))  # Parquet is not read in the order of its bytes
                        batch, length = [], 0
                begun += os.fstat(raw.fileno()).st_size
    if batch:
        yield batch


def encode_all(
    batches: Iterable[list[Piece]], encoder: Encoder, workers: int
) -> Generator[Encoded, None, None]:
    """Yield batches encoded, in their order, by so many processes, or by this one for 0; none waits long."""
    if not workers:
        yield from (encode(encoder, batch) for batch in batches)
        return
    waiting: collections.deque[Future[Encoded]] = collections.deque()
    context = multiprocessing.get_context('spawn')  # TensorFlow, should it be loaded, does not survive a fork
    with ProcessPoolExecutor(workers, context, start_worker, parts_of(encoder)) as pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(work, batch))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise Error(
                'a process that encoded text has died; free memory and start again, and in a program of your own train '
                "below `if __name__ == '__main__'`"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def processes() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def parts_of(encoder: Encoder) -> tuple[Any, ...]:
    """What an Encoder is made of, for another process."""
    merges, ends = list(encoder.bpe_ranks), encoder.end_ids
    return encoder.encoder, merges, encoder.errors, encoder.added, encoder.end_of_text, ends, encoder.flags


def start_worker(*parts: Any) -> None:
    import signal

    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too; the first one tells it to end
    worker = Encoder(*parts)


def work(batch: list[Piece]) -> Encoded:
    return encode(worker, batch)


worker: Encoder


def encode(encoder: Encoder, batch: Iterable[Piece]) -> Encoded:
    """The ids of pieces. Added tokens, such as `<|endoftext|>`, that stand in a text are taken for what they are."""
    ids: list[int] = []
    lengths, flags, ends = [], [], []
    for piece in batch:
        before = len(ids)
        ids += encoder.encode(piece.text, special=True)
        if piece.ends:
            ids.append(encoder.end_of_text)
            ends.append(len(ids))
        lengths.append(len(ids) - before)
        flags.append(piece.trained)
    return Encoded(np.array(ids, np.int64), np.repeat(np.array(flags, bool), lengths), np.array(ends, np.int64))
