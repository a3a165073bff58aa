"""Workers that wait for one another, before TensorFlow is there."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from example_models import REPOSITORY
from running import PATIENCE, environment

from gpt2.errors import Error
from gpt2.training import arrival
from gpt2.training.arrival import arrive, greeting
from gpt2.training.launcher import free_ports


@pytest.fixture
def addresses(monkeypatch):
    monkeypatch.setattr(arrival, 'RETRY', 0.02)
    return [f'127.0.0.1:{port}' for port in free_ports(3)]


def in_threads(addresses, numbers):
    """Threads of workers, and a list of the numbers of those that have gone on."""
    gone_on = []

    def come(number):
        arrive(addresses, number)
        gone_on.append(number)

    threads = [threading.Thread(target=come, args=[number], daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    return threads, gone_on


def joined(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def visitor(address, words):
    """A connection to the first worker, as soon as it listens, at which something was said."""
    while True:
        with contextlib.suppress(OSError):
            connection = socket.create_connection(arrival.parts(address))
            connection.sendall(words)
            return connection


def test_all_go_on_once_the_last_has_come(addresses):
    threads, gone_on = in_threads(addresses, [2, 0])
    strangers = [visitor(addresses[0], words) for words in (b'PRI * HTTP/2.0\r\n', b'worker 1 of 9 of GPT-2\n')]
    assert [stranger.recv(9) for stranger in strangers] == [b'', b'']  # they are shown out
    visitor(addresses[0], greeting(1, addresses)).close()  # one that has come and ended again is not there
    silent = visitor(addresses[0], b'')
    last, _ = in_threads(addresses, [])
    time.sleep(0.2)
    assert gone_on == []
    last, others = in_threads(addresses, [1])
    joined(threads + last)
    assert sorted(gone_on) == [0, 2] and others == [1]
    silent.close()
    arrival.listening(addresses[0]).close()  # the address is free


def test_another_program_at_the_address_is_not_the_first_worker(addresses):
    """As TensorFlow of a run that has not ended yet is."""
    with socket.create_server(arrival.parts(addresses[0])) as other:
        threads, gone_on = in_threads(addresses[:2], [1])
        with other.accept()[0] as connection:
            assert connection.recv(99) == greeting(1, addresses[:2])
            connection.sendall(b'\0\0\x18\4\0\0\0\0\0')
    more, first = in_threads(addresses[:2], [0])
    joined(threads + more)
    assert gone_on == [1] and first == [0]


@pytest.mark.parametrize(
    ('number', 'missing'), [(0, 'worker 1 at {1}, worker 2 at {2}'), (2, 'worker 0 at {0}')]
)
def test_who_does_not_come_is_named(addresses, monkeypatch, capsys, number, missing):
    monkeypatch.setattr(arrival, 'PATIENCE', 0.3)
    monkeypatch.setattr(arrival, 'REMINDER', 0.1)
    monkeypatch.setattr(arrival.progress, 'shown', True)
    missing = missing.format(*addresses)
    with pytest.raises(Error, match=f'^{missing} has not come in 0.3 s; start all workers, with the same addresses$'):
        arrive(addresses, number)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == 'waiting for all 3 workers'
    assert others and set(others) == {f'waiting for {missing}; for another 0 s at most'}


def test_of_many_the_first_few_are_named():
    assert arrival.named([3, 5, 6, 7, 8, 9, 10], [f'a:{n}' for n in range(11)]) == (
        'worker 3 at a:3, worker 5 at a:5, worker 6 at a:6, worker 7 at a:7, worker 8 at a:8, 2 more'
    )


def test_an_address_that_is_taken_is_said(addresses):
    with (
        socket.create_server(arrival.parts(addresses[0])),
        pytest.raises(Error, match=rf"listening at {addresses[0]}, the first worker \(Address already in use\); use"),
    ):
        arrive(addresses, 0)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT'])
@pytest.mark.parametrize('number', [0, 1])
def test_a_signal_ends_the_wait_at_once(tmp_path, without_tensorflow, name, number):
    (tmp_path / 'text.txt').write_text('The cat sat on the mat. ' * 60)
    addresses = [f'127.0.0.1:{port}' for port in free_ports(2)]
    task = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': number}}
    flags = ['text.txt', '--model_name=x', f'--models_dir={tmp_path}']
    command = [sys.executable, REPOSITORY / 'src' / 'train.py', *flags]
    where = environment(TF_CONFIG=json.dumps(task), **without_tensorflow)
    with subprocess.Popen(command, cwd=tmp_path, env=where, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == 'waiting for all 2 workers\n'
        process.send_signal(getattr(signal, name))
        assert process.stderr.read() == f'ended, before worker {1 - number} at {addresses[1 - number]} had come\n'
        assert process.wait() == 128 + getattr(signal, name)
    assert [path.name for path in tmp_path.iterdir()] == ['text.txt']
