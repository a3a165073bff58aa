"""Python's search for rubbish."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_held_back() -> Iterator[None]:
    """Context that makes much and drops nothing: searching it, again and again as it grows, finds nothing to free."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()
