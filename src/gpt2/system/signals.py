"""Contexts that hold back what must not come in the midst of a library's work. Imports no TensorFlow."""

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

ENDS = ('SIGTERM', 'SIGHUP')  # what a system or a terminal sends to a program that shall end


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


class Ended(BaseException):
    """A signal that asks the program to end, as KeyboardInterrupt is one. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_ended(number: int, _: Any) -> None:
    for each in {number, *signals_of(ENDS)}:  # another one would break off what clears away
        signal.signal(each, signal.SIG_IGN)
    raise Ended(number)


@contextlib.contextmanager
def ends_raised(names: Iterable[str] = ENDS) -> Iterator[None]:
    """Context in which signals, by default SIGTERM and SIGHUP, where they would end the process at once, raise Ended,
    so that what is half done is cleared away first. A signal that is ignored, as nohup has it, stays so."""
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield
        return
    before = {number: signal.getsignal(number) for number in signals_of((*names, *ENDS))}
    for number in signals_of(names):
        if before[number] is signal.SIG_DFL:
            signal.signal(number, raise_ended)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set by Python
                signal.signal(number, handler)


def signals_of(names: Iterable[str]) -> list[int]:
    """The numbers of signals; a system may lack some."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def heeded(names: Iterable[str]) -> list[int]:
    """The numbers of signals but for those that are ignored, as a shell has Ctrl-C of what it starts in the background
    of a script, and nohup SIGHUP."""
    return [number for number in signals_of(names) if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Context at whose end Ctrl-C takes effect, should it come in between, and so do other signals that Python handles.

    TensorFlow does not survive an exception in its midst: about one in fifty ends in a crash, or in
    another exception.
    """
    if threading.current_thread() is not threading.main_thread():  # no other receives signals
        yield
        return
    came: list[int] = []
    numbers = [signal.SIGINT, *(number for number in signals_of(ENDS) if callable(signal.getsignal(number)))]
    previous = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for number in dict.fromkeys(came):
        signal.raise_signal(number)
