"""Texts encoded into token files, which are kept and read again while nothing they depend on changes. Imports no
TensorFlow."""

import collections
import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from gpt2 import token_files
from gpt2.encoder import Encoder
from gpt2.errors import Error
from gpt2.system import progress, text
from gpt2.system.signals import signals_of
from gpt2.token_files import ENDS, IDS, TRAINED, Tokens, dtype_for, is_intact, made, read, vocabulary_parts, write_about
from gpt2.training.data import PIECE, DatasetError, Piece, Reading, pieces

FOLDER = 'tokens-'  # and a digest of all that the ids depend on
FORM = 1  # of the files; another one is made again
ALONE_BELOW = 2**23  # bytes of files: for less, starting processes takes longer than encoding
AHEAD = 2  # batches that wait for each process


def encoded_before(paths: Sequence[str], encoder: Encoder) -> Tokens | None:
    """The tokens of paths that are a token file made before training; None if they are texts. Raises Error."""
    if not any(token_files.is_one(path) for path in paths):
        return None
    if len(paths) > 1:
        raise DatasetError(
            f'{paths[0]} and {paths[1]} are not both texts; give each token file a weight of its own, as {paths[0]}:1'
        )
    if (found := read(paths[0])) is None or not len(found.ids):
        raise DatasetError(f'{paths[0]} is a token file that is empty or not whole; make it again')
    if token_files.read_about(paths[0]).get(token_files.VOCABULARY) != token_files.vocabulary_digest(encoder):
        raise DatasetError(
            f'{paths[0]} was encoded with another vocabulary; name its model by --vocabulary, or by --init_from, or '
            'make it again with this one'
        )
    return found


def token_file(paths: Sequence[str], reading: Reading, encoder: Encoder, folder: str, workers: int) -> Tokens:
    """The tokens of all documents of files, from the token file in folder, which is made unless it is there, whole
    and of these files as they are. workers: processes that encode. Raises Error."""
    path = os.path.join(folder, FOLDER + digest(paths, reading, encoder))
    if (found := read(path)) is None or not is_intact(found):
        with made(path, 'choose another --models_dir') as part:
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
    whole = repr([FORM, files, dataclasses.astuple(reading), vocabulary_parts(encoder)])
    return hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:16]


def write(folder: str, paths: Sequence[str], reading: Reading, encoder: Encoder, workers: int) -> None:
    """Encode files into a token file."""
    dtype = dtype_for(encoder)
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
    write_about(folder, files, crcs)


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
    for number in signals_of(('SIGINT', 'SIGUSR1')):  # they may reach this process too; the first one tells it to end
        signal.signal(number, signal.SIG_IGN)
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
