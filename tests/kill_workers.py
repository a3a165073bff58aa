"""Kill workers of a training at random steps, start it again, and compare the weights with those of a run that was
never disturbed: all bits must be the same.

    python tests/kill_workers.py                ten kills among two workers
    python tests/kill_workers.py KILLS WORKERS

Each time it is drawn which process is killed: the chief, or one of the others. The command must then end by itself,
with one line and status 1. tests/training/test_distribution.py does the same with two kills.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
STEPS = 120
PATIENCE = 600  # seconds until a run counts as hanging; the machine may be busy
FILES = ('model.ckpt.data-00000-of-00001', 'model.ckpt.optimizer.data-00000-of-00001')  # weights, and optimizer


@contextlib.contextmanager
def started(command):
    """A training that runs; it is ended with the context."""
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    process = subprocess.Popen([sys.executable, *map(str, command)], **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def run_workers(command):
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=PATIENCE
    )


def worker_ids(process):
    """The process ids of the workers that a launcher has started, the chief's first."""
    children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return list(map(int, children.read_text().split()))


def last_step(folder):
    """How far a run has come, by its log."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return json.loads((folder / 'training.jsonl').read_text().splitlines()[-1])['step']
    return 0


def killed(command, folder, kills, seed):
    """Run a command, with so many kills, to its end; the steps after which they came. Raises AssertionError."""
    draw = random.Random(seed)
    steps = int(next(word for word in command if word.startswith('--steps=')).partition('=')[2])
    found = []
    for target in sorted(draw.sample(range(1, steps - 1), kills)):
        with started(command) as process:
            first = last_step(folder)
            while last_step(folder) < target or last_step(folder) == first:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.002)
            workers = worker_ids(process)
            victim = draw.randrange(len(workers))
            os.kill(workers[victim], signal.SIGKILL)
            said = process.communicate(timeout=PATIENCE)[1]
        found.append((last_step(folder), victim))
        assert process.returncode == 1, said
        assert sum('another worker has ended' in line or 'SIGKILL' in line for line in said.splitlines()) == 1, said
        assert 'Traceback' not in said, said
    done = run_workers(command)
    assert done.returncode == 0, done.stderr
    return found


def main(kills=10, workers=2):
    with tempfile.TemporaryDirectory() as models:
        text = REPOSITORY / 'examples' / 'heidi.txt'
        shape = ['--n_embd=32', '--n_head=2', '--n_layer=2', '--n_ctx=64', '--batch_size=6', f'--steps={STEPS}']
        flags = [*shape, '--every=7', '--log_every=1', f'--models_dir={models}', f'--workers={workers}']

        def command(name):
            return [str(REPOSITORY / 'src' / 'train.py'), str(text), *flags, f'--model_name={name}']

        whole, broken = pathlib.Path(models, 'whole'), pathlib.Path(models, 'broken')
        done = run_workers(command('whole'))
        assert done.returncode == 0, done.stderr
        start = time.monotonic()
        for step, victim in killed(command('broken'), broken, kills, seed=0):
            print(f'worker {victim} of {workers} killed after step {step} of {STEPS}')
        same = all((broken / name).read_bytes() == (whole / name).read_bytes() for name in FILES)
        print(f'{"the same" if same else "OTHER"} bits after {kills} kills, {time.monotonic() - start:.0f} s')
        return 0 if same else 1


if __name__ == '__main__':
    sys.exit(main(*map(int, sys.argv[1:])))
