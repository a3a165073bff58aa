"""What comes before every answer: who asks, under what name, how often, and how much; and what goes with it."""

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt2.serving.failures import Failure
from gpt2.serving.settings import Settings

BODY_SECONDS = 30  # until a body must be there
DROPPED, DROPPED_SECONDS = 10**7, 5  # bytes of a body that is too long, which are read after its answer
ENDING = 'the server ends before this is answered; send the request again'
REMEMBERED = 10_000  # of those whose requests are counted
HEADERS = [
    (b'x-content-type-options', b'nosniff'),
    (b'x-frame-options', b'DENY'),
    (b'referrer-policy', b'no-referrer'),
    (b'cross-origin-resource-policy', b'same-origin'),
    # Own scripts and styles alone, none written into a page; and no script may make elements of a text.
    (b'content-security-policy', b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                                 b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                                 b"require-trusted-types-for 'script'; trusted-types 'none'"),
]  # fmt: skip


class Gate:
    """An ASGI application around another one. told: called with (method, path, status, seconds) of each request."""

    def __init__(self, app: ASGIApp, settings: Settings, told: Callable[[str, str, int, float], None]) -> None:
        self.app, self.settings, self.told = app, settings, told
        self.keys = [key.encode() for key in settings.api_keys]
        self.allowances: dict[str, tuple[float, float]] = {}  # of each who asks: requests left, at what time

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        start = time.monotonic()
        begun: Message | None = None
        cors = self.cors_headers(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message['type'] == 'http.response.start':
                begun = message = {**message, 'headers': [*message.get('headers', []), *HEADERS, *cors]}
            await send(message)

        try:
            await self.pass_on(scope, receive, send_with_headers)
        except Failure as failure:
            await answer(failure, receive, send_with_headers)
        except asyncio.CancelledError:  # the server ends, and the grace is over
            ending = Failure(503, ENDING, code='server_ends', retry_after=1)
            if begun is None:
                await answer(ending, receive, send_with_headers)
            elif header(begun, b'content-type').startswith('text/event-stream'):
                await send({'type': 'http.response.body', 'body': sent(ending.content).encode()})
        finally:
            self.told(scope['method'], scope['path'], begun['status'] if begun else 500, time.monotonic() - start)

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on once it is let in and its body is there. Raises Failure."""
        self.check_host(header(scope, b'host'))
        if scope['method'] == 'OPTIONS' and self.settings.cors and header(scope, b'access-control-request-method'):
            await send({'type': 'http.response.start', 'status': 204, 'headers': []})
            await send({'type': 'http.response.body'})
            return
        if scope['path'].startswith('/v1') or scope['path'] == '/metrics':
            who = self.check_key(header(scope, b'authorization'), scope)
            if scope['path'] != '/metrics':
                self.check_rate(who)
        body = await self.read_body(scope, receive)
        if body and header(scope, b'content-type').partition(';')[0].strip().lower() != 'application/json':
            raise Failure(415, 'the body is not said to be JSON; send Content-Type: application/json')
        unread = [{'type': 'http.request', 'body': body, 'more_body': False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)

    def check_host(self, host: str) -> None:
        """Raise Failure for a name that is not this server's: a page elsewhere may have had it point here."""
        name = host.rpartition(':')[0] if host.rpartition(':')[2].isdigit() else host
        name = name.strip('[]').rstrip('.').lower()
        if name == 'localhost' or name in (each.lower() for each in (self.settings.host, *self.settings.allow_hosts)):
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Failure(403, 'the Host header names another server; --allow_host lets a name in') from None

    def check_key(self, authorization: str, scope: Scope) -> str:
        """Who asks: a key's number, or an address. Raises Failure."""
        if not self.keys:
            return (scope.get('client') or ('',))[0]
        scheme, _, given = authorization.partition(' ')
        # All are compared, each in a time that does not depend on where it differs.
        same = [hmac.compare_digest(given.strip().encode(), key) for key in self.keys]
        if scheme.lower() != 'bearer' or True not in same:
            raise Failure(401, 'no key that is known here; send Authorization: Bearer KEY', code='invalid_api_key')
        return str(same.index(True))

    def check_rate(self, who: str) -> None:
        """Count a request. Raises Failure where there have been too many."""
        if not (rate := self.settings.rate):
            return
        now = time.monotonic()
        left, then = self.allowances.pop(who, (rate, now))
        left = min(rate, left + (now - then) * rate / 60)
        self.allowances[who] = (left - 1 if left >= 1 else left), now
        while len(self.allowances) > REMEMBERED:
            del self.allowances[next(iter(self.allowances))]
        if left < 1:
            wait = max(1, round((1 - left) * 60 / rate))
            raise Failure(
                429, f'more than {rate} requests a minute; try again in {wait} seconds', code='rate_limit_exceeded',
                retry_after=wait,
            )  # fmt: skip

    async def read_body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises Failure for one that is too long or takes too long."""
        reading = asyncio.ensure_future(self.whole_body(scope, receive))
        try:
            # Not by asyncio.wait_for, which before Python 3.12 may take a cancellation for a result.
            await asyncio.wait([reading], timeout=min(BODY_SECONDS, self.settings.time_limit))
            if not reading.done():
                raise Failure(408, 'the body did not come in time; send the request again', code='timeout')
            return reading.result()
        finally:
            reading.cancel()

    async def whole_body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.settings.max_body
        too_long = Failure(413, f'the body has more than {most} bytes, the limit of --max_body; send less')
        if (length := header(scope, b'content-length')).isdigit() and int(length) > most:
            raise too_long
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message['type'] == 'http.disconnect':
                raise Failure(499, 'the client went away')
            body += message.get('body', b'')
            if len(body) > most:
                raise too_long
            more = message.get('more_body', False)
        return bytes(body)

    def cors_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What lets a page of an origin that --cors names read the answer."""
        origin = header(scope, b'origin')
        if not origin or not {origin, '*'} & set(self.settings.cors):
            return []
        asked = header(scope, b'access-control-request-headers') or 'authorization, content-type'
        return [
            (b'access-control-allow-origin', origin.encode('latin-1')),
            (b'access-control-allow-headers', asked.encode('latin-1')),
            (b'access-control-allow-methods', b'GET, POST'),
            (b'vary', b'Origin'),
        ]


def header(scope: Scope | Message, name: bytes) -> str:
    return next((value.decode('latin-1') for key, value in scope['headers'] if key == name), '')


def sent(content: dict[str, Any]) -> str:
    """One of the events that a server sends."""
    return f'data: {json.dumps(content)}\n\n'


async def answer(failure: Failure, receive: Receive, send: Send) -> None:
    """Send a Failure as the whole answer; what is still to come of the request changes nothing of it."""
    content = json.dumps(failure.content).encode()
    headers = [(b'content-type', b'application/json'), (b'content-length', b'%d' % len(content))]
    headers += [(name.lower().encode(), value.encode()) for name, value in failure.headers.items()]
    if failure.status in (408, 413):
        headers.append((b'connection', b'close'))
    await send({'type': 'http.response.start', 'status': failure.status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': content, 'more_body': True})
    if failure.status == 413:
        await asyncio.wait([dropping := asyncio.ensure_future(drop_body(receive))], timeout=DROPPED_SECONDS)
        dropping.cancel()
    await send({'type': 'http.response.body'})


async def drop_body(receive: Receive) -> None:
    """Read what a client still sends. Where a connection is closed before that, the client, which writes first and
    reads then, may hear of the end alone and not the answer (RFC 9112, section 9.6)."""
    left, more = DROPPED, True
    while more and left > 0:
        message = await receive()
        left, more = left - len(message.get('body', b'')), message.get('more_body', False)
