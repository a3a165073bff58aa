#!/usr/bin/env python3
"""The server under load, beside the engine alone: tokens/s and the time to the first token of 1, 8 and 32 clients.

    python benchmarks/serving.py
    python benchmarks/serving.py --models_dir models --model_name 124M --precision int8

Clients ask one after another, each with prompts of its own. Prints JSON.
"""

import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / 'src'), str(REPOSITORY / 'benchmarks')]

import library  # noqa: E402

import gpt2  # noqa: E402

CLIENTS, REQUESTS, LENGTH = (1, 8, 32), 4, 64


@contextlib.contextmanager
def server(arguments):
    """The address of a server that is ready."""
    command = [sys.executable, REPOSITORY / 'src' / 'serve.py', '--port', '0', '--engine', 'litert', *arguments]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r'http://[^/]*', process.stdout.readline()).group()
    finally:
        process.terminate()
        process.wait()


def timed_request(address, prompt, seed):
    """(seconds to the first text, tokens) of a streamed completion."""
    fields = {'prompt': prompt, 'max_tokens': LENGTH, 'seed': seed, 'top_k': 40, 'stream': True, 'stop_at_end': False}
    body = json.dumps(fields | {'stream_options': {'include_usage': True}}).encode()
    request = urllib.request.Request(f'{address}/v1/completions', body, {'Content-Type': 'application/json'})
    start, first, tokens = time.perf_counter(), None, 0
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            if line.startswith(b'data: {'):
                first = first or time.perf_counter() - start
                tokens = (json.loads(line[6:])['usage'] or {}).get('completion_tokens', tokens)
    return first, tokens


def load(address, clients, prompts):
    """Figures of so many clients that ask at once."""
    found = []

    def ask(client):
        for number in range(REQUESTS):
            place = client * REQUESTS + number
            found.append(timed_request(address, prompts[place], place))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    firsts = [first for first, _ in found]
    return {
        'clients': clients, 'tokens_a_second': sum(tokens for _, tokens in found) / seconds,
        'first_token_p50': float(np.quantile(firsts, 0.5)), 'first_token_p95': float(np.quantile(firsts, 0.95)),
    }  # fmt: skip


def engine_alone(name, models_dir, precision, prompts):
    """Tokens/s of the library with a batch of 8."""
    with gpt2.load(name, models_dir, engine='litert', precision=precision) as model:
        start = time.perf_counter()
        model.complete(prompts, length=LENGTH, batch_size=8, seed=0, top_k=40)
        return len(prompts) * LENGTH / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model_name', default='124M')
    parser.add_argument('--models_dir', help='Default: a model with random weights is made')
    parser.add_argument('--precision', default='int8')
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        models_dir = given.models_dir or made
        if not given.models_dir:
            (folder := pathlib.Path(made) / given.model_name).mkdir()
            library.make_model(folder, given.model_name)
        prompts = library.different_prompts(max(CLIENTS) * REQUESTS)
        arguments = ['--model_name', given.model_name, '--models_dir', models_dir, '--precision', given.precision]
        results = {'engine_alone_batch_8': engine_alone(given.model_name, models_dir, given.precision, prompts[:32])}
        with server([*arguments, '--batch_size', '32', '--prefix_cache', '0']) as address:
            results['server'] = [load(address, clients, prompts) for clients in CLIENTS]
    print(json.dumps(results, indent=1))


if __name__ == '__main__':
    main()
