"""The server itself: a socket, signals, and how it begins and ends."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2.errors import Error
from gpt2.serving.app import new_app
from gpt2.serving.failures import Failure
from gpt2.serving.gate import HEADERS
from gpt2.serving.log import Log
from gpt2.serving.metrics import Metrics
from gpt2.serving.models import ServedModels
from gpt2.serving.settings import Settings

HEAD_SECONDS = 20  # until the head of a request must be there
AFTERWARDS = 30  # seconds a client may take to read the rest of an answer when the time for it is over
CONNECTIONS = 1000  # at once; one more takes the place of one that has asked nothing yet
FILES = 4096  # that this process may have open, where the system lets it; half of them for connections


class Protocol(H11Protocol):
    """HTTP on a connection, which does not last for ever: not while a head is coming, nor while a client reads."""

    exchange_seconds: float
    most: int
    timer: asyncio.TimerHandle | None = None
    quiet_since = 0.0  # when it was opened, or its last answer ended

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.quiet_since = self.loop.time()
        self.limit(HEAD_SECONDS)
        if len(self.connections) > self.most:
            self.make_room()

    def make_room(self) -> None:
        """Give up the connection that has been quiet longest: this one, where all others are being answered."""
        opened = [each for each in self.connections if isinstance(each, Protocol) and not each.transport.is_closing()]
        if len(opened) > self.most:
            min((each for each in opened if each.quiet), key=lambda each: each.quiet_since).transport.abort()

    @property
    def quiet(self) -> bool:
        """Whether no request that is whole is being answered."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an answer of the form that every failure has."""
        content = json.dumps(Failure(400, 'this is no request of HTTP/1.1, or it has no Host').content).encode()
        headers = [(b'content-type', b'application/json'), (b'content-length', b'%d' % len(content))]
        headers += [(b'connection', b'close'), *HEADERS]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b'')
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limit(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        if before is not None and before.response_complete and self.timer is None:
            self.limit(HEAD_SECONDS)  # of the next request
        super().data_received(data)
        if self.cycle is not before:
            self.limit(self.exchange_seconds)

    def on_response_complete(self) -> None:
        self.quiet_since = self.loop.time()
        # What is still to be sent has its time; what comes next begins with another one.
        self.limit(AFTERWARDS if self.transport.get_write_buffer_size() else None)
        before = self.cycle
        super().on_response_complete()
        if self.cycle is not before:  # the next request had come already
            self.limit(self.exchange_seconds)

    def limit(self, seconds: float | None) -> None:
        """Give up the connection after so many seconds, unless this is called again before that."""
        if self.timer:
            self.timer.cancel()
        self.timer = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's, which ends with status 0 when it is told to end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def new_server(app: ASGIApp, time_limit: float, grace: float) -> Server:
    """A server of an application whose answers take time_limit seconds at most."""
    Protocol.exchange_seconds, Protocol.most = HEAD_SECONDS + time_limit + AFTERWARDS, most_connections()
    return Server(uvicorn.Config(
        app, http=Protocol, ws='none', lifespan='off', access_log=False, log_level='error', server_header=False,
        timeout_graceful_shutdown=max(1, round(grace)), loop='asyncio',
        # uvicorn would believe whoever asks from this machine what address he names, and --rate would not hold.
        forwarded_allow_ips=os.environ.get('FORWARDED_ALLOW_IPS', ''),
    ))  # fmt: skip


def most_connections() -> int:
    """How many connections may be open: CONNECTIONS, or fewer where the system allows fewer files than FILES."""
    try:
        import resource
    except ImportError:  # on Windows, where files have no such limit
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        soft = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft // 2)


async def answer_requests(
    settings: Settings, opened: socket.socket, models: ServedModels, ready: Callable[[], None]
) -> None:
    """Answer on a socket until a signal comes. ready: called once the first model is loaded. Raises Error where it
    cannot be loaded."""
    app = new_app(settings, models, Metrics(), Log(settings.log or settings.log_prompts))
    server = new_server(app, settings.time_limit, settings.grace)
    watch = asyncio.create_task(tell_when_ready(server, models, ready))
    await server.serve(sockets=[opened])
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch


async def tell_when_ready(server: Server, models: ServedModels, ready: Callable[[], None]) -> None:
    """Load the first model. One that cannot be loaded ends the server."""
    try:
        await models.first.opened()
        while not (models.first.ready and server.started):
            if models.first.fault:
                raise Error(models.first.fault)
            await asyncio.sleep(0.01)
    except Exception:
        server.should_exit = True
        raise
    ready()
