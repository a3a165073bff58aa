"""The command line: flags to a function call, its result to messages and an exit status."""

import errno
import inspect
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from example_models import REPOSITORY

import gpt2
from gpt2.commands.flags import (
    boolean,
    canonical_arguments,
    integer,
    number,
    open_standard_streams,
    optional_boolean,
    optional_integer,
    reject_unknown,
    run,
    show_notices,
    texts,
)
from gpt2.errors import Error, UsageError

SRC = REPOSITORY / 'src'


def example(
    name=None, top_k=0, text='none', last: list = None, loud: bool = False, stream: bool = None, *extra, **unknown
):
    """Do nothing, well.

    --name NAME   whose
    """
    reject_unknown(extra, unknown)
    example.called = {'name': name, 'top_k': top_k, 'text': text, 'last': last, 'loud': loud, 'stream': stream}


DEFAULTS = {'name': None, 'top_k': 0, 'text': 'none', 'last': None, 'loud': False, 'stream': None}


@pytest.fixture
def command(monkeypatch):
    """Runs a function as `program.py ARGUMENTS`."""

    def run_with(*arguments, function=example, **settings):
        example.called = None
        monkeypatch.setattr(sys, 'argv', ['/some/where/program.py', *arguments])
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'')))
        run(function, **settings)
        return example.called

    return run_with


@pytest.fixture
def failing(command, capsys):
    """As command, for a run that has to fail: (status, its only line on standard error)."""

    def run_with(*arguments, **options):
        with pytest.raises(SystemExit) as exit:
            command(*arguments, **options)
        captured = capsys.readouterr()
        assert captured.out == ''
        assert captured.err.endswith('\n')
        assert len(captured.err.splitlines()) == 1, captured.err
        return exit.value.code, captured.err.rstrip('\n')

    return run_with


# canonical_arguments


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        pytest.param([], [], id='nothing'),
        pytest.param(['--name', 'x'], ['--name=x'], id='two words'),
        pytest.param(['--name=x'], ['--name=x'], id='one word'),
        pytest.param(['--name=a=b'], ['--name=a=b'], id='value with an equals sign'),
        pytest.param(['--name', '--a=b'], ['--name=--a=b'], id='value that looks like another flag'),
        pytest.param(['--name='], ['--name='], id='empty value, one word'),
        pytest.param(['--name', ''], ['--name='], id='empty value, two words'),
        pytest.param(['--name', '-'], ['--name=-'], id='lone dash'),
        pytest.param(['--name', '-1.5'], ['--name=-1.5'], id='negative number'),
        pytest.param(['--name', '-x'], ['--name=-x'], id='value with one dash'),
        pytest.param(['--name', '--unheard'], ['--name=--unheard'], id='value with two dashes'),
        pytest.param(['--name', '-- He said'], ['--name=-- He said'], id='value that begins with a spaced dash'),
        pytest.param(['--name', 'a\nb\x00c'], ['--name=a\nb\x00c'], id='newline and NUL'),
        pytest.param(['--name', '\udcff'], ['--name=\udcff'], id='undecodable byte'),
        pytest.param(['--top-k', '40'], ['--top_k=40'], id='hyphen for underscore'),
        pytest.param(['--top-k=-4-0'], ['--top_k=-4-0'], id='hyphens of a value stay'),
        pytest.param(['--loud'], ['--loud=True'], id='switch'),
        pytest.param(['--loud', '--name', 'x'], ['--loud=True', '--name=x'], id='switch before a flag'),
        pytest.param(['--loud=False'], ['--loud=False'], id='switch with a value'),
        pytest.param(['--noloud'], ['--loud=False'], id='switch turned off'),
        pytest.param(['--nostream', '--loud'], ['--stream=False', '--loud=True'], id='two switches'),
        pytest.param(['--name', 'x', '--name', 'y'], ['--name=x', '--name=y'], id='single flag given twice'),
        pytest.param(['word'], ['word'], id='word without a flag'),
        pytest.param(['-'], ['-'], id='standard input'),
        pytest.param(['--version'], ['--version'], id='version'),
    ],
)
def test_canonical_arguments(arguments, words):
    assert canonical_arguments(arguments, example) == (words, {})


@pytest.mark.parametrize(
    ('arguments', 'values'),
    [
        (['--last', 'a'], ['a']),
        (['--last', 'a', '--last', 'b', '--last', 'a'], ['a', 'b', 'a']),
        (['--last=a', '--last', '-', '--last='], ['a', '-', '']),
        (['--last=--', '--last', '\n\n'], ['--', '\n\n']),
    ],
)
def test_canonical_arguments_collects_a_repeated_flag(arguments, values):
    assert canonical_arguments(arguments, example) == ([], {'last': values})


@pytest.mark.parametrize(
    'arguments', [['--name'], ['--last'], ['--name', '--loud'], ['--name', '--top_k=3'], ['--loud', '--name']]
)
def test_a_flag_without_its_value_is_refused(arguments):
    with pytest.raises(UsageError, match=r'--(name|last) needs a value'):
        canonical_arguments(arguments, example)


def test_a_flag_with_a_hyphen_is_no_value_of_the_flag_before_it():
    with pytest.raises(UsageError, match='--name needs a value'):
        canonical_arguments(['--name', '--top-k', '40'], example)


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--nmae', 'unknown flag --nmae, did you mean --name?'),
        ('--top_q=3', 'unknown flag --top_q, did you mean --top_k?'),
        ('--load', 'unknown flag --load, did you mean --loud?'),
        ('--xyzzy', 'unknown flag --xyzzy;'),
        ('--prompt', 'unknown flag --prompt; a text is continued by python src/interactive_conditional_samples.py --'),
        ('--noname', 'unknown flag --noname'),
        ('--extra', 'unknown flag --extra'),
        ('--unknown', 'unknown flag --unknown'),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest_one(flag, message):
    with pytest.raises(UsageError) as error:
        canonical_arguments([flag], example)
    assert str(error.value).startswith(message)
    assert '--help' in str(error.value)


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('-k', 'unknown flag -k, did you mean --top_k?'),
        ('-k=40', 'unknown flag -k, did you mean --top_k?'),
        ('--k', 'unknown flag --k, did you mean --top_k?'),
        ('-top_k', 'unknown flag -top_k, did you mean --top_k?'),
        ('-top-q', 'unknown flag -top-q, did you mean --top_k?'),
        ('--top-q', 'unknown flag --top-q, did you mean --top_k?'),
        ('-l', 'unknown flag -l, did you mean --last or --loud?'),
        ('-z', 'unknown flag -z;'),
        ('-1', 'unknown flag -1;'),
    ],
)
def test_an_abbreviated_flag_is_refused_as_it_was_typed_with_what_it_may_stand_for(flag, message):
    with pytest.raises(UsageError) as error:
        canonical_arguments([flag, '40'], example)
    assert str(error.value).startswith(message)


def test_a_flag_for_what_is_given_without_one_is_refused_so():
    def function(*models, models_dir='models'):
        pass

    with pytest.raises(UsageError, match='unknown flag --model_name; models are given without a flag'):
        canonical_arguments(['--model_name', '124M'], function)


def test_two_dashes_can_be_a_value():
    assert canonical_arguments(['--name', '--', '--loud'], example) == (['--name=--', '--loud=True'], {})


def test_two_dashes_between_arguments_mean_nothing():
    assert canonical_arguments(['--', '--loud', '--'], example) == (['--loud=True'], {})


def test_words_after_two_dashes_are_no_flags():
    called = []

    def function(*files, loud: bool = False, names: list | None = None):
        called.append((files, loud, names))

    arguments = ['a', '--loud', '--names', 'b', '--', '-x', '-', '--names', '--help', 'c', '--']
    run(function, arguments=arguments)
    assert called == [(('a', '-x', '-', '--names', '--help', 'c', '--'), 'True', ['b'])]
    run(function, arguments=['--', '-x'])
    assert called[1] == (('-x',), False, None)


# run: the call


@pytest.mark.parametrize(
    ('arguments', 'given'),
    [
        pytest.param([], {}, id='defaults'),
        pytest.param(['--name', '40'], {'name': '40'}, id='numbers stay text'),
        pytest.param(['--name', '[1, 2]'], {'name': '[1, 2]'}, id='lists stay text'),
        pytest.param(['--name', 'None'], {'name': 'None'}, id='None stays text'),
        pytest.param(['--name', '"quoted"'], {'name': '"quoted"'}, id='quotes stay'),
        pytest.param(['--name='], {'name': ''}, id='empty'),
        pytest.param(['--name', '-'], {'name': '-'}, id='lone dash'),
        pytest.param(['--name', '-1', '--top-k', '-2'], {'name': '-1', 'top_k': '-2'}, id='negative numbers'),
        pytest.param(['--name', '--unheard of'], {'name': '--unheard of'}, id='two dashes'),
        pytest.param(['--name=--loud'], {'name': '--loud'}, id='the name of a flag'),
        pytest.param(['--name=--help'], {'name': '--help'}, id='help as a value'),
        pytest.param(['--name', ' a\tb\n'], {'name': ' a\tb\n'}, id='white space'),
        pytest.param(['--name', 'naïve 漢 😀'], {'name': 'naïve 漢 😀'}, id='any script'),
        pytest.param(['--name', 'x', '--name', 'y'], {'name': 'y'}, id='the last of two'),
        pytest.param(['--last', 'a', '--last', '-'], {'last': ['a', '-']}, id='repeated'),
        pytest.param(['--last', ''], {'last': ['']}, id='repeated, empty'),
        pytest.param(['--last', 'a', '--name', 'x'], {'last': ['a'], 'name': 'x'}, id='repeated and single'),
        pytest.param(['--noloud', '--stream'], {'loud': 'False', 'stream': 'True'}, id='switches'),
    ],
)
def test_run_hands_every_value_over_as_it_stands(command, arguments, given):
    assert command(*arguments) == DEFAULTS | given


def test_run_returns_when_the_function_does(command, capsys):
    command('--name', 'x')
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('arguments', [['--help'], ['-h'], ['--name', 'x', '--help'], ['--nmae', '--help']])
def test_help_goes_to_standard_output_and_runs_nothing(command, capsys, arguments):
    assert command(*arguments) is None
    out, err = capsys.readouterr()
    assert out == inspect.getdoc(example) + '\n'
    assert err == ''


@pytest.mark.parametrize('arguments', [['--version'], ['--name', 'x', '--version'], ['word', '--version']])
def test_the_version_goes_to_standard_output_and_runs_nothing(command, capsys, arguments):
    assert command(*arguments) is None
    assert capsys.readouterr() == (f'gpt2 {gpt2.__version__}\n', '')


def test_the_version_can_be_a_value(command):
    assert command('--name=--version') == DEFAULTS | {'name': '--version'}


def test_run_of_another_program_and_command_line(command, capsys):
    with pytest.raises(SystemExit):
        command('--top_k', '3', program='gpt2 x', arguments=['--a\nb'], wording=str.upper)
    assert capsys.readouterr().err == 'gpt2 x: UNKNOWN FLAG --A B; --HELP LISTS ALL FLAGS\n'
    command(program='gpt2 x', arguments=['--help'], wording=str.upper)
    assert capsys.readouterr().out == inspect.getdoc(example).upper() + '\n'


# run: failures


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--nmae', 'x'], 'unknown flag --nmae, did you mean --name?'),
        (['--name'], '--name needs a value'),
        (['-x'], 'unknown flag'),
        (['-x', '3'], 'unknown flag'),
        (['--nmae=a\nb'], 'unknown flag --nmae'),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(failing, arguments, message):
    status, line = failing(*arguments)
    assert status == 2
    assert line.startswith(f'program.py: {message}')
    assert example.called is None


def test_a_word_that_belongs_to_no_flag_is_refused_by_name(failing):
    def function(*extra, **unknown):
        reject_unknown(extra, unknown)

    status, line = failing('upon', 'a', 'time', function=function)
    assert status == 2
    assert line.startswith("program.py: 'upon' belongs to no flag")


def asks(*, prompt=None, json: bool = False, top_k=0):
    pass


def evaluates(*extra, tasks=None, model_name=None):
    pass


def opens(*extra, model_name=None):
    pass


def fetches(*, url=None):
    pass


@pytest.mark.parametrize(
    ('function', 'arguments', 'message'),
    [
        (asks, ['Once upon'], '\'Once upon\' belongs to no flag; did you mean --prompt "Once upon"?'),
        (asks, ['Once', 'upon'], '\'Once\' belongs to no flag; did you mean --prompt "Once upon"?'),
        (asks, ['Once'], "'Once' belongs to no flag; did you mean --prompt Once?"),
        (asks, ['--top_k', '40', 'a "$x"'], '; did you mean --prompt "a \\"\\$x\\""?'),
        (asks, ['--prompt', 'Once', 'upon', '--json', 'a'], ' a text of several words: --prompt "Once upon a"'),
        (asks, ['--json', 'false'], '; the value of a switch follows an equals sign: --json=false'),
        (asks, ['-'], "'-' belongs to no flag"),
        (evaluates, ['ptb', 'lambada'], "'ptb' belongs to no flag; did you mean --tasks ptb,lambada?"),
        (opens, ['124M'], "'124M' belongs to no flag; did you mean --model_name 124M?"),
        (opens, ['Once upon'], 'is continued by python src/interactive_conditional_samples.py --prompt "Once upon"'),
        (fetches, ['x'], "'x' belongs to no flag; --help shows what is taken"),
    ],
)
def test_a_word_without_a_flag_is_refused_with_what_it_most_likely_is(failing, function, arguments, message):
    status, line = failing(*arguments, function=function)
    assert status == 2
    assert message in line


def test_words_reach_a_function_that_takes_them(command):
    taken = []

    def function(*files, json: bool = False):
        taken.extend(files)

    command('a.txt', '-', '--json', 'b c', function=function)
    assert taken == ['a.txt', '-', 'b c']


class ResourceExhaustedError(Exception):
    """As TensorFlow names it."""


class InternalError(Exception):
    """As TensorFlow names it."""


SHORTAGES = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype('float32')),
    ResourceExhaustedError('OOM when allocating tensor with shape[1000,1000]\nand type float'),
    InternalError('Failed copying input tensor from CPU to GPU: Dst tensor is not initialized.'),
    RuntimeError('Failed to allocate memory for tensors.'),
    RuntimeError('std::bad_alloc'),
]


def draws(*, batch_size=2, length=None, engine='tf', precision='float32', model_name=None):
    raise draws.error


def drafts(*, precision='float32', draft=None, model_name=None):
    raise drafts.error


def searches(*, beams=1):
    raise searches.error


def trains(*, batch_size=4, window=None, init_from=None):
    raise trains.error


def scores(*files, batch_size=4):
    raise scores.error


@pytest.mark.parametrize('error', SHORTAGES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ('function', 'arguments', 'remedies'),
    [
        (draws, [], 'a lower --batch_size, a lower --length, --engine litert --precision int8 or a smaller model'),
        (draws, ['--batch_size', '1', '--precision=int8'], 'a lower --length or a smaller model'),
        (trains, ['--batch_size', '8'], 'a lower --batch_size, a lower --window or a smaller model'),
        (searches, ['--beams', '9000'], 'a lower --beams'),
        (drafts, ['--draft', '7M'], 'no --draft or a smaller model'),
        (searches, [], 'a machine with more of it'),
        (scores, ['a', 'b'], 'a lower --batch_size'),
        (scores, ['a', '--batch_size', '1'], 'a machine with more of it'),
    ],
)
def test_a_lack_of_memory_is_one_line_that_names_the_flags_to_lower(failing, error, function, arguments, remedies):
    function.error = error
    assert failing(*arguments, function=function) == (1, f'program.py: out of memory; try {remedies}')


@pytest.mark.parametrize('error', [InternalError('x'), RuntimeError('tensors are not allocated'), ValueError('OOM')])
def test_other_errors_of_libraries_are_no_lack_of_memory(command, error):
    draws.error = error
    with pytest.raises(type(error)):
        command(function=draws)


def test_a_full_disk_is_one_line_with_status_1(failing):
    def function():
        raise OSError(errno.ENOSPC, 'No space left on device', '/some/file')

    assert failing(function=function) == (
        1,
        'program.py: /some/file cannot be written (No space left on device); free space, or write elsewhere',
    )


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
@pytest.mark.parametrize('size', [10, 100_000], ids=['less than a buffer', 'more'])
def test_an_output_without_space_is_one_line_with_status_1(size):
    with open('/dev/full', 'w') as full, program(f'print("x" * {size})', stdout=full) as process:
        assert len(process.stderr.read().splitlines()) == 1
        assert process.wait() == 1


@pytest.mark.parametrize('error', [PermissionError(errno.EACCES, 'Permission denied', 'x'), FileNotFoundError()])
def test_another_error_of_the_system_is_not_swallowed(command, error):
    def function():
        raise error

    with pytest.raises(type(error)):
        command(function=function)


@pytest.mark.parametrize(('error', 'status'), [(Error, 1), (UsageError, 2)])
def test_an_error_is_one_line_with_its_status(failing, error, status):
    def function():
        raise error('first line\n  second\tline ')

    assert failing(function=function) == (status, 'program.py: first line second line')


def test_what_strangers_wrote_steers_no_terminal(failing, capsys):
    def function():
        raise Error('the token \x1b[31m\u202e is refused')

    assert failing(function=function) == (1, r'program.py: the token \x1b[31m\u202e is refused')
    show_notices(['its token is \x1b]0;x\x07'])
    assert capsys.readouterr().err == '\\'.join(['its token is ', 'x1b]0;x', 'x07\n'])


def test_ctrl_c_ends_with_130_and_no_message(command, capsys):
    def function():
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as exit:
            command(function=function)
        assert exit.value.code == 130
        assert capsys.readouterr() == ('', '')
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a second one does not break off the end
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_bug_is_not_swallowed(command):
    def function():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command(function=function)


def program(body, **options):
    """Start a Python program that runs body as its command."""
    indented = '\n'.join(f'    {line}' for line in body.splitlines())
    imports = f'import sys; sys.path.insert(0, {str(SRC)!r})\nfrom gpt2.commands.flags import run'
    source = f'{imports}\ndef f():\n{indented}\nrun(f)'
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, '-c', source], **(pipes | options))


@pytest.mark.parametrize('count', [1000, 1_000_000], ids=['less than a buffer', 'more than a pipe holds'])
def test_a_reader_that_goes_away_is_no_failure(count):
    with program(f'for number in range({count}):\n    print(number, flush=number < 2)') as process:
        assert process.stdout.readline() == '0\n'
        process.stdout.close()
        assert process.stderr.read() == ''
        assert process.wait() == 0


def test_output_a_terminal_cannot_show_is_replaced():
    body = 'print("naïve 漢 😀 \\udcff")\nprint("漢 \\udcff", file=sys.stderr)'
    with program(body, env={'PYTHONIOENCODING': 'ascii', 'LC_ALL': 'C'}) as process:
        assert process.communicate() == ('na?ve ? ? ?\n', '? ?\n')
        assert process.returncode == 0


def test_undecodable_input_reaches_the_program_as_surrogates():
    with program('print(ascii(sys.stdin.read()))', stdin=subprocess.PIPE, text=False) as process:
        assert process.communicate('é\xff'.encode('latin-1'))[0] == rb"'\udce9\udcff'" + b'\n'


@pytest.mark.parametrize('name', ['stdin', 'stdout', 'stderr'])
def test_streams_that_were_closed_are_there_all_the_same(monkeypatch, name):
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'')))
    monkeypatch.setattr(sys, name, None)
    open_standard_streams()
    assert sys.stdin.read() == ''
    print('gone')
    print('gone', file=sys.stderr)
    assert getattr(sys, name) is not None


# Values


@pytest.mark.parametrize(
    ('value', 'result'),
    [('0', 0), ('40', 40), (40, 40), (' 7 ', 7), ('+3', 3), (2.0, 2)],
)
def test_integer(value, result):
    assert integer('seed', value, 0) == optional_integer('seed', value, 0) == result


@pytest.mark.parametrize('value', [2**53 + 1, 2**64 - 1, 10**30 + 1])
def test_integer_takes_any_size_exactly(value):
    assert integer('seed', str(value), 0) == value


@pytest.mark.parametrize(
    'value',
    [None, 'None', '', 'x', '1.5', '4.0', '1e3', 'nan', 'inf', '0x10', '1,000', 'True', '--', 1.5, float('inf'), '９.'],
)
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(UsageError) as error:
        integer('seed', value, 0)
    assert str(error.value) == f'--seed is {value!r}, expected an integer of at least 0'


@pytest.mark.parametrize(('value', 'minimum'), [('-1', 0), ('0', 1), (-5, 1)])
def test_an_integer_below_the_minimum_is_refused_with_both(value, minimum):
    with pytest.raises(UsageError) as error:
        integer('length', value, minimum)
    assert str(error.value) == f'--length is {value}, expected at least {minimum}'


@pytest.mark.parametrize(('value', 'result'), [('0', 0.0), ('1', 1.0), ('.5', 0.5), ('1e-3', 0.001), (2, 2.0)])
def test_number(value, result):
    found = number('temperature', value, lambda value: value >= 0, 'of at least 0')
    assert (found, type(found)) == (result, float)


@pytest.mark.parametrize('value', ['', 'x', 'nan', 'inf', '-inf', '-0.1', '1e999', 'None', None, float('nan'), '1,5'])
def test_what_is_no_allowed_number_is_refused(value):
    with pytest.raises(UsageError, match=r'^--temperature is .*, expected a number of at least 0$'):
        number('temperature', value, lambda value: value >= 0, 'of at least 0')


@pytest.mark.parametrize(
    ('value', 'result'),
    [
        ('True', True), ('true', True), ('1', True), ('yes', True), (True, True),
        ('False', False), ('FALSE', False), ('0', False), ('no', False), (False, False),
    ],
)  # fmt: skip
def test_boolean(value, result):
    assert boolean('json', value) is optional_boolean('json', value) is result


@pytest.mark.parametrize('value', [None, 'None'])
def test_what_may_be_left_out_stays_none(value):
    assert optional_integer('seed', value, 0) is None and optional_boolean('stream', value) is None


@pytest.mark.parametrize('value', [None, '', 'maybe', '2', 'tru'])
def test_what_is_no_boolean_is_refused(value):
    with pytest.raises(UsageError) as error:
        boolean('json', value)
    assert str(error.value) == f'--json is {value!r}, expected true or false'


@pytest.mark.parametrize(
    ('value', 'result'), [(None, ()), ('ab', ('ab',)), ('', ('',)), (['a', 'b'], ('a', 'b')), ((), ()), ([], ())]
)
def test_texts(value, result):
    assert texts(value) == result
