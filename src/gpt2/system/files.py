"""Files that are written whole or not at all, and the folders they lie in."""

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Iterator
from typing import IO

from gpt2.errors import Error

LARGEST_SMALL = 1 << 28  # bytes; the largest vocabulary known has an eighth of it
LFS_POINTER = b'version https://git-lfs.github.com/spec/'


class WriteError(Error):
    """A file that cannot be written, or a folder that cannot be made."""


def make_folder(path: str, remedy: str) -> None:
    """Make a folder and those above it, unless it is there. Raises WriteError, which names the remedy."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise WriteError(f'{path} cannot be made ({error.strerror}); {remedy}') from None


def check_space(folder: str, size: int, remedy: str) -> None:
    """Raise WriteError, which names the remedy, where the disk that folder lies on has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise WriteError(f'{folder} has no room: {size} bytes are needed and {free} free; {remedy}')


class UnreadableError(OSError):
    """A file that is there and cannot be what it is taken for. strerror says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)

    def __str__(self) -> str:
        return str(self.strerror)


def check_file(path: str) -> None:
    """Raise OSError for what is not there, is no regular file, such as a pipe that would never end, or only points to
    the file that git-lfs would fetch."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise UnreadableError('it is no regular file')
    with open(path, 'rb') as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UnreadableError('it is a pointer of git-lfs; `git lfs pull` in its folder puts the file in its place')


def read_small(path: str) -> bytes:
    """The content of a file that has no reason to be large. Raises OSError, as check_file does too."""
    check_file(path)
    with open(path, 'rb') as file:
        content = file.read(LARGEST_SMALL + 1)
    if len(content) > LARGEST_SMALL:
        raise UnreadableError(f'it is longer than {LARGEST_SMALL} bytes')
    return content


def open_small(path: str, encoding: str = 'utf-8') -> io.TextIOWrapper:
    """read_small, as a text file that is open for reading."""
    return io.TextIOWrapper(io.BytesIO(read_small(path)), encoding)


@contextlib.contextmanager
def new_folder(path: str, remedy: str) -> Iterator[None]:
    """make_folder, for a context: if it ends in an error, no folder stays that was made here and is empty."""
    made, above = [], path
    while above and not os.path.lexists(above):
        made.append(above)
        above = os.path.dirname(above)
    try:
        make_folder(path, remedy)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for folder in made:
                os.rmdir(folder)
        raise


def check_replaceable(path: str, remedy: str) -> None:
    """Raise WriteError, which names the remedy, for what a file must not take the place of: a folder, or a device or a
    pipe, which every program of the machine would lose."""
    if os.path.isdir(path):
        raise WriteError(f'{path} cannot be written ({os.strerror(errno.EISDIR)}); {remedy}')
    if os.path.exists(path) and not os.path.isfile(path):
        raise WriteError(f'{path} cannot be written (it is no regular file); {remedy}')


def check_output(path: str, remedy: str) -> None:
    """check_replaceable, and whether the folder of a file takes files: before the work whose end it shall hold."""
    check_replaceable(path, remedy)
    folder = os.path.dirname(path) or '.'
    if not os.path.isdir(folder):
        raise WriteError(f'{path} cannot be written (there is no folder {folder}); {remedy}')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f'{path} cannot be written ({os.strerror(errno.EACCES)}); {remedy}')


def new_part(path: str, mode: str, number: int = 1) -> IO:
    """The file that becomes path when it is whole; it was not there before."""
    part = f'{path}.part' if number == 1 else f'{path}.{number}.part'
    try:
        return open(part, mode, encoding=None if 'b' in mode else 'utf-8')
    except FileExistsError:
        return new_part(path, mode, number + 1)


@contextlib.contextmanager
def whole_file(path: str, mode: str = 'w', remedy: str = 'free space, or choose another folder') -> Iterator[IO]:
    """A file open for writing, which gets its name, path, when the context ends.

    Until then it is <path>.part, of which an error leaves nothing; <path>.2.part where there is such a file, which may
    be somebody's own, and so on. mode: 'w', UTF-8 text, or a binary one. Raises WriteError, which names the remedy.
    """
    check_replaceable(path, remedy)
    part = None
    try:
        with new_part(path, mode.replace('w', 'x')) as file:
            part = file.name
            yield file
        os.replace(part, path)
    except BaseException as error:
        if part:
            with contextlib.suppress(OSError):
                os.remove(part)
        # An OSError without a number is of a library that reads in the context, not of the system.
        if isinstance(error, OSError) and error.errno is not None:
            raise WriteError(f'{path} cannot be written ({error.strerror}); {remedy}') from None
        raise
