"""Lines on standard error, written by a thread: the server never waits for a full pipe or a full disk."""

import contextlib
import queue
import sys
import threading
import time

WAITING = 1000  # lines; where more wait they are lost


class Log:
    """Where lines go; nowhere unless it is on."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.lines: queue.Queue = queue.Queue(WAITING)
        if on:
            threading.Thread(target=self.work, daemon=True).start()

    def write(self, line: str) -> None:
        if self.on:
            with contextlib.suppress(queue.Full):
                printable = line.encode('ascii', 'backslashreplace').decode()
                self.lines.put_nowait(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {printable}')

    def work(self) -> None:
        while True:
            line = self.lines.get()
            with contextlib.suppress(OSError, ValueError):
                print(''.join(c if c.isprintable() else '?' for c in line), file=sys.stderr, flush=True)
