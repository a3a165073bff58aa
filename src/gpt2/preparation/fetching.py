"""Fetching the pages that links lead to, into a WARC file a task, which goes on where it was broken off."""

import io
import itertools
import json
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from gpt2.preparation.addresses import host_of
from gpt2.preparation.blocks import DROPPED, REMEDY, Documents, unexpected
from gpt2.preparation.hosts import Hosts
from gpt2.preparation.network import Answer, Limits, Refused, failing
from gpt2.preparation.pages import BROKEN, page, record_in
from gpt2.system.files import make_folder

ARCHIVES, LOCKS = 'archives', 'hosts'  # folders of the stage
# Why a page is not had today, but may be tomorrow, beside what failing() has.
PASSING = frozenset(
    ['no such host', 'no connection', 'too slow', 'cut off', 'TLS fails', 'robots.txt fails', 'private address']
)
LEFT_OUT = ('transfer-encoding', 'connection')  # headers of the framing, which an archive does not keep


class Fetch(PipelineStep):
    """Yields the pages that links lead to, in the links' order, whichever came first. All links to a host are one
    task's. links: folder of what the stage of that name left. threads: hosts that a task asks at once."""

    type = 'reader'
    name = 'fetch'

    def __init__(
        self, links: str, folder: str, limits: Limits, pause: float, threads: int, blocked: frozenset[str]
    ) -> None:
        super().__init__()
        self.links, self.folder, self.limits, self.blocked = links, folder, limits, blocked
        self.pause, self.threads = pause, threads

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        links = [link.text for link in Documents(self.links).run() if share(link.text, world_size) == rank]
        hosts = Hosts(os.path.join(self.folder, LOCKS), self.limits, self.pause, self.blocked)
        archive = Archive(os.path.join(self.folder, ARCHIVES), rank)
        try:
            fetch_all(links, hosts, archive, self.threads)
            for link in links:
                yield from self.counted(archive, link)
        finally:
            archive.close()

    def counted(self, archive: 'Archive', link: str) -> Iterator[Document]:
        found = archive.page(link, self.limits.size)
        self.stat_update('total')
        if isinstance(found, str):
            self.stat_update(f'{DROPPED}{found}')
        else:
            self.stat_update('forwarded')
            yield found


def share(address: str, world_size: int) -> int:
    """The task that asks an address's host."""
    return zlib.crc32(host_of(address).encode()) % world_size


def fetch_all(links: Sequence[str], hosts: Hosts, archive: 'Archive', threads: int) -> None:
    """Fetch what is not in the archive yet, each host's pages one after another."""
    left = sorted((link for link in links if link not in archive.known), key=host_of)
    groups = [list(group) for _, group in itertools.groupby(left, host_of)]
    groups.sort(key=len, reverse=True)  # the longest first, so that no thread has one left at the end
    stopped = threading.Event()

    def fetch_group(group: Sequence[str]) -> None:
        for link in group:
            if stopped.is_set():
                return
            archive.add(link, fetch(link, hosts))

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(fetch_group, group) for group in groups]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()  # for those that run on after an error, or Ctrl-C
    for each in running:
        each.result()


def fetch(link: str, hosts: Hosts) -> str | tuple[str, bytes]:
    """The address of the page that a link leads to and the page as a compressed record, or why there is none."""
    try:
        address, answer = hosts.page(link)
        if failing(answer.status):
            raise Refused(f'status {answer.status}')
        return address, member_of(address, answer)
    except Refused as refused:
        return str(refused)
    except Exception as error:
        return unexpected(error)


def passing(reason: str) -> bool:
    """Whether a page that is not had for a reason may be had another time."""
    return reason in PASSING or (reason.startswith('status ') and failing(int(reason.split()[1])))


class Archive:
    """A WARC file, and beside it, a JSON line each, what has come of every link: why there is no page, or where in the
    file it is. A line that is not whole, and what the WARC file has beyond the last whole one, are of a run that was
    broken off, and go. What failed for the time being is not known to who opens it, and so is tried again."""

    def __init__(self, folder: str, rank: int) -> None:
        make_folder(folder, REMEDY)
        self.lock = threading.Lock()
        path = os.path.join(folder, f'{rank:05d}')
        self.warc, self.lines = open_anew(f'{path}.warc.gz'), open_anew(f'{path}.jsonl')
        self.known: dict[str, Any] = {}
        whole = 0
        for line in self.lines:
            if not line.endswith(b'\n'):
                break
            whole += len(line)
            link, outcome = json.loads(line)
            self.known[link] = outcome
        self.known = {link: each for link, each in self.known.items() if isinstance(each, list) or not passing(each)}
        self.lines.truncate(whole)
        self.lines.seek(whole)
        self.end = max((sum(outcome[1:]) for outcome in self.known.values() if isinstance(outcome, list)), default=0)
        self.warc.truncate(self.end)

    def add(self, link: str, outcome: str | tuple[str, bytes]) -> None:
        """Keep what fetch() returned."""
        member = b'' if isinstance(outcome, str) else outcome[1]
        with self.lock:
            if member:
                self.warc.seek(self.end)
                self.warc.write(member)
                self.warc.flush()
            kept = outcome if isinstance(outcome, str) else [outcome[0], self.end, len(member)]
            self.lines.write(json.dumps([link, kept]).encode() + b'\n')
            self.lines.flush()
            self.known[link] = kept
            self.end += len(member)

    def page(self, link: str, size: int) -> Document | str:
        """The page that a link led to, or the reason why there is none."""
        if isinstance(kept := self.known[link], str):
            return kept
        address, start, length = kept
        self.warc.seek(start)
        member = self.warc.read(length)
        try:
            return page(record_in(member), address, size)
        except BROKEN:
            return 'broken answer'
        except Exception as error:
            return unexpected(error)

    def close(self) -> None:
        self.warc.close()
        self.lines.close()


def open_anew(path: str) -> Any:
    """A file open for reading and writing, with what it holds."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), 'r+b')


def member_of(address: str, answer: Answer) -> bytes:
    """An answer as a compressed record."""
    headers = [(name, value) for name, value in answer.headers if name.lower() not in LEFT_OUT]
    buffer = io.BytesIO()
    archive = WARCWriter(buffer, gzip=True)
    phrase = answer.phrase.encode('ascii', 'replace').decode()
    status = StatusAndHeaders(f'{answer.status} {phrase}', headers, protocol='HTTP/1.1')
    archive.write_record(
        archive.create_warc_record(address, 'response', payload=io.BytesIO(answer.body), http_headers=status)
    )
    return buffer.getvalue()
