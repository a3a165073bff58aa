"""From a command line to a function call: fire, made strict.

Flags are the function's parameters, annotated where they are not one text each: `bool` for a
switch, `list` for a flag that may be repeated. Values reach the function as text; integer() and
number() turn them into numbers and say what is wrong with them.
"""

import difflib
import functools
import inspect
import os
import signal
import sys

import fire

from gpt2 import checks
from gpt2.errors import Error, UsageError

HELP = {'--help', '-h'}
NEVER_TYPED = '\x00'  # fire splits commands at a separator, by default the lone `-` we read as a file


def run(function):
    """Call function with the flags of the command line and exit with its status.

    --help prints the function's docstring. A Error becomes one line on standard error and
    its status; Ctrl-C ends with 130; a reader that went away (`| head`) is no failure.
    """
    arguments = sys.argv[1:]
    open_standard_streams()
    try:
        words, repeated = canonical_arguments(arguments, function)
        if HELP & set(words):
            print(inspect.getdoc(function))
        else:
            command = fire.decorators.SetParseFn(str)(with_values(function, repeated))
            fire.Fire(command, command=[*words, '--', f'--separator={NEVER_TYPED}'])
        sys.stdout.flush()
    except Error as error:
        print(f'{os.path.basename(sys.argv[0])}: {one_line(error)}', file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        # Another one would break off the interpreter's end: another status, perhaps a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(130)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_standard_streams():
    """Make standard streams that take and give any text, and are there even if they were closed."""
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, 'w')
    sys.stderr = sys.stderr or open(os.devnull, 'w')
    sys.stdin.reconfigure(errors='surrogateescape')
    sys.stdout.reconfigure(errors='replace')
    sys.stderr.reconfigure(errors='replace')


def with_values(function, values):
    """function with some arguments given, its signature and attributes as they were."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.arguments.update(values)
        return function(*bound.args, **bound.kwargs)

    return call


def one_line(error):
    return ' '.join(str(error).split())


def canonical_arguments(arguments, function):
    """Arguments as (words of the form `--name=value`, {repeatable flag: its values}), so that any
    value is taken as it stands.

    Left to itself fire takes a value that starts with a dash for a flag, a lone `-` for a
    separator, the word after a switch for its value, and only the last of a repeated flag.
    """
    parameters = inspect.signature(function).parameters
    kinds = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD or parameter.kind is parameter.KEYWORD_ONLY
    }
    rewritten, repeated = [], {}
    words = iter(arguments)
    for word in words:
        if word == '--':
            continue
        if word in HELP or not word.startswith('--'):
            rewritten.append(word)
            continue
        name, given, value = flag_parts(word)
        negated = name.removeprefix('no').removeprefix('_')
        if name not in kinds and kinds.get(negated) is bool and not given:
            name, given, value = negated, '=', 'False'
        if name not in kinds:
            if HELP & set(words):  # asked for after a mistake
                return ['--help'], {}
            raise UsageError(f'unknown flag --{name}{suggestion(name, kinds)}; --help lists all flags')
        if not given:
            value = 'True' if kinds[name] is bool else next(words, None)
            if value is None or (value.startswith('--') and flag_parts(value)[0] in kinds):
                raise UsageError(f'--{name} needs a value')
        if kinds[name] is list:
            repeated.setdefault(name, []).append(value)
        else:
            rewritten.append(f'--{name}={value}')
    return rewritten, repeated


def flag_parts(word):
    """`--some-name=value` as ('some_name', '=', 'value')."""
    name, given, value = word[2:].partition('=')
    return name.replace('-', '_'), given, value


def suggestion(name, names):
    close = difflib.get_close_matches(name, names, n=1)
    return f', did you mean --{close[0]}?' if close else ''


def reject_unknown(extra, unknown):
    """Raise UsageError if fire found words (extra) or short flags (unknown) that mean nothing."""
    for name in unknown:
        raise UsageError(f'unknown flag --{name}; --help lists all flags')
    for word in extra:
        raise UsageError(f'{word!r} belongs to no flag; put quotes around a text of several words')


def integer(name, value, minimum):
    """The value of a flag, as checks.integer takes and returns it."""
    return checks.integer(f'--{name}', value, minimum)


def number(name, value, allowed, limits):
    """The value of a flag, as checks.number takes and returns it."""
    return checks.number(f'--{name}', value, allowed, limits)


def choice(name, value, choices):
    """The value of a flag, as checks.choice takes and returns it."""
    return checks.choice(f'--{name}', value, choices)


def boolean(name, value):
    """value, a bool or its text, as a bool; None stays None."""
    values = {'true': True, 'false': False, '1': True, '0': False, 'yes': True, 'no': False, 'none': None}
    try:
        return values[str(value).lower()]
    except KeyError:
        raise UsageError(f'--{name} is {value!r}, expected true or false') from None


def texts(value):
    """The values of a repeatable flag, given as None, one text or several, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)
