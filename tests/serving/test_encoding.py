"""Texts become tokens beside the event loop."""

import asyncio
import threading
import time

import pytest

from gpt2.serving import encoding
from gpt2.serving.failures import Failure


def test_a_result_and_an_exception():
    async def both():
        texts = encoding.Encoding(60)
        assert await texts.run(lambda: 7, time.monotonic() + 60) == 7
        with pytest.raises(ZeroDivisionError):
            await texts.run(lambda: 1 / 0, time.monotonic() + 60)

    asyncio.run(both())


def test_what_nobody_waits_for_is_not_begun():
    released, called = threading.Event(), []

    async def ask():
        texts = encoding.Encoding(60)
        busy = [asyncio.create_task(texts.run(released.wait, time.monotonic() + 60)) for _ in range(encoding.THREADS)]
        await asyncio.sleep(0)
        gone = asyncio.create_task(texts.run(lambda: called.append('gone'), time.monotonic() + 60))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(Failure) as late:  # while both threads are at work
            await texts.run(lambda: called.append('late'), time.monotonic())
        released.set()
        await asyncio.gather(*busy)
        await texts.run(lambda: called.append('last'), time.monotonic() + 60)
        return late.value

    failure = asyncio.run(ask())
    assert called == ['last']
    assert (failure.status, failure.code) == (408, 'timeout')


def test_the_end_does_not_wait_for_it():
    begun, released = threading.Event(), threading.Event()

    async def ask():
        work = encoding.Encoding(60).run(lambda: (begun.set(), released.wait()), time.monotonic() + 60)
        task = asyncio.create_task(work)
        while not begun.is_set():
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(ask())  # would not come back
    assert not released.is_set()
