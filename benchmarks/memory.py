#!/usr/bin/env python3
"""Load and sample from synthetic checkpoints of the released sizes; time and peak memory of each.

    .venv/bin/python benchmarks/memory.py 124M 1558M

Needs the size of the weights twice over: on disk, in the temporary folder, and in memory.
"""

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

from hparams import RELEASED_HPARAMS, save_hparams, variable_shapes, weights_bytes


def peak_megabytes():
    """Peak resident memory of this process. Linux's ru_maxrss would include that of its parent."""
    status = pathlib.Path('/proc/self/status')
    if status.exists():
        return int(re.search(r'VmHWM:\s*(\d+)', status.read_text()).group(1)) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: bytes


def write(folder, size):
    import checkpoint
    import model

    hparams = RELEASED_HPARAMS[size]
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    checkpoint.write_values(os.path.join(folder, 'model.ckpt'), model.flatten(model.initial_params(hparams, seed=0)))


def load(folder, size):
    """Run in a process of its own, so that its peak memory is that of loading and sampling."""
    import checkpoint
    import sample

    hparams = RELEASED_HPARAMS[size]
    start = time.perf_counter()
    generator = sample.Generator(hparams, checkpoint.load_params(folder, hparams))
    loaded, peak = time.perf_counter() - start, peak_megabytes()
    steps = generator.generate([[1] * 16], 40, numbers=[0], seed=0, top_k=40)
    next(steps), next(steps)
    start = time.perf_counter()
    count = sum(1 for _ in steps)
    speed = count / (time.perf_counter() - start)
    weights = weights_bytes(hparams) / 1e6
    largest = 4 * max(math.prod(shape) for shape in variable_shapes(hparams).values()) / 1e6
    print(json.dumps({
        'size': size,
        'weights_megabytes': round(weights),
        'load_seconds': round(loaded, 1),
        'peak_loading_megabytes': round(peak),
        'bound_megabytes': round(weights + 700 + largest),
        'peak_sampling_megabytes': round(peak_megabytes()),
        'tokens_per_second': round(speed, 1),
    }))  # fmt: skip


def measure(size):
    """What load prints, as a dict, from processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, 'write', folder, size], check=True)
        return json.loads(subprocess.check_output([sys.executable, __file__, 'load', folder, size], text=True))


if __name__ == '__main__':
    if sys.argv[1] in ('write', 'load'):
        {'write': write, 'load': load}[sys.argv[1]](*sys.argv[2:])
    else:
        for size in sys.argv[1:]:
            print(json.dumps(measure(size)), flush=True)
