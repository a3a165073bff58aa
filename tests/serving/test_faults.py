"""Clients that are slow, silent, many or broken, and disks that are full: nobody waits for them, and nothing stays."""

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest
from example_models import BUNDLED, REPOSITORY
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from running import PATIENCE, environment

from gpt2.serving import gate, server
from gpt2.serving.gate import Gate
from gpt2.serving.settings import Settings
from gpt2.serving.start import listening_socket
from serving.conftest import PROMPT, request_head, wait_until

HEALTH = b'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'


async def echo(scope, receive, send):
    """An application that says ready, or at /endless sends until the client is gone."""
    await receive()
    headers = [] if scope['path'] == '/endless' else [(b'content-length', b'5')]
    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
    gone = asyncio.ensure_future(receive())
    while scope['path'] == '/endless' and not gone.done():
        await send({'type': 'http.response.body', 'body': b'x' * 65536, 'more_body': True})
        await asyncio.sleep(0)
    gone.cancel()
    await send({'type': 'http.response.body', 'body': b'ready'})


@contextlib.contextmanager
def served(settings=None, app=echo):
    """(port, the server) of one in a thread, behind the same gate as the real one; it must end when it is told to."""
    opened = listening_socket('127.0.0.1', 0)
    settings = settings or Settings(grace=1)
    running = server.new_server(Gate(app, settings, lambda *told: None), settings.time_limit, settings.grace)
    thread = threading.Thread(target=asyncio.run, args=(running.serve(sockets=[opened]),))
    thread.start()
    wait_until(lambda: running.started)
    try:
        yield opened.getsockname()[1], running
    finally:
        running.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def connect(port):
    return socket.create_connection(('127.0.0.1', port), timeout=PATIENCE)


def answer(connection):
    """What comes until the server closes, or a whole answer of /health."""
    content = b''
    with contextlib.suppress(ConnectionResetError):
        while b'ready' not in content and (part := connection.recv(65536)):
            content += part
    return content


def test_heads_and_bodies_that_take_too_long(monkeypatch):
    monkeypatch.setattr(server, 'HEAD_SECONDS', 0.5)
    monkeypatch.setattr(gate, 'BODY_SECONDS', 0.5)
    with served() as (port, _), contextlib.ExitStack() as stack:
        silent, slow, later, body, chunked = (stack.enter_context(connect(port)) for _ in range(5))
        slow.sendall(HEALTH[:20])
        later.sendall(HEALTH)
        assert answer(later).startswith(b'HTTP/1.1 200')
        later.sendall(HEALTH[:20])  # the next head has its time too
        body.sendall(request_head(1000) + b'{')
        chunked.sendall(request_head(1000).replace(b'Content-Length: 1000', b'Transfer-Encoding: chunked') + b'1\r\n')
        for connection in (silent, slow, later):
            assert answer(connection) == b''
        for connection in (body, chunked):
            assert answer(connection).startswith(b'HTTP/1.1 408')


def test_a_byte_now_and_then_does_not_extend_the_time(monkeypatch):
    monkeypatch.setattr(server, 'HEAD_SECONDS', 0.5)
    monkeypatch.setattr(gate, 'BODY_SECONDS', 0.5)
    with served() as (port, _), connect(port) as head, connect(port) as body:
        body.sendall(request_head(10**6))
        ended = threading.Event()
        with contextlib.suppress(OSError):
            for byte in itertools.cycle(b'x'):
                head.sendall(bytes([byte]))
                body.sendall(bytes([byte]))
                ended.wait(0.05)
        assert answer(body).startswith((b'HTTP/1.1 408', b''))


def test_a_body_is_read_whole_and_in_time_whatever_happens_to_its_task():
    """One that is cancelled while its last part comes stays cancelled."""

    async def cancelled():
        arrived = asyncio.Event()

        async def receive():
            await arrived.wait()
            return {'type': 'http.request', 'body': b'{}'}

        reading = asyncio.create_task(
            Gate(echo, Settings(), lambda *told: None).read_body({'headers': []}, receive)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        arrived.set()
        await asyncio.sleep(0)  # the part is there, and nobody has looked yet
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())


def test_a_reader_that_stops_is_given_up(monkeypatch):
    for name in ('HEAD_SECONDS', 'AFTERWARDS'):
        monkeypatch.setattr(server, name, 0.2)
    with served(Settings(time_limit=0.2, grace=1)) as (port, running), connect(port) as reader:
        reader.sendall(HEALTH.replace(b'/health', b'/endless'))
        assert reader.recv(1) == b'H'
        wait_until(lambda: not running.server_state.connections and not running.server_state.tasks)


def test_half_of_a_connection_is_none():
    """A client that says it will send no more, in the midst of a request, is gone."""
    with served() as (port, running), connect(port) as connection:
        connection.sendall(request_head(1000) + b'{')
        wait_until(lambda: running.server_state.tasks)
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection) == b''
        wait_until(lambda: not running.server_state.connections and not running.server_state.tasks)


def test_who_asks_takes_the_place_of_who_is_quiet(monkeypatch):
    monkeypatch.setattr(server, 'CONNECTIONS', 3)
    with served() as (port, _), contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(port))
        busy.sendall(HEALTH.replace(b'/health', b'/endless'))
        assert busy.recv(1) == b'H'
        first, second = (stack.enter_context(connect(port)) for _ in range(2))
        first.sendall(HEALTH)
        assert answer(first).startswith(b'HTTP/1.1 200')  # since when it is quiet for a shorter time
        for _ in range(10):
            with connect(port) as one_more:
                one_more.sendall(HEALTH)
                assert answer(one_more).startswith(b'HTTP/1.1 200')
        assert answer(second) == b''
        assert busy.recv(1)


def test_connections_are_as_many_as_files_allow(monkeypatch):
    limits = {'set': None}
    monkeypatch.setattr(resource, 'setrlimit', lambda kind, both: limits.update(set=both))
    for soft, hard, most, asked in [
        (1024, 4096, 1000, (4096, 4096)), (256, resource.RLIM_INFINITY, 1000, (4096, resource.RLIM_INFINITY)),
        (1024, 1024, 512, (1024, 1024)), (20000, 20000, 1000, None), (resource.RLIM_INFINITY, -1, 1000, None),
    ]:  # fmt: skip
        monkeypatch.setattr(resource, 'getrlimit', lambda kind, both=(soft, hard): both)
        limits['set'] = None
        assert (server.most_connections(), limits['set']) == (most, asked)


def test_what_the_grace_cuts_off_is_told_so(capsys):
    async def whole():
        await asyncio.Event().wait()

    async def lines():
        yield gate.sent({'text': 'a'})
        await asyncio.Event().wait()

    app = FastAPI()
    app.get('/whole')(whole)
    app.get('/stream')(lambda: StreamingResponse(lines(), media_type='text/event-stream'))
    with served(Settings(grace=0), app) as (port, running), connect(port) as waiting, connect(port) as reader:
        waiting.sendall(HEALTH.replace(b'/health', b'/whole'))
        reader.sendall(HEALTH.replace(b'/health', b'/stream'))
        assert reader.recv(1) == b'H'
        wait_until(lambda: len(running.server_state.tasks) == 2)
        running.should_exit = True
        head, _, content = answer(waiting).partition(b'\r\n\r\n')
        assert head.startswith(b'HTTP/1.1 503')
        assert json.loads(content)['error']['code'] == 'server_ends'
        events = answer(reader)
        assert b'{"text": "a"}' in events
        assert gate.sent(json.loads(content)).encode() in events
        assert events.endswith(b'0\r\n\r\n')
    assert 'ASGI' not in capsys.readouterr().err  # of each there would be a traceback


def files_of(process):
    return len(os.listdir(f'/proc/{process}/fd'))


def test_a_thousand_connections_at_once(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    before = files_of(server.process.pid)
    try:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(server.connect()) for _ in range(1000)]
            assert server.completion(PROMPT, max_tokens=2)['choices']
            for connection in connections[100:]:
                connection.sendall(HEALTH)
            assert all(answer(connection).startswith(b'HTTP/1.1 200') for connection in connections[100:])
            assert server.completion(PROMPT, max_tokens=2)['choices']
        wait_until(lambda: files_of(server.process.pid) <= before + 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_requests_at_once_than_are_taken(server, at_once):
    """Each gets an answer, and those that are turned away are told when to try again."""
    answers = at_once(*[lambda: server.ask('/v1/completions', {'prompt': PROMPT, 'max_tokens': 20})] * 150)
    assert {status for status, _, _ in answers} == {200, 429}
    assert all(headers['Retry-After'] == '1' for status, _, headers in answers if status == 429)
    wait_until(lambda: server.metric('gpt2_batch_size') + server.metric('gpt2_queue_length') == 0)


def test_a_process_that_is_killed_fails_what_it_was_asked(server, at_once):
    """Of requests that wait for the whole answer, and of those that wait for a place."""
    [worker] = server.workers()
    fields = {'prompt': PROMPT, 'max_tokens': 500, 'stop_at_end': False}

    def kill():
        wait_until(lambda: (server.metric('gpt2_batch_size'), server.metric('gpt2_queue_length')) == (4, 2))
        os.kill(worker, signal.SIGKILL)

    *answers, _ = at_once(*[lambda: server.ask('/v1/completions', fields)] * 6, kill)
    assert [(status, content['error']['code']) for status, content, _ in answers] == [(500, 'worker_died')] * 6
    wait_until(lambda: server.ask('/health')[0] == 200)
    assert server.completion(PROMPT, max_tokens=2)['choices']
    assert worker not in server.workers()


def test_full_disks_for_what_it_prints(models):
    """Neither for the log nor for the address does it wait or end."""
    command = [sys.executable, REPOSITORY / 'src' / 'serve.py', '--models_dir', models, '--model_name', BUNDLED.name]
    with open('/dev/full', 'w') as full, socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
        taken.close()
        process = subprocess.Popen(
            [*map(str, command), '--port', str(port), '--engine', 'litert', '--log', '--log_prompts'],
            stdout=full, stderr=full, env=environment(),
        )  # fmt: skip
        try:
            wait_until(lambda: socket.socket().connect_ex(('127.0.0.1', port)) == 0)
            body = json.dumps({'prompt': PROMPT * 100, 'max_tokens': 1}).encode()
            for _ in range(3):
                with connect(port) as connection:
                    connection.sendall(request_head(len(body)) + body)
                    assert connection.recv(1000).startswith(b'HTTP/1.1 200')
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
