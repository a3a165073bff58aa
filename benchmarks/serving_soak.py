#!/usr/bin/env python3
"""2,000 requests to a server, one in ten of which is cut off: is any lost or mixed up, and does memory grow?

    python benchmarks/serving_soak.py
    python benchmarks/serving_soak.py --requests 10000

Eight clients, the bundled model; each whole answer is compared with what the library draws. Prints a line of JSON after
each tenth of the requests: how many were right, wrong and lost, and the megabytes of the server and of the process that
computes; at last what the server is still busy with when all is over.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import re
import time
import urllib.request

import serving
from serving import tell

import gpt2

CLIENTS, LENGTH, ENDLESS = 8, 12, 400
MODELS_DIR = str(serving.REPOSITORY / 'models')
WORDS = ['once', 'upon', 'a', 'time', 'the', 'king', 'said']


def ask(address, prompt, seed, **fields):
    fields = {'prompt': prompt, 'seed': seed, 'max_tokens': LENGTH, 'stop_at_end': False} | fields
    headers = {'Content-Type': 'application/json'}
    request = urllib.request.Request(f'{address}/v1/completions', json.dumps(fields).encode(), headers)
    return urllib.request.urlopen(request, timeout=300)


def outcome(address, number, prompt, expected):
    """'right', 'wrong' or 'lost'. Every tenth request is cut off after its first piece, and right if that came."""
    try:
        if number % 10 == 0:
            with ask(address, prompt, number, stream=True, max_tokens=ENDLESS) as answer:
                return 'right' if answer.readline().startswith(b'data: {"id"') else 'wrong'
        with ask(address, prompt, number) as answer:
            return 'right' if json.load(answer)['choices'][0]['text'] == expected else 'wrong'
    except OSError:
        return 'lost'


def megabytes(process):
    status = pathlib.Path(f'/proc/{process}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) * 1024 // 10**6


def busy(address):
    """Samples and requests that a server still has."""
    with urllib.request.urlopen(f'{address}/metrics') as answer:
        found = re.findall(r'^gpt2_(?:batch_size|queue_length) (\S+)$', answer.read().decode(), re.MULTILINE)
    return sum(map(float, found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--requests', type=int, default=2000)
    count = parser.parse_args().requests
    words = random.Random(0)
    prompts = [' '.join(words.choices(WORDS, k=words.randint(1, 40))) for _ in range(count)]
    with gpt2.load('7M', MODELS_DIR, engine='litert') as model:
        expected = [
            number % 10 and model.complete(prompt, seed=number, length=LENGTH).text
            for number, prompt in enumerate(prompts)
        ]
    outcomes = []
    arguments = ['--model_name', '7M', '--models_dir', MODELS_DIR]
    with serving.server(arguments) as (address, process), concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        children = pathlib.Path(f'/proc/{process}/task/{process}/children').read_text().split()
        for start in range(0, count, count // 10):
            numbers = range(start, min(start + count // 10, count))
            outcomes += clients.map(lambda number: outcome(address, number, prompts[number], expected[number]), numbers)
            totals = {name: outcomes.count(name) for name in ('right', 'wrong', 'lost')}
            tell(requests=len(outcomes), **totals, megabytes=[megabytes(each) for each in (process, *children)])
        time.sleep(1)  # for the end of the last that was cut off
        tell(still_busy=busy(address))


if __name__ == '__main__':
    main()
