"""Pages: out of WARC files (ISO 28500), of which records may be broken, and out of folders of HTML; decoded."""

import io
import mmap
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from charset_normalizer import from_bytes
from datatrove.data import Document
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from gpt2.preparation.addresses import domain_of, key, normal, refusal
from gpt2.preparation.blocks import Documents, Reader

HTML = ('text/html', 'application/xhtml+xml')
CHARSET = re.compile(rb'<meta[^>]{0,200}?charset\s*=\s*["\']?\s*([\w:.-]+)', re.I)
ENCODING = re.compile(r'charset\s*=\s*["\']?\s*([\w:.-]+)', re.I)
MARKS = {b'\xef\xbb\xbf': 'utf-8', b'\xff\xfe': 'utf-16-le', b'\xfe\xff': 'utf-16-be'}
HEAD = 2048  # bytes in which a page names its encoding
GUESSED = 2**16  # bytes from which an encoding that is not named is guessed
LENGTH = re.compile(rb'^Content-Length:\s*(\d+)', re.I | re.M)
HEADERS, FIRST_LINE = 2**17, 16  # bytes
END = b'\r\n\r\n'  # of a record
MEMBER, RECORD = b'\x1f\x8b\x08', b'WARC/1.'  # how a record begins, compressed or not
BROKEN = (ArchiveLoadFailed, OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError)
READ = 2**20


class Warcs(Reader):
    """Reads the answers in WARC files that are pages. links: folder of what the stage of that name left, or None;
    where it is given, other pages are left out."""

    name = 'pages'
    suffixes = ('.warc', '.warc.gz')

    def __init__(self, patterns: tuple[str, ...], links: str | None, size: int, blocked: frozenset[str]) -> None:
        super().__init__(patterns)
        self.links, self.size, self.blocked = links, size, blocked

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        known = Documents(self.links).run() if self.links else None
        self.keys = None if known is None else {key(document.text) for document in known}
        yield from super().run(data, rank, world_size)

    def items(self, path: str) -> Iterator[Document | str]:
        for record in records(path, self.size):
            if record is None:
                yield 'broken record'
            elif record.rec_type in ('response', 'resource'):
                yield self.item(record)

    def item(self, record: Any) -> Document | str:
        address = normal(record.rec_headers.get_header('WARC-Target-URI') or '')
        if address is None:
            return 'no web address'
        if self.keys is not None and key(address) not in self.keys:
            return 'no link leads there'
        try:
            return refusal(address, self.blocked) or page(record, address, self.size)
        except BROKEN:
            return 'broken record'


def records(path: str, size: int) -> Iterator[Any]:
    """Yield the records of a file, of each so many bytes and its headers at most; None in place of what is broken, up
    to the next that is whole."""
    end = os.path.getsize(path)
    with open(path, 'rb') as file:
        mark, read = (MEMBER, member_at) if file.read(len(MEMBER)) == MEMBER else (RECORD, record_at)
        place: int | None = 0
        broken = False
        while place is not None and place < end:
            try:
                content, place = read(file, place, size + HEADERS)
                yield from ArchiveIterator(io.BytesIO(content))
                broken = False
            except BROKEN:
                if not broken:
                    yield None
                broken, place = True, following(file, mark, place + 1)


def member_at(file: BinaryIO, place: int, size: int) -> tuple[bytes, int]:
    """(what the compressed record at a place unpacks to, so many bytes of it at most; where it ends)."""
    file.seek(place)
    unpacker, kept = zlib.decompressobj(zlib.MAX_WBITS | 16), bytearray()
    while not unpacker.eof:
        if not (packed := unpacker.unconsumed_tail or file.read(READ)):
            raise EOFError
        kept += unpacker.decompress(packed, READ)[: size - len(kept)]
    return bytes(kept), file.tell() - len(unpacker.unused_data)


def record_at(file: BinaryIO, place: int, size: int) -> tuple[bytes, int]:
    """member_at, of a record that is not compressed."""
    file.seek(place)
    head = file.readline(FIRST_LINE)
    while not head.endswith(END):
        if not head.startswith(RECORD) or not head.endswith(b'\n') or len(head) > HEADERS:
            raise EOFError
        head += file.readline(HEADERS) or b'it ends'  # in no line's end
    length = int(LENGTH.search(head)[1])  # type: ignore[index]
    content = file.read(min(length, size))
    file.seek(length - len(content), os.SEEK_CUR)
    if file.read(len(END)) != END:
        raise EOFError
    return head + content, file.tell()


def following(file: BinaryIO, mark: bytes, place: int) -> int | None:
    """Where a mark next stands in a file, from place on."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(mark, place)
    return found if found >= 0 else None


def page(record: Any, address: str, size: int) -> Document | str:
    """The page in a record, or the reason why there is none. Reads and unpacks size bytes at most, and little more."""
    headers = record.http_headers
    kind = (headers and headers.get_header('Content-Type')) or record.content_type or ''
    if headers and headers.get_statuscode() != '200':
        return f'status {headers.get_statuscode()}'
    if kind.partition(';')[0].strip().lower() not in HTML:
        return 'not HTML'
    content = record.content_stream().read(size + 1)
    return document(content, kind, address, size)


def document(content: bytes, kind: str, address: str, size: int) -> Document | str:
    """A page's Document. kind: its Content-Type."""
    if len(content) > size:
        return 'too large'
    text = decoded(content, kind)
    if text is None or '\0' in text:
        return 'no text'
    return Document(text, address, metadata={'domain': domain_of(address)}) if text.strip() else 'empty'


def decoded(content: bytes, kind: str) -> str | None:
    """The text of a page: as its mark, its server, itself or UTF-8 have it, the first that fits every byte; else as
    its bytes look, or None."""
    for encoding in named(content, kind):
        try:
            return content.decode(encoding).removeprefix('\ufeff')
        except (UnicodeError, LookupError):
            continue
    guess = from_bytes(content[:GUESSED]).best()
    try:
        return content.decode(guess.encoding, 'replace') if guess else None
    except LookupError:
        return None


def named(content: bytes, kind: str) -> Iterator[str]:
    yield from (encoding for mark, encoding in MARKS.items() if content.startswith(mark))
    if found := ENCODING.search(kind):
        yield found[1]
    if inside := CHARSET.search(content[:HEAD]):
        yield inside[1].decode('ascii', 'replace')
    yield 'utf-8'


class Folder(Reader):
    """Reads HTML files. Their place is their address."""

    name = 'pages'
    suffixes = ('.html', '.htm')

    def __init__(self, patterns: tuple[str, ...], size: int) -> None:
        super().__init__(patterns)
        self.size = size

    def items(self, path: str) -> Iterator[Document | str]:
        try:
            with open(path, 'rb') as file:
                content = file.read(self.size + 1)
        except OSError:
            yield 'unreadable file'
            return
        yield document(content, '', os.path.abspath(path), self.size)


def record_in(member: bytes) -> Any:
    """The one record in some bytes of a WARC file."""
    return next(iter(ArchiveIterator(io.BytesIO(member))))
