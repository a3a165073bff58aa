#!/usr/bin/env python3
"""Measure our engines beside CTranslate2, llama.cpp and transformers, on the same synthetic 124M weights.

    make bench-peers                   a table on standard output, benchmarks/peers.json
    python benchmarks/peers.py --rounds 5

Each of the others gets a virtual environment below .venv-peers/, made once; llama.cpp is compiled.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import bench
import numpy as np
from peer_systems import SYSTEMS
from tqdm import tqdm

from gpt2 import model
from gpt2.litert.engine import usable_cores

HERE = pathlib.Path(__file__).parent
ENVIRONMENTS = HERE.parent / '.venv-peers'
PACKAGES = {
    'ctranslate2': [['ctranslate2==4.8.5']],
    'llama.cpp': [['cmake', 'ninja'], ['llama-cpp-python[server]==0.3.36', 'gguf==0.19.0']],
    'transformers': [['torch==2.13.0', 'transformers==5.23.0']],
}
# Compiled with GCC 12 llama.cpp 0.3.36's products for AMX crash with q8_0 and q4_0; without them it takes AVX-512.
WITHOUT_AMX = {'CMAKE_ARGS': '-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8'}
OURS = ('litert', 'tf')
# name: (what is asked for, systems). Each line of BARS: case, ours, theirs, least ratio of speeds.
CASES = {
    'int8, 100 tokens': (
        {'batch': 1, 'prompt': 16, 'length': 100},
        ['litert int8', 'ctranslate2 int8', 'llama.cpp q8_0', 'llama.cpp q4_0'],
    ),
    'int8, 500 tokens': ({'batch': 1, 'prompt': 16, 'length': 500}, ['litert int8', 'ctranslate2 int8']),
    'int8, batch 8, 100 tokens': ({'batch': 8, 'prompt': 16, 'length': 100}, ['litert int8', 'ctranslate2 int8']),
    'float32, 100 tokens': (
        {'batch': 1, 'prompt': 16, 'length': 100},
        ['litert float32', 'ctranslate2 float32', 'llama.cpp f32', 'transformers float32', 'tf float32'],
    ),
    'prompt of 512, float32': (
        {'batch': 1, 'prompt': 512, 'length': 1},
        ['litert float32', 'ctranslate2 float32', 'llama.cpp f32', 'transformers float32', 'tf float32'],
    ),
    'prompt of 512, int8': ({'batch': 1, 'prompt': 512, 'length': 1}, ['litert int8', 'ctranslate2 int8']),
}
BARS = [
    ('int8, 100 tokens', 'litert int8', 'ctranslate2 int8', 1.3),
    ('int8, 100 tokens', 'litert int8', 'llama.cpp q8_0', 1.5),
    ('int8, 100 tokens', 'litert int8', 'llama.cpp q4_0', 1.1),
    ('int8, 500 tokens', 'litert int8', 'ctranslate2 int8', 1.25),
    ('int8, batch 8, 100 tokens', 'litert int8', 'ctranslate2 int8', 1.0),
    ('float32, 100 tokens', 'litert float32', 'ctranslate2 float32', 1.0),
    ('float32, 100 tokens', 'litert float32', 'llama.cpp f32', 0.95),
    ('prompt of 512, float32', 'litert float32', 'ctranslate2 float32', 1.0),
    ('prompt of 512, int8', 'litert int8', 'ctranslate2 int8', 1.0),
]
PAUSE = 0.5  # seconds before a run: threads of the one before may still spin
START_LIMIT = 1.5  # seconds to the first token, and of the TensorFlow engine's time this part:
START_RATIO = 0.3


def python_of(system):
    """The Python that runs a system; its environment is made if it is not there."""
    peer = system.split()[0]
    if peer in OURS:
        return sys.executable
    folder = ENVIRONMENTS / peer
    python = folder / 'bin' / 'python'
    if not (folder / 'installed').exists():
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
        for packages in PACKAGES[peer]:
            environment = os.environ | (WITHOUT_AMX if platform.machine() == 'x86_64' else {})
            # pip's cache would give a program that was compiled with other settings.
            install = [python, '-m', 'pip', 'install', '--quiet', '--no-cache-dir', *packages]
            subprocess.run(install, check=True, env=environment)
        (folder / 'installed').touch()
    return str(python)


def run_system(system, *arguments, **how):
    return subprocess.Popen([python_of(system), str(HERE / 'peer_systems.py'), system, *map(str, arguments)], **how)


def converted(system, weights, folder):
    """The folder that a system loads."""
    if system.split()[0] in OURS:
        return f'{folder}/124M'
    target = f'{folder}/{system.replace(" ", "-")}'
    if run_system(system, 'convert', weights, target, stderr=subprocess.DEVNULL).wait():
        raise RuntimeError(f'{system} did not take the weights')
    return target


def serve(system, folder):
    return run_system(system, 'serve', folder, usable_cores(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(server, request):
    """Seconds that a system took."""
    time.sleep(PAUSE)
    server.stdin.write(json.dumps(request) + '\n')
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        raise RuntimeError(f'{" ".join(server.args[2:])} ended with status {server.wait()}')
    return float(answer)


def start_times(folder):
    """Seconds from process start to the end of the first token after a prompt of 16, by engine."""
    flags = ['--models_dir', folder, '--model_name', '124M', '--prompt', 'a' + ' a' * 15, '--length', '1']
    command = [sys.executable, str(bench.SCRIPT), *flags]

    def seconds(*engine):
        return bench.seconds(lambda: subprocess.run([*command, *engine], stdout=subprocess.DEVNULL, check=True))

    return {
        'litert int8': seconds('--engine', 'litert', '--precision', 'int8'),
        'litert float32': seconds('--engine', 'litert'),
        'tf float32': seconds(),
    }


def measure(rounds):
    """Medians: {case: {system: tokens a second}}, and seconds to the first token by engine."""
    with tempfile.TemporaryDirectory() as folder:
        params = bench.make_checkpoint(folder)[1]
        weights = f'{folder}/weights.npz'
        np.savez(weights, **{name: value.numpy() for name, value in model.flatten(params).items()})
        servers = {system: serve(system, converted(system, weights, folder)) for system in tqdm(SYSTEMS, 'preparing')}
        speeds = {case: {system: [] for system in systems} for case, (_, systems) in CASES.items()}
        for server in servers.values():  # once to warm up
            ask(server, {'batch': 1, 'prompt': 16, 'length': 8})
        starts = []
        for number in tqdm(range(rounds), 'measuring', unit='round'):
            for case, (request, systems) in CASES.items():
                tokens = request['batch'] * (request['length'] if request['length'] > 1 else request['prompt'])
                for system in systems[:: -1 if number % 2 else 1]:
                    speeds[case][system].append(tokens / ask(servers[system], request))
            starts.append(start_times(folder))
        for server in servers.values():
            server.stdin.close()
            server.wait()
    medians = {case: {system: statistics.median(values) for system, values in found.items()}
               for case, found in speeds.items()}  # fmt: skip
    return medians, {engine: statistics.median(start[engine] for start in starts) for engine in starts[0]}


def table(speeds, starts):
    lines = ['| case | tokens/s |', '|---|---|']
    for case, found in speeds.items():
        lines.append(f'| {case} | {", ".join(f"{system} {speed:.1f}" for system, speed in found.items())} |')
    seconds = ', '.join(f'{engine} {value:.2f} s' for engine, value in starts.items())
    lines += [f'| process start to first token | {seconds} |', '']
    lines += ['| ratio of speeds | measured | bar |', '|---|---|---|']
    for case, ours, theirs, bar in BARS:
        lines.append(f'| {case}: {ours} to {theirs} | {speeds[case][ours] / speeds[case][theirs]:.2f} | {bar:.2f} |')
    first = starts['litert int8']
    lines.append(f'| first token, seconds | {first:.2f} | at most {START_LIMIT} |')
    lines.append(f'| first token, of TensorFlow\'s | {first / starts["tf float32"]:.2f} | at most {START_RATIO} |')
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5, help='rounds, of which the median counts (default 5)')
    arguments = parser.parse_args()
    speeds, starts = measure(arguments.rounds)
    results = {
        'tokens_per_second': speeds,
        'seconds_to_first_token': starts,
        'ratios': {f'{case}: {ours} to {theirs}': speeds[case][ours] / speeds[case][theirs]
                   for case, ours, theirs, _ in BARS},
        'date': datetime.date.today().isoformat(),
        'machine': f'{os.cpu_count()} cores, {platform.machine()}',
        'python': platform.python_version(),
        'packages': PACKAGES,
        'command': ' '.join(['python', 'benchmarks/peers.py', *sys.argv[1:]]),
    }  # fmt: skip
    (HERE / 'peers.json').write_text(json.dumps(results, indent=1) + '\n')
    print(table(speeds, starts))


if __name__ == '__main__':
    main()
