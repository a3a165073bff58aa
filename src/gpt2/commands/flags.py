"""From a command line to a function call: fire, made strict.

Flags are the function's parameters, annotated where they are not one text each: `bool` for a
switch, `list` for a flag that may be repeated. Values reach the function as text; integer() and
number() turn them into numbers and say what is wrong with them.
"""

import contextlib
import difflib
import errno
import functools
import importlib.util
import inspect
import io
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpt2 import __version__, checks
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.errors import Error, UsageError
from gpt2.system import progress
from gpt2.system.signals import Ended, ends_raised, interrupts_held_back
from gpt2.system.text import one_line

Pair = tuple[str | None, str]  # a flag and its value, or None and a word without a flag
MODEL_NAME_HELP = """\
--model_name NAME     folder of the model inside the models folder, or a path to a model's folder or to one
                      checkpoint in it. Default: 124M if it is there, else the bundled model"""
MODELS_DIR_HELP = f"""\
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}, here or
                      else where the bundled model is"""
ENGINE_HELP = """\
--engine E            tf, TensorFlow; litert, LiteRT, which is faster on a processor: the first use exports
                      the model once; or auto: TensorFlow where it would use a graphics card, LiteRT
                      elsewhere. Both give the same results. Default: auto
--precision P         float32; int8, several times as fast; or int4, faster still and less exact. Both are LiteRT's.
                      Default: float32"""
HELP = {'--help', '-h'}
VERSION = '--version'
NEVER_TYPED = '\x00'  # fire splits commands at a separator, by default the lone `-` we read as a file
NO_WORDS = 'extra'  # the name a function gives to words without a flag where it has no use for them
TEXT_FLAGS = {'prompt', 'stop', 'ban'}  # whose value is often several words
PROMPTS = {'prompt', 'prompt_file', 'prompts_file'}  # flags of one command that others are asked for
BOOLEANS = {'true': True, 'false': False, '1': True, '0': False, 'yes': True, 'no': False}
# Errors of other names that libraries raise where memory is short, by what they say.
OUT_OF_MEMORY = re.compile(
    r'fail\w* to allocate|unable to allocate|bad_alloc|out of memory|\bOOM\b|Dst tensor is not initialized', re.I
)


def run(
    function: Callable,
    program: str | None = None,
    arguments: Sequence[str] | None = None,
    wording: Callable[[str], str] = str,
) -> None:
    """Call function with the flags of the command line and exit with its status.

    --help prints the function's docstring, --version the library's version. An Error becomes one line
    on standard error and its status, and so does a lack of memory or of space on the disk; Ctrl-C ends
    with 130, SIGTERM with 143, SIGHUP with 129; a reader that went away (`| head`) is no failure. program:
    the name before such a line. wording: what to make of help and of messages, where they name commands as
    nobody typed them.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    progress.show()
    with exit_status(program or os.path.basename(sys.argv[0]), wording):
        words, repeated = canonical_arguments(arguments, function)
        if HELP & set(words):
            print(wording(inspect.getdoc(function) or ''))
        elif VERSION in words:
            print(f'gpt2 {__version__}')
        else:
            pairs = flags_and_words(arguments, function)
            refuse_words(pairs, function)
            with interrupts_held_back():
                import fire  # here, since it takes as long as all that help needs

            command = fire.decorators.SetParseFn(str)(with_values(function, repeated))
            with shortages_named(remedies(function, dict(pairs))):
                fire.Fire(command, command=[*words, '--', f'--separator={NEVER_TYPED}'])


@contextlib.contextmanager
def exit_status(program: str, wording: Callable[[str], str] = str) -> Iterator[None]:
    """Context of a whole program, which ends it as run() says."""
    try:
        open_standard_streams()
        with ends_raised(), full_disk_named():
            yield
            sys.stdout.flush()
    except Error as error:
        print(f'{program}: {one_line(wording(str(error)))}', file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        # Another one would break off the interpreter's end: another status, perhaps a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(130)
    except Ended as end:
        signal.signal(end.number, signal.SIG_IGN)
        sys.exit(128 + end.number)
    except BrokenPipeError:
        abandon_output()


def abandon_output() -> None:
    """Let what is still to be written to standard output go nowhere: the interpreter flushes it at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def full_disk_named() -> Iterator[None]:
    """Context in which a full disk, or a file larger than may be, becomes an Error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        abandon_output()  # it may be what finds no space
        place = error.filename or 'standard output or a file'
        raise Error(f'{place} cannot be written ({error.strerror}); free space, or write elsewhere') from None


@contextlib.contextmanager
def shortages_named(ways_out: Sequence[str]) -> Iterator[None]:
    """Context in which a lack of memory, whichever library finds it, becomes an Error that names the ways out."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        listed = ' or '.join(filter(None, [', '.join(ways_out[:-1]), ways_out[-1]]))
        raise Error(f'out of memory; try {listed}') from None


def is_shortage(error: Exception) -> bool:
    """Whether an exception says that memory is short. TensorFlow's are known by name, so as not to import it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == 'ResourceExhaustedError'
    foreign = isinstance(error, RuntimeError) or type(error).__name__ == 'InternalError'
    return named or (foreign and bool(OUT_OF_MEMORY.search(str(error))))


def remedies(function: Callable, given: Mapping[str | None, str]) -> list[str]:
    """What a user can change in a command line so that it needs less memory. given: its flags' values."""
    parameters = inspect.signature(function).parameters

    def value(name: str) -> str:
        return given.get(name, str(parameters[name].default))

    ways = [f'a lower --{name}' for name in ('batch_size', 'beams') if name in parameters and value(name) != '1']
    ways += [f'a lower --{name}' for name in ('length', 'window') if name in parameters]
    if 'draft' in given:
        ways.append('no --draft')
    elif 'precision' in parameters and value('precision') == 'float32':
        ways.append('--engine litert --precision int8' if 'engine' in parameters else '--precision int8')
    if {'model_name', 'init_from'} & set(parameters):
        ways.append('a smaller model')
    return ways or ['a machine with more of it']


def open_standard_streams() -> None:
    """Make standard streams that take and give any text, and are there even if they were closed."""
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, 'w')
    sys.stderr = sys.stderr or open(os.devnull, 'w')
    for stream, errors in ((sys.stdin, 'surrogateescape'), (sys.stdout, 'replace'), (sys.stderr, 'replace')):
        if isinstance(stream, io.TextIOWrapper):  # and not what a program put in its place
            stream.reconfigure(errors=errors)
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        # As files are, whatever a terminal's encoding is here.
        sys.stdin.reconfigure(encoding='utf-8', errors='surrogateescape')


def show_notices(notices: Iterable[str]) -> None:
    """Print what a user should know, a line each, on standard error, whatever strangers wrote of it."""
    for notice in notices:
        print(one_line(notice), file=sys.stderr)


def print_utf8() -> None:
    """Let standard output be UTF-8, as JSON is, whatever the terminal's encoding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding='utf-8')


def check_packages(what: str, packages: Iterable[str], file: str) -> None:
    """Raise Error where a package is missing that only this needs, without importing any: that takes longer. what: it
    is, in words. file: of the requirements."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Error(f'{what} needs packages that are not here ({", ".join(missing)}); pip install -r {file}')


def with_values(function: Callable, values: Mapping[str, list[str]]) -> Callable:
    """function with some flags and further words given, its signature and attributes as they were."""
    _, others = parameter_kinds(function)
    flags = {name: value for name, value in values.items() if name != others}
    further = values.get(others or '', [])

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(function).bind(*args, *further, **kwargs)
        bound.arguments.update(flags)
        return function(*bound.args, **bound.kwargs)

    return call


def canonical_arguments(
    arguments: Iterable[str], function: Callable
) -> tuple[list[str], dict[str, list[str]]]:
    """Arguments as (words of the form `--name=value`, {repeatable flag: its values}), so that any
    value is taken as it stands. Words after `--` are as those of a flag.

    Left to itself fire takes a value that starts with a dash for a flag, a lone `-` for a
    separator, the word after a switch for its value, and only the last of a repeated flag.
    """
    kinds, _ = parameter_kinds(function)
    words: list[str] = []
    repeated: dict[str, list[str]] = {}
    for name, value in flags_and_words(arguments, function):
        if name is None:
            words.append(value)
        elif kinds.get(name, list) is list:
            repeated.setdefault(name, []).append(value)
        else:
            words.append(f'--{name}={value}')
    return words, repeated


def flags_and_words(arguments: Iterable[str], function: Callable) -> list[Pair]:
    """Arguments as pairs (flag, value) in their order; for a word without a flag (None, word), and for one after `--`,
    however it begins, (the name that the function gives to such words, word).

    Raises UsageError for a flag that function does not have or that lacks its value.
    """
    kinds, others = parameter_kinds(function)
    pairs: list[Pair] = []
    words = iter(arguments)
    for word in words:
        if word in HELP or word == VERSION or not word.startswith('-') or word == '-':
            pairs.append((None, word))
            continue
        if word == '--':
            if others not in (None, NO_WORDS):
                pairs += [(others, each) for each in words]
            continue
        name, given, value = flag_parts(word)
        negated = name.removeprefix('no').removeprefix('_')
        if name not in kinds and kinds.get(negated) is bool and not given:
            name, given, value = negated, '=', 'False'
        if name not in kinds or not word.startswith('--'):
            if HELP & set(words):  # asked for after a mistake
                return [(None, '--help')]
            raise UsageError(f'unknown flag {word.partition("=")[0]}{suggestion(name, kinds, others)}')
        if not given:
            following = 'True' if kinds[name] is bool else next(words, None)
            if following is None or (following.startswith('--') and flag_parts(following)[0] in kinds):
                raise UsageError(f'--{name} needs a value; --help says which')
            value = following
        pairs.append((name, value))
    return pairs


def parameter_kinds(function: Callable) -> tuple[dict[str, type], str | None]:
    """Of a function: ({flag: its kind}, the name of the words without a flag or None)."""
    parameters = inspect.signature(function).parameters.values()
    flags = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    others = [each.name for each in parameters if each.kind is each.VAR_POSITIONAL]
    return {each.name: kind(each.annotation) for each in flags}, next(iter(others), None)


def kind(annotation: Any) -> type:
    """What a parameter's annotation says of its flag: list, it may be repeated; bool, a switch; str, all else."""
    named = {annotation, *typing.get_args(annotation)}
    return next((each for each in (list, bool) if each in named), str)


def flag_parts(word: str) -> tuple[str, str, str]:
    """`--some-name=value` as ('some_name', '=', 'value')."""
    name, given, value = word.partition('=')
    return name.lstrip('-').replace('-', '_'), given, value


def suggestion(name: str, flags: Iterable[str], others: str | None) -> str:
    """The end of a message about an unknown flag. others: the name of the words without a flag, or None."""
    if name in PROMPTS.difference(flags):
        command = f'python src/interactive_conditional_samples.py --{name}'
        return f'; a text is continued by {command}; --help lists all flags'
    named = [others] if others and others != NO_WORDS else []
    close = difflib.get_close_matches(name, [*flags, *named], n=1) or abbreviated(name, flags)
    if close and close == named:
        return f'; {others} are given without a flag; --help shows how'
    meant = ' or '.join(f'--{flag}' for flag in close if flag in flags)
    return f', did you mean {meant}? --help lists all flags' if meant else '; --help lists all flags'


def abbreviated(name: str, flags: Iterable[str]) -> list[str]:
    """The flags that a few letters may stand for: those with such a word, else those that begin so."""
    whole = [flag for flag in flags if name in flag.split('_')]
    return whole or [flag for flag in flags if name and flag.startswith(name)]


def refuse_words(pairs: Sequence[Pair], function: Callable) -> None:
    """Raise UsageError for words without a flag where function has no use for them. pairs: of flags_and_words()."""
    flags, others = parameter_kinds(function)
    words = [value for name, value in pairs if name is None]
    if not words or others not in (None, NO_WORDS):
        return
    before = pairs[: pairs.index((None, words[0]))]
    flag, value = before[-1] if before else (None, '')
    if flag in TEXT_FLAGS:
        text = quoted(' '.join([value, *words]))
        remedy = f'put quotes around a text of several words: --{flag} {text}'
    elif flag and flags[flag] is bool and words[0].lower() in BOOLEANS:
        remedy = f'the value of a switch follows an equals sign: --{flag}={words[0]}'
    else:
        remedy = likely_meaning(words, flags)
    raise UsageError(f'{words[0]!r} belongs to no flag; {remedy}')


def likely_meaning(words: Sequence[str], flags: Iterable[str]) -> str:
    """What words without a flag most likely mean to a command that has these flags, for a message."""
    text = quoted(' '.join(words))
    if 'prompt' in flags:
        return f'did you mean --prompt {text}?'
    if 'tasks' in flags:
        return f'did you mean --tasks {quoted(",".join(words))}?'
    if ' ' in text:
        return f'a text is continued by python src/interactive_conditional_samples.py --prompt {text}'
    return f'did you mean --model_name {text}?' if 'model_name' in flags else '--help shows what is taken'


def quoted(text: str) -> str:
    """text as one word of a command line."""
    return text if re.fullmatch(r'[\w./,-]+', text) else '"' + re.sub(r'(["\\$`])', r'\\\1', text) + '"'


def reject_unknown(extra: Iterable[str], unknown: Iterable[str]) -> None:
    """Raise UsageError if a function got words (extra) or names (unknown) that mean nothing to it."""
    for name in unknown:
        raise UsageError(f'unknown flag --{name}; --help lists all flags')
    for word in extra:
        raise UsageError(f'{word!r} belongs to no flag; put quotes around a text of several words')


def integer(name: str, value: Any, minimum: int) -> int:
    """The value of a flag, as checks.integer takes and returns it."""
    return checks.integer(f'--{name}', value, minimum)


def optional_integer(name: str, value: Any, minimum: int) -> int | None:
    """The value of a flag, as checks.optional_integer takes and returns it."""
    return checks.optional_integer(f'--{name}', value, minimum)


def number(name: str, value: Any, allowed: Callable[[float], bool], limits: str) -> float:
    """The value of a flag, as checks.number takes and returns it."""
    return checks.number(f'--{name}', value, allowed, limits)


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """The value of a flag, as checks.choice takes and returns it."""
    return checks.choice(f'--{name}', value, choices)


def address(name: str, value: str) -> str:
    """The value of a flag that is the address of a server, without a slash at its end."""
    if not value.startswith(('http://', 'https://')):
        raise UsageError(f'--{name} is {value!r}, expected one that starts with http:// or https://')
    return value.rstrip('/')


def optional_boolean(name: str, value: Any) -> bool | None:
    """value as boolean() has it; None (also as text) stays None."""
    return None if value in (None, 'None') else boolean(name, value)


def boolean(name: str, value: Any) -> bool:
    """value, a bool or its text, as a bool."""
    try:
        return BOOLEANS[str(value).lower()]
    except KeyError:
        raise UsageError(f'--{name} is {value!r}, expected true or false') from None


def texts(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """The values of a repeatable flag, given as None, one text or several, as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str | os.PathLike) else tuple(value)
