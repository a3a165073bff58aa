"""Workers find one another, by a line over the network, before TensorFlow has them meet: that waits without end for
one that never comes, says nothing meanwhile and hears no signal.

The first worker listens at its own address. Each other one tells it which it is, and keeps the connection; once all
are there each is told to go on, and the address is free for TensorFlow. Imports no TensorFlow.
"""

import contextlib
import multiprocessing.connection
import os
import socket
import time
from collections.abc import Generator, Sequence

from gpt2.errors import Error
from gpt2.system import progress
from gpt2.system.signals import Ended

PATIENCE = 1800  # seconds in which all must have come
REMINDER = 60  # seconds between lines that say who is missing
RETRY = 1  # seconds
NAMED = 5  # of those that are missing, at most
GO_ON = b'all are here\n'


def arrive(addresses: Sequence[str], number: int) -> None:
    """Wait until all workers have come here. addresses: of all, as host:port. number: of this one.

    Says now and then who is missing, and also when a signal ends the wait. Raises Error when the time is over, or
    where the first worker cannot listen.
    """
    with contextlib.closing(host(addresses) if number == 0 else guest(addresses, number)) as wait:
        missing = next(wait)
        try:
            progress.note(f'waiting for all {len(addresses)} workers')
            said = start = time.monotonic()
            for missing in wait:
                now = time.monotonic()
                if now > start + PATIENCE:
                    raise Error(f'{missing} has not come in {PATIENCE} s; start all workers, with the same addresses')
                if now > said + REMINDER:
                    progress.note(f'waiting for {missing}; for another {start + PATIENCE - now:.0f} s at most')
                    said = now
        except (KeyboardInterrupt, Ended):
            progress.note(f'ended, before {missing} had come')
            raise


def host(addresses: Sequence[str]) -> Generator[str, None, None]:
    """Of the first worker: who is missing, again and again until nobody is; then all are told to go on."""
    numbers = {greeting(number, addresses): number for number in range(1, len(addresses))}
    here: dict[socket.socket, int] = {}  # which worker each connection is of; 0 before it has said so
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(addresses[0]))
        while missing := set(numbers.values()) - set(here.values()):
            yield named(sorted(missing), addresses)
            for each in multiprocessing.connection.wait([listener, *here], RETRY):
                assert isinstance(each, socket.socket)
                if each is listener:
                    with contextlib.suppress(OSError):
                        here[stack.enter_context(listener.accept()[0])] = 0
                elif number := numbers.get(received(each) or b''):
                    here[each] = number
                else:  # it has gone, or is no worker of this run
                    del here[each]
                    each.close()
        for connection in here:
            with contextlib.suppress(OSError):
                connection.sendall(GO_ON)


def guest(addresses: Sequence[str], number: int) -> Generator[str, None, None]:
    """Of another worker: whom it waits for, again and again until it is told to go on."""
    while True:
        yield named([0], addresses)
        with contextlib.suppress(OSError), socket.create_connection(parts(addresses[0]), RETRY) as connection:
            connection.sendall(greeting(number, addresses))
            while (answer := received(connection)) is None:
                yield f'those of the others that {named([0], addresses)} waits for'
            if answer == GO_ON:
                return
        time.sleep(RETRY)  # nobody is there, or a program that is not this run's first worker


def greeting(number: int, addresses: Sequence[str]) -> bytes:
    """What a worker says to the first one."""
    return f'worker {number} of {len(addresses)} of GPT-2\n'.encode()


def received(connection: socket.socket) -> bytes | None:
    """What has been said, nothing where the other has gone; None where nothing came in time."""
    try:
        return connection.recv(100)
    except TimeoutError:
        return None
    except OSError:
        return b''


def listening(address: str) -> socket.socket:
    """A socket at which others arrive, as TensorFlow listens: on every network of this computer. Raises Error."""
    try:
        return socket.create_server(('', parts(address)[1]))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Error(f'no listening at {address}, the first worker ({why}); use another port') from None


def parts(address: str) -> tuple[str, int]:
    """The host and the port of an address. Raises ValueError."""
    name, _, port = address.rpartition(':')
    if not 0 < int(port) < 2**16:
        raise ValueError(f'{port} is no port')
    return name.strip('[]'), int(port)


def named(numbers: Sequence[int], addresses: Sequence[str]) -> str:
    """Workers in words, the first few by their addresses."""
    found = [f'worker {number} at {addresses[number]}' for number in numbers[:NAMED]]
    return ', '.join(found + ([f'{len(numbers) - NAMED} more'] if numbers[NAMED:] else []))
