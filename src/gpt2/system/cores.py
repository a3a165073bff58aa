"""The processor's cores."""

import os


def usable_cores() -> int:
    """Cores that this process may run on; macOS does not tell, there it is all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
