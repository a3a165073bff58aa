"""Pages: out of WARC files (ISO 28500), of which records may be broken, and out of folders of HTML; decoded."""

import codecs
import io
import mmap
import os
import re
import zlib
from collections.abc import Iterator, Sequence
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
SURROGATE = re.compile('[\ud800-\udfff]')  # that no file can hold
STATUS = re.compile(r'[1-5][0-9]{2}')
# The encodings of the web (WHATWG, Encoding Standard), by Python's names. Others are not text, or take too long.
WEB = frozenset(
    [
        'ascii', 'utf-8', 'utf-16', 'utf-16-be', 'utf-16-le', 'cp866', 'cp874', 'koi8-r', 'koi8-u', 'mac-roman',
        'mac-cyrillic', 'tis-620', 'gb2312', 'gbk', 'gb18030', 'big5', 'big5hkscs', 'euc_jp', 'iso2022_jp',
        'shift_jis', 'cp932', 'euc_kr', 'cp949',
        *(f'iso8859-{part}' for part in (*range(1, 12), *range(13, 17))), *(f'cp{page}' for page in range(1250, 1259)),
    ]
)  # fmt: skip
GUESSED = 2**16  # bytes from which an encoding that is not named is guessed
LENGTH = re.compile(rb'^Content-Length:\s*(\d+)', re.I | re.M)
HEADERS, FIRST_LINE = 2**17, 16  # bytes
END = b'\r\n\r\n'  # of a record
MEMBER, RECORD = b'\x1f\x8b\x08', b'WARC/1.'  # how a record begins, compressed or not
BROKEN = (ArchiveLoadFailed, OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError)
READ = 2**16


class Warcs(Reader):
    """Reads the answers in WARC files that are pages. links: folder of what the stage of that name left, or None;
    where it is given, other pages are left out."""

    name = 'pages'
    suffixes = ('.warc', '.warc.gz')

    def __init__(self, files: Sequence[str], links: str | None, size: int, blocked: frozenset[str]) -> None:
        super().__init__(files)
        self.links, self.size, self.blocked = links, size, blocked

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        known = Documents(self.links).run() if self.links else None
        self.keys = None if known is None else {key(document.text) for document in known}
        yield from super().run(data, rank, world_size)

    def raw(self, path: str) -> Iterator[Any]:
        return records(path, self.size)

    def item(self, record: Any) -> Document | str | None:
        if record is None:
            return 'broken record'
        if record.rec_type not in ('response', 'resource'):
            return None
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
    broken = False
    for record in pieces(path, size + HEADERS):
        if record is not None or not broken:
            yield record
        broken = record is None


def pieces(path: str, size: int) -> Iterator[Any]:
    """Yield the records of a file, of each so many bytes at most; None for each place where one should be and is not.
    """
    end = os.path.getsize(path)
    with open(path, 'rb') as file:
        packed = is_packed(file.read(len(RECORD)), path)
        place: int | None = 0
        while place is not None and place < end:
            file.seek(place)
            try:
                yield from of_member(file, size) if packed else ArchiveIterator(io.BytesIO(record_of(file, size)))
                place = file.tell()
            except Exception:  # whatever the bytes made the libraries do
                yield None
                place = following(file, MEMBER if packed else RECORD, place + 1)


def is_packed(start: bytes, path: str) -> bool:
    """Whether a file is compressed, as its start says or, where that is damaged, its name."""
    return start.startswith(MEMBER) or (start != RECORD and path.lower().endswith('.gz'))


class Member(io.RawIOBase):
    """What the member of a gzip file unpacks to, at which the file stands. Raises EOFError or zlib.error."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.unpacker = file, zlib.decompressobj(zlib.MAX_WBITS | 16)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = b''
        while not found and not self.unpacker.eof:
            if not (packed := self.unpacker.unconsumed_tail or self.file.read(READ)):
                raise EOFError
            found = self.unpacker.decompress(packed, len(buffer))
        buffer[: len(found)] = found
        return len(found)


def of_member(file: BinaryIO, size: int) -> Iterator[Any]:
    """Yield the records of the member at which a gzip file stands: one, in most files; or all. Leaves the file at the
    member's end."""
    start, member, content = file.tell(), Member(file), bytearray()
    while len(content) <= size and (part := member.read(READ)):
        content += part
    if len(content) <= size:
        yield from ArchiveIterator(io.BytesIO(content))
    else:
        file.seek(start)
        member = Member(file)
        yield from of_stream(io.BufferedReader(member, READ), size)
    file.seek(-len(member.unpacker.unused_data), os.SEEK_CUR)


def of_stream(stream: io.BufferedReader, size: int) -> Iterator[Any]:
    """Yield the records of a stream, of which none goes back; None where one is broken, up to a line like a first."""
    head = b''
    while head or stream.peek(1):
        try:
            yield from ArchiveIterator(io.BytesIO(record_of(stream, size, head)))
            head = b''
        except (EOFError, zlib.error):
            raise
        except Exception:
            yield None
            while (head := stream.readline(HEADERS)) and not head.startswith(RECORD):
                pass


def record_of(stream: Any, size: int, head: bytes = b'') -> bytes:
    """The record at which a stream stands, so many bytes of it at most. head: its first line, if that is read already.
    Raises ValueError or TypeError."""
    head = head or stream.readline(FIRST_LINE)
    while not head.endswith(END):
        if not head.startswith(RECORD) or not head.endswith(b'\n') or len(head) > HEADERS:
            raise ValueError('no record')
        head += stream.readline(HEADERS) or b'it ends'  # in no line's end
    length = int(LENGTH.search(head)[1])  # type: ignore[index]
    content = stream.read(min(length, size))
    skip(stream, length - len(content))
    if stream.read(len(END)) != END:
        raise ValueError('another length than it says')
    return head + content


def skip(stream: Any, count: int) -> None:
    if stream.seekable():
        stream.seek(count, os.SEEK_CUR)
    else:
        while count > 0 and (part := stream.read(min(count, READ))):
            count -= len(part)


def following(file: BinaryIO, mark: bytes, place: int) -> int | None:
    """Where a mark next stands in a file, from place on."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = content.find(mark, place)
    return found if found >= 0 else None


def page(record: Any, address: str, size: int) -> Document | str:
    """The page in a record, or the reason why there is none. Reads and unpacks size bytes at most, and little more."""
    headers = record.http_headers
    kind = (headers and headers.get_header('Content-Type')) or record.content_type or ''
    if headers and (status := str(headers.get_statuscode())) != '200':
        return f'status {status}' if STATUS.fullmatch(status) else 'broken answer'
    if kind.partition(';')[0].strip().lower() not in HTML:
        return 'not HTML'
    content = record.content_stream().read(size + 1)
    return document(content, kind, address, size)


def document(content: bytes, kind: str, address: str, size: int) -> Document | str:
    """A page's Document. kind: its Content-Type."""
    if len(content) > size:
        return 'too large'
    text = decoded(content, kind)
    if text is None or '\0' in text or SURROGATE.search(text):
        return 'no text'
    return Document(text, address, metadata={'domain': domain_of(address)}) if text.strip() else 'empty'


def decoded(content: bytes, kind: str) -> str | None:
    """The text of a page: as its mark, its server, itself or UTF-8 have it, the first that fits every byte; else as
    its bytes look, or None."""
    for encoding in named(content, kind):
        try:
            return content.decode(encoding).removeprefix('\ufeff')
        except UnicodeError:
            continue
    guess = from_bytes(content[:GUESSED]).best()
    try:
        return content.decode(guess.encoding, 'replace') if guess else None
    except LookupError:
        return None


def named(content: bytes, kind: str) -> Iterator[str]:
    yield from (encoding for mark, encoding in MARKS.items() if content.startswith(mark))
    if (found := ENCODING.search(kind)) and of_web(found[1]):
        yield found[1]
    if (inside := CHARSET.search(content[:HEAD])) and of_web(label := inside[1].decode('ascii', 'replace')):
        yield label
    yield 'utf-8'


def of_web(label: str) -> bool:
    """Whether a name is that of an encoding of the web."""
    try:
        return codecs.lookup(label).name in WEB
    except (LookupError, ValueError):
        return False


class Folder(Reader):
    """Reads HTML files. Their place is their address."""

    name = 'pages'
    suffixes = ('.html', '.htm')

    def __init__(self, files: Sequence[str], size: int) -> None:
        super().__init__(files)
        self.size = size

    def raw(self, path: str) -> Iterator[str]:
        yield path

    def item(self, path: str) -> Document | str:
        with open(path, 'rb') as file:
            content = file.read(self.size + 1)
        address = os.path.abspath(path).encode('utf-8', 'backslashreplace').decode()  # a name may be any bytes
        return document(content, '', address, self.size)


def record_in(member: bytes) -> Any:
    """The one record in some bytes of a WARC file."""
    return next(iter(ArchiveIterator(io.BytesIO(member))))
