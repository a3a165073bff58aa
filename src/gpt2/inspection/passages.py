"""The passages of a corpus: as many tokens each as in OpenAI's neuron map. Imports no TensorFlow."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.system.text import CONVERT_OR_REPLACE, pieces
from gpt2.text_stream import Measure, encode_stream

TOKENS = 64  # of a passage


def passages(encoder: Encoder, files: Sequence[str], errors: str, measure: Measure) -> Iterator[list[int]]:
    """Yield passages of files, one after another, each within one file; what is left at the end of a file is not read.

    measure grows with what is read. Raises UsageError for less than two in all.
    """
    found = (
        passage
        for file in files
        for passage in cut(encode_stream(encoder, pieces(file, errors, CONVERT_OR_REPLACE), measure))
    )
    first = list(itertools.islice(found, 2))
    if len(first) < 2:
        many, names = 'one passage' if first else 'no passage', ', '.join(files)
        raise UsageError(f'{names}: there is {many} of {TOKENS} tokens, expected two or more; give more text')
    yield from itertools.chain(first, found)


def cut(ids: Iterator[int]) -> Iterator[list[int]]:
    while len(passage := list(itertools.islice(ids, TOKENS))) == TOKENS:
        yield passage


def batches(found: Iterator[list[int]], size: int) -> Iterator[np.ndarray]:
    """Yield passages together, int32 [at most size, TOKENS]."""
    while batch := list(itertools.islice(found, size)):
        yield np.array(batch, np.int32)
