"""Signals that ask a program to end."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from example_models import REPOSITORY

from gpt2.system.signals import Ended, ends_raised, interrupts_held_back

pytestmark = pytest.mark.skipif(os.name != 'posix', reason='POSIX signals')
NAMES = pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])


@NAMES
def test_a_signal_runs_what_clears_away(name):
    number, cleared = getattr(signal, name), []
    with pytest.raises(Ended) as caught, ends_raised():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # an impatient system sends another
            cleared.append(True)
    assert (caught.value.number, cleared) == (number, [True])
    assert signal.getsignal(number) is signal.SIG_DFL


@NAMES
def test_a_signal_that_has_a_handler_or_is_ignored_keeps_it(name):
    number = getattr(signal, name)
    for handler in (signal.SIG_IGN, print):
        previous = signal.signal(number, handler)
        try:
            with ends_raised():
                assert signal.getsignal(number) is handler
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, previous)


@NAMES
def test_a_signal_waits_until_a_library_is_done(name):
    done = []
    with pytest.raises(Ended), ends_raised(), interrupts_held_back():
        signal.raise_signal(getattr(signal, name))
        done.append(True)
    assert done == [True]


def test_other_threads_handle_no_signals():
    failed = []

    def enter():
        try:
            with ends_raised(), interrupts_held_back():
                pass
        except ValueError:
            failed.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failed == []


@NAMES
def test_a_command_ends_with_the_status_of_the_signal(name):
    source = (
        f'import sys, signal; sys.path.insert(0, {str(REPOSITORY / "src")!r})\n'
        'from gpt2.commands.flags import run\n'
        'def f():\n    try:\n'
        f'        signal.raise_signal(signal.{name})\n    finally:\n        print("cleared")\n'
        'run(f)'
    )
    done = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ('cleared\n', '', 128 + getattr(signal, name))
