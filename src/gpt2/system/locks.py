"""Locks between processes, and between threads, that write the same file."""

import contextlib
import os
from collections.abc import Callable, Iterator

from gpt2.system.files import WriteError

LOCK_SUFFIX = '.lock'


@contextlib.contextmanager
def locked(path: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold path, which need not be there, for one process and thread at a time.

    waiting: called once, if another has it. The system keeps the lock in <path>.lock, which is gone
    afterwards; one that a killed process left locks nothing. Raises OSError where no lock can be made, WriteError where
    a file of that name holds something, as those of package managers do: it would be lost.
    """
    from filelock import FileLock, Timeout  # when something is written, and not whenever a program starts

    os.stat(os.path.join(os.path.dirname(path), '.'))  # FileLock would make a folder that is not there
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path + LOCK_SUFFIX).st_size:
            raise WriteError(f'{path + LOCK_SUFFIX} is another program\'s, and would be lost; write elsewhere')
    lock = FileLock(path + LOCK_SUFFIX, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        # Whoever waits has opened this file, or will make another: FileLock takes none that has lost its
        # name. Windows removes no open file; there FileLock does it by itself.
        if os.name == 'posix':
            with contextlib.suppress(OSError):
                os.remove(lock.lock_file)
        lock.release()
