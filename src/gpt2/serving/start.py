"""How a server begins: first what takes long and is done elsewhere, then what takes long here. Imports little."""

import errno
import socket
from collections.abc import Callable

from gpt2.errors import Error, UsageError
from gpt2.serving.models import ServedModels
from gpt2.serving.settings import Settings

WAITING = 2048  # connections that are not taken yet


async def serve(settings: Settings, opened: socket.socket, models: ServedModels, ready: Callable[[], None]) -> None:
    """Serve models on a socket until a signal comes. ready: called once the first model is loaded. Raises Error."""
    try:
        await models.first.start()  # it loads the model while this process loads what follows
        from gpt2.serving.server import answer_requests

        await answer_requests(settings, opened, models, ready)
    finally:
        await models.close()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises UsageError for an address that is not this machine's, Error for a taken port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(WAITING)  # those who come before all is loaded wait, and are told so
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f'--host is {host!r}, expected a name or an address of this machine ({error})') from None
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f'--host is {host}, which is no address of this machine') from None
        raise Error(f'{host} port {port} cannot be had ({error}); choose another --port') from None
    return found
