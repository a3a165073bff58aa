#!/usr/bin/env python3
"""Measure speed and memory on a synthetic 124M checkpoint, each beside a baseline in the same run.

    make bench                              a table on standard output, benchmarks/results.json
    .venv/bin/python benchmarks/bench.py --text book.txt --repeats 5
"""

import argparse
import datetime
import functools
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY / 'src'))

import memory  # noqa: E402
import numpy as np  # noqa: E402
from baselines import PlainEncoder, make_concatenating_sampler  # noqa: E402
from tqdm import tqdm  # noqa: E402

from gpt2 import drawing, model, sample  # noqa: E402
from gpt2.checkpoints import release as checkpoint  # noqa: E402
from gpt2.checkpoints.source import open_source  # noqa: E402
from gpt2.encoder import get_encoder  # noqa: E402
from gpt2.hparams import load_hparams, weights_bytes  # noqa: E402
from gpt2.litert import engine as sample_litert  # noqa: E402
from gpt2.litert.export import exported_file  # noqa: E402
from gpt2.noise import noise_stream  # noqa: E402
from gpt2.system.tensorflow import tf  # noqa: E402

SCRIPT = REPOSITORY / 'src' / 'interactive_conditional_samples.py'
VOCABULARY = REPOSITORY / 'tests' / 'release'
TOP_K = 40
TOKENS = 1000


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make_checkpoint(folder):
    """The 124M model with random weights, in the released layout."""
    path = os.path.join(folder, '124M')
    shutil.copytree(VOCABULARY / '124M', path)
    hparams = load_hparams(os.path.join(path, 'hparams.json'))
    params = model.initial_params(hparams, seed=0)
    checkpoint.write_values(os.path.join(path, 'model.ckpt'), model.flatten(params))
    return hparams, params


def bandwidth(repeats=15):
    """Bytes a second of a float32 matrix-vector product of 576 MiB: TensorFlow's best, and NumPy's.

    More than most processors' caches hold, which 256 MiB no longer is.
    """
    matrix = tf.Variable(tf.random.stateless_normal([12288, 12288], [0, 0]))
    vector = tf.ones([1, 12288])
    row = tf.function(lambda: tf.matmul(vector, matrix))
    column = tf.function(lambda: tf.matmul(vector, matrix, transpose_b=True))
    array, ones = matrix.numpy(), np.ones(12288, np.float32)
    products = {'row': lambda: row().numpy(), 'column': lambda: column().numpy(), 'numpy': lambda: array @ ones}
    found = {}
    for name, product in products.items():
        product()
        found[name] = array.nbytes / statistics.median(seconds(product) for _ in range(repeats))
    return {'tensorflow': max(found['row'], found['column']), 'numpy': found['numpy']}


def step_times(generator, batch, prompt=16):
    """Seconds of each of TOKENS steps, the first of them the prompt's."""
    context = [list(range(100, 100 + prompt))] * batch
    steps = generator.generate(context, TOKENS, numbers=range(batch), seed=0, top_k=TOP_K)
    return [seconds(lambda: next(steps)) for _ in range(TOKENS)]


def decode(generator, batch):
    """Tokens a second in all: the first 100 after the prompt, the last 100, and all."""
    times = step_times(generator, batch)
    return {
        'first_100': batch * 100 / sum(times[1:101]),
        'last_100': batch * 100 / sum(times[-100:]),
        'all': batch * TOKENS / sum(times),
    }


def prompt_speed(hparams, params, generator, repeats):
    """Tokens a second of a prompt of 512: ours, and a plain forward without a cache."""
    context = np.arange(512)[None]
    plain = tf.function(lambda tokens: model.logits(params, model.forward(hparams, params, tokens)[:, -1]))
    tokens = tf.constant(context, tf.int32)
    first = lambda: next(generator.generate(context, 1, numbers=[0], seed=0, top_k=TOP_K))  # noqa: E731
    times = {'ours': [], 'no_cache': []}
    first(), plain(tokens)
    for _ in range(repeats * 3):
        times['ours'].append(seconds(first))
        times['no_cache'].append(seconds(lambda: plain(tokens).numpy()))
    return {name: 512 / statistics.median(values) for name, values in times.items()}


def first_token(folder):
    """Seconds from process start to the end of one token."""
    flags = ['--models_dir', folder, '--model_name', '124M', '--prompt', 'Hello', '--length', '1']
    command = [sys.executable, SCRIPT, *flags]
    return seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))


def english_like(size, encoder):
    """Words of the vocabulary drawn by Zipf's law: a stand-in where no text is given."""
    words = [token.replace('Ġ', ' ') for token in encoder.encoder if token.startswith('Ġ') and token[1:].isalpha()]
    ranks = np.random.default_rng(0).zipf(1.2, size // 4)
    return ''.join([words[rank % len(words)] for rank in ranks])[:size]


def encoder_speed(text_path, repeats):
    """MB a second, warm: ours, the plain encoder, and the pattern that splits the text alone."""
    encoder = get_encoder('124M', str(VOCABULARY))
    text = open(text_path, encoding='utf-8').read() if text_path else english_like(6_000_000, encoder)
    plain = PlainEncoder(encoder)
    if encoder.encode(text) != plain.encode(text):
        raise RuntimeError('the two encoders disagree')
    times = {'ours': [], 'plain': []}
    for _ in range(repeats):
        times['plain'].append(seconds(lambda: plain.encode(text)))
        times['ours'].append(seconds(lambda: encoder.encode(text)))
    size = len(text.encode('utf-8')) / 1e6
    return {'megabytes': size} | {name: size / statistics.median(values) for name, values in times.items()}


def pathological_seconds():
    """Seconds to encode each of some texts, with an encoder of its own."""
    source = random.Random(0)
    texts = {
        '100,000 letters': ''.join(source.choices(string.ascii_lowercase, k=100_000)),
        '100,000 times one': 'a' * 100_000,
        '1 MB of any bytes': source.randbytes(1_000_000).decode('latin-1'),
    }
    encoders = {name: get_encoder('124M', str(VOCABULARY)) for name in texts}
    return {name: seconds(functools.partial(encoders[name].encode, text)) for name, text in texts.items()}


def sampling_milliseconds(n_vocab, draws=300):
    """Milliseconds of noise and draw for a token of the LiteRT engine, by setting."""
    stream = noise_stream(0, [0], 0)
    logits = 3 * np.random.default_rng(0).standard_normal(n_vocab, np.float32)
    settings = {'none': (1, 0, 1), 'top_k 40': (1, 40, 1), 'top_p 0.9': (1, 0, 0.9), 'both': (0.7, 40, 0.9)}

    def milliseconds(setting):
        draw = lambda: drawing.draw(logits, drawing.exponential_noise(stream, n_vocab), *setting)  # noqa: E731
        return 1000 * statistics.median(seconds(draw) for _ in range(draws))

    return {name: milliseconds(setting) for name, setting in settings.items()}


def measure(text_path, repeats):
    results = {'encoder': encoder_speed(text_path, repeats), 'pathological': pathological_seconds()}
    with tempfile.TemporaryDirectory() as folder:
        hparams, params = make_checkpoint(folder)
        runs = [first_token(folder) for _ in range(repeats)]
        litert = sample_litert.Generator(exported_file(open_source(f'{folder}/124M'), 'float32'), hparams)
    results['sampling'] = sampling_milliseconds(hparams.n_vocab)
    results['first_token'] = {'seconds': statistics.median(runs)}
    results['memory'] = memory.measure('124M')
    generator = sample.Generator(hparams, params)
    results['prompt'] = prompt_speed(hparams, params, generator, repeats)
    concatenating = make_concatenating_sampler(hparams, params, TOP_K)
    context = tf.constant(np.arange(100, 116)[None], tf.int32)
    list(generator.generate(context.numpy(), 3, numbers=[0], seed=0)), concatenating(context, 3)
    rounds = []
    for _ in tqdm(range(repeats), 'decoding', unit='round', disable=None):
        before = bandwidth()
        one, litert_one = decode(generator, 1), decode(litert, 1)
        after = bandwidth()
        eight = decode(generator, 8)
        plain = TOKENS / seconds(lambda: concatenating(context, TOKENS).numpy())
        limit = {name: (before[name] + after[name]) / 2 / weights_bytes(hparams) for name in before}
        rounds.append({
            'batch_1': one, 'litert_batch_1': litert_one, 'batch_8': eight, 'concatenating': {'all': plain},
            'bandwidth_limit': limit,
        })  # fmt: skip
    for name in rounds[0]:
        results[name] = {key: statistics.median(entry[name][key] for entry in rounds) for key in rounds[0][name]}
    return results


def ratios(results):
    """The quotients that the bars are set on, as (name, value, bar)."""
    one, eight, litert = results['batch_1'], results['batch_8'], results['litert_batch_1']
    limit = results['bandwidth_limit']
    return [
        ('decode, batch 1, first 100, of the bandwidth limit', one['first_100'] / limit['tensorflow'], 0.7),
        ('the same with --engine litert, also float32', litert['first_100'] / limit['tensorflow'], 0.7),
        ('last 100 of 1,000 against first 100', one['last_100'] / one['first_100'], 0.7),
        ('batch 8 against batch 1, in all', eight['first_100'] / one['first_100'], 3.0),
        ('1,000 tokens against a concatenated cache', one['all'] / results['concatenating']['all'], 1.5),
        ('encoder against the plain encoder, warm', results['encoder']['ours'] / results['encoder']['plain'], 3.0),
    ]


def table(results):
    encoder, prompt, limit, peak = (results[key] for key in ('encoder', 'prompt', 'bandwidth_limit', 'memory'))

    def speeds(batch):
        found = results[batch]
        return f'{found["first_100"]:.1f} first 100, {found["last_100"]:.1f} last 100, {found["all"]:.1f} all'

    def listed(name):
        return ', '.join(f'{what} {value:.2f}' for what, value in results[name].items())

    limits = f'bandwidth limit {limit["tensorflow"]:.1f} (TensorFlow), {limit["numpy"]:.1f} (NumPy)'
    rows = [
        ('encoder, warm, MB/s', f'{encoder["ours"]:.1f}', f'plain encoder {encoder["plain"]:.1f}'),
        ('encoder, pathological texts, s', listed('pathological'), 'at most 2'),
        ('noise and draw with --engine litert, ms', listed('sampling'), 'at most 0.6'),
        ('prompt of 512, tokens/s', f'{prompt["ours"]:.0f}', f'without a cache {prompt["no_cache"]:.0f}'),
        ('1,000 tokens, batch 1, tokens/s', speeds('batch_1'), limits),
        ('the same with --engine litert', speeds('litert_batch_1'), ''),
        ('1,000 tokens, batch 8, tokens/s', speeds('batch_8'), ''),
        ('concatenated cache, batch 1, tokens/s', '', f'{results["concatenating"]["all"]:.1f} all'),
        ('process start to first token', f'{results["first_token"]["seconds"]:.1f} s', ''),
        ('peak memory', f'{peak["peak_sampling_megabytes"]} MB', f'weights {peak["weights_megabytes"]} MB'),
    ]
    lines = ['| what | ours | beside it |', '|---|---|---|', *(f'| {" | ".join(row)} |' for row in rows), '']
    lines += ['| ratio | measured | bar |', '|---|---|---|']
    return '\n'.join(lines + [f'| {name} | {value:.2f} | {bar:.2f} |' for name, value, bar in ratios(results)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--text', help='UTF-8 text of at least 5 MB for the encoder; default: made-up text')
    parser.add_argument('--repeats', type=int, default=3, help='rounds, of which the median counts (default 3)')
    arguments = parser.parse_args()
    results = measure(arguments.text, arguments.repeats)
    results |= {
        'date': datetime.date.today().isoformat(),
        'machine': f'{os.cpu_count()} cores, {platform.machine()}',
        'python': platform.python_version(),
        'tensorflow': tf.__version__,
        'command': ' '.join(['python', 'benchmarks/bench.py', *sys.argv[1:]]),
        'ratios': {name: value for name, value, _ in ratios(results)},
    }
    (HERE / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
    print(table(results))


if __name__ == '__main__':
    main()
