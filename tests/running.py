"""Commands, as a user runs them."""

import inspect
import json
import os
import re
import subprocess
import sys

from example_models import REPOSITORY

INTERACTIVE = REPOSITORY / 'src' / 'interactive_conditional_samples.py'
UNCONDITIONAL = REPOSITORY / 'src' / 'generate_unconditional_samples.py'
BUNDLED = ('--model_name', '7M')
PATIENCE = 300  # seconds until a run counts as hanging; the machine may be busy


def header(number):
    return f'{"=" * 40} SAMPLE {number} {"=" * 40}\n'


def environment(**changes):
    """This process's environment without what silences TensorFlow or sets a language."""
    foreign = ('TF_', 'PYTHON', 'LC_', 'LANG', 'TERM', 'INPUTRC')
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | changes


def run(*command, cwd, given=b'', **changes):
    """Run a command to its end: (standard output, standard error, status), decoded strictly."""
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**changes), input=given, capture_output=True, timeout=PATIENCE, check=False
    )
    return done.stdout.decode(), done.stderr.decode(), done.returncode


def objects(out):
    return [json.loads(line) for line in out.splitlines()]


def fails_in_one_line(script, arguments, message, cwd, changes):
    out, err, status = run(script, *arguments, cwd=cwd, **changes)
    assert (len(err.splitlines()), status, out) == (1, 2, ''), err
    assert err.startswith(f'{script.name}: ')
    assert message in err


def help_names_every_flag_and_no_other(function):
    parameters = inspect.signature(function).parameters.values()
    flags = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    described = set(re.findall(r'^--(\w+)', inspect.getdoc(function), re.MULTILINE))
    assert described == flags
