"""What is said of work that takes its time, on standard error. Silent until a command shows it: a library
prints nothing by itself."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

shown = False
told = False


class Heard:
    """A text file that work does not end for: where nothing can be written to it any more, because its reader went
    away, its terminal closed or its disk is full, what is said is lost."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: str) -> None:
        self.attempt(self.file.write, content)

    def flush(self) -> None:
        self.attempt(self.file.flush)

    def attempt(self, function: Callable, *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError:
            with contextlib.suppress(OSError):  # else what waits to be written fails again at the interpreter's end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def show(lines: bool = False) -> None:
    """Let bars, notes and words of progress be seen from now on. lines: where there is no terminal, a line of what has
    a bar elsewhere."""
    global shown, told
    shown, told = True, lines


@contextlib.contextmanager
def shown_if(condition: bool) -> Iterator[None]:
    """Context in which nothing is seen unless the condition holds."""
    global shown
    before, shown = shown, shown and condition
    try:
        yield
    finally:
        shown = before


def seen() -> bool:
    """Whether somebody looks on."""
    return shown and sys.stderr.isatty()


def bar(*arguments: Any, **settings: Any) -> Any:
    """A tqdm, which is seen at a terminal only. It goes when it is done, unless settings say otherwise. Where it is not
    seen, what it would count is returned as it is."""
    if arguments and not seen():
        return arguments[0]
    from tqdm import tqdm

    usual = {'leave': False, 'disable': None if shown else True, 'file': Heard(sys.stderr)}
    return tqdm(*arguments, **usual | settings)


def note(text: str) -> None:
    """Print a line, beside whatever bar there is."""
    if shown:
        from tqdm import tqdm

        tqdm.write(text, file=Heard(sys.stderr))


def begin(what: str) -> None:
    """Print a line of long work that begins, where such lines are wanted and nobody sees its bar."""
    if told and not sys.stderr.isatty():
        note(f'{what} ...')


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Context in which a terminal says what is being done."""
    if not seen():
        yield
        return
    print(f'{what} ...', end='', file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print('\r\x1b[K', end='', file=sys.stderr, flush=True)
