"""Text files to token ids, and token ids to batches of fixed windows. Imports no TensorFlow."""

import glob
import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import Error, UsageError
from gpt2.system import progress, text
from gpt2.system.files import whole_file


class DatasetError(Error):
    """Training text that is missing, unreadable or too short."""


def find_files(patterns: Iterable[str]) -> list[str]:
    """Paths of all files that the patterns name, sorted, each once.

    A pattern is a file, a folder (every .txt file below it) or a glob. Raises DatasetError for
    a pattern that names no file.
    """
    found = set()
    for pattern in patterns:
        path = os.path.expanduser(os.path.expandvars(pattern))
        if os.path.isdir(path):
            path = os.path.join(path, '**', '*.txt')
        files = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
        if not files:
            raise DatasetError(f'no text file at {pattern}; give a file, a folder holding .txt files, or a glob')
        found.update(files)
    return sorted(found)


def read_text(path: str) -> str:
    """The text of a file, as system/text.py has it. Raises DatasetError."""
    try:
        return text.read_text(path)
    except UsageError as error:
        raise DatasetError(str(error)) from None


def hold_out(documents: Sequence[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Split documents into (train, held_out) lists; held_out is the given fraction of them.

    At least one document is held out unless fraction is 0. The choice depends on seed alone.
    """
    count = min(max(1, round(len(documents) * fraction)), len(documents) - 1) if fraction else 0
    chosen = set(np.random.default_rng(seed).permutation(len(documents))[:count].tolist())
    train = [document for index, document in enumerate(documents) if index not in chosen]
    return train, [documents[index] for index in sorted(chosen)]


def encode_documents(paths: Sequence[str], encoder: Encoder, cache_folder: str) -> np.ndarray:
    """int32 ids of all documents in order, each followed by the end-of-text id.

    Kept in cache_folder, under a name made from every text and the vocabulary, so that a second
    call does not encode again.
    """
    texts = [read_text(path) for path in paths]
    digest = hashlib.sha256(repr(list(encoder.encoder.items())).encode('utf-8', 'surrogatepass'))
    for document in texts:
        digest.update(hashlib.sha256(document.encode('utf-8')).digest())
    cached = os.path.join(cache_folder, f'tokens-{digest.hexdigest()[:16]}.npy')
    if os.path.exists(cached):
        return np.load(cached)
    shown = progress.bar(texts, 'encoding', unit='file', delay=1)
    parts = [[*encoder.encode(document), encoder.end_of_text] for document in shown]
    tokens = np.array([token for part in parts for token in part], np.int32)
    with whole_file(cached, 'wb') as file:
        np.save(file, tokens)
    return tokens


def windows(tokens: np.ndarray, length: int, offset: int = 0) -> np.ndarray:
    """All whole windows, int32 [count, length + 1]; each overlaps the next by the one token that
    is a target here and an input there."""
    count = (len(tokens) - 1 - offset) // length
    starts = offset + length * np.arange(max(count, 0))
    return tokens[starts[:, None] + np.arange(length + 1)]


def training_batch(tokens: np.ndarray, step: int, batch_size: int, length: int, seed: int) -> np.ndarray:
    """Batch number `step`, int32 [batch_size, length + 1]: a function of its arguments alone, so
    that an interrupted run goes on exactly where it stopped.

    Every epoch cuts the text at another offset and shuffles the windows anew; windows that do
    not fill the epoch's last batch are left out.
    """
    batches = (len(tokens) - length) // length // batch_size
    if batches < 1:
        raise DatasetError(
            f'{len(tokens)} training tokens do not fill a batch of {batch_size} windows of {length}; '
            'give more text, or a smaller --batch_size or --window'
        )
    epoch, index = divmod(step, batches)
    random = np.random.default_rng([seed, epoch])
    offset = int(random.integers(length))
    order = random.permutation((len(tokens) - 1 - offset) // length)
    rows = order[index * batch_size : (index + 1) * batch_size]
    starts = offset + length * rows
    return tokens[starts[:, None] + np.arange(length + 1)]
