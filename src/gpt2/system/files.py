"""Files that are written whole or not at all, and the folders they lie in."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import IO

from gpt2.errors import Error


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


@contextlib.contextmanager
def whole_file(path: str, mode: str = 'w', remedy: str = 'free space, or choose another folder') -> Iterator[IO]:
    """A file open for writing, which gets its name, path, when the context ends.

    Until then it is <path>.part, of which an error leaves nothing. mode: 'w', UTF-8 text, or a binary
    one. Raises WriteError, which names the remedy.
    """
    part = f'{path}.part'
    try:
        with open(part, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(part)
        # An OSError without a number is of a library that reads in the context, not of the system.
        if isinstance(error, OSError) and error.errno is not None:
            raise WriteError(f'{path} cannot be written ({error.strerror}); {remedy}') from None
        raise
