"""Three servers behind the load balancer of compose.yaml, of which one is killed under load; and the files for Docker
and Kubernetes agree with the server."""

import contextlib
import http.client
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading

import pytest
import yaml
from example_models import REPOSITORY
from running import PATIENCE

from gpt2.commands.serve import serve_models
from gpt2.serving.settings import Settings
from serving.conftest import PROMPT, Running, refused, started, wait_until

NGINX = shutil.which('nginx') or shutil.which('nginx', path='/usr/sbin')
CONFIGURATION = REPOSITORY / 'docker' / 'nginx.conf'
ENDLESS = {'max_tokens': 500, 'stop_at_end': False, 'n': 4}


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return taken.getsockname()[1]


@contextlib.contextmanager
def balanced(addresses, port, folder):
    """nginx with the configuration that the repository has, but for the addresses."""
    text = CONFIGURATION.read_text().replace('listen 8000;', f'listen 127.0.0.1:{port};')
    for name, address in zip(re.findall(r'server (gpt-2-\d:8000)', text), addresses, strict=True):
        text = text.replace(name, address)
    (folder / 'nginx.conf').write_text(text)
    command = [NGINX, '-c', folder / 'nginx.conf', '-p', folder, '-g', f'daemon off; pid {folder}/pid;']
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: not refused(port) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        yield Running(process, f'http://127.0.0.1:{port}', [])
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not here; Debian's package nginx-light has it")
def test_a_server_that_is_lost_takes_no_request_with_it(models, offline, free_port, tmp_path):
    expected = {seed: offline.complete(PROMPT, seed=seed, length=20, stop_at_end=True).text for seed in range(24)}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(started('--model_name', '7M', '--batch_size', '2', models=models))
                   for _ in range(3)]  # fmt: skip
        addresses = [server.address.removeprefix('http://') for server in servers]
        balancer = stack.enter_context(balanced(addresses, free_port, tmp_path))
        streams = [balancer.events(PROMPT, **ENDLESS) for _ in servers]
        assert all(json.loads(next(stream))['choices'] for stream in streams)
        found = {}

        def ask(seed):
            found[seed] = balancer.completion(PROMPT, seed=seed, max_tokens=20)['choices'][0]['text']

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        wait_until(lambda: servers[0].metric('gpt2_queue_length') > 0)
        kill(servers[0])
        for thread in threads:
            thread.join(PATIENCE)
        assert found == expected
        ends = [end(stream) for stream in streams]
        assert sorted(ends) == ['', '[DONE]', '[DONE]']  # of the lost one what had begun alone is lost


def kill(server):
    """As when a machine is lost: none of its processes says goodbye."""
    workers = server.workers()
    for process in (server.process.pid, *workers):
        os.kill(process, signal.SIGKILL)
    server.process.wait()


def end(stream):
    """The last event of a stream, or nothing if it breaks off."""
    events = ['']
    with contextlib.suppress(OSError, http.client.HTTPException):
        events.extend(stream)
    return events[-1] if events[-1] == '[DONE]' else ''


def loaded(name):
    return list(yaml.safe_load_all((REPOSITORY / name).read_text()))


def flags_of(words):
    return {word.removeprefix('--').partition('=')[0] for word in words if word.startswith('--')}


def test_the_files_fit_the_server():
    [compose], (deployment, service, _) = loaded('compose.yaml'), loaded('docker/kubernetes.yaml')
    text, settings = CONFIGURATION.read_text(), Settings()
    pod = deployment['spec']['template']['spec']
    [container] = pod['containers']
    servers = {name: each for name, each in compose['services'].items() if name != 'balancer'}
    assert [f'{name}:8000' for name in servers] == re.findall(r'server (\S+:8000)', text)
    commands = [container['args'], *(each['command'] for each in servers.values())]
    assert {command[0] for command in commands} == {'serve'}
    assert set().union(*map(flags_of, commands)) <= set(inspect.signature(serve_models).parameters)
    assert int(re.search(r'proxy_read_timeout (\d+)s', text)[1]) > settings.time_limit
    assert re.search(r'client_max_body_size (\d+)m', text)[1] == str(settings.max_body // 10**6)
    assert all(int(each['stop_grace_period'][:-1]) > settings.grace for each in servers.values())
    assert pod['terminationGracePeriodSeconds'] > settings.grace + 5
    assert container['readinessProbe']['httpGet'] == container['startupProbe']['httpGet'] == {
        'path': '/health', 'port': 'http',
    }  # fmt: skip
    assert service['spec']['selector'].items() <= deployment['spec']['template']['metadata']['labels'].items()
    assert compose['services']['balancer']['ports'] == ['127.0.0.1:8000:8000']
