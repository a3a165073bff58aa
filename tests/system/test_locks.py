"""Locks between processes and threads that write the same file."""

import os
import subprocess
import sys
import threading
import time

import pytest
from example_models import REPOSITORY

from gpt2.system.files import WriteError
from gpt2.system.locks import locked

SOURCE = REPOSITORY / 'src'
HOLD = 'import sys; from gpt2.system.locks import locked\nwith locked(sys.argv[1]): print(1, flush=1); sys.stdin.read()'


def holder(path):
    """A process that has the lock until it is killed or its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, path], cwd=SOURCE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b'1\n'
    return process


def test_the_second_waits_says_so_and_nothing_is_left(tmp_path):
    path, said = str(tmp_path / 'file'), []
    with holder(path) as process:

        def waiting():
            said.append(True)
            process.stdin.close()  # the other lets go

        with locked(path, waiting):
            assert process.wait(60) == 0
    assert said == [True]
    assert os.listdir(tmp_path) == []


def test_who_need_not_wait_says_nothing(tmp_path):
    with locked(str(tmp_path / 'file'), lambda: pytest.fail('nobody has it')):
        pass


def test_a_killed_holder_locks_nothing(tmp_path):
    path = str(tmp_path / 'file')
    with holder(path) as process:
        process.kill()
    with locked(path, lambda: pytest.fail('nobody has it')):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_that_holds_something_is_no_lock(tmp_path):
    """As poetry.lock is to one who writes to `poetry`: it would be emptied and removed."""
    (tmp_path / 'file.lock').write_text('content')
    with pytest.raises(WriteError, match=r"file\.lock is another program's"), locked(str(tmp_path / 'file')):
        pass
    assert (tmp_path / 'file.lock').read_text() == 'content'


def test_never_two_at_once(tmp_path):
    """The lock's file comes and goes; whoever opened one that has gone must not take it for the lock."""
    path, inside, most = str(tmp_path / 'file'), [], []

    def work():
        for _ in range(20):
            with locked(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(most), max(most)) == (160, 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('folder', ['gone', 'file'])
def test_a_folder_that_is_not_there_is_not_made(tmp_path, folder):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError), locked(str(tmp_path / folder / 'x')):
        pass
    assert os.listdir(tmp_path) == ['file']


def test_nothing_here_needs_a_module_that_one_system_lacks():
    """As on Windows, where there is no fcntl and no resource; filelock itself does without."""
    code = """
import sys
sys.modules.update(dict.fromkeys(['fcntl', 'resource', 'pwd', 'termios', 'readline']))
import gpt2.litert.export, gpt2.system.download, gpt2.system.locks, gpt2.checkpoints.release
import gpt2.commands.download, gpt2.commands.export
"""
    subprocess.run([sys.executable, '-c', code], cwd=SOURCE, check=True)
