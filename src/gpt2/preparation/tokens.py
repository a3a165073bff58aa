"""Documents as token files that train.py reads: shuffled, and split into training and held-out ones."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from datatrove.pipeline.base import PipelineStep

from gpt2.preparation.blocks import REMEDY
from gpt2.preparation.text import encoder_of
from gpt2.system.files import make_folder, whole_file
from gpt2.token_files import ENDS, IDS, dtype_for, made, vocabulary_digest, write_about

TRAINED_ON, HELD_OUT = 'training', 'held-out'
PARTS, HELD = 'parts', 'held'


class Encode(PipelineStep):
    """Encodes a task's documents into files of its own: their ids, each document's count of them, and whether it is
    held out. A text that spells `<|endoftext|>` has the ids of its letters there. held_out: the fraction of the
    documents, which their text and the seed choose."""

    type = 'tokens'
    name = 'encode'

    def __init__(self, folder: str, vocabulary: str, held_out: float, seed: int) -> None:
        super().__init__()
        self.folder, self.vocabulary, self.held_out, self.seed = folder, vocabulary, held_out, seed

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        encoder = encoder_of(self.vocabulary)
        dtype = dtype_for(encoder)
        folder = os.path.join(self.folder, PARTS)
        make_folder(folder, REMEDY)
        with ExitStack() as stack:
            ids, counts, held = (
                stack.enter_context(whole_file(os.path.join(folder, f'{rank:05d}.{name}'), 'wb', REMEDY))
                for name in (IDS, ENDS, HELD)
            )
            for document in data:
                self.stat_update('total', 'forwarded')
                found = np.array([*encoder.encode(document.text), encoder.end_of_text], dtype)
                ids.write(found.tobytes())
                counts.write(np.int64(len(found)).tobytes())
                held.write(np.bool_(chance(document.text, self.seed) < self.held_out).tobytes())


def chance(text: str, seed: int) -> float:
    """A number from 0 up to 1 that depends on a text and a seed alone."""
    digest = hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, 'little') / 2**64


class Part(NamedTuple):
    """What a task has encoded."""

    ids: np.ndarray
    counts: np.ndarray
    held: np.ndarray


class Shuffle(PipelineStep):
    """Puts all tasks' documents in an order that the seed chooses, into two token files."""

    type = 'tokens'
    name = 'shuffle'

    def __init__(self, folder: str, vocabulary: str, seed: int) -> None:
        super().__init__()
        self.folder, self.vocabulary, self.seed = folder, vocabulary, seed

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        encoder = encoder_of(self.vocabulary)
        dtype, digest = dtype_for(encoder), vocabulary_digest(encoder)
        parts = read_parts(os.path.join(self.folder, PARTS), dtype)
        order = Order(parts, self.seed)
        for name, held in ((TRAINED_ON, False), (HELD_OUT, True)):
            with made(os.path.join(self.folder, name), REMEDY) as folder:
                write(folder, order.documents(held), dtype, digest)


def read_parts(folder: str, dtype: np.dtype) -> list[Part]:
    ranks = sorted(name.partition('.')[0] for name in os.listdir(folder) if name.endswith(f'.{IDS}'))

    def mapped(rank: str, name: str, kind: Any) -> np.ndarray:
        path = os.path.join(folder, f'{rank}.{name}')
        return np.memmap(path, kind, 'r') if os.path.getsize(path) else np.empty(0, kind)

    return [Part(mapped(rank, IDS, dtype), mapped(rank, ENDS, '<i8'), mapped(rank, HELD, bool)) for rank in ranks]


class Order:
    """The documents of some parts, shuffled."""

    def __init__(self, parts: list[Part], seed: int) -> None:
        self.parts = parts
        self.ends = [np.cumsum(part.counts) for part in parts]
        self.sizes = np.array([len(part.counts) for part in parts], np.int64)
        self.order = np.random.default_rng(seed).permutation(int(self.sizes.sum()))

    def documents(self, held: bool) -> Iterator[np.ndarray]:
        """Yield the ids of each document that is held out, or of each that is not."""
        firsts = np.cumsum(self.sizes) - self.sizes
        for number in self.order.tolist():
            which = int(np.searchsorted(firsts, number, side='right')) - 1
            place, part = number - int(firsts[which]), self.parts[which]
            if bool(part.held[place]) == held:
                end = int(self.ends[which][place])
                yield part.ids[end - int(part.counts[place]) : end]


def write(folder: str, documents: Iterator[np.ndarray], dtype: np.dtype, vocabulary: str) -> None:
    """Write documents as a token file."""
    count = number = crc = 0
    with open(os.path.join(folder, IDS), 'wb') as ids, open(os.path.join(folder, ENDS), 'wb') as ends:
        for document in documents:
            content = document.tobytes()
            ids.write(content)
            count, number, crc = count + len(document), number + 1, zlib.crc32(content, crc)
            ends.write(np.int64(count).tobytes())
    files = {IDS: [dtype.str, count], ENDS: ['<i8', number]}
    write_about(folder, files, [crc, 0], vocabulary=vocabulary)
