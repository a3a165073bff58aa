"""What a user types, or a program pipes, line by line."""

import contextlib
import sys
from collections.abc import Iterator
from typing import IO

from gpt2.encoder import utf8
from gpt2.errors import UsageError
from gpt2.system.text import BYTE_ORDER_MARK, CONVERT_OR_REPLACE


def edit_lines() -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing, history and lines of any length


def valid(text: str, errors: str, name: str) -> str:
    """A text that a terminal or a pipe gave, whatever encoding Python took it for, if it is UTF-8 or is made so; name
    says in a refusal what it is."""
    try:
        return utf8(text).decode('utf-8', errors)
    except UnicodeDecodeError as error:
        raise UsageError(f'{name} is not UTF-8 at byte {error.start}; {CONVERT_OR_REPLACE}') from None


def typed_prompts(output: IO[str], label: str = 'Model prompt >>> ') -> Iterator[str]:
    """Yield prompts, typed or piped, until the end of input. output: where it is asked for them, by label."""
    first = True
    while (text := ask(output, label)) is not None:
        yield text.removeprefix(BYTE_ORDER_MARK) if first else text
        first = False


def ask(output: IO[str], label: str) -> str | None:
    """The next prompt; None at the end of input."""
    lines: list[str] = []
    while True:
        try:
            line = read_line(label, output).removesuffix('\r')
        except EOFError:
            print(file=output)
            return '\n'.join(lines) or None
        if not line.endswith('\\'):
            return '\n'.join([*lines, line])
        lines.append(line[:-1])
        label = '... '


def read_line(label: str, output: IO[str]) -> str:
    if output is sys.stdout:
        return input(label)
    print(label, end='', file=output, flush=True)
    return input()


@contextlib.contextmanager
def sample_interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print()
