"""Training: how fast text is encoded into token files and in how much memory, and how fast a model is trained.

    python benchmarks/training.py encode --megabytes 1000
    python benchmarks/training.py train --shape 7M --updates 20
    python benchmarks/training.py train --shape 355M --updates 2 --batch_size 1 --recompute
    python benchmarks/training.py train --shape 355M --updates 2 --batch_size 1 --lora_rank 8

Prints as JSON. encode: megabytes a second, and the most resident memory of this process and of any of those that
encode; the text is of words drawn from tests/held_out.txt. train: tokens a second, the median of the updates but the
first, and the most resident memory, for random weights of a shape.
"""

import argparse
import json
import pathlib
import resource
import statistics
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / 'src'))

import numpy as np  # noqa: E402

from gpt2.encoder import read_encoder  # noqa: E402
from gpt2.hparams import RELEASED_HPARAMS, load_hparams  # noqa: E402
from gpt2.training.batches import Batch  # noqa: E402
from gpt2.training.data import Reading  # noqa: E402
from gpt2.training.settings import PRECISIONS, Settings  # noqa: E402
from gpt2.training.tokens import processes, token_file  # noqa: E402

DOCUMENT = 2000  # words


def write_text(path, megabytes):
    """A text file of many documents."""
    words = np.array((REPOSITORY / 'tests' / 'held_out.txt').read_text(encoding='utf-8').split())
    random = np.random.default_rng(0)
    with open(path, 'w', encoding='utf-8') as file:
        while file.tell() < megabytes * 1e6:
            file.write(' '.join(random.choice(words, DOCUMENT)) + '<|endoftext|>')


def encode(megabytes):
    encoder = read_encoder(REPOSITORY / 'tests' / 'release' / '124M')
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/text.txt'
        write_text(path, megabytes)
        start = time.perf_counter()
        tokens = token_file([path], Reading(), encoder, folder, processes())
        seconds = time.perf_counter() - start
    return {
        'megabytes': megabytes, 'tokens': len(tokens.ids), 'documents': len(tokens.ends), 'processes': processes(),
        'megabytes_per_second': round(megabytes / seconds, 2), 'peak_megabytes': peak(resource.RUSAGE_SELF),
        'peak_megabytes_of_a_process': peak(resource.RUSAGE_CHILDREN),
    }  # fmt: skip


def peak(whose):
    return round(resource.getrusage(whose).ru_maxrss * 1024 / 1e6)


def train(shape, updates, batch_size, window, **how):
    from gpt2.training.run import ask_for_onednn

    ask_for_onednn()
    from gpt2 import model
    from gpt2.training import lora
    from gpt2.training.optimizer import make_optimizer, trained
    from gpt2.training.update import make_train_step

    hparams = RELEASED_HPARAMS.get(shape) or load_hparams(REPOSITORY / 'models' / shape / 'hparams.json')
    params = model.initial_params(hparams, seed=0)
    settings = Settings(updates, batch_size, window, 1e-4, 0, 0.1, 0.0, 0, **how)
    if rank := settings.lora_rank:
        params = lora.adapted(params, lora.fresh_values(hparams, rank, 0), settings.lora_alpha)
    step = make_train_step(hparams, params, make_optimizer(trained(params, None), settings), settings)
    tokens = np.random.default_rng(0).integers(hparams.n_vocab, size=(batch_size, window + 1)).astype(np.int32)
    batch, seconds = Batch(tokens, np.ones([batch_size, window], np.float32)), []
    for _ in range(updates):
        start = time.perf_counter()
        step(batch, 1e-4)
        seconds.append(time.perf_counter() - start)
    return {
        'shape': shape, 'batch_size': batch_size, 'window': window, **how, 'peak_megabytes': peak(resource.RUSAGE_SELF),
        'tokens_per_second': round(batch_size * window / statistics.median(seconds[1:])),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    commands.add_parser('encode').add_argument('--megabytes', type=int, default=1000)
    training = commands.add_parser('train')
    training.add_argument('--shape', default='7M')
    for name, default in (('updates', 20), ('batch_size', 4), ('window', 512)):
        training.add_argument(f'--{name}', type=int, default=default)
    training.add_argument('--precision', choices=PRECISIONS, default=PRECISIONS[0])
    training.add_argument('--lora_rank', type=int, default=0)
    for name in ('recompute', 'jit_compile'):
        training.add_argument(f'--{name}', action='store_true')
    arguments = vars(parser.parse_args())
    print(json.dumps({'encode': encode, 'train': train}[arguments.pop('command')](**arguments)))


if __name__ == '__main__':
    main()
