"""Fetch one file over HTTP: whole and checked under its own name, or not at all.

What has come so far lies beside it in `<path>.part`, and a later call goes on from there. Of two
processes that want one file the second waits.
"""

import base64
import contextlib
import email.utils
import errno
import hashlib
import os
import re
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import IO, Any, TypeVar

from tqdm import tqdm

from gpt2.errors import Error
from gpt2.system.locks import locked
from gpt2.system.text import one_line

PART_SUFFIX = '.part'
TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of data
ATTEMPTS = 5  # in a row that bring nothing new
PAUSE = 1  # seconds before the second attempt, twice as long before each that follows
LONGEST_PAUSE = 300  # seconds that a server may ask for
WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
CHUNK = 1 << 14  # bytes; what has come of a chunk when the connection breaks is lost
Answer = TypeVar('Answer')
Check = Callable[[str], str | None]  # what is wrong with the file at a path, in words, or None
Auth = Callable[[Any], Any]  # signs a request, as `requests` takes it
NO_NETWORK = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}


class DownloadError(Error):
    """A file that could not be fetched, or was not what it should be."""


class UnreachableError(DownloadError):
    """No server was reached, nor will one be before the network or the address has changed."""


class BrokenTransferError(Exception):
    """A request that failed in a way in which the next may not. out_of_reach: it met no server, and if it was
    the first, the next will not either. pause: seconds for which the server asks."""

    def __init__(self, message: str, out_of_reach: bool = False, pause: float = 0) -> None:
        super().__init__(message)
        self.out_of_reach, self.pause = out_of_reach, pause


def download(
    url: str, path: str, size: int | None = None, sha256: str | None = None,
    check: Check | None = None, auth: Auth | None = None, largest: int | None = None,
) -> bool:  # fmt: skip
    """Make path the file at url; returns False if it was there and whole, so that nothing was fetched.

    size: its length in bytes where that is known; sha256 and check: see problem(). The MD5 that the
    server gives, if any, is compared too. auth: signs a request, as `requests` takes it; what it adds goes
    to no other host that the server redirects to. largest: bytes that such a file may have, where its length is not
    known; a server that sends more is left. Raises DownloadError; path is then as it was before.
    """
    def find_problem(path: str) -> str | None:
        return problem(path, size, sha256, check)

    def waiting() -> None:
        note(f'another process is fetching {os.path.basename(path)}; waiting for it')

    try:
        if is_whole(path, find_problem):
            return False
        with locked(path, waiting):
            if is_whole(path, find_problem):  # by now: another process has fetched it
                return False
            fetch_whole(url, path, size, find_problem, auth, largest)
            return True
    except OSError as error:
        remedy = next_step(path + PART_SUFFIX, 'free space, or choose another folder')
        raise DownloadError(f'{path} cannot be written ({error.strerror or error}); {remedy}') from None


def fetch_whole(
    url: str, path: str, size: int | None, find_problem: Check, auth: Auth | None, largest: int | None
) -> None:
    part_path = path + PART_SUFFIX
    try:
        with open(part_path, 'ab') as part:
            fetch_and_check(url, part, size, find_problem, auth, largest)
            os.fsync(part.fileno())
        os.replace(part_path, path)
    finally:
        if not kept_bytes(part_path):
            with contextlib.suppress(OSError):
                os.remove(part_path)


def kept_bytes(part_path: str) -> int:
    return os.path.getsize(part_path) if os.path.exists(part_path) else 0


def next_step(part_path: str, remedy: str) -> str:
    """What the user can do: go on if anything has come, or else the remedy."""
    if kept_bytes(part_path):
        return 'what has come is kept: run the same command again to go on'
    return remedy


def is_whole(path: str, find_problem: Check) -> bool:
    if not os.path.exists(path):
        return False
    if wrong := find_problem(path):
        note(f'{path} {wrong}; fetching it again')
    return not wrong


def problem(
    path: str, size: int | None = None, sha256: str | None = None, check: Check | None = None
) -> str | None:
    """What is wrong with a file, in words, or None. check: does the same for the file's path."""
    length = os.path.getsize(path)
    if size is not None and length != size:
        return f'is {length} bytes long, expected {size}'
    if sha256 and (found := digest(path, 'sha256').hex()) != sha256:
        return f'has SHA-256 {found}, expected {sha256}'
    return check and check(path)


def digest(path: str, algorithm: str) -> bytes:
    """The hash of a file, bytes."""
    result, size = hashlib.new(algorithm), os.path.getsize(path)
    with open(path, 'rb') as file, progress('verifying', size, leave=False, delay=1) as bar:
        while chunk := file.read(CHUNK):
            result.update(chunk)
            bar.update(len(chunk))
    return result.digest()


def progress(what: str, total: int | None, **settings: Any) -> tqdm:
    return tqdm(desc=what, total=total, unit='B', unit_scale=True, disable=None, **settings)


def note(text: str) -> None:
    tqdm.write(one_line(text), file=sys.stderr)


def start_over(part: IO[bytes], why: str) -> None:
    note(f'{os.path.basename(part.name)}: {why}; starting over')
    part.truncate(0)
    part.seek(0)


def fetch_and_check(
    url: str, part: IO[bytes], size: int | None, find_problem: Check, auth: Auth | None, largest: int | None
) -> None:
    """Fetch into part. A part that an earlier call left may not fit the rest: then once more, from the start."""
    resumed = part.tell() > 0
    while wrong := wrong_md5(part.name, fetch(url, part, size, auth, largest)) or find_problem(part.name):
        if not resumed:
            part.truncate(0)
            raise DownloadError(f'{url} {wrong}; it was not kept: try again later or elsewhere')
        start_over(part, 'what came now does not fit what an earlier call left')
        resumed = False


def wrong_md5(path: str, expected: str | None) -> str | None:
    if expected and (found := base64.b64encode(digest(path, 'md5')).decode()) != expected:
        return f'has MD5 {found}, the server says {expected}'
    return None


def fetch(url: str, part: IO[bytes], size: int | None, auth: Auth | None, largest: int | None) -> str | None:
    """Append to part until it is whole, in as many requests as that takes; returns the server's MD5 or None."""
    return persist(url, lambda: receive(url, part, size, auth, largest), part)


def persist(url: str, request: Callable[[], Answer], part: Any = None) -> Answer:
    """What request() returns, made again when it breaks, until too many in a row have brought nothing to part,
    the file in which what has come is kept, if it is. Raises DownloadError."""
    failures = 0
    while True:
        before = size_of(part)
        try:
            return request()
        except BrokenTransferError as error:
            if error.out_of_reach and not failures:
                step = step_after(part, 'check the network and the address')
                raise UnreachableError(f'{url}: {error}; {step}') from None
            failures = 1 if size_of(part) > before else failures + 1
            if failures == ATTEMPTS:
                step = step_after(part, 'try again later')
                raise DownloadError(f'{url}: {error}, {ATTEMPTS} times in a row; {step}') from None
            if error.pause > LONGEST_PAUSE:
                step = step_after(part, 'try again then')
                raise DownloadError(f'{url}: {error} and asks to wait {error.pause:.0f} s; {step}') from None
            pause = max(PAUSE * 2 ** (failures - 1), error.pause)
            note(f'{os.path.basename(url)}: {error}; trying again in {pause:.0f} s')
            time.sleep(pause)


def size_of(part: IO[bytes] | None) -> int:
    if part is None:
        return 0
    part.flush()
    return part.tell()


def step_after(part: IO[bytes] | None, remedy: str) -> str:
    return next_step(part.name, remedy) if part else remedy


@contextlib.contextmanager
def answer(method: str, url: str, **settings: Any) -> Iterator[Any]:
    """The response to a request, whose body is yet to be read; settings are those of `requests`.

    Raises BrokenTransferError for what may be better the next time, also in the context, and DownloadError.
    """
    import requests

    try:
        with requests.request(method, url, stream=True, timeout=TIMEOUT, **settings) as response:
            if response.status_code in WORTH_ANOTHER_TRY:
                raise BrokenTransferError(status_line(response), pause=asked_pause(response))
            yield response
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise BrokenTransferError(reason(error), out_of_reach(error)) from None
    except (requests.RequestException, ValueError) as error:  # the latter for some addresses that are none
        raise DownloadError(f'{url}: {reason(error)}; check the address') from None


def status_line(response: Any) -> str:
    return f'the server answers {response.status_code} {response.reason}'


def asked_pause(response: Any) -> float:
    """Seconds that the header Retry-After asks for, given as such or as a date; 0 if it does not."""
    value = response.headers.get('Retry-After', '')
    try:
        if value.isdecimal():
            return min(float(value), 1e9)
        return max(0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0


def receive(url: str, part: IO[bytes], size: int | None, auth: Auth | None, largest: int | None) -> str | None:
    """One request for what part lacks; returns the server's MD5 of the whole file or None."""
    offset = part.tell()
    headers = {'Accept-Encoding': 'identity'}  # lengths and offsets are those of the file itself
    if offset:
        headers['Range'] = f'bytes={offset}-'
    with answer('GET', url, headers=headers, auth=auth) as response:
        refuse_other_answers(response, url)
        total = total_bytes(response)
        if size is not None and total not in (size, None):
            raise DownloadError(f'{url} is {total} bytes long, expected {size}; try elsewhere')
        if response.status_code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or total != offset:
            restart_unless_continued(response, part)
            append(response, url, part, total, largest)
        whole = response.status_code == HTTPStatus.OK
        return response.headers.get('Content-MD5' if whole else 'x-ms-blob-content-md5')


def refuse_other_answers(response: Any, url: str) -> None:
    """Let pass a file, the rest of one, and word that no rest is there; raise for all else."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise DownloadError(f'{url}: {status_line(response)}; check the address')
    if response.headers.get('Content-Type', '').startswith('text/html'):
        raise DownloadError(f'{url} is a web page, not a file; is a proxy or a login page in between?')


def total_bytes(response: Any) -> int | None:
    """Length of the whole file, or None where the server does not say."""
    header = 'Content-Length' if response.status_code == HTTPStatus.OK else 'Content-Range'
    found = re.search(r'(?<!\d)\d{1,18}$', response.headers.get(header, ''))
    return int(found.group()) if found else None


def restart_unless_continued(response: Any, part: IO[bytes]) -> None:
    """Empty part unless response starts where it ends. Raises BrokenTransferError if it has no start either."""
    offset = part.tell()
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        if response.headers.get('Content-Range', '').startswith(f'bytes {offset}-'):
            return
    elif response.status_code == HTTPStatus.OK:
        if offset:
            start_over(part, 'the server cannot send the rest of a file')
        return
    start_over(part, f'the server has nothing at byte {offset}')
    raise BrokenTransferError('the file has changed')


def append(response: Any, url: str, part: IO[bytes], total: int | None, largest: int | None) -> None:
    missing, free = (total or 0) - part.tell(), shutil.disk_usage(os.path.dirname(part.name) or '.').free
    if missing > free:
        step = next_step(part.name, 'free space, or choose another folder')
        raise DownloadError(f'{part.name}: {missing} bytes are missing and the disk has {free} free; {step}')
    with progress(os.path.basename(url), total, initial=part.tell()) as bar:
        for chunk in response.iter_content(CHUNK):
            if largest is not None and part.tell() + len(chunk) > largest:
                part.truncate(0)
                raise DownloadError(f'{url} is longer than {largest} bytes, and was not kept; check the address')
            part.write(chunk)
            bar.update(len(chunk))
    part.flush()
    if total is not None and part.tell() < total:
        raise BrokenTransferError(f'the connection ended after {part.tell()} of {total} bytes')


def out_of_reach(error: BaseException) -> bool:
    """Whether a request came to no server for a reason that does not pass by itself within seconds: a name that
    is not known, nobody who listens, no network, a proxy that will not, a stranger's certificate."""
    return any(
        isinstance(cause, (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError))
        or (isinstance(cause, OSError) and (cause.errno in NO_NETWORK or refused_by_proxy(cause)))
        for cause in causes(error)
    )


def refused_by_proxy(error: OSError) -> bool:
    status = re.match(r'Tunnel connection failed: (\d{3})\b', str(error))
    return status is not None and int(status.group(1)) not in WORTH_ANOTHER_TRY


def causes(error: BaseException) -> list[BaseException]:
    """An exception and those it was made from: requests and urllib3 wrap what the system says several times."""
    found: list[BaseException] = []
    left: list[Any] = [error]
    while left:
        error = left.pop()
        if isinstance(error, BaseException) and error not in found:
            found.append(error)
            left += [*error.args, getattr(error, 'reason', None), error.__cause__, error.__context__]
    return found


def reason(error: Any) -> str:
    """What went wrong, without the names of the library's classes and objects around it."""
    cause = error.args[0] if error.args else error
    cause = getattr(cause, 'reason', cause)
    text = next((argument for argument in getattr(cause, 'args', ()) if isinstance(argument, str)), str(cause))
    text = re.sub(r'^\w+\(.*?\): |^<.*?>: |\(\d+ bytes.*', '', text)
    from_proxy = getattr(cause, 'original_error', None)
    return f'{text} ({reason(from_proxy)})' if from_proxy else text
