"""Values that a user gives, checked. Each message names what was given, the limit, and by what name it is known."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpt2.errors import UsageError


def optional_integer(name: str, value: Any, minimum: int) -> int | None:
    """value as integer() has it; None (also as text) stays None."""
    return None if value in (None, 'None') else integer(name, value, minimum)


def integer(name: str, value: Any, minimum: int) -> int:
    """value, an int or its text, as an int of at least minimum."""
    try:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        result = int(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f'{name} is {value!r}, expected an integer of at least {minimum}') from None
    if result < minimum:
        raise UsageError(f'{name} is {result}, expected at least {minimum}')
    return result


def number(name: str, value: Any, allowed: Callable[[float], bool], limits: str) -> float:
    """value, a number or its text, as a float for which allowed(value) holds; limits says when."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f'{name} is {value!r}, expected a number {limits}') from None
    if not math.isfinite(result) or not allowed(result):
        raise UsageError(f'{name} is {value}, expected a number {limits}')
    return result


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """value, if it is one of choices, which are texts."""
    if value not in choices:
        raise UsageError(f'{name} is {value!r}, expected {" or ".join(choices)}')
    return value
