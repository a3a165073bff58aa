#!/usr/bin/env python3
"""The server under load, beside the engine alone: tokens/s and the time to the first token of 1, 8 and 32 clients;
and how long a server takes until it is ready.

    python benchmarks/serving.py
    python benchmarks/serving.py --models_dir models --model_name 124M --precision int8
    python benchmarks/serving.py --peer

Clients ask one after another, each with prompts of its own. With --peer the same clients also ask llama-cpp-python's
server, which has the same weights as q8_0; it is compiled the first time. Prints lines of JSON.
"""

import argparse
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / 'src'), str(REPOSITORY / 'benchmarks')]

import library  # noqa: E402

import gpt2  # noqa: E402
from gpt2.checkpoints.convert import convert  # noqa: E402
from gpt2.checkpoints.source import open_source  # noqa: E402
from gpt2.system.cores import usable_cores  # noqa: E402

REQUESTS = {1: 4, 8: 4, 32: 2}  # of each client, by the number of clients
LENGTH = 64
FIELDS = {'max_tokens': LENGTH, 'temperature': 1, 'top_k': 40, 'stream': True}
OUR_FIELDS = {'stop_at_end': False}
# Else it would cut by top_p and min_p too, and look for repetitions.
PEER_FIELDS = {'top_p': 1, 'min_p': 0, 'repeat_penalty': 1}


@contextlib.contextmanager
def server(arguments):
    """(the address, the process id) of a server that is ready."""
    command = [sys.executable, REPOSITORY / 'src' / 'serve.py', '--port', '0', '--engine', 'litert', *arguments]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r'http://[^/]*', process.stdout.readline()).group(), process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def peer(folder):
    """The address of llama-cpp-python's server, ready, with the model in a folder: one request at a time, which the
    next does not interrupt, on all cores; no logits but the last token's."""
    from peers import python_of

    with tempfile.TemporaryDirectory() as made, socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
        free.close()
        convert(open_source(folder), f'{made}/model.gguf', 'gguf', 'q8_0')
        flags = {'model': f'{made}/model.gguf', 'port': port, 'n_ctx': 1024, 'n_threads': usable_cores(),
                 'n_threads_batch': usable_cores(), 'interrupt_requests': False, 'logits_all': False,
                 'verbose': False}  # fmt: skip
        command = [python_of('llama.cpp'), '-m', 'llama_cpp.server']
        command += [word for name, value in flags.items() for word in (f'--{name}', str(value))]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f'http://127.0.0.1:{port}'
            while not answers(f'{address}/v1/models'):
                if process.poll() is not None:
                    raise RuntimeError('the server of llama-cpp-python ended')
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def answers(address):
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(address) as answer:
        return answer.status == 200


def timed_request(address, fields):
    """(seconds to the first text, tokens) of a streamed completion. A part that is sent is a token or more, so of a
    completion that ended early they are a lower bound."""
    body = json.dumps(FIELDS | fields).encode()
    request = urllib.request.Request(f'{address}/v1/completions', body, {'Content-Type': 'application/json'})
    start, first, parts, reason = time.perf_counter(), None, 0, None
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            if line.startswith(b'data: {'):
                [choice] = json.loads(line[6:])['choices']
                first = first or time.perf_counter() - start
                parts, reason = parts + 1, choice['finish_reason']
    return first, LENGTH if reason == 'length' else parts


def tell(**figures):
    print(json.dumps(figures), flush=True)


def ask_all(name, address, numbers, prompts, fields):
    """Tell the figures of so many clients each, after a request that is not counted."""
    timed_request(address, {'prompt': prompts[-1], **fields})
    for clients in numbers:
        tell(server=name, **load(address, clients, prompts, fields))


def load(address, clients, prompts, fields):
    """Figures of so many clients that ask at once."""
    found = []

    def ask(client):
        for number in range(REQUESTS[clients]):
            place = client * REQUESTS[clients] + number
            found.append(timed_request(address, {'prompt': prompts[place], 'seed': place, **fields}))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    firsts = [first for first, _ in found]
    return {
        'clients': clients, 'requests': len(found), 'tokens_a_second': sum(tokens for _, tokens in found) / seconds,
        'first_token_p50': float(np.quantile(firsts, 0.5)), 'first_token_p95': float(np.quantile(firsts, 0.95)),
    }  # fmt: skip


def seconds_to_ready(arguments):
    """From the start of a server to the line with its address."""
    start = time.perf_counter()
    with server(arguments):
        return time.perf_counter() - start


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
    parser.add_argument('--clients', type=int, nargs='+', choices=REQUESTS, default=[*REQUESTS])
    parser.add_argument('--starts', type=int, default=10, help='How often the server is started. Default: 10')
    parser.add_argument('--peer', action='store_true', help="Ask llama-cpp-python's server too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        models_dir = given.models_dir or made
        if not given.models_dir:
            (folder := pathlib.Path(made) / given.model_name).mkdir()
            library.make_model(folder, given.model_name)
        prompts = library.different_prompts(max(clients * each for clients, each in REQUESTS.items()) + 1)
        arguments = ['--model_name', given.model_name, '--models_dir', models_dir, '--precision', given.precision]
        tell(engine_alone_batch_8=engine_alone(given.model_name, models_dir, given.precision, prompts[:32]))
        with server([*arguments, '--batch_size', '32', '--prefix_cache', '0']) as (address, _):
            ask_all('ours', address, given.clients, prompts, OUR_FIELDS)
        tell(ready_after=sorted(seconds_to_ready(arguments) for _ in range(given.starts)))
        if given.peer:
            with peer(str(pathlib.Path(models_dir) / given.model_name)) as address:
                ask_all('llama-cpp-python', address, given.clients, prompts, PEER_FIELDS)


if __name__ == '__main__':
    main()
