#!/usr/bin/env python3
"""Convert synthetic checkpoints of the released sizes between all formats; time and peak memory of each.

    .venv/bin/python benchmarks/convert.py 124M 1558M
    .venv/bin/python benchmarks/convert.py --pairs release:huggingface,huggingface:gguf 1558M

Weights are random, the vocabulary is the release's, from tests/release. Needs requirements-convert.txt,
and twice the size of the weights on disk, in the temporary folder or the one that --folder names.
"""

import argparse
import importlib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent / 'src'), str(pathlib.Path(__file__).parent)]

from memory import peak_megabytes  # noqa: E402

from gpt2.hparams import RELEASED_HPARAMS, save_hparams, variable_shapes, weights_bytes  # noqa: E402

VOCABULARY = pathlib.Path(__file__).parent.parent / 'tests' / 'release' / '124M'
SOURCES, DESTINATIONS = ('release', 'huggingface', 'gguf'), ('release', 'huggingface', 'gguf', 'saved_model')
BOUND = 700  # megabytes above the imports, besides the largest variable


def write(folder, size):
    """A synthetic checkpoint of the release's layout, without its graph."""
    import numpy as np

    from gpt2.checkpoints import bundle
    from gpt2.encoder import read_encoder, write_encoder

    hparams = RELEASED_HPARAMS[size]
    random = np.random.default_rng(0)
    shapes = variable_shapes(hparams)
    os.makedirs(folder)
    write_encoder(folder, read_encoder(str(VOCABULARY)))
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    values = ((name, random.standard_normal(shapes[name], np.float32)) for name in sorted(shapes))
    bundle.write_values(os.path.join(folder, 'model.ckpt'), values)


def convert(source, destination, to, dtype='float32'):
    """One conversion in this process, above what its imports take."""
    from gpt2.checkpoints.convert import WRITERS, convert
    from gpt2.checkpoints.source import open_source, reader

    importlib.import_module(WRITERS[to])
    importlib.import_module(f'gpt2.checkpoints.{reader(source)}')
    import_late(to)
    before, start = peak_megabytes(), time.perf_counter()
    done = convert(open_source(source), destination, to, dtype)
    return {
        'seconds': round(time.perf_counter() - start, 1),
        'imports_megabytes': round(before),
        'peak_megabytes': round(peak_megabytes()),
        'digest': done.digest,
    }


def import_late(to):
    """Packages that a writer imports when it writes."""
    if to in ('release', 'saved_model'):
        importlib.import_module('gpt2.system.tensorflow')
    if to == 'gguf':
        importlib.import_module('gguf')
    importlib.import_module('safetensors')


def measure(size, pairs, folder):
    """One line for each pair; a source that is not the release's is made first, by a conversion of its own."""
    largest = 4 * max(map(math.prod, variable_shapes(RELEASED_HPARAMS[size]).values())) / 1e6
    with tempfile.TemporaryDirectory(dir=folder) as place:
        release = os.path.join(place, 'release')
        run('write', release, size)
        for source in dict.fromkeys(source for source, _ in pairs):
            path = os.path.join(place, f'{source}')
            if source != 'release':
                run('convert', release, path, source)
            for to in [to for other, to in pairs if other == source]:
                destination = os.path.join(place, 'converted')
                found = run('convert', path, destination, to)
                above = found['peak_megabytes'] - found['imports_megabytes']
                bound = {'above_imports': above, 'bound': round(largest + BOUND)}
                weights = {'weights_megabytes': round(weights_bytes(RELEASED_HPARAMS[size]) / 1e6)}
                print(json.dumps({'size': size, 'from': source, 'to': to, **found, **bound, **weights}), flush=True)
                subprocess.run(['rm', '-r', destination], check=True)
            if source != 'release':
                subprocess.run(['rm', '-r', path], check=True)


def run(step, *arguments):
    """What a step returns, from a process of its own, so that its peak memory is its own."""
    return json.loads(subprocess.check_output([sys.executable, __file__, step, *arguments], text=True))


def main():
    steps = {'write': write, 'convert': convert}
    if sys.argv[1:] and sys.argv[1] in steps:
        print(json.dumps(steps[sys.argv[1]](*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sizes', nargs='+', choices=RELEASED_HPARAMS, metavar='SIZE', help=', '.join(RELEASED_HPARAMS))
    every = ','.join(f'{source}:{to}' for source in SOURCES for to in DESTINATIONS)
    parser.add_argument('--pairs', default=every, help='source:destination, separated by commas (default all)')
    parser.add_argument('--folder', help='where the models lie meanwhile (default the temporary folder)')
    arguments = parser.parse_args()
    pairs = [tuple(pair.split(':')) for pair in arguments.pairs.split(',')]
    for size in arguments.sizes:
        measure(size, pairs, arguments.folder)


if __name__ == '__main__':
    main()
