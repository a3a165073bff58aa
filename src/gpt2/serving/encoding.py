"""Texts become token ids, and answers JSON, in threads of their own, a few at a time: a long one takes a second, and
the event loop does not wait for it. Nor does the end of the server, which ends the threads in mid-text."""

import asyncio
import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gpt2.serving.failures import timeout

THREADS = 2  # that a long text does not hold up all short ones; Python runs one at a time anyway
Result = TypeVar('Result')


class Encoding:
    """What is to be done so, in the order in which it came. time_limit: seconds, for the answer that names it."""

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        for _ in range(THREADS):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            future, function = self.waiting.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    async def run(self, function: Callable[[], Result], deadline: float) -> Result:
        """What function returns or raises. If nobody waits for it any more before it began it is not called.

        deadline: by time.monotonic(). Raises Failure.
        """
        future: concurrent.futures.Future = concurrent.futures.Future()
        self.waiting.put((future, function))
        result = asyncio.wrap_future(future)
        try:
            # Not by asyncio.wait_for, which before Python 3.12 may take a cancellation for a result.
            await asyncio.wait([result], timeout=deadline - time.monotonic())
            if not result.done():
                raise timeout(self.time_limit)
            return result.result()
        finally:
            future.cancel()
            result.cancel()  # what still comes is nobody's
