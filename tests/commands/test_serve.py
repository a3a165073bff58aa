"""The command that serves: flags, what it refuses, and what it prints."""

import functools
import socket

import pytest
from example_models import REPOSITORY
from running import BUNDLED, fails_in_one_line, help_names_every_flag_and_no_other, run

from gpt2.commands.serve import serve_models

SCRIPT = REPOSITORY / 'src' / 'serve.py'


@pytest.fixture
def fails(elsewhere, without_engines):
    return functools.partial(fails_in_one_line, SCRIPT, cwd=elsewhere, changes=without_engines)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--host', '0.0.0.0'], '--host 0.0.0.0 lets others reach this server; give --api_key_file, or --insecure'),
        (['--host', '192.0.2.1', '--insecure', *BUNDLED], '--host is 192.0.2.1, which is no address of this machine'),
        (['--host', 'no such name', '--insecure', *BUNDLED], "--host is 'no such name', expected a name or an address"),
        (['--port', '65536'], '--port is 65536, expected an integer from 0 to 65535'),
        (['--port', 'http'], "--port is 'http', expected an integer of at least 0"),
        (['--batch_size', '0'], '--batch_size is 0, expected at least 1'),
        (['--queue', '-1'], '--queue is -1, expected at least 0'),
        (['--max_tokens', 'all'], "--max_tokens is 'all'"),
        (['--time_limit', '0'], '--time_limit is 0, expected a number of seconds above 0'),
        (['--grace', 'inf'], '--grace is inf, expected a number of seconds above 0'),
        (['--api_key_file', '/dev/null'], '--api_key_file /dev/null has no key in it; write one a line'),
        (['--api_key_file', 'nowhere'], '--api_key_file nowhere cannot be read: No such file or directory'),
        (['--engine', 'tf', '--precision', 'int8'], '--precision int8 needs --engine litert'),
        (['--model_name', 'none'], 'no model none in '),
        (['--model_name', '7M,none'], 'no model none in '),
        (['--model_name', ''], "no model at ''"),
        (['7M'], "'7M' belongs to no flag; did you mean --model_name 7M?"),
        (['--prot', '80'], 'unknown flag --prot, did you mean --port?'),
    ],
)
def test_wrong_use_is_one_line(fails, arguments, message):
    fails(arguments=arguments, message=message)


def test_a_port_that_is_taken(elsewhere, without_engines):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        out, err, status = run(SCRIPT, *BUNDLED, '--port', port, cwd=elsewhere, **without_engines)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert f'127.0.0.1 port {port} cannot be had' in err
    assert '--port' in err


def test_packages_that_are_missing(elsewhere, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(
        'import importlib.util as util\nfind = util.find_spec\n'
        'util.find_spec = lambda name, *rest: None if name == "fastapi" else find(name, *rest)\n'
    )
    out, err, status = run(SCRIPT, *BUNDLED, cwd=elsewhere, PYTHONPATH=str(tmp_path))
    assert (out, status) == ('', 1)
    assert err == (
        'serve.py: serving needs packages that are not here (fastapi); pip install -r requirements-serve.txt\n'
    )


def test_a_model_that_cannot_be_loaded_ends_the_server(elsewhere, without_engines):
    out, err, status = run(SCRIPT, *BUNDLED, '--port', 0, '--engine', 'litert', cwd=elsewhere, **without_engines)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert err.startswith('serve.py: --engine litert needs a package')


def test_help_names_every_flag():
    help_names_every_flag_and_no_other(serve_models)
