"""Fetching one file from a server that misbehaves."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from example_models import REPOSITORY
from misbehaving_server import MisbehavingServer

from gpt2.system import download as module
from gpt2.system.download import ATTEMPTS, DownloadError, UnreachableError, download

SOURCE = REPOSITORY / 'src'
BODY = bytes(range(256)) * 4096


@pytest.fixture
def server():
    with MisbehavingServer({'/file': BODY}) as server:
        yield server


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """No waiting; what would have been waited for."""
    waited = []
    monkeypatch.setattr(module.time, 'sleep', waited.append)
    return waited


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'file')


def fetch(server, path, **expected):
    return download(f'{server.url}/file', path, **expected)


def leave_part(path, content):
    Path(path + '.part').write_bytes(content)


def refused(server, path, match, **expected):
    """The call raises; nothing is under the final name. Returns what is left as the part, or None."""
    with pytest.raises(DownloadError, match=match) as raised:
        fetch(server, path, **expected)
    assert '\n' not in str(raised.value)
    assert not os.path.exists(path)
    part = Path(path + '.part')
    return part.read_bytes() if part.exists() else None


def whole(path):
    """path holds the body, and nothing lies beside it."""
    return os.listdir(os.path.dirname(path)) == ['file'] and Path(path).read_bytes() == BODY


# A server that behaves


def test_a_file_is_fetched_in_one_request(server, path, capfd):
    assert fetch(server, path)
    assert whole(path)
    assert server.requests == [('/file', None, 200)]
    assert capfd.readouterr() == ('', '')  # no progress bar where nobody looks


def test_a_file_that_is_there_and_whole_is_not_asked_for(server, path):
    fetch(server, path)
    assert not fetch(server, path, size=len(BODY))
    assert len(server.requests) == 1


def test_an_empty_file_is_fetched(server, path):
    server.files['/file'] = b''
    assert fetch(server, path)
    assert Path(path).read_bytes() == b''


@pytest.mark.parametrize(
    'expected', [{'size': len(BODY)}, {'check': lambda path: None if os.path.getsize(path) == len(BODY) else 'is odd'}]
)
def test_a_damaged_file_is_fetched_again(server, path, expected, capfd):
    Path(path).write_bytes(b'damaged')
    assert fetch(server, path, **expected)
    assert whole(path)
    assert 'fetching it again' in capfd.readouterr().err


def test_a_damaged_file_stays_until_there_is_a_better_one(server, path):
    Path(path).write_bytes(b'damaged')
    server.faults['/file'] = [404]
    with pytest.raises(DownloadError):
        fetch(server, path, size=len(BODY))
    assert Path(path).read_bytes() == b'damaged'


# Connections that break


def test_a_broken_transfer_goes_on_where_it_stopped(server, path):
    server.faults['/file'] = ['break', 'break']
    assert fetch(server, path)
    assert whole(path)
    half, quarter = len(BODY) // 2, len(BODY) // 4
    assert [request[1] for request in server.requests] == [None, f'bytes={half}-', f'bytes={half + quarter}-']


def test_transfers_that_bring_something_are_not_counted(server, path):
    server.faults['/file'] = ['break'] * (ATTEMPTS + 1)
    assert fetch(server, path)
    assert whole(path)


def test_a_later_call_goes_on_too(server, path):
    leave_part(path, BODY[:1000])
    assert fetch(server, path)
    assert whole(path)
    assert server.requests == [('/file', 'bytes=1000-', 206)]


def test_a_process_that_is_killed_loses_nothing(server, path):
    sent, go_on = threading.Event(), threading.Event()

    def half_then_wait(handler, body):
        handler.answer(200, body[: len(body) // 2], {}, len(body))
        sent.set()
        go_on.wait(60)

    server.faults['/file'] = [half_then_wait]
    code = f'from gpt2.system import download; download.CHUNK = 1000; download.download("{server.url}/file", {path!r})'
    with subprocess.Popen([sys.executable, '-c', code], cwd=SOURCE) as process:
        assert sent.wait(60)
        while not (os.path.exists(path + '.part') and os.path.getsize(path + '.part') >= 1000):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    go_on.set()
    assert not os.path.exists(path)
    assert fetch(server, path)
    assert whole(path)
    assert server.requests[-1][1].startswith('bytes=')


@pytest.mark.parametrize('status', sorted(module.WORTH_ANOTHER_TRY))
def test_a_server_in_trouble_is_asked_again_after_a_pause(server, path, status, pauses):
    server.faults['/file'] = [status] * 3
    assert fetch(server, path)
    assert whole(path)
    assert pauses == [1, 2, 4]


def test_a_server_that_stays_in_trouble_is_given_up(server, path, pauses):
    leave_part(path, BODY[:1000])
    server.faults['/file'] = [503] * 100
    assert refused(server, path, f'503.*{ATTEMPTS} times in a row') == BODY[:1000]
    assert len(server.requests) == ATTEMPTS


def test_a_server_that_is_not_there_is_given_up(path):
    with MisbehavingServer({}) as gone:
        pass
    refused(gone, path, 'Connection refused')


@pytest.mark.parametrize('url', ['http://no-such-host.invalid/file', 'http://127.0.0.1:1/file'])
def test_where_no_server_is_nothing_is_tried_again_and_nothing_left(tmp_path, path, pauses, url, capfd):
    with pytest.raises(UnreachableError, match=r'; check the network and the address$') as raised:
        download(url, path)
    assert str(raised.value).startswith(f'{url}: ')
    assert 'kept' not in str(raised.value)
    assert (pauses, os.listdir(tmp_path), capfd.readouterr().err) == ([], [], '')


def test_what_an_earlier_call_left_stays_where_no_server_is(path):
    leave_part(path, BODY[:1000])
    with pytest.raises(UnreachableError, match='what has come is kept'):
        download('http://127.0.0.1:1/file', path)
    assert Path(path + '.part').read_bytes() == BODY[:1000]


def test_a_proxy_that_will_not_is_not_asked_again(server, path, pauses, monkeypatch):
    monkeypatch.setenv('https_proxy', server.url)  # which answers CONNECT with 501
    monkeypatch.delenv('no_proxy', raising=False)
    with pytest.raises(UnreachableError, match='Tunnel connection failed: 501'):
        download('https://example.invalid/file', path)
    assert pauses == []


def test_a_server_that_goes_away_midway_is_waited_for(server, path, pauses):
    def half_then_close(handler, body):
        server.socket.close()
        handler.answer(200, body[: len(body) // 2], {}, len(body))
        handler.close_connection = True

    server.faults['/file'] = [half_then_close]
    assert len(refused(server, path, 'Connection refused.*what has come is kept')) == len(BODY) // 2
    assert pauses == [1, 2, 4, 8]


@pytest.mark.parametrize('url', ['http://a..b/file', 'http:///file', 'http://here:99999/file'])
def test_what_is_no_address_is_refused(path, url):
    with pytest.raises(DownloadError, match='check the address'):
        download(url, path)


def test_a_server_that_falls_silent_is_asked_again(server, path, monkeypatch):
    silent = threading.Event()
    monkeypatch.setattr(module, 'TIMEOUT', (10, 0.2))
    server.faults['/file'] = [lambda handler, body: silent.wait(5)]
    assert fetch(server, path)
    silent.set()
    assert whole(path)


# Answers that are not the file


@pytest.mark.parametrize('fault', [None, 'no length'])
def test_more_than_such_a_file_may_have_is_left(server, path, fault):
    server.faults['/file'] = [fault]
    most = len(BODY) - 1
    assert refused(server, path, f'is longer than {most} bytes, and was not kept', largest=most) is None
    assert fetch(server, path, largest=len(BODY)) and whole(path)


@pytest.mark.parametrize('fault', [400, 401, 403, 404, 410, 'html'])
@pytest.mark.parametrize('part', [b'', BODY[:1000]])
def test_another_answer_is_an_error_at_once(server, path, fault, part):
    leave_part(path, part)
    server.faults['/file'] = [fault]
    assert refused(server, path, 'web page' if fault == 'html' else f'answers {fault}') == (part or None)
    assert len(server.requests) == 1


@pytest.mark.parametrize('size', [len(BODY) - 1, len(BODY) + 1])
def test_a_wrong_length_is_refused_before_anything_is_fetched(server, path, size):
    leave_part(path, BODY[:1000])
    assert refused(server, path, f'is {len(BODY)} bytes long, expected {size}', size=size) == BODY[:1000]


def test_a_wrong_length_that_was_not_announced_is_refused(server, path):
    server.faults['/file'] = ['no length']
    assert refused(server, path, f'is {len(BODY)} bytes long, expected 5', size=5) is None


def test_a_wrong_hash_is_refused(server, path):
    assert refused(server, path, 'SHA-256 .*, expected 00', sha256='00' * 32) is None


def test_what_a_check_finds_is_refused(server, path):
    assert refused(server, path, 'speaks in riddles', check=lambda path: 'speaks in riddles') is None


@pytest.mark.parametrize('part', [b'', BODY[:1000]])
def test_the_md5_that_the_server_gives_is_compared(server, path, part):
    leave_part(path, part)
    wrong = bytes(reversed(BODY))

    def lie(handler, body):
        handler.answer(200, wrong, {'Content-MD5': 'AAAAAAAAAAAAAAAAAAAAAA=='}, len(wrong))

    server.faults['/file'] = [lie, lie]
    assert refused(server, path, 'has MD5 .*, the server says AAAA') is None


def test_a_file_without_a_length_or_a_hash_is_taken(server, path):
    server.with_md5 = False
    server.faults['/file'] = ['no length']
    assert fetch(server, path)
    assert whole(path)


# Parts that do not fit


@pytest.mark.parametrize(
    ('status', 'headers', 'length'),
    [
        (200, {'Content-Length': '12'}, 12),
        (206, {'Content-Range': 'bytes 2-11/12'}, 12),
        (200, {}, None),
        (200, {'Content-Length': '9' * 5000}, None),
        (206, {'Content-Range': 'bytes 2-11/' + '9' * 5000}, None),
    ],
)
def test_the_length_that_a_server_says(status, headers, length):
    assert module.total_bytes(SimpleNamespace(status_code=status, headers=headers)) == length


def test_a_server_that_cannot_go_on_starts_over(server, path, capfd):
    leave_part(path, b'x' * 1000)
    server.faults['/file'] = ['no range']
    assert fetch(server, path)
    assert whole(path)
    assert 'starting over' in capfd.readouterr().err


def test_the_rest_from_another_place_is_not_taken(server, path):
    def from_the_wrong_place(handler, body):
        headers = {'Content-Range': f'bytes 5-{len(body) - 1}/{len(body)}'}
        handler.answer(206, body[5:], headers, len(body) - 5)

    leave_part(path, BODY[:1000])
    server.faults['/file'] = [from_the_wrong_place]
    assert fetch(server, path)
    assert whole(path)


def test_a_file_that_has_become_shorter_is_fetched_anew(server, path):
    leave_part(path, BODY + b'and more')
    assert fetch(server, path)
    assert whole(path)


def test_a_file_that_has_become_shorter_than_it_must_be_is_refused(server, path):
    leave_part(path, BODY + b'and more')
    expected = len(BODY) + 100
    assert refused(server, path, f'is {len(BODY)} bytes long, expected {expected}', size=expected) == BODY + b'and more'


def test_a_part_of_another_file_is_thrown_away_once(server, path, capfd):
    leave_part(path, b'x' * 1000)
    assert fetch(server, path)
    assert whole(path)
    assert [request[1] for request in server.requests] == ['bytes=1000-', None]
    assert 'does not fit' in capfd.readouterr().err


def test_a_part_that_is_whole_already_is_checked_and_named(server, path):
    leave_part(path, BODY)
    assert fetch(server, path)
    assert whole(path)
    assert server.requests == [('/file', f'bytes={len(BODY)}-', 416)]


# This machine


def test_a_full_disk_is_noticed_before_it_is_full(server, path, monkeypatch):
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda folder: type('Usage', (), {'free': 10})())
    leave_part(path, BODY[:1000])
    assert refused(server, path, f'{len(BODY) - 1000} bytes are missing and the disk has 10 free') == BODY[:1000]


def test_a_disk_that_fills_up_leaves_a_part_to_go_on_with(server, path):
    code = f"""
import resource, signal, sys
from gpt2.system import download
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    download.download('{server.url}/file', {path!r})
except download.DownloadError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, '-c', code], cwd=SOURCE, capture_output=True, text=True, check=True).stdout
    assert 'cannot be written (File too large)' in out
    assert len(out.splitlines()) == 1
    assert not os.path.exists(path)
    part = Path(path + '.part').read_bytes()
    assert part == BODY[:300_000]
    assert fetch(server, path)
    assert whole(path)
    assert server.requests[-1][1] == 'bytes=300000-'


def test_a_folder_that_cannot_be_written_to_is_an_error(server, tmp_path):
    (tmp_path / 'folder').touch()
    with pytest.raises(DownloadError, match=r'cannot be written \(Not a directory\)'):
        fetch(server, str(tmp_path / 'folder' / 'file'))


def test_a_folder_in_the_place_of_the_file_is_an_error(server, path):
    os.mkdir(path)
    with pytest.raises(DownloadError, match=r'file cannot be written \(.+\); free space, or choose another folder'):
        fetch(server, path, sha256='00' * 32)
    assert os.listdir(os.path.dirname(path)) == ['file']


@pytest.mark.parametrize('name', ['[a]*?', 'two\nlines', 'caf\udce9'])
def test_any_name_a_file_can_have(server, tmp_path, name):
    (tmp_path / name).mkdir()
    assert fetch(server, str(tmp_path / name / name))
    assert (tmp_path / name / name).read_bytes() == BODY


def test_of_two_processes_one_fetches_and_both_succeed(server, path):
    server.faults['/file'] = ['slow']
    code = f'from gpt2.system import download; print(download.download("{server.url}/file", {path!r}))'
    processes = [
        subprocess.Popen([sys.executable, '-c', code], cwd=SOURCE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert sorted(process.communicate()[0].strip() for process in processes) == ['False', 'True']
    assert whole(path)
    assert len(server.requests) == 1
