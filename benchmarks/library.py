"""The library on many prompts, and loaded again and again.

    python benchmarks/library.py            124M's shape, random weights, --engine litert, int8
    python benchmarks/library.py --engine tf --precision float32 --prompts 16

Prints as JSON: tokens a second for different prompts of different lengths, drawn one at a time and in batches, in turn,
and the ratio; and the resident memory of this process after each of some loads and closes.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / 'src'))

import numpy as np  # noqa: E402

import gpt2  # noqa: E402
from gpt2.hparams import RELEASED_HPARAMS, save_hparams  # noqa: E402

LENGTH, BATCH_SIZE = 100, 8


def make_model(folder, size):
    """A model of a released shape with random weights and the released vocabulary."""
    from gpt2 import model
    from gpt2.checkpoints import release

    for name in ('encoder.json', 'vocab.bpe'):
        shutil.copy(REPOSITORY / 'tests' / 'release' / '124M' / name, folder)
    hparams = RELEASED_HPARAMS[size]
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    release.write_values(os.path.join(folder, 'model.ckpt'), model.flatten(model.initial_params(hparams, seed=0)))


def different_prompts(count):
    """Texts of 5 to 60 words."""
    words = (REPOSITORY / 'tests' / 'held_out.txt').read_text(encoding='utf-8').split()
    random = np.random.default_rng(0)
    starts, sizes = random.integers(len(words) - 60, size=count), random.integers(5, 60, size=count)
    return [' '.join(words[start : start + size]) for start, size in zip(starts, sizes)]


def resident_megabytes():
    status = pathlib.Path('/proc/self/status').read_text()
    return round(int(re.search(r'VmRSS:\s*(\d+)', status).group(1)) * 1024 / 1e6)


def tokens_a_second(model, prompts, batch_size):
    start = time.perf_counter()
    found = model.complete(prompts, length=LENGTH, batch_size=batch_size, seed=0, top_k=40)
    return sum(len(completion.ids) for completion in found) / (time.perf_counter() - start)


def many_prompts(folder, how, count, rounds):
    prompts = different_prompts(count)
    speeds = {1: [], BATCH_SIZE: []}
    with gpt2.load(folder, **how) as model:
        tokens_a_second(model, prompts[:BATCH_SIZE], BATCH_SIZE)
        for _ in range(rounds):
            for batch_size, found in speeds.items():
                found.append(tokens_a_second(model, prompts, batch_size))
    one, batch = (statistics.median(found) for found in speeds.values())
    return {'prompts': count, 'one_at_a_time': round(one, 1), f'batch_{BATCH_SIZE}': round(batch, 1),
            'ratio': round(statistics.median(b / a for a, b in zip(*speeds.values())), 2)}  # fmt: skip


def loads_and_closes(folder, how, count):
    """Resident megabytes after each load, use and close."""
    found = []
    for _ in range(count):
        with gpt2.load(folder, **how) as model:
            model.complete('Once upon a time', length=5, seed=0)
        found.append(resident_megabytes())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=RELEASED_HPARAMS, default='124M')
    parser.add_argument('--engine', choices=('tf', 'litert'), default='litert')
    parser.add_argument('--precision', choices=('float32', 'int8', 'int4'), default='int8')
    parser.add_argument('--prompts', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--loads', type=int, default=20)
    arguments = parser.parse_args()
    how = {'engine': arguments.engine, 'precision': arguments.precision}
    with tempfile.TemporaryDirectory() as folder:
        make_model(folder, arguments.size)
        found = many_prompts(folder, how, arguments.prompts, arguments.rounds)
        print(json.dumps(how | found), flush=True)
        print(json.dumps(how | {'resident_megabytes': loads_and_closes(folder, how, arguments.loads)}))


if __name__ == '__main__':
    main()
