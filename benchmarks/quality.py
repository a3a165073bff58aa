#!/usr/bin/env python3
"""How much int8 and int4 change a model: perplexity, likeliest token and divergence from float32, on LiteRT; or how
much llama.cpp's formats do, in the environment that peers.py makes for it.

    python benchmarks/quality.py models/7M heidi.txt wikitext2.test.txt
    python benchmarks/quality.py --precision int4 models/7M heidi.txt
    python benchmarks/quality.py --peer q4_0 models/7M heidi.txt
    python benchmarks/quality.py --outliers
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'src'))

import numpy as np
import peers
from bench import VOCABULARY
from tqdm import tqdm

from gpt2.checkpoints.source import open_source
from gpt2.encoder import get_encoder
from gpt2.hparams import RELEASED_HPARAMS, load_hparams, save_hparams
from gpt2.litert.engine import Generator
from gpt2.litert.export import PRECISIONS, exported_file

CONVERT = pathlib.Path(__file__).parent.parent / 'src' / 'convert.py'


def window_logits(generator, tokens):
    """Logits float32 [n, n_vocab] of LiteRT's generator after each of n tokens."""
    return np.concatenate(generator.map_logits(np.copy, tokens))


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def our_logits(folder, precision, windows):
    """Yield the logits [n, n_vocab] of LiteRT after each token of windows, int [count, n]."""
    generator = Generator(exported_file(open_source(folder), precision), load_hparams(f'{folder}/hparams.json'))
    for window in windows:
        yield window_logits(generator, window)


def their_logits(folder, file_type, windows):
    """The same of llama.cpp, [count, n, n_vocab], with matrices in a type of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        exact, asked, found = (f'{scratch}/{name}' for name in ('exact.gguf', 'windows.npy', 'logits.npy'))
        subprocess.run([sys.executable, CONVERT, folder, exact], check=True)
        np.save(asked, windows)
        if peers.run_system(f'llama.cpp {file_type}', 'logits', exact, asked, found).wait():
            raise RuntimeError('llama.cpp did not take the model')
        return np.load(found)


def compare(folder, windows, precision='int8', logits=our_logits):
    """Figures of a precision beside float32 over windows, int [count, n + 1], without overlap: the first n predict
    the last n. logits: whose."""
    sums = np.zeros(4)
    read = windows[:, :-1]
    both = zip(windows, our_logits(folder, 'float32', read), logits(folder, precision, read))
    for window, *found in tqdm(both, 'comparing', len(windows), unit='window', disable=None):
        p, q = (log_softmax(each) for each in found)
        rows, following = np.arange(len(window) - 1), window[1:]
        sums += [
            -p[rows, following].sum(),
            -q[rows, following].sum(),
            np.count_nonzero(p.argmax(axis=-1) == q.argmax(axis=-1)),
            (np.exp(p) * (p - q)).sum(),
        ]
    exact_loss, quantised_loss, agreement, divergence = sums / (windows.shape[0] * (windows.shape[1] - 1))
    return {
        'tokens': windows[:, 1:].size,
        'perplexity_float32': float(np.exp(exact_loss)),
        f'perplexity_{precision}': float(np.exp(quantised_loss)),
        'perplexity_ratio': float(np.exp(quantised_loss - exact_loss)),
        'top_1_agreement': float(agreement),
        'mean_kl_nats': float(divergence),
    }


def text_windows(folder, text):
    """Windows of n_ctx + 1 tokens that share their ends: every token but the first is predicted once."""
    path = pathlib.Path(folder)
    n_ctx = load_hparams(f'{folder}/hparams.json').n_ctx
    ids = np.array(get_encoder(path.name, str(path.parent)).encode(text))
    n = min(n_ctx, len(ids) - 1)
    return np.stack([ids[start : start + n + 1] for start in range(0, len(ids) - n, n)])


def write_outlier_model(folder, hparams, channels=6, factor=20, seed=0):
    """A synthetic checkpoint whose activations have outliers: a few channels of every norm's
    output, and of every hidden layer before its gelu, are `factor` times as large."""
    from gpt2 import model
    from gpt2.checkpoints import release as checkpoint

    values = {name: value.numpy() for name, value in model.flatten(model.initial_params(hparams, seed)).items()}
    random = np.random.default_rng(seed)
    outliers = random.choice(hparams.n_embd, channels, replace=False)
    hidden = random.choice(4 * hparams.n_embd, channels, replace=False)
    for name, value in values.items():
        if name.endswith(('ln_1/g', 'ln_2/g', 'ln_f/g')):
            value[outliers] *= factor
        if name.endswith('c_fc/w'):
            value[..., hidden] *= factor
    checkpoint.write_values(f'{folder}/model.ckpt', {name: model.tf.constant(value) for name, value in values.items()})
    save_hparams(f'{folder}/hparams.json', hparams)
    for name in ('encoder.json', 'vocab.bpe'):
        shutil.copy(VOCABULARY / '124M' / name, folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', nargs='?', help='a model folder')
    parser.add_argument('texts', nargs='*', help='UTF-8 texts, counted together')
    parser.add_argument('--precision', choices=PRECISIONS[1:], default='int8')
    parser.add_argument('--peer', choices=('q8_0', 'q4_0'), help="llama.cpp's type instead of ours")
    parser.add_argument('--outliers', action='store_true', help='a synthetic 124M with outlier channels, random tokens')
    arguments = parser.parse_args()
    other = (arguments.peer, their_logits) if arguments.peer else (arguments.precision, our_logits)
    if arguments.outliers:
        with tempfile.TemporaryDirectory() as folder:
            hparams = RELEASED_HPARAMS['124M']
            write_outlier_model(folder, hparams)
            windows = np.random.default_rng(1).integers(hparams.n_vocab, size=[8, 257])
            print(json.dumps(compare(folder, windows, *other)))
    elif arguments.texts:
        text = ''.join(open(path, encoding='utf-8').read() for path in arguments.texts)
        print(json.dumps(compare(arguments.model, text_windows(arguments.model, text), *other)))
    else:
        parser.error('give a model folder and texts, or --outliers')


if __name__ == '__main__':
    main()
