"""Serve models over HTTP."""

import asyncio
import codecs
import contextlib
import ipaddress
import os
import re
import socket
import stat
from typing import Any

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import (
    abandon_output,
    boolean,
    check_packages,
    integer,
    number,
    optional_integer,
    reject_unknown,
    show_notices,
    texts,
)  # fmt: skip
from gpt2.engines import check_engine
from gpt2.errors import UsageError
from gpt2.serving.models import ServedModels
from gpt2.serving.settings import Settings
from gpt2.serving.start import listening_socket, serve
from gpt2.system.signals import Ended

HELP = f"""\
Serve models to programs: an HTTP API that the clients of OpenAI's completions speak.

    python src/serve.py
    python src/serve.py --model_name 124M,355M --port 8080 --engine litert --precision int8

Ctrl-C, and SIGTERM, let requests that run come to their end first. /docs lists the endpoints and their fields,
/metrics counts, /health says whether the first model is loaded.

--model_name NAMES    folders of models inside the models folder, or paths, divided by commas; the first is
                      loaded at once, others when first asked for. Default: 124M if it is there, else the
                      bundled model
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}, here or
                      else in the repository
--engine E            tf, litert or auto, as the sampling commands take it. Default: auto
--precision P         float32; int8, several times as fast; or int4, faster still and less exact. Both are LiteRT's.
                      Default: float32
--host HOST           name or address to listen at. Any but this machine's own loopback needs --api_key_file or
                      --insecure. Default: 127.0.0.1
--port N              port to listen at; 0 takes a free one. Default: 8000
--api_key_file PATH   a file of keys, one a line: requests must have one, as Authorization: Bearer KEY
--insecure            let anybody who reaches --host ask
--allow_host NAME     a name by which clients call this server; may be given more than once. Addresses, localhost
                      and --host need not be named
--cors ORIGIN         an origin, such as https://example.org, whose pages may ask; may be given more than once
--batch_size N        samples that are drawn together; requests beyond wait. Default: 16
--queue N             requests that may wait; more are refused with status 429. Default: 64
--max_tokens N        largest max_tokens of a request. Default: what the model allows
--max_prompt N        longest prompt in tokens; above n_ctx for requests with beyond_window alone. Default: n_ctx
--max_n N             samples a request, of all its prompts together. Default: 128
--max_body N          bytes of a request. Default: 1000000
--time_limit X        seconds a request may take. Default: 120
--rate N              requests a minute for each key, or each address where there are no keys; 0 is no limit.
                      Default: 0
--grace X             seconds that running requests have to end when the server is told to. Default: 30
--max_memory N        megabytes for all models together; the one used least recently is let go. Default: no limit
--prefix_cache N      megabytes in which a model keeps what it found of the starts of prompts, 256
                      tokens at a time. Default: 256
--log                 print a line a request on standard error
--log_prompts         print prompts too
"""


def serve_models(
    *extra: str, model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, engine: Any = 'auto',
    precision: Any = 'float32', host: str = '127.0.0.1', port: Any = 8000, api_key_file: str | None = None,
    insecure: bool = False, allow_host: list | None = None, cors: list | None = None, batch_size: Any = 16,
    queue: Any = 64, max_tokens: Any = None, max_prompt: Any = None, max_n: Any = 128, max_body: Any = 10**6,
    time_limit: Any = 120, rate: Any = 0, grace: Any = 30, max_memory: Any = None, prefix_cache: Any = 256,
    log: bool = False, log_prompts: bool = False, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    engine, precision = check_engine(engine, precision, '--')
    keys = read_keys(api_key_file)
    check_host(host, bool(keys), boolean('insecure', insecure))
    settings = Settings(
        models=(None,) if model_name is None else tuple(filter(None, str(model_name).split(','))) or ('',),
        models_dir=models_dir, engine=engine, precision=precision, host=host, port=limited('port', port, 0, 65535),
        api_keys=keys, cors=origins(cors), allow_hosts=texts(allow_host),
        batch_size=limited('batch_size', batch_size, 1), queue=limited('queue', queue, 0),
        max_tokens=optional_integer('max_tokens', max_tokens, 0),
        max_prompt=optional_integer('max_prompt', max_prompt, 1), max_n=limited('max_n', max_n, 1),
        max_body=limited('max_body', max_body, 1), time_limit=seconds('time_limit', time_limit),
        rate=limited('rate', rate, 0), grace=seconds('grace', grace),
        max_memory=optional_integer('max_memory', max_memory, 1), prefix_cache=limited('prefix_cache', prefix_cache, 0),
        log=boolean('log', log), log_prompts=boolean('log_prompts', log_prompts),
    )  # fmt: skip
    check_packages('serving', ('fastapi', 'uvicorn', 'prometheus_client'), 'requirements-serve.txt')
    models = ServedModels(settings)
    opened = listening_socket(settings.host, settings.port)
    show_notices(models.notices)
    with contextlib.suppress(Ended, KeyboardInterrupt):  # before it could answer, so there is nothing to wait for
        asyncio.run(serve(settings, opened, models, lambda: print_address(opened, models)))


serve_models.__doc__ = HELP


def limited(name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """The value of a flag that is an integer and not None. Raises UsageError."""
    found = integer(name, value, minimum)
    if found is None or (maximum is not None and found > maximum):
        raise UsageError(f'--{name} is {value}, expected an integer from {minimum}'
                         + (f' to {maximum}' if maximum else ' on'))  # fmt: skip
    return found


def seconds(name: str, value: Any) -> float:
    return number(name, value, lambda value: value > 0, 'of seconds above 0')


def read_keys(path: str | None) -> tuple[str, ...]:
    """The keys in a file, one a line; a line that begins with # is none. Raises UsageError."""
    if path is None:
        return ()
    try:
        with open(os.path.expanduser(path), 'rb') as file:
            content, mode = file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise UsageError(f'--api_key_file {path} cannot be read: {error.strerror}') from None
    lines = enumerate(map(bytes.strip, content.removeprefix(codecs.BOM_UTF8).splitlines()), 1)
    written = [(number, line) for number, line in lines if line and not line.startswith(b'#')]
    if odd := [number for number, line in written if not line.isascii()]:
        raise UsageError(f'--api_key_file {path} has a character that is not ASCII in line {odd[0]}, which no header '
                         'can hold; make keys of letters, digits and signs, in a file of plain text')  # fmt: skip
    if not written:
        raise UsageError(f'--api_key_file {path} has no key in it; write one a line')
    if stat.S_ISREG(mode) and mode & stat.S_IROTH and os.name == 'posix':
        show_notices([f'everybody on this machine can read the keys in {path}; chmod 600 keeps them'])
    return tuple(line.decode() for _, line in written)


def origins(given: list | None) -> tuple[str, ...]:
    """The values of --cors. Raises UsageError for one that is no origin, which no browser would name."""
    for origin in texts(given):
        if origin != '*' and not re.fullmatch(r'[a-z][a-z0-9+.-]*://[^/?#]+', origin):
            raise UsageError(f'--cors is {origin!r}, expected an origin such as https://example.org')
    return texts(given)


def check_host(host: str, keys: bool, insecure: bool) -> None:
    """Raise UsageError for an address that others reach, where nothing keeps them out."""
    if not (keys or insecure or is_loopback(host)):
        raise UsageError(f'--host {host} lets others reach this server; give --api_key_file, or --insecure to let '
                         'anybody ask')  # fmt: skip


def is_loopback(host: str) -> bool:
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def print_address(opened: socket.socket, models: ServedModels) -> None:
    """Where the server is, and what shows that it works."""
    host, port = opened.getsockname()[:2]
    host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)
    address = f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'
    key = ' -H "Authorization: Bearer $KEY"' if models.settings.api_keys else ''
    prompt = '{"prompt": "Once upon a time", "max_tokens": 40}'
    curl = f"curl {address}/v1/completions -H 'Content-Type: application/json'{key} -d '{prompt}'"
    try:
        print(f'{", ".join(models.models)} at {address}/\n{curl}', flush=True)
    except OSError:  # nobody reads it, or its disk is full: what asks may know the address
        abandon_output()
