"""Several workers on this computer: as many processes, each told by TF_CONFIG where the others listen."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from gpt2.errors import Error, UsageError
from gpt2.system import progress
from gpt2.system.signals import heeded
from gpt2.system.text import one_line
from gpt2.training.distribution import CONFIG, LOST, card_files

FORWARDED = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1')
GRACE = 60  # seconds that the others may take to end once one has failed
POLL = 0.1  # seconds
VISIBLE = 'CUDA_VISIBLE_DEVICES'
LAUNCHER = 'GPT2_LAUNCHER'  # in the environment of a worker: the process that started it


def launch(command: Sequence[str], count: int) -> int:
    """Run a command as so many workers, of which the first speaks for all; returns its status.

    A signal to this process goes to all of them. When one fails, all end. Raises Error.
    """
    if CONFIG in os.environ:
        raise UsageError(f'{CONFIG} names the workers already; leave out --workers, or {CONFIG}')
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1))]
        processes = [
            subprocess.Popen(
                command, env=os.environ | settings | {LAUNCHER: str(os.getpid())},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,  # else Ctrl-C would reach it twice, the second time to end it at once
            )
            for settings, output in zip(environments(count), outputs)
        ]  # fmt: skip
        stack.callback(kill, processes)
        with forwarded(processes) as came:
            first = wait(processes)
        if came:
            signal.raise_signal(came[0])
        return status([process.returncode for process in processes], first, outputs)


def end_with_launcher() -> None:
    """Have this process, if it is a launcher's worker, take SIGTERM once the launcher is no more: nobody else would
    end what SIGKILL has left alone."""
    if LAUNCHER in os.environ:
        threading.Thread(target=watch, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)


def environments(count: int) -> list[dict[str, str]]:
    """What each worker finds in its environment: the addresses of all, and its cards where there are any."""
    addresses = [f'127.0.0.1:{port}' for port in free_ports(count)]
    cards = shared_out(visible_cards(os.environ), count)
    tasks = [{'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}} for index in range(count)]
    return [{CONFIG: json.dumps(task)} | change for task, change in zip(tasks, cards)]


def free_ports(count: int) -> list[int]:
    """Ports of this computer that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return [each.getsockname()[1] for each in sockets]


def visible_cards(environment: Mapping[str, str]) -> list[str]:
    """The graphics cards that a program may use, as CUDA names them."""
    if VISIBLE in environment:
        return [card for card in environment[VISIBLE].split(',') if card]
    return [str(number) for number in range(card_files())]


def shared_out(cards: Sequence[str], count: int) -> list[dict[str, str]]:
    """The cards of each worker, as a change of its environment. Raises UsageError for too few."""
    if not cards:
        return [{}] * count
    if len(cards) < count:
        raise UsageError(f'--workers is {count}, and there are only {len(cards)} cards; give at most {len(cards)}')
    return [{VISIBLE: ','.join(cards[index::count])} for index in range(count)]


@contextlib.contextmanager
def forwarded(processes: Sequence[subprocess.Popen]) -> Iterator[list[int]]:
    """Context in which signals to this process go to others; it gives a list of those that came."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield came
        return

    def forward(number: int, _: Any) -> None:
        came.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in heeded(FORWARDED)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(processes: Sequence[subprocess.Popen]) -> int | None:
    """Wait until all have ended, for those that do not end after another's failure no longer than GRACE; returns
    which was the first to fail."""
    first, deadline = None, float('inf')
    while None in (codes := [process.poll() for process in processes]):
        failed = [index for index, code in enumerate(codes) if code]
        if failed and first is None:
            first, deadline = failed[0], time.monotonic() + GRACE
        if time.monotonic() > deadline:
            kill(processes)
        time.sleep(POLL)
    return first if first is not None else next((i for i, each in enumerate(processes) if each.returncode), None)


def kill(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def status(codes: Sequence[int], first: int | None, outputs: Sequence[IO[bytes] | None]) -> int:
    """The status of all, from those of each, of which the first to fail is given. Says why where the chief could not:
    raises Error."""
    if first is None:
        return 0
    last = last_line(outputs[first])
    said = last if LOST not in last else ''
    if codes[0] > 0:
        if said:
            progress.note(f'worker {first}: {said}')
        return codes[0]
    how = f'was ended by {signal.Signals(-codes[first]).name}' if codes[first] < 0 else f'has failed: {said}'
    raise Error(f'worker {first} {how}; the same command goes on from the last checkpoint')


def last_line(output: IO[bytes] | None) -> str:
    """Of what a worker has said; nothing of the chief, who has said it already."""
    if output is None:
        return ''
    output.seek(0)
    lines = output.read().decode('utf-8', 'replace').splitlines()
    return one_line(lines[-1]) if lines else ''
