"""One request over HTTP, which cannot be led to where it should not go, nor be made to take or to wait for too much.

A host's name is resolved once; every address found must be public; the connection is made to the very address that
was checked, so that a name which means another address a moment later (DNS rebinding) gains nothing. Proxies that the
environment names are not used, since they would resolve names by themselves. Redirects are the caller's.
"""

import contextlib
import dataclasses
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from gpt2.errors import Error

NAT64 = ipaddress.ip_network('64:ff9b::/96')
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Error):
    """A page that is not had; the message is the reason, a few words that are counted."""


def failing(status: int) -> bool:
    """Whether an answer's status says that its server fails, or has too much to do, for the time being."""
    return status >= 500 or status in (408, 429)


@dataclasses.dataclass(frozen=True)
class Limits:
    """agent: who asks. size: bytes of an answer. seconds: of a request, until its last byte. private: whether hosts of
    private networks, and this computer, may be asked."""

    agent: str
    size: int
    seconds: float
    private: bool = False


@dataclasses.dataclass(frozen=True)
class Answer:
    """body: as it was sent, perhaps compressed, without the framing of chunks."""

    status: int
    phrase: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """The first header of that name, in lower case, or ''."""
        return next((value for key, value in self.headers if key.lower() == name), '')


def get(address: str, limits: Limits, accept: str = 'text/html, application/xhtml+xml') -> Answer:
    """Ask for a normal address. accept: kinds of content; an answer with another kind has no body. Raises Refused."""
    parts = urlsplit(address)
    try:
        link = Link(parts.hostname or '', parts.port, parts.scheme == 'https', limits)
    except http.client.InvalidURL:
        raise Refused('no web address') from None
    path = parts.path + (f'?{parts.query}' if parts.query else '')
    headers = {'User-Agent': limits.agent, 'Accept': accept, 'Accept-Encoding': 'gzip', 'Connection': 'close'}
    with contextlib.closing(link), link.reasons(), link.deadline():
        link.request('GET', path, headers=headers)
        response = link.getresponse()
        found = Answer(response.status, response.reason, response.getheaders(), b'')
        kind = found.header('content-type').partition(';')[0].strip().lower()
        if response.status != 200 or (kind and kind not in accept and accept != '*/*'):
            return found
        return dataclasses.replace(found, body=body(response, limits.size))


def body(response: http.client.HTTPResponse, size: int) -> bytes:
    """Raises Refused for more than so many bytes, or fewer than were announced."""
    if (response.length or 0) > size:
        raise Refused('too large')
    content = response.read(size + 1)
    if len(content) > size:
        raise Refused('too large')
    if response.length:
        raise Refused('cut off')
    return content


class Link(http.client.HTTPConnection):
    """A connection to an address that was checked, with or without TLS, for so many seconds."""

    def __init__(self, host: str, port: int | None, secure: bool, limits: Limits) -> None:
        super().__init__(host, port or (443 if secure else 80), timeout=limits.seconds)
        self.secure, self.limits, self.late = secure, limits, False
        self.raw: socket.socket | None = None

    def connect(self) -> None:
        self.raw = self.sock = connected(self.host, self.port, self.limits)
        if self.secure:
            context = ssl.create_default_context()
            wrapped = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.raw = self.sock = wrapped
            wrapped.do_handshake()
        if self.late:  # while there was nothing to break off yet
            raise TimeoutError

    @contextlib.contextmanager
    def deadline(self) -> Iterator[None]:
        """Context that breaks the connection off after its seconds, however the bytes drip in."""
        timer = threading.Timer(self.limits.seconds, self.break_off)
        timer.daemon = True
        timer.start()
        try:
            yield
            if self.late:
                raise Refused('too slow')
        finally:
            timer.cancel()

    def break_off(self) -> None:
        self.late = True
        if self.raw:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.raw, socket.SHUT_RDWR)  # of the connection itself, below TLS

    @contextlib.contextmanager
    def reasons(self) -> Iterator[None]:
        """Context whose errors become Refused."""
        try:
            yield
        except (Refused, OSError, http.client.HTTPException, ValueError) as error:
            if self.late or isinstance(error, TimeoutError):
                raise Refused('too slow') from None
            if isinstance(error, Refused):
                raise
            raise Refused(reason(error)) from None


def reason(error: Exception) -> str:
    """What went wrong with a request, in words that are few enough to count."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return 'no such host'
    if isinstance(error, ssl.SSLError):
        return 'no valid certificate' if isinstance(error, ssl.SSLCertVerificationError) else 'TLS fails'
    return 'no connection' if isinstance(error, OSError) else 'broken answer'


def connected(host: str, port: int, limits: Limits) -> socket.socket:
    """A socket that is connected to one of a host's addresses. Raises OSError, or Refused where one is private."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not limits.private and not all(public(str(place[0])) for *_, place in found):
        raise Refused('private address')
    failure: OSError | None = None
    for family, kind, protocol, _, place in found:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(limits.seconds)
            made.connect(place)
            return made
        except OSError as error:
            made.close()
            failure = error
    raise failure or OSError('no address')


def public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also by what it stands for."""
    found = ipaddress.ip_address(address.partition('%')[0])
    return all(each.is_global and not each.is_multicast for each in meanings(found))


def meanings(address: Address) -> list[Address]:
    """An address, and the IPv4 addresses that packets to it may reach."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in NAT64 or int(address) >> 32 == 0:  # the latter: IPv4-compatible, of old
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    carried = [each for each in inner if each]
    return carried if address.ipv4_mapped else [address, *carried]
