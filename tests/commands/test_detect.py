"""src/detect.py: looking at a text, training a detector, predicting with it."""

import re
import sys

import pytest
from example_models import REPOSITORY
from reading_engine import reading_model
from running import BUNDLED, help_names_every_flag_and_no_other, run

from gpt2.commands import detect
from gpt2.commands.main import main
from gpt2.detection.look import CAVEAT

SCRIPT = REPOSITORY / 'src' / 'detect.py'
TEXT = 'Once upon a time there was a king who had three sons.'


@pytest.fixture
def console(monkeypatch, capsys, encoder, tmp_path):
    """Runs `gpt2 detect ARGUMENTS` in this process, in a folder of its own, with a quick model: (standard output,
    standard error, status)."""
    opened = []

    def open_quick_model(name, *arguments, **settings):
        opened.append((name, settings))
        return reading_model(encoder, name or '7M')

    monkeypatch.setattr(detect, 'open_model', open_quick_model)
    monkeypatch.chdir(tmp_path)

    def run_with(*arguments):
        monkeypatch.setattr(sys, 'argv', ['gpt2', 'detect', *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as exit:
            status = exit.code
        return *capsys.readouterr(), status

    run_with.opened = opened
    return run_with


def refused(console, message, *arguments):
    """The command ends with status 2 and one line that has the message, and prints nothing else."""
    out, err, status = console(*arguments)
    assert (out, status, len(err.splitlines())) == ('', 2, 1), err
    assert message in err


@pytest.mark.parametrize('function', detect.PARTS.values(), ids=detect.PARTS)
def test_help_names_every_flag_and_no_other(function):
    help_names_every_flag_and_no_other(function)


def test_the_help_of_a_part_is_asked_for_after_its_name(console):
    out, err, status = console('look', '--help')
    assert (err, status) == ('', 0) and '\n    gpt2 detect look ' in out and '--per_token' in out
    overview = console('--help')[0]
    assert all(re.search(rf'^{name} +\w', overview, re.MULTILINE) for name in detect.PARTS)


def test_what_is_no_part_is_refused(console):
    refused(console, "gpt2 detect: 'lok' is none of look", 'lok', 'text')
    refused(console, 'gpt2 detect: name one of look')


# look


def test_looking_prints_a_line_a_token_and_the_figures_where_no_terminal_reads(console, encoder):
    out, err, status = console('look', TEXT)
    assert (err, status) == ('', 0)
    tokens, figures = out.split('\n\n')
    lines = [line.split('\t') for line in tokens.splitlines()]
    assert ''.join(line[-1] for line in lines) == TEXT and len(lines) == len(encoder.encode(TEXT))
    assert figures.startswith('ranks 1-10 ') and figures.endswith(f'{CAVEAT}\n')
    assert '\x1b' not in out


def test_looking_colours_the_text_on_a_terminal(console, monkeypatch):
    monkeypatch.setattr(detect.look, 'colours_of', lambda environment, terminal: 16)
    out = console('look', TEXT)[0]
    assert re.sub(r'\x1b\[[\d;]*m', '', out).startswith(f'{TEXT}\n\nranks 1-10')
    assert '\t' not in out and '\t\x1b[30;4' in console('look', TEXT, '--per_token')[0]


def test_looking_writes_a_page_and_a_picture_of_a_file(console, tmp_path):
    (tmp_path / 'a&b.txt').write_text(f'{TEXT}\n')
    out, err, status = console('look', '--file', 'a&b.txt', '--html', 'a.html', '--png', 'a.png', '--model_name', 'x')
    assert (err, status) == ('', 0) and '\\n' in out
    assert '<h1>a&amp;b.txt as x sees it</h1>' in (tmp_path / 'a.html').read_text()
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a&b.txt', 'a.html', 'a.png']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'neither given, expected one TEXT in quotes, or --file PATH'),
        (['two', 'words'], "'two' and 'words' given, expected one TEXT"),
        (['text', '--file', 'letter'], 'expected one TEXT in quotes, or --file PATH'),
        ([''], 'a text is empty'),
        (['--file', 'missing'], 'missing cannot be read: No such file'),
        (['--file', 'empty'], 'empty is empty, expected a text'),
        (['--file', 'latin1'], 'latin1 is not UTF-8 at byte 3; convert it'),
        (['caf\udce9'], 'the text is not UTF-8 at byte 3; convert it'),
        (['text', '--colour', 'red'], 'unknown flag --colour'),
        (['text', '--per_token=maybe'], "--per_token is 'maybe', expected true or false"),
    ],
)
def test_looking_refuses(console, tmp_path, arguments, message):
    (tmp_path / 'empty').write_bytes(b'')
    (tmp_path / 'latin1').write_bytes(b'caf\xe9 au lait')
    refused(console, message, 'look', *arguments)


def test_a_package_that_is_missing_is_named(console, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    out, err, status = console('look', TEXT, '--png', 'a.png')
    assert (out, status) == ('', 1)
    assert err == 'gpt2 detect look: this needs packages that are not here (matplotlib); ' \
                  'pip install -r requirements-detect.txt\n'  # fmt: skip


def test_the_bundled_model_looks_at_standard_input_without_tensorflow(elsewhere, without_tensorflow):
    out, err, status = run(
        SCRIPT, 'look', '-', *BUNDLED, '--engine', 'litert', cwd=elsewhere, given=TEXT.encode(), **without_tensorflow
    )
    assert (err, status) == ('', 0)
    assert re.search(r'^1\t0\.\d+\t\d\.\d+\t\d\.\d+\t upon$', out, re.MULTILINE)  # after Once, what else
