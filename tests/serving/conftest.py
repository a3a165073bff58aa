"""A server with the bundled model, and what asks it."""

import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from example_models import BUNDLED, REPOSITORY
from running import PATIENCE, environment

SCRIPT = REPOSITORY / 'src' / 'serve.py'
PROMPT = 'Once upon a time'


class Running:
    """A server in a process of its own. address: with its scheme and port."""

    def __init__(self, process, address, lines):
        self.process, self.address, self.lines = process, address, lines
        self.port = int(address.rpartition(':')[2])

    def ask(self, path, content=None, headers=None, body=None, method=None, decode=True):
        """(status, the answer, its headers) of a request: POST if it has content."""
        given = json.dumps(content).encode() if body is None and content is not None else body
        headers = ({'Content-Type': 'application/json'} if given is not None else {}) | (headers or {})
        request = urllib.request.Request(self.address + path, given, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, decoded(answer) if decode else answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, decoded(error), error.headers

    def completion(self, prompt, **fields):
        status, answer, _ = self.ask('/v1/completions', {'prompt': prompt, **fields})
        assert status == 200, answer
        return answer

    def error(self, path='/v1/completions', status=400, **fields):
        found, answer, _ = self.ask(path, fields)
        assert found == status, answer
        assert set(answer['error']) == {'message', 'type', 'param', 'code'}
        return answer['error']

    def events(self, prompt, **fields):
        """Yield the contents of the events of a stream."""
        body = json.dumps({'prompt': prompt, 'stream': True, **fields}).encode()
        request = urllib.request.Request(
            self.address + '/v1/completions', body, {'Content-Type': 'application/json'}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert answer.headers['Content-Type'].startswith('text/event-stream')
            for line in answer:
                if line.strip():
                    yield line.decode().removeprefix('data: ').strip()

    def metric(self, name):
        _, text, _ = self.ask('/metrics')
        return sum(float(value) for value in re.findall(rf'^{name}(?:{{[^}}]*}})? (\S+)$', text, re.MULTILINE))

    def connect(self):
        """A socket of the server's port."""
        return socket.create_connection(('127.0.0.1', self.port), timeout=PATIENCE)

    def workers(self):
        """Process ids of those that compute."""
        out = subprocess.run(
            ['ps', '-o', 'pid=,args=', '--ppid', str(self.process.pid)], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
        return [int(line.split()[0]) for line in out.splitlines() if 'gpt2.serving.worker' in line]


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def request_head(length):
    return (
        f'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
        f'Content-Length: {length}\r\n\r\n'
    ).encode()


def refused(port):
    with socket.socket() as connection:
        return connection.connect_ex(('127.0.0.1', port)) != 0


def decoded(answer):
    content = answer.read().decode()
    return json.loads(content) if answer.headers['Content-Type'] == 'application/json' else content


@contextlib.contextmanager
def started(*flags, models, **changes):
    """A server that is ready, until the end of the context."""
    command = [sys.executable, SCRIPT, '--port', '0', '--engine', 'litert', '--models_dir', models, *flags]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**changes)
    )
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[1].startswith('curl '), process.stderr.read()
        yield Running(process, re.search(r'http://[^/]*', lines[0]).group(), lines)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.communicate()


@pytest.fixture(scope='session')
def models(tmp_path_factory):
    """A models folder with the bundled model, once more under another name, and a folder beside it."""
    folder = tmp_path_factory.mktemp('serving') / 'models'
    for name in ('7M', 'other'):
        (folder / name).mkdir(parents=True)
        for path in BUNDLED.iterdir():
            if path.suffix != '.tflite':
                (folder / name / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope='session')
def server(models, without_tensorflow):
    with started('--model_name', '7M', '--batch_size', '4', models=models, **without_tensorflow) as running:
        yield running


@pytest.fixture(scope='session')
def looking(models):
    """A server that can look inside, for which it needs TensorFlow."""
    with started('--model_name', '7M', models=models) as running:
        yield running


@pytest.fixture(scope='session')
def offline(models):
    """The same model as a library."""
    import gpt2

    with gpt2.load('7M', str(models), engine='litert') as model:
        yield model


@pytest.fixture
def at_once():
    """Call functions at the same time; returns what each returned."""

    def call(*functions):
        with concurrent.futures.ThreadPoolExecutor(len(functions)) as threads:
            return [future.result() for future in [threads.submit(function) for function in functions]]

    return call
