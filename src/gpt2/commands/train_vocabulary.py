"""Learn a byte-level BPE vocabulary from text."""

import json
import os

from gpt2.commands.flags import integer, number, reject_unknown
from gpt2.encoder import END_OF_TEXT, bytes_to_unicode
from gpt2.errors import UsageError
from gpt2.system.files import make_folder, whole_file
from gpt2.training.data import find_files, hold_out
from gpt2.training.vocabulary import learn_merges

HELP = """\
Learn a byte-level BPE vocabulary from text and write encoder.json and vocab.bpe.

    python src/train_vocabulary.py stories/ --folder models/stories-vocabulary
    python src/train.py stories/ --vocabulary stories-vocabulary --model_name mine

Needs the tokenizers package. Each word is a file, a folder (every .txt file in it) or a glob. Files
that train.py would hold out, with the same --held_out and --seed, are not read. Ids are laid out as
in the release: the 256 bytes, the merges by rank, the end-of-text token.

--folder DIR          folder to write into; needed
--n_vocab N           tokens, at least 258. Default: 8192
--held_out X          fraction of the documents not read, from 0 up to 1. Default: 0.05
--seed N              of the held-out choice, at least 0. Default: 0
"""


def train_vocabulary(*data, folder=None, n_vocab=8192, held_out=0.05, seed=0, **unknown):
    reject_unknown((), unknown)
    if not data or folder is None:
        raise UsageError('give text files and --folder; --help shows how')
    n_vocab = integer('n_vocab', n_vocab, 258)
    fraction = number('held_out', held_out, lambda value: 0 <= value < 1, 'of at least 0 and below 1')
    train, _ = hold_out(find_files(map(str, data)), fraction, integer('seed', seed, 0))
    merges = learn_merges(train, n_vocab - 1)
    # Two merges may make the same token.
    tokens = [*dict.fromkeys([*bytes_to_unicode().values(), *map(''.join, merges)]), END_OF_TEXT]
    make_folder(folder, 'choose another --folder')
    with whole_file(os.path.join(folder, 'encoder.json')) as file:
        json.dump({token: index for index, token in enumerate(tokens)}, file)
    with whole_file(os.path.join(folder, 'vocab.bpe')) as file:
        file.write('#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges))


train_vocabulary.__doc__ = HELP
