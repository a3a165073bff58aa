"""Hosts that are asked politely: what their robots.txt allows, one request at a time, and a pause after each."""

import hashlib
import os
import threading
import time
import zlib
from urllib.parse import urljoin, urlsplit

from protego import Protego

from gpt2.preparation.addresses import normal, refusal
from gpt2.preparation.blocks import unexpected
from gpt2.preparation.network import Answer, Limits, Refused, failing, get
from gpt2.preparation.pages import decoded
from gpt2.system.files import make_folder
from gpt2.system.locks import locked

ROBOT = 'gpt2-prepare-data'  # as which robots.txt may name us
REDIRECTS = 5
MOVED = (301, 302, 303, 307, 308)
ROBOTS_SIZE = 500 * 1024  # bytes (RFC 9309, section 2.5)
PACKED = b'\x1f\x8b'  # how gzip begins
LONGEST_PAUSE = 60.0  # seconds that a robots.txt may ask for between requests


class Hosts:
    """Asks hosts, by several threads and beside other processes, by locks in a folder.

    pause: seconds after each request to a host. blocked: domains that redirects may not lead to."""

    def __init__(self, folder: str, limits: Limits, pause: float, blocked: frozenset[str]) -> None:
        self.folder, self.limits, self.pause, self.blocked = folder, limits, pause, blocked
        self.robots: dict[str, Protego | str] = {}  # or why there are none to be had
        self.lock = threading.Lock()
        make_folder(folder, 'choose another --output')

    def page(self, address: str) -> tuple[str, Answer]:
        """A page and its address after redirects. Raises Refused."""
        for _ in range(REDIRECTS + 1):
            robots = self.robots_of(address)
            if not robots.can_fetch(address, ROBOT):
                raise Refused('robots.txt')
            pause = min(robots.crawl_delay(ROBOT) or 0, LONGEST_PAUSE)  # perhaps nan, which max() leaves second
            answer = self.ask(address, self.limits, 'text/html, application/xhtml+xml', max(self.pause, pause))
            if answer.status not in MOVED:
                return address, answer
            address = self.target(address, answer)
        raise Refused('too many redirects')

    def target(self, address: str, answer: Answer) -> str:
        """Where a redirect leads to."""
        try:
            found = normal(urljoin(address, answer.header('location')))
        except ValueError:
            found = None
        if found is None:
            raise Refused('redirect to no web address')
        if reason := refusal(found, self.blocked):
            raise Refused(reason)
        return found

    def ask(self, address: str, limits: Limits, accept: str, pause: float) -> Answer:
        """get(), when nobody else asks that host, and then hold it for the pause."""
        host = hashlib.sha256((urlsplit(address).hostname or '').encode()).hexdigest()[:16]
        with locked(os.path.join(self.folder, host)):
            try:
                return get(address, limits, accept)
            finally:
                time.sleep(pause)

    def robots_of(self, address: str) -> Protego:
        """The rules of an address's host, for which it is asked once. Raises Refused."""
        parts = urlsplit(address)
        origin = f'{parts.scheme}://{parts.netloc}'
        with self.lock:
            found = self.robots.get(origin)
        if found is None:
            try:
                found = Protego.parse(self.rules(origin))
            except Refused as refused:
                found = str(refused)
            except Exception as error:
                found = unexpected(error)
            with self.lock:
                self.robots[origin] = found
        if isinstance(found, str):
            raise Refused(found)
        return found

    def rules(self, origin: str) -> str:
        """The text of a robots.txt; where there is none all is allowed, and nothing where the host fails (RFC 9309,
        section 2.3.1). Raises Refused for a host of which nothing is to be asked."""
        address, limits = f'{origin}/robots.txt', Limits(self.limits.agent, ROBOTS_SIZE, self.limits.seconds,
                                                         self.limits.private)  # fmt: skip
        for _ in range(REDIRECTS + 1):
            answer = self.ask(address, limits, '*/*', self.pause)
            if answer.status in MOVED:
                address = self.target(address, answer)
                continue
            if failing(answer.status):
                raise Refused('robots.txt fails')
            return text_of(answer) if answer.status == 200 else ''
        return ''


def text_of(answer: Answer) -> str:
    """The text of a robots.txt, which may come packed although a server need not. Raises Refused."""
    content = answer.body
    if content.startswith(PACKED):
        try:
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content, ROBOTS_SIZE + 1)
        except zlib.error:
            raise Refused('broken answer') from None
        if len(content) > ROBOTS_SIZE:
            raise Refused('too large')
    elif answer.header('content-encoding').strip().lower() not in ('', 'identity', 'gzip'):
        raise Refused('broken answer')  # packed in a way that nobody asked for
    return decoded(content, answer.header('content-type')) or content.decode('utf-8', 'replace')
