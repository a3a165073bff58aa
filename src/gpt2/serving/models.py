"""The models that are served, each computed by a process of its own, which is started when it is first asked and
again should it die. Imports little: the first of these processes is to begin soon."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import pickle
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from gpt2.checkpoints.folders import ModelFiles, find_model
from gpt2.errors import Error, UsageError
from gpt2.hparams import weights_bytes
from gpt2.serving.failures import Failure, cut, timeout
from gpt2.serving.settings import Settings
from gpt2.serving.work import LENGTH, Done, Load, packed

if TYPE_CHECKING:
    from gpt2.api import Model

PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where gpt2 is found
LOADED_TWICE = 2  # LiteRT's packed weights, and what else a process takes, roughly
END_SECONDS = 5  # until a process that is to end is ended
MakeRoom = Callable[['ServedModel'], Awaitable[None]]


class ServedModel:
    """A model, and the process that computes for it while there is one.

    requests: what is asked of the process and not answered to the end, by number, each with the queue of its events.
    """

    def __init__(self, files: ModelFiles, settings: Settings, changing: asyncio.Lock, make_room: MakeRoom) -> None:
        """changing: held where a process of any model begins or ends; make_room: called then, before it begins."""
        self.changing, self.make_room = changing, make_room
        self.bytes = 0 if settings.max_memory is None else memory(files, settings)
        self.name, self.files, self.settings = files.name, files, settings
        self.created = int(os.path.getmtime(files.folder))
        self.restarts = 0
        self.fault: str | None = None  # why it could not be loaded
        self.requests: dict[int, asyncio.Queue] = {}
        self.encoding = 0  # requests whose texts become tokens yet
        self.numbers = itertools.count()
        self.opening = asyncio.Lock()
        self.process: Process | None = None
        self.reader: asyncio.Task | None = None
        self.model: Model | None = None
        self.ready, self.closing = False, False
        self.let_go = False  # for others' sake; it is loaded again when it is asked
        self.load = Load(0, 0)
        self.used = 0.0  # when it was last asked

    async def opened(self) -> Model:
        """Its shape and vocabulary, which this process holds too: texts become tokens here."""
        async with self.opening:
            if self.model is None:
                from gpt2.api import open_model

                with failures_told():
                    self.model = await asyncio.to_thread(
                        open_model, self.files.path, self.settings.models_dir, engine=self.settings.engine,
                        precision=self.settings.precision,
                    )  # fmt: skip
            return self.model

    async def start(self) -> Process:
        """The process, started if there is none; one that is let go of is none. Raises Failure where it has no room."""
        if self.process and not self.closing:
            return self.process
        async with self.changing:
            if self.process is None:
                await self.make_room(self)
                settings = {name: getattr(self.settings, name) for name in (
                    'models_dir', 'engine', 'precision', 'batch_size', 'prefix_cache'
                )}  # fmt: skip
                path = os.pathsep.join(filter(None, [PACKAGES, os.environ.get('PYTHONPATH')]))
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, '-m', 'gpt2.serving.worker', json.dumps({'model': self.files.path, **settings}),
                    stdin=PIPE, stdout=PIPE, env={**os.environ, 'PYTHONPATH': path},
                )  # fmt: skip
                self.closing = self.let_go = False
                self.reader = asyncio.create_task(self.read(self.process))
            return self.process

    async def read(self, process: Process) -> None:
        """Hand on what a process says until it ends; then fail what was asked of it and, if it had been ready, start
        another one."""
        why = None
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                [length] = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))  # type: ignore[union-attr]
                kind, *content = pickle.loads(await process.stdout.readexactly(length))  # type: ignore[union-attr]
                if kind == 'failed':
                    [why] = content
                self.hear(kind, *content)
        status = await process.wait()
        again = self.ready and not self.closing
        ended = f'the process that computes {self.name} ended ({describe(status)})'
        self.fault = None if self.ready else why or ended
        self.process, self.ready, self.load = None, False, Load(0, 0)
        outlook = 'another one is being started, send the request again' if again else 'it had not loaded the model yet'
        failure = Failure(500, why or f'{ended}; {outlook}', code='worker_died')
        if not self.closing:  # else those that are there wait for the next process
            for events in self.requests.values():
                events.put_nowait(failure)
            self.requests.clear()
        if again:
            self.restarts += 1
            with contextlib.suppress(Failure):  # another model may have taken the room
                await self.start()

    def hear(self, kind: str, *content: Any) -> None:
        if kind == 'ready':
            self.ready, self.fault = True, None
        elif kind == 'events':
            events, self.load = content
            for number, event in events:
                if number in self.requests:  # and not given up in the meantime
                    self.requests[number].put_nowait(event)

    def check_room(self) -> None:
        """Raise Failure where too many wait already."""
        count, most = len(self.requests) + self.encoding, self.settings.batch_size + self.settings.queue
        if count >= most:
            raise Failure(
                429, f'{count} requests are being answered or wait for {self.name}, the limit is {most}; try again in '
                'a moment', code='queue_full',
                retry_after=1,
            )  # fmt: skip

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Context of a request whose texts become tokens: it has its place in the queue. Raises Failure."""
        self.check_room()
        self.encoding += 1
        try:
            yield
        finally:
            self.encoding -= 1

    async def ask(self, work: Any, deadline: float) -> AsyncGenerator[Any, None]:
        """Yield the events of a piece of work, the last of which is a Done. To be closed; the work ends with it.

        deadline: by time.monotonic(). Raises Failure.
        """
        self.check_room()
        number, events = next(self.numbers), asyncio.Queue()
        self.requests[number] = events  # counts from now on
        self.used = time.monotonic()
        # Not by asyncio.wait_for, which before Python 3.12 may take a cancellation for a result.
        left = deadline - time.monotonic()
        timer = asyncio.get_running_loop().call_later(left, events.put_nowait, timeout(self.settings.time_limit))
        try:
            await self.say('add', number, work)
            event = None
            while not isinstance(event, Done):
                event = await events.get()
                if isinstance(event, Failure):
                    raise event
                if isinstance(event, Done) and event.fault:
                    raise Failure(*((500, event.fault) if event.failed else (400, event.fault, None, 'not_supported')))
                yield event
            del self.requests[number]
        finally:
            timer.cancel()
            if self.requests.pop(number, None) and self.process and not self.closing:
                self.process.stdin.write(packed(('cancel', number)))  # type: ignore[union-attr]

    async def say(self, *message: Any) -> None:
        process = await self.start()
        process.stdin.write(packed(message))  # type: ignore[union-attr]

    async def close(self) -> None:
        """End the process: at the end of its input, or else by force."""
        self.closing = True
        if (process := self.process) is None:
            return
        process.stdin.close()  # type: ignore[union-attr]
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if self.reader:
            await asyncio.wait([self.reader])


class ServedModels:
    """All of them, by name; the first is what a request means that names none."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError for a model that is not there."""
        self.settings = settings
        found = [find_model(name, settings.models_dir) for name in settings.models]
        self.notices = [files.notice for files in found if files.notice]
        names = [files.name for files in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UsageError(f'--model_name has two models called {twice[0]}; requests could not tell them apart')
        changing = asyncio.Lock()
        self.models = {files.name: ServedModel(files, settings, changing, self.make_room) for files in found}
        for model in self:
            if settings.max_memory is not None and model.bytes > settings.max_memory * 10**6:
                raise UsageError(f'{model.name} needs {megabytes(model.bytes)} MB, more than --max_memory '
                                 f'{settings.max_memory} allows')  # fmt: skip

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self.models.values())

    @property
    def first(self) -> ServedModel:
        return next(iter(self.models.values()))

    async def get(self, name: str | None) -> ServedModel:
        """The model of a name. Raises Failure."""
        if name is not None and name not in self.models:
            known = ' or '.join(self.models)
            raise Failure(404, f'there is no model {cut(repr(name))} here; ask for {known}', 'model', 'model_not_found')
        model = self.first if name is None else self.models[name]
        await model.opened()
        return model

    async def make_room(self, wanted: ServedModel) -> None:
        """Let go of those used least recently that nobody waits for, until one more fits. Raises Failure."""
        if self.settings.max_memory is None:
            return
        most = self.settings.max_memory * 10**6
        others = collections.deque(sorted((each for each in self if each.process), key=lambda each: each.used))
        needed = wanted.bytes + sum(other.bytes for other in others)
        while others and needed > most:
            other = others.popleft()
            if not (other.requests or other.encoding):
                needed -= other.bytes
                await other.close()
                other.let_go = True
        if needed > most:
            raise Failure(
                503, f'{wanted.name} needs {megabytes(wanted.bytes)} MB of the {self.settings.max_memory} that '
                '--max_memory allows, and the others are in use; try again later', 'model', 'no_memory', retry_after=5,
            )  # fmt: skip

    async def close(self) -> None:
        await asyncio.gather(*(model.close() for model in self))


def memory(files: ModelFiles, settings: Settings) -> int:
    """Bytes that a model takes, about. Raises Error for one that cannot be read."""
    from gpt2.checkpoints.source import open_source

    share = {'float32': 1, 'int8': 4, 'int4': 5}[settings.precision]
    return LOADED_TWICE * weights_bytes(open_source(files.path).hparams) // share


def megabytes(size: int) -> int:
    return -(-size // 10**6)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Context in which an Error of the library becomes a Failure of the server."""
    try:
        yield
    except Error as error:
        raise Failure(500, str(error), code='model_failed') from None


def describe(status: int) -> str:
    return f'signal {signal.Signals(-status).name}' if status < 0 else f'status {status}'
