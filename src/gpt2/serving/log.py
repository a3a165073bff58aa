"""Lines on standard error, written by a thread: the server never waits for a full pipe or a full disk."""

import contextlib
import os
import queue
import threading
import time

STANDARD_ERROR = 2
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
            printable = ''.join(c if c.isprintable() else '?' for c in line)
            with contextlib.suppress(OSError):
                # Without Python's buffer, which would keep what finds no space and fail once more at the end.
                os.write(STANDARD_ERROR, f'{printable}\n'.encode())
