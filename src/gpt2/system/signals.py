"""Contexts that hold back what must not come in the midst of a library's work. Imports no TensorFlow."""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def standard_error_held_back() -> Iterator[None]:
    """Context whose standard error is lost, or let out should it end in an error.

    What TensorFlow and LiteRT print while they are loaded ignores every setting.
    """
    try:
        original = os.dup(2)
    except OSError:  # closed: nothing can be printed there
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Context at whose end Ctrl-C takes effect, should it come in between.

    TensorFlow does not survive an exception in its midst: about one in fifty ends in a crash, or in
    another exception.
    """
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield
        return
    came = []
    previous = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        signal.raise_signal(signal.SIGINT)
