"""The console command: which function its first word means, and what it says of itself."""

import importlib
import inspect
import signal
import subprocess
import sys
import types

import pytest
from example_models import REPOSITORY
from running import environment, run

import gpt2
from gpt2.commands.main import COMMANDS, as_console_commands, main, run_command

SRC = str(REPOSITORY / 'src')
SCRIPTS = {path.stem for path in [*(REPOSITORY / 'src').glob('*.py'), REPOSITORY / 'download_model.py']}


def function_of(command):
    return getattr(importlib.import_module(f'gpt2.commands.{command.module}'), command.function)


@pytest.fixture
def console(monkeypatch, capsys):
    """Runs `gpt2 ARGUMENTS` in this process: (standard output, standard error, status)."""

    def run_with(*arguments):
        monkeypatch.setattr(sys, 'argv', ['/some/where/gpt2', *arguments])
        monkeypatch.setattr(sys, 'stdin', open('/dev/null'))
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code
        return *capsys.readouterr(), status

    return run_with


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_while_a_command_is_imported_waits(monkeypatch, capsys, number, status):
    """NumPy turns an exception in the midst of its import into another one, or swallows it."""
    done = []

    def load(name):
        signal.raise_signal(number)
        done.append(name)
        return types.SimpleNamespace(interact_model=None)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(importlib, 'import_module', load)
    try:
        with pytest.raises(SystemExit) as exit:
            run_command(COMMANDS['complete'], 'gpt2 complete', [], str)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (done, exit.value.code) == (['gpt2.commands.complete'], status)
    assert capsys.readouterr() == ('', '')


def test_every_script_of_the_repository_is_a_command():
    handing_on = {'__init__', 'encoder', 'model', 'sample'}
    assert {command.script for command in COMMANDS.values()} == SCRIPTS - handing_on


@pytest.mark.parametrize('command', COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_the_function_its_script_runs(command):
    folder = REPOSITORY if command.script == 'download_model' else REPOSITORY / 'src'
    assert f"run_script('{command.script}')" in (folder / f'{command.script}.py').read_text()


@pytest.mark.parametrize('name', COMMANDS)
def test_help_is_that_of_the_script_with_lines_that_work(console, name):
    text = inspect.getdoc(function_of(COMMANDS[name]))
    out, err, status = console(name, '--help')
    assert (err, status) == ('', 0)
    assert f'\n    gpt2 {name} ' in out
    assert 'python ' not in out
    # Beside the scripts' names nothing is another.
    for command, (_, _, script, _) in COMMANDS.items():
        text = text.replace(f'python src/{script}.py', f'gpt2 {command}')
        text = text.replace(f'python {script}.py', f'gpt2 {command}')
    assert out == text + '\n'


def test_help_has_a_line_for_each_command(console):
    out, err, status = console('--help')
    assert (err, status) == ('', 0)
    assert console('-h') == (out, err, status)
    for name, command in COMMANDS.items():
        assert f'\n{name:<12}{command.summary}\n' in out


def test_no_word_at_all_is_wrong_use(console):
    assert console() == ('', console('--help')[0], 2)


@pytest.mark.parametrize('arguments', [['--version'], ['score', '--version']])
def test_version(console, arguments):
    assert console(*arguments) == (f'gpt2 {gpt2.__version__}\n', '', 0)


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['complet'], 'gpt2: unknown command complet, did you mean gpt2 complete? gpt2 --help lists all commands'),
        (['export_litert'], 'gpt2: unknown command export_litert, did you mean gpt2 export?'),
        (['train_vocabulary.py'], 'gpt2: unknown command train_vocabulary.py, did you mean gpt2 vocabulary?'),
        (['xyzzy'], 'gpt2: unknown command xyzzy; gpt2 --help lists all commands'),
        (['--top_k', '40'], 'gpt2: --top_k comes after a command, as in gpt2 complete --top_k;'),
        (['complete', '-k', '40'], 'gpt2 complete: unknown flag -k, did you mean --top_k?'),
        (['generate', 'A text'], 'gpt2 generate: \'A text\' belongs to no flag; a text is continued by gpt2 complete '),
        (['export', '--model_name', '124M', '--models_dir', '/'], 'gpt2 export: no model 124M in /; get it with `gpt2'),
    ],
)
def test_wrong_use_is_one_line_with_status_2(console, arguments, line):
    out, err, status = console(*arguments)
    assert (out, len(err.splitlines()), status) == ('', 1, 2)
    assert err.startswith(line)


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('python src/train.py x', 'gpt2 train x'),
        ('`python download_model.py 124M`', '`gpt2 download 124M`'),
        ('no text in src/train.py', 'no text in src/train.py'),
        ('python own/train.py', 'python own/train.py'),
    ],
)
def test_scripts_in_a_message_become_commands(text, shown):
    assert as_console_commands(text) == shown


def test_only_the_module_of_the_chosen_command_is_imported():
    code = 'import sys; from gpt2.commands.main import main\ntry: main()\nfinally: print(*sys.modules, sep="\\n")'
    done = subprocess.run(
        [sys.executable, '-c', code, 'download', '--help'], env=environment(PYTHONPATH=SRC), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    modules = set(done.stdout.splitlines())
    assert 'gpt2.commands.download' in modules
    others = {f'gpt2.commands.{command.module}' for command in COMMANDS.values()} - {'gpt2.commands.download'}
    assert not others & modules
    assert not {'tensorflow', 'ai_edge_litert'} & modules


def test_python_m_gpt2(tmp_path):
    assert run('-m', 'gpt2', '--version', cwd=tmp_path, PYTHONPATH=SRC) == (f'gpt2 {gpt2.__version__}\n', '', 0)
    out, err, status = run('-m', 'gpt2', 'export', '--precision', 'x', cwd=tmp_path, PYTHONPATH=SRC)
    assert (out, status) == ('', 2)
    assert err.startswith('gpt2 export: --precision is ')
