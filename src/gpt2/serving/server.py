"""The server itself: a socket, signals, and how it begins and ends."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt2.errors import Error
from gpt2.serving.app import new_app
from gpt2.serving.log import Log
from gpt2.serving.metrics import Metrics
from gpt2.serving.models import ServedModels
from gpt2.serving.settings import Settings

HEAD_SECONDS = 20  # until the head of a request must be there
AFTERWARDS = 30  # seconds a client may take to read the rest of an answer when the time for it is over
CONNECTIONS = 1000  # at once; more are closed


class Protocol(H11Protocol):
    """HTTP on a connection, which does not last for ever: not while a head is coming, nor while a client reads."""

    exchange_seconds: float
    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        self.limit(HEAD_SECONDS)

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


async def answer_requests(
    settings: Settings, opened: socket.socket, models: ServedModels, ready: Callable[[], None]
) -> None:
    """Answer on a socket until a signal comes. ready: called once the first model is loaded. Raises Error where it
    cannot be loaded."""
    log = Log(settings.log or settings.log_prompts)
    Protocol.exchange_seconds = HEAD_SECONDS + settings.time_limit + AFTERWARDS
    config = uvicorn.Config(
        new_app(settings, models, Metrics(), log), http=Protocol, ws='none', lifespan='off', access_log=False,
        log_level='error', server_header=False, timeout_graceful_shutdown=max(1, round(settings.grace)),
        loop='asyncio',
    )  # fmt: skip
    server = Server(config)
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
