#!/usr/bin/env python3
"""Load and sample from synthetic checkpoints of the released sizes; time and peak memory of each.

    .venv/bin/python benchmarks/memory.py 124M 1558M
    .venv/bin/python benchmarks/memory.py --engine litert --precision int8 --positions 1024 124M

With --engine litert the export is measured too. Needs the size of the weights twice over: on disk, in
the temporary folder, and in memory; with LiteRT in float32 three times.
"""

import argparse
import json
import math
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'src'))

from gpt2.hparams import RELEASED_HPARAMS, save_hparams, variable_shapes, weights_bytes


def peak_megabytes():
    """Peak resident memory of this process. Linux's ru_maxrss would include that of its parent."""
    return status_megabytes('VmHWM') or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: bytes


def status_megabytes(name):
    """What Linux says of this process; 0 where it is not Linux."""
    status = pathlib.Path('/proc/self/status')
    if not status.exists():
        return 0
    return int(re.search(rf'{name}:\s*(\d+)', status.read_text()).group(1)) * 1024 / 1e6


def write(folder, size):
    from gpt2 import model
    from gpt2.checkpoints import release as checkpoint

    hparams = RELEASED_HPARAMS[size]
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    checkpoint.write_values(os.path.join(folder, 'model.ckpt'), model.flatten(model.initial_params(hparams, seed=0)))


def export(folder, size, precision):
    from gpt2.checkpoints.source import open_source
    from gpt2.litert.export import exported_file

    start = time.perf_counter()
    path = exported_file(open_source(folder), precision)
    return {
        'export_seconds': round(time.perf_counter() - start, 1),
        'peak_exporting_megabytes': round(peak_megabytes()),
        'file_megabytes': round(os.path.getsize(path) / 1e6),
    }


def load(folder, size, engine, precision, prompt, positions):
    hparams, prompt, positions = RELEASED_HPARAMS[size], int(prompt), int(positions)
    start = time.perf_counter()
    generator = {'tf': load_tf, 'litert': load_litert}[engine](folder, hparams, precision)
    loaded, peak = time.perf_counter() - start, peak_megabytes()
    steps = generator.generate([[1] * prompt], positions - prompt, numbers=[0], seed=0, top_k=40)
    next(steps), next(steps)
    start = time.perf_counter()
    count = sum(1 for _ in steps)
    speed = count / (time.perf_counter() - start)
    weights = weights_bytes(hparams) / 1e6
    largest = 4 * max(math.prod(shape) for shape in variable_shapes(hparams).values()) / 1e6
    bound = {'bound_megabytes': round(weights + 700 + largest)} if engine == 'tf' else {}
    return {
        'size': size,
        'weights_megabytes': round(weights),
        'load_seconds': round(loaded, 1),
        'peak_loading_megabytes': round(peak),
        **bound,
        'positions': positions,
        'peak_sampling_megabytes': round(peak_megabytes()),
        'resident_megabytes': round(status_megabytes('VmRSS')),
        'tokens_per_second': round(speed, 1),
    }


def load_tf(folder, hparams, precision):
    from gpt2 import sample
    from gpt2.checkpoints import release as checkpoint

    return sample.Generator(hparams, checkpoint.load_params(folder, hparams))


def load_litert(folder, hparams, precision):
    from gpt2.checkpoints.source import open_source
    from gpt2.litert import engine as sample_litert
    from gpt2.litert.export import exported_file

    return sample_litert.Generator(exported_file(open_source(folder), precision), hparams)


def measure(size, engine='tf', precision='float32', prompt=16, positions=56):
    """What the steps return, each from a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as folder:

        def run(step, *arguments):
            command = [sys.executable, __file__, step, folder, size, *map(str, arguments)]
            return json.loads(subprocess.check_output(command, text=True)) or {}

        run('write')
        exported = run('export', precision) if engine == 'litert' else {}
        return exported | run('load', engine, precision, prompt, positions)


def main():
    steps = {'write': write, 'export': export, 'load': load}
    if sys.argv[1:] and sys.argv[1] in steps:
        print(json.dumps(steps[sys.argv[1]](*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sizes', nargs='+', choices=RELEASED_HPARAMS, metavar='SIZE', help=', '.join(RELEASED_HPARAMS))
    parser.add_argument('--engine', choices=('tf', 'litert'), default='tf', help='default tf')
    parser.add_argument('--precision', choices=('float32', 'int8'), default='float32', help='default float32')
    parser.add_argument('--prompt', type=int, default=16, help='tokens of the prompt (default 16)')
    parser.add_argument('--positions', type=int, default=56, help='tokens of prompt and sample (default 56)')
    arguments = parser.parse_args()
    how = {name: value for name, value in vars(arguments).items() if name != 'sizes'}
    for size in arguments.sizes:
        print(json.dumps(measure(size, **how)), flush=True)


if __name__ == '__main__':
    main()
