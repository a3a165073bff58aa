"""The process that computes for one model: `python -m gpt2.serving.worker SETTINGS`, by the server alone.

It reads messages on standard input, ('add', number, work) and ('cancel', number), and writes ('ready', None),
('failed', why) and ('events', [(number, event), ...], Load) on standard output. It ends when its input does.
"""

import json
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from gpt2.api import Model, open_model
from gpt2.engines import open_batch
from gpt2.errors import Error
from gpt2.serving.jobs import CompletionsJob, Job, new_job
from gpt2.serving.work import LENGTH, Done, Load, packed
from gpt2.system import progress

EVENTS = 8  # of a message: the server reads one at once, and may have much to do for each


def main() -> None:
    """Serve until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server says when it is over
        signal.signal(number, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), 'wb', buffering=0)
    os.dup2(2, 1)  # what libraries print is no message
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    # Without a buffer, which the interpreter could not lock at its end while the thread waits.
    given = os.fdopen(os.dup(0), 'rb', buffering=0)
    threading.Thread(target=read_messages, args=(given, inbox), daemon=True).start()

    def send(*message: Any) -> None:
        view = memoryview(packed(message))
        while view:
            view = view[output.write(view) :]

    settings = json.loads(sys.argv[1])
    progress.show(lines=True)
    try:
        model = open_model(settings['model'], settings['models_dir'], engine=settings['engine'],
                           precision=settings['precision'], prefix='--')  # fmt: skip
        batch = open_batch(model.engine, settings['prefix_cache'] * 10**6)
    except Error as error:
        send('failed', str(error))
        return
    send('ready', None)
    Scheduler(model, batch, settings['batch_size']).run(inbox, send)


def read_messages(file: BinaryIO, inbox: queue.SimpleQueue) -> None:
    """Put what comes in the inbox; None is the end."""
    while head := read_whole(file, LENGTH.size):
        inbox.put(pickle.loads(read_whole(file, *LENGTH.unpack(head))))
    inbox.put(None)


def read_whole(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or none where fewer are left."""
    content = bytearray()
    while len(content) < size and (part := file.read(size - len(content))):
        content += part
    return bytes(content) if len(content) == size else b''


class Scheduler:
    """Says which requests share the steps. size: samples, and prompts by themselves, that do at once."""

    def __init__(self, model: Model, batch: Any, size: int) -> None:
        self.model, self.batch, self.size = model, batch, size
        self.jobs: dict[int, Job] = {}
        self.events: list[tuple[int, Any]] = []

    def run(self, inbox: queue.SimpleQueue, send: Callable[..., None]) -> None:
        told = Load(0, 0)
        while self.take_messages(inbox):
            self.start_parts()
            if self.running:
                self.step()
            load = Load(self.running, sum(not job.running for job in self.jobs.values()))
            if self.events or load != told:
                for first in range(0, len(self.events) or 1, EVENTS):
                    send('events', self.events[first : first + EVENTS], load)
                self.events, told = [], load

    @property
    def running(self) -> int:
        return sum(job.running for job in self.jobs.values())

    def take_messages(self, inbox: queue.SimpleQueue) -> bool:
        """Do what messages say; waits for one where there is nothing else to do. False at their end."""
        wait = not self.jobs
        while True:
            try:
                message = inbox.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if message is None:
                return False
            kind, number, *work = message
            if kind == 'add':
                self.add(number, *work)
            elif job := self.jobs.pop(number, None):
                job.cancel()

    def add(self, number: int, work: Any) -> None:
        def emit(event: Any) -> None:
            self.events.append((number, event))
            if isinstance(event, Done):
                self.jobs.pop(number, None)

        try:
            self.jobs[number] = new_job(work, self.model, self.batch, emit)
        except Exception as error:  # such as a pattern that is beyond the limits of its library
            emit(last_word(error))

    def start_parts(self) -> None:
        """Fill the batch: next comes who has the fewest parts in it, of equals who came first."""
        while ready := [job for job in self.jobs.values() if job.unstarted]:
            job = min(ready, key=lambda job: job.running)
            if self.running + job.places > self.size:
                return
            job.attempt(job.start_next)
            self.end_failed()

    def step(self) -> None:
        jobs = {row: job for job in self.jobs.values() if isinstance(job, CompletionsJob) for row in job.samples}
        for row, logits in self.batch.step():
            jobs[row].attempt(jobs[row].take, row, logits)
        for job in [*self.jobs.values()]:
            job.attempt(job.advance)
        self.end_failed()

    def end_failed(self) -> None:
        """End the requests that went wrong; the others go on."""
        for job in [job for job in self.jobs.values() if job.fault]:
            job.cancel()
            job.emit(last_word(job.fault))


def last_word(error: Exception | None) -> Done:
    """What is said of a request that an exception ended: of an Error its words, of another one what it was."""
    if isinstance(error, Error):  # it asks for what cannot be done
        return Done(fault=str(error))
    traceback.print_exception(error)
    return Done(fault=f'the server failed at this request ({type(error).__name__}); its log says how', failed=True)


if __name__ == '__main__':
    main()
