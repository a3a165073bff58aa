"""The launcher of several workers on one computer, with programs that are no training."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from example_models import REPOSITORY
from running import PATIENCE, environment

from gpt2.errors import Error, UsageError
from gpt2.training import launcher
from gpt2.training.distribution import CONFIG, LOST

WHO = f'import json, os, sys, time; config = json.loads(os.environ[{CONFIG!r}]); me = config["task"]["index"]; '


def launch(code, count=3):
    return launcher.launch([sys.executable, '-c', WHO + code], count)


def test_each_worker_knows_all_and_which_it_is_and_only_the_chief_is_heard(tmp_path, capfd):
    assert launch(f'print("worker", me); open(r"{tmp_path}/%d" % me, "w").write(os.environ["{CONFIG}"])') == 0
    assert capfd.readouterr() == ('worker 0\n', '')
    configs = [json.loads((tmp_path / str(index)).read_text()) for index in range(3)]
    assert [config['task'] for config in configs] == [{'type': 'worker', 'index': index} for index in range(3)]
    [addresses] = {tuple(config['cluster']['worker']) for config in configs}
    assert len(set(addresses)) == 3 and all(address.startswith('127.0.0.1:') for address in addresses)


def test_the_chief_s_failure_is_its_own_word_and_status(capfd):
    assert launch('print("x" if me else "wrong", file=sys.stderr); sys.exit(2)') == 2
    assert capfd.readouterr().err.splitlines()[0] == 'wrong'


def test_a_failure_that_the_chief_cannot_know_is_said(capfd, monkeypatch):
    monkeypatch.setattr(launcher.progress, 'shown', True)
    code = f'print("{LOST}" if me == 0 else "no disk", file=sys.stderr); time.sleep(me == 0); sys.exit(me != 2)'
    assert launch(code) == 1
    assert capfd.readouterr().err.splitlines() == [LOST, 'worker 1: no disk']


def test_one_that_is_killed_ends_all_soon(monkeypatch):
    monkeypatch.setattr(launcher, 'GRACE', 0.2)
    start = time.monotonic()
    with pytest.raises(Error, match='worker 1 was ended by SIGKILL; the same command goes on') as caught:
        launch('os.kill(os.getpid(), 9) if me == 1 else time.sleep(1000)')
    assert caught.value.status == 1 and time.monotonic() - start < PATIENCE


def test_a_signal_goes_to_all(tmp_path):
    code = (
        f'import signal; signal.signal(signal.SIGTERM, lambda *_: (open(r"{tmp_path}/%d" % me, "w"), sys.exit(143))); '
        f'open(r"{tmp_path}/ready%d" % me, "w"); time.sleep(1000)'
    )
    whole = f'import sys; from gpt2.training.launcher import launch; launch([sys.executable, "-c", {WHO + code!r}], 2)'
    where = environment(PYTHONPATH=str(REPOSITORY / 'src'))
    with subprocess.Popen([sys.executable, '-c', whole], env=where) as process:
        while len(list(tmp_path.glob('ready*'))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM
    assert (tmp_path / '0').exists() and (tmp_path / '1').exists()


def test_workers_end_with_a_launcher_that_is_killed(tmp_path):
    code = (
        'from gpt2.training.launcher import end_with_launcher; end_with_launcher(); '
        f'open(r"{tmp_path}/%d" % me, "w").write(str(os.getpid())); time.sleep(1000)'
    )
    whole = f'import sys; from gpt2.training.launcher import launch; launch([sys.executable, "-c", {WHO + code!r}], 2)'
    where = environment(PYTHONPATH=str(REPOSITORY / 'src'))
    with subprocess.Popen([sys.executable, '-c', whole], env=where) as process:
        until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in '01'))
        process.kill()
    workers = [int((tmp_path / name).read_text()) for name in '01']
    until(lambda: not any(alive(worker) for worker in workers))


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process):
    """Whether a process runs; what has ended and nobody has asked about does not."""
    try:
        with open(f'/proc/{process}/stat') as file:
            return file.read().rpartition(') ')[2][0] != 'Z'
    except OSError:
        return False


def test_it_works_from_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(launch('pass', 2)))
    thread.start()
    thread.join()
    assert found == [0]


def test_workers_that_are_named_already_are_not_started(monkeypatch):
    monkeypatch.setenv(CONFIG, '{}')
    with pytest.raises(UsageError, match='leave out --workers, or TF_CONFIG'):
        launch('pass')


@pytest.mark.parametrize(
    ('cards', 'count', 'expected'),
    [([], 2, [None, None]), (['0', '1'], 2, ['0', '1']), (['4', '5', '7'], 2, ['4,7', '5'])],
)
def test_cards_are_shared_out(cards, count, expected):
    assert [change.get('CUDA_VISIBLE_DEVICES') for change in launcher.shared_out(cards, count)] == expected


def test_more_workers_than_cards_are_refused(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
    with pytest.raises(UsageError, match='--workers is 3, and there are only 2 cards'):
        launch('pass')
