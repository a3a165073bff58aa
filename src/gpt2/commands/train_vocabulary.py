"""Learn a byte-level BPE vocabulary from text."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, canonical_name, expand, models_folders
from gpt2.commands.flags import integer, number, reject_unknown
from gpt2.encoder import write_encoder
from gpt2.errors import UsageError
from gpt2.system import progress
from gpt2.system.files import new_folder
from gpt2.training.batches import hold_out, kept_of_longest
from gpt2.training.data import Reading, documents, find_files
from gpt2.training.plan import counted
from gpt2.training.vocabulary import learn_vocabulary

HELP = f"""\
Learn a byte-level BPE vocabulary from text and write encoder.json and vocab.bpe.

    python src/train_vocabulary.py stories/ --model_name stories-vocabulary
    python src/train.py stories/ --vocabulary stories-vocabulary --model_name mine

Needs the tokenizers package. Each word is a file, a folder or a glob, of every kind that train.py
reads. What train.py would hold out, with the same data, --held_out and --seed, is left out: documents by
the same draw, or the end of the longest, by characters where train.py goes by tokens.
Ids are laid out as in the release: the 256 bytes, the merges by rank, the end-of-text token. A merge is
of a pair that comes twice or more, so a short text may make fewer tokens than --n_vocab.

--model_name NAME     folder inside the models folder to write into; it, or --folder, is needed
--folder DIR          any folder to write into
--n_vocab N           tokens, at least 258. Default: 8192
--held_out X          fraction of the text left out, from 0 up to 1. Default: 0.05
--seed N              of the held-out choice, at least 0. Default: 0
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}
"""


def train_vocabulary(
    *data: str, model_name: Any = None, folder: str | None = None, n_vocab: Any = 8192, held_out: Any = 0.05,
    seed: Any = 0, models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    progress.show()
    if not data or (model_name is None) == (folder is None):
        raise UsageError('give text files, and --model_name or --folder; --help shows how')
    n_vocab = integer('n_vocab', n_vocab, 258)
    fraction = number('held_out', held_out, lambda value: 0 <= value < 1, 'of at least 0 and below 1')
    folder = destination(model_name, folder, models_dir)
    seed = integer('seed', seed, 0)
    paths = find_files(map(str, data))
    sizes = np.array([len(document) for document in all_documents(paths, 'counting')], np.int64)
    kept = learnt_from(sizes, fraction, seed)
    parts = (document[:size] for document, size in zip(all_documents(paths, 'learning'), kept) if size)
    encoder = learn_vocabulary(parts, n_vocab)
    with new_folder(folder, 'choose another --folder or --models_dir'):
        write_encoder(folder, encoder)
    print(f'{folder}: {len(encoder)} tokens, learnt from {counted(int((kept > 0).sum()), "document")}')


train_vocabulary.__doc__ = HELP


def destination(model_name: str | None, folder: str | None, models_dir: str) -> str:
    """The folder that the vocabulary goes to. Raises UsageError for one that holds a vocabulary."""
    path = expand(folder) if folder else os.path.join(models_folders(models_dir)[0], canonical_name(str(model_name)))
    if os.path.exists(os.path.join(path, 'encoder.json')):
        raise UsageError(f'{path} holds a vocabulary, perhaps that of a model; choose another --model_name')
    return path


def learnt_from(sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """How many characters of each document are learnt from: all but those that train.py may hold out, or all but the
    end of the longest. sizes: characters of each document; train.py goes by tokens."""
    held = hold_out(sizes, fraction, seed)
    kept = np.where(held, 0, sizes)
    if fraction and len(sizes) and not held.any():
        kept[sizes.argmax()] = kept_of_longest(sizes, fraction)
    return kept


def all_documents(paths: Sequence[str], what: str) -> Iterator[str]:
    for path in progress.bar(paths, what, unit='file', delay=1):
        yield from documents(path, Reading())
