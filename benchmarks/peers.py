#!/usr/bin/env python3
"""Measure our engines beside CTranslate2, llama.cpp and transformers, on the same synthetic weights.

    make bench-peers                   124M: a table on standard output, benchmarks/peers.json
    python benchmarks/peers.py --rounds 5
    python benchmarks/peers.py --folder /tmp/peers --cases int4 int8    some cases; their models stay in the folder
    python benchmarks/peers.py --cases scoring --text wikitext2.test.txt
    python benchmarks/peers.py --size 774M

Each of the others gets a virtual environment below .venv-peers/, made once; llama.cpp is compiled. Cases that are not
measured keep the figures that peers.json has of them.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench
import library
import numpy as np
from peer_systems import N_CTX
from tqdm import tqdm

from gpt2.checkpoints.source import open_source
from gpt2.encoder import get_encoder
from gpt2.hparams import RELEASED_HPARAMS
from gpt2.litert.export import PRECISIONS, exported_file
from gpt2.system.cores import usable_cores

HERE = pathlib.Path(__file__).parent
ENVIRONMENTS = HERE.parent / '.venv-peers'
LLAMA = 'llama-cpp-python[server]==0.3.36'
PACKAGES = {
    'ctranslate2': [['ctranslate2==4.8.5']],
    'llama.cpp': [['cmake', 'ninja'], [LLAMA, 'gguf==0.19.0']],
    'transformers': [['torch==2.13.0', 'transformers==5.23.0']],
}
# Compiled with GCC 12 llama.cpp 0.3.36's products for AMX crash with q8_0 and q4_0; without them it takes AVX-512.
WITHOUT_AMX = [f'-DCMAKE_{language}_FLAGS=-mno-amx-int8' for language in ('C', 'CXX') if platform.machine() == 'x86_64']
# What its perplexity tool does not need. In one file, it can be copied.
WITHOUT = [f'-D{part}=OFF' for part in ('BUILD_SHARED_LIBS', 'LLAMA_BUILD_SERVER', 'LLAMA_BUILD_APP', 'LLAMA_OPENSSL')]
OURS = ('litert', 'tf')
DIFFERENT = [5, 9, 14, 20, 28, 37, 48, 60]  # tokens of eight prompts
FLOATS = ['litert float32', 'ctranslate2 float32', 'llama.cpp f32', 'transformers float32', 'tf float32']
START = 'start to first token'  # of our command
SCORING, TEXT = 4, HERE.parent / 'examples' / 'heidi.txt'  # windows
# name: ((tokens of each prompt, tokens to draw) or SCORING, systems). Of BARS each: case, ours, theirs, least ratio of
# speeds.
CASES = {
    'int4, 100 tokens': (([16], 100), ['litert int4', 'llama.cpp q4_0']),
    'int8, 100 tokens': (([16], 100), ['litert int8', 'ctranslate2 int8', 'llama.cpp q8_0', 'llama.cpp q4_0']),
    'int8, 500 tokens': (([16], 500), ['litert int8', 'ctranslate2 int8']),
    'int8, batch 8, 100 tokens': (([16] * 8, 100), ['litert int8', 'ctranslate2 int8']),
    'int8, 8 different prompts, 100 tokens': ((DIFFERENT, 100), ['litert int8', 'ctranslate2 int8']),
    'float32, 100 tokens': (([16], 100), FLOATS),
    'float32, 500 tokens': (([16], 500), ['litert float32', 'llama.cpp f32']),
    'prompt of 512, float32': (([512], 1), FLOATS),
    'prompt of 1,000, float32': (([1000], 1), FLOATS[:4]),
    'prompt of 512, int8': (([512], 1), ['litert int8', 'ctranslate2 int8']),
    'prompt of 1,000, int8': (([1000], 1), ['litert int8', 'ctranslate2 int8']),
    'scoring, float32': (SCORING, ['litert float32', 'llama.cpp f32', 'transformers float32', 'tf float32']),
    'scoring, int8': (SCORING, ['litert int8', 'llama.cpp q8_0', 'transformers float32']),
}
BARS = [
    ('int4, 100 tokens', 'litert int4', 'llama.cpp q4_0', 1.2),
    ('int8, 100 tokens', 'litert int8', 'ctranslate2 int8', 2.0),
    ('int8, 100 tokens', 'litert int8', 'llama.cpp q8_0', 1.3),
    ('int8, 500 tokens', 'litert int8', 'ctranslate2 int8', 1.25),
    ('int8, batch 8, 100 tokens', 'litert int8', 'ctranslate2 int8', 1.6),
    ('int8, 8 different prompts, 100 tokens', 'litert int8', 'ctranslate2 int8', 1.3),
    ('float32, 100 tokens', 'litert float32', 'ctranslate2 float32', 1.0),
    ('float32, 100 tokens', 'litert float32', 'llama.cpp f32', 1.0),
    ('float32, 500 tokens', 'litert float32', 'llama.cpp f32', 1.0),
    *(
        (f'prompt of {size}, float32', 'litert float32', theirs, 1.0)
        for size in ('512', '1,000')
        for theirs in FLOATS[1:4]
    ),
    ('prompt of 512, int8', 'litert int8', 'ctranslate2 int8', 1.3),
    ('prompt of 1,000, int8', 'litert int8', 'ctranslate2 int8', 1.3),
    ('scoring, float32', 'litert float32', 'llama.cpp f32', 1.2),
    ('scoring, float32', 'litert float32', 'transformers float32', 1.2),
    ('scoring, int8', 'litert int8', 'llama.cpp q8_0', 1.2),
    ('scoring, int8', 'litert int8', 'transformers float32', 1.2),
]
LARGE_CASES = {  # of the sizes of which float32 takes long
    'int8, 50 tokens': (([16], 50), ['litert int8', 'llama.cpp q8_0']),
    'int4, 50 tokens': (([16], 50), ['litert int4', 'llama.cpp q4_0']),
}
LARGE_BARS = [
    ('int8, 50 tokens', 'litert int8', 'llama.cpp q8_0', 1.2),
    ('int4, 50 tokens', 'litert int4', 'llama.cpp q4_0', 1.2),
]
PAUSE = 0.5  # seconds before a run: threads of the one before may still spin
START_BARS = {'litert int8': 0.5, 'litert float32': 1.0}  # seconds at most


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
            environment = os.environ | {'CMAKE_ARGS': ' '.join(WITHOUT_AMX)}
            # pip's cache would give a program that was compiled with other settings.
            install = [python, '-m', 'pip', 'install', '--quiet', '--no-cache-dir', *packages]
            subprocess.run(install, check=True, env=environment)
        (folder / 'installed').touch()
    return str(python)


def make_perplexity_tool():
    """Compile the program of llama.cpp that scores, of which the package has only the source, if it is not there."""
    python, tool = pathlib.Path(python_of('llama.cpp')), 'llama-perplexity'
    if (python.parent / tool).exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        download = [python, '-m', 'pip', 'download', '--quiet', '--no-deps', '--no-binary=llama-cpp-python', LLAMA]
        subprocess.run(download, check=True, cwd=folder)
        shutil.unpack_archive(next(folder.glob('*.tar.gz')), folder)
        [source] = folder.glob('*/vendor/llama.cpp')
        environment = os.environ | {'PATH': f'{python.parent}{os.pathsep}{os.environ["PATH"]}'}
        for step in (
            ['-G', 'Ninja', '-S', source, '-B', 'build', '-DCMAKE_BUILD_TYPE=Release', *WITHOUT, *WITHOUT_AMX],
            ['--build', 'build', '--target', tool, '--parallel', str(usable_cores())],
        ):
            subprocess.run(['cmake', *step], check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        shutil.copy(folder / 'build' / 'bin' / tool, python.parent / f'{tool}.part')
        os.rename(python.parent / f'{tool}.part', python.parent / tool)


def run_system(system, *arguments, **how):
    return subprocess.Popen([python_of(system), str(HERE / 'peer_systems.py'), system, *map(str, arguments)], **how)


def made(folder, size):
    """A model of a released shape in a folder, made if it is not there; returns its variables as a file."""
    weights = f'{folder}/weights.npz'
    if not os.path.exists(weights):
        os.makedirs(f'{folder}/{size}', exist_ok=True)
        library.make_model(f'{folder}/{size}', size)
        np.savez(weights, **dict(open_source(f'{folder}/{size}').values()))
    for precision in PRECISIONS if size == '124M' else PRECISIONS[1:]:
        exported_file(open_source(f'{folder}/{size}'), precision)
    return weights


def converted(system, weights, folder, size):
    """The folder that a system loads."""
    if system.split()[0] in OURS:
        return f'{folder}/{size}'
    target = f'{folder}/{system.replace(" ", "-")}'
    if os.path.exists(target):
        return target
    if run_system(system, 'convert', weights, f'{target}.new', stderr=subprocess.DEVNULL).wait():
        raise RuntimeError(f'{system} did not take the weights')
    os.rename(f'{target}.new', target)
    return target


def serve(system, folder):
    return run_system(system, 'serve', folder, usable_cores(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(server, request):
    """What a system answers: its seconds, and of scoring the perplexity."""
    time.sleep(PAUSE)
    server.stdin.write(json.dumps(request) + '\n')
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        raise RuntimeError(f'{" ".join(server.args[2:])} ended with status {server.wait()}')
    return json.loads(answer)


def start_times(folder):
    """Seconds from process start to the end of the first token after a prompt of 16, by engine."""
    flags = ['--models_dir', folder, '--model_name', '124M', '--prompt', 'a' + ' a' * 15, '--length', '1']
    command = [sys.executable, str(bench.SCRIPT), *flags]

    def seconds(*engine):
        return bench.seconds(lambda: subprocess.run([*command, *engine], stdout=subprocess.DEVNULL, check=True))

    return {
        'litert int8': seconds('--engine', 'litert', '--precision', 'int8'),
        'litert float32': seconds('--engine', 'litert'),
        'tf float32': seconds('--engine', 'tf'),
    }


def save_windows(path, text):
    """Write the tokens of a text's first windows, int32 [SCORING, N_CTX]."""
    found = get_encoder('124M', str(bench.VOCABULARY)).encode(pathlib.Path(text).read_text(encoding='utf-8'))
    if len(found) < SCORING * N_CTX:
        sys.exit(f'{text} has {len(found)} tokens, expected at least {SCORING * N_CTX}; name a longer one')
    np.save(path, np.array(found[: SCORING * N_CTX], np.int32).reshape(SCORING, N_CTX))


def prepared(folder, size, cases, scoring):
    """{system: its server}, warmed up. scoring: what it is told to score."""
    weights = made(folder, size)
    if scorers := {system for asked, systems in cases.values() if asked == SCORING for system in systems}:
        make_perplexity_tool()
        save_windows(scoring['ids'], scoring['text'])
    servers = {}
    for system in tqdm(sorted({system for _, systems in cases.values() for system in systems}), 'preparing'):
        servers[system] = serve(system, converted(system, weights, folder, size))
        ask(servers[system], {'prompts': [16], 'length': 8})
        if system in scorers:
            ask(servers[system], scoring | {'windows': 1})
    return servers


def request(asked, scoring):
    """What a system is told to do, and with how many tokens."""
    if asked == SCORING:
        return scoring, SCORING * N_CTX
    prompts, length = asked
    return {'prompts': prompts, 'length': length}, len(prompts) * length if length > 1 else prompts[0]


def measure(folder, size, cases, rounds, text):
    """Medians: {case: {system: tokens a second}}, of the start seconds; and perplexities, {case: {system: of text}}."""
    scoring = {'text': text, 'ids': f'{folder}/ids.npy', 'windows': SCORING}
    servers = prepared(folder, size, cases, scoring)
    found = {case: {system: [] for system in systems} for case, (_, systems) in cases.items()}
    perplexities = {}
    for number in tqdm(range(rounds), 'measuring', unit='round'):
        for case, (asked, systems) in cases.items():
            if case == START:
                for engine, seconds in start_times(folder).items():
                    found[case].setdefault(engine, []).append(seconds)
                continue
            told, tokens = request(asked, scoring)
            for system in systems[:: -1 if number % 2 else 1]:
                answer = ask(servers[system], told)
                found[case][system].append(tokens / answer['seconds'])
                if asked == SCORING:
                    perplexities.setdefault(case, {})[system] = answer['perplexity']
    for server in servers.values():
        server.stdin.close()
        server.wait()
    for values in perplexities.values():
        check_same(values)
    speeds = {case: {system: statistics.median(values) for system, values in speeds.items()}
              for case, speeds in found.items()}  # fmt: skip
    return speeds, perplexities


def check_same(perplexities):
    """Raise where systems that compute in float32 find other perplexities: they have not scored the same."""
    exact = [value for system, value in perplexities.items() if system.endswith('32')]
    if max(exact) > 1.001 * min(exact):
        raise RuntimeError(f'perplexities differ: {perplexities}')


def table(found, perplexities, bars):
    lines = ['| case | tokens/s |', '|---|---|']
    for case, speeds in found.items():
        unit = ' s' if case == START else ''
        lines.append(f'| {case} | {", ".join(f"{system} {speed:.4g}{unit}" for system, speed in speeds.items())} |')
    lines += [f'| {case}, perplexity | {", ".join(f"{system} {value:.6g}" for system, value in values.items())} |'
              for case, values in perplexities.items()]  # fmt: skip
    lines += ['', '| ratio of speeds | measured | bar |', '|---|---|---|']
    for case, ours, theirs, bar in bars:
        if case in found:
            ratio = found[case][ours] / found[case][theirs]
            lines.append(f'| {case}: {ours} to {theirs} | {ratio:.2f} | {bar:.2f} |')
    if START in found:
        lines += [f'| {START}, {engine} | {found[START][engine]:.2f} s | at most {most} |'
                  for engine, most in START_BARS.items()]  # fmt: skip
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5, help='rounds, of which the median counts (default 5)')
    parser.add_argument('--size', choices=RELEASED_HPARAMS, default='124M')
    parser.add_argument('--folder', help='where models are made and stay; else they are removed')
    parser.add_argument('--cases', nargs='*', default=[''], help='only cases in whose name one of these is')
    parser.add_argument('--text', type=pathlib.Path, default=TEXT, help='what is scored (default examples/heidi.txt)')
    arguments = parser.parse_args()
    cases, bars = (CASES | {START: (None, [])}, BARS) if arguments.size == '124M' else (LARGE_CASES, LARGE_BARS)
    cases = {case: asked for case, asked in cases.items() if any(part in case for part in arguments.cases)}
    with tempfile.TemporaryDirectory() as folder:
        found, perplexities = measure(
            arguments.folder or folder, arguments.size, cases, arguments.rounds, str(arguments.text)
        )
    path = HERE / 'peers.json'
    results = json.loads(path.read_text()) if path.exists() else {}
    made_on = {
        'rounds': arguments.rounds,
        'date': datetime.date.today().isoformat(),
        'machine': f'{processor()}, {os.cpu_count()} cores, {platform.machine()}',
        'python': platform.python_version(),
        'ai-edge-litert': importlib.metadata.version('ai-edge-litert'),
        'packages': PACKAGES,
    }
    for case, values in found.items():
        results.setdefault(arguments.size, {})[case] = {'seconds' if case == START else 'tokens_per_second': values} | {
            'ratios': {f'{ours} to {theirs}': values[ours] / values[theirs]
                       for of, ours, theirs, _ in bars if of == case},
        } | made_on  # fmt: skip
        if case in perplexities:
            results[arguments.size][case] |= {'text': arguments.text.name, 'perplexity': perplexities[case]}
    path.write_text(json.dumps(results, indent=1) + '\n')
    print(table(found, perplexities, bars))


def processor():
    """The name of the processor, where Linux tells it."""
    try:
        found = re.search(r'model name\s*: (.*)', pathlib.Path('/proc/cpuinfo').read_text())
    except OSError:
        return platform.processor()
    return found[1] if found else platform.processor()


if __name__ == '__main__':
    main()
