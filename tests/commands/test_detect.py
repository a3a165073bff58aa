"""src/detect.py: looking at a text, training a detector, predicting with it."""

import json
import os
import re
import shutil
import sys

import pytest
from example_models import REPOSITORY
from misbehaving_server import MisbehavingServer
from reading_engine import both_sides, reading_model, write_records
from running import BUNDLED, help_names_every_flag_and_no_other, objects, run

from gpt2.commands import detect
from gpt2.commands.main import main
from gpt2.detection import detector
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


def test_looking_writes_over_nothing_that_it_reads_and_says_at_once_what_cannot_be_written(console, tmp_path):
    (tmp_path / 'a.html').write_text(TEXT)
    message = '--html ./a.html is a file that is read; choose another'
    refused(console, message, 'look', '--file', 'a.html', '--html', './a.html')
    assert (tmp_path / 'a.html').read_text() == TEXT
    for flag in ('--html', '--png'):
        out, err, status = console('look', TEXT, flag, 'none/a')
        assert (out, status) == ('', 1) and f'choose another {flag}' in err and len(err.splitlines()) == 1


def test_a_file_whose_name_is_no_text_is_looked_at(console, tmp_path):
    name = os.fsdecode(b'\xff.txt')
    try:
        (tmp_path / name).write_text(TEXT)
    except OSError:
        pytest.skip('this system has no such names')
    assert console('look', '--file', name, '--html', 'a.html')[2] == 0
    assert '<h1>\ufffd.txt as' in (tmp_path / 'a.html').read_text()


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
    assert err == 'gpt2 detect look: --png needs packages that are not here (matplotlib); ' \
                  'pip install -r requirements-detect.txt\n'  # fmt: skip


def test_the_bundled_model_looks_at_standard_input_without_tensorflow(elsewhere, without_tensorflow):
    out, err, status = run(
        SCRIPT, 'look', '-', *BUNDLED, '--engine', 'litert', cwd=elsewhere, given=TEXT.encode(), **without_tensorflow
    )
    assert (err, status) == ('', 0)
    assert re.search(r'^1\t0\.\d+\t\d\.\d+\t\d\.\d+\t upon$', out, re.MULTILINE)  # after Once, what else


# train and predict

FILES = '--human', 'people.jsonl', '--machine', 'samples.jsonl'


@pytest.fixture(scope='module')
def sides(encoder):
    return both_sides(encoder)


@pytest.fixture
def files(sides, tmp_path):
    """people.jsonl and samples.jsonl in the current folder."""
    for name, texts in zip(('people', 'samples'), sides):
        write_records(tmp_path / f'{name}.jsonl', texts)
    return tmp_path


@pytest.fixture(scope='module')
def saved(tmp_path_factory, sides, encoder):
    """The file of a detector of all kinds, and its figures."""
    folder, patch = tmp_path_factory.mktemp('saved'), pytest.MonkeyPatch()
    for name, texts in zip(('people', 'samples'), sides):
        write_records(folder / f'{name}.jsonl', texts)
    with patch.context() as patched:
        patched.setattr(detect, 'open_model', lambda *arguments, **settings: reading_model(encoder))
        patched.chdir(folder)
        detect.train_detector(human='people.jsonl', machine='samples.jsonl', json='false')
    return folder / 'detector.npz'


@pytest.fixture
def there(saved, tmp_path):
    """The detector in the current folder."""
    shutil.copy(saved, tmp_path)


def test_training_says_how_well_it_does_and_saves_all_of_it(console, files):
    out, err, status = console('train', *FILES, '--save', 'some/where.npz', '--kind', 'words')
    assert (err, status) == ('', 0)
    assert out.startswith('# samples against people, read by 7M\n') and out.endswith(f'{detector.CAVEAT}\n')
    assert 'train 48 and 48; valid 6 and 6; test 6 and 6' in out
    found = detector.load(str(files / 'some' / 'where.npz'))
    assert found.about['model'] == {'name': '7M', 'identity': '0' * 64, 'precision': 'float32'}
    assert list(found.calibration) == ['words'] and not list(files.glob('some/*.part'))
    assert console.opened == [(None, {'engine': 'auto', 'precision': 'float32', 'prefix': '--'})]


def test_figures_come_as_json_and_of_as_many_texts_as_are_wanted(console, files):
    out, err, status = console('train', *FILES, '--kind', 'words', '--json', '--limit', '40')
    [found] = objects(out)
    assert (err, status, found['texts']['train'], found['limit']) == ('', 0, [32, 32], 40)
    assert found['caveat'] == detector.CAVEAT and found['figures']['words']['right']['texts'] == 8


def test_a_model_that_finds_people_more_its_own_says_so(console, files):
    arguments = '--human', 'samples.jsonl', '--machine', 'people.jsonl', '--kind', 'model'
    _, err, status = console('train', *arguments)
    assert status == 0 and len(err.splitlines()) == 1
    assert 'samples are more like those of 7M itself than the texts of people; were --human and' in err


def test_the_releases_texts_are_fetched_and_its_figure_stands_beside(console, sides, tmp_path):
    bodies = {
        f'/v1/{name}.{split}.jsonl': ''.join(json.dumps({'id': 0, 'text': text}) + '\n' for text in texts).encode()
        for name, side in zip(('webtext', 'small-117M'), sides)
        for split, texts in (('train', side[:40]), ('valid', side[40:50]), ('test', side[50:]))
    }  # fmt: skip
    with MisbehavingServer(bodies) as server:
        server.faults['/v1/webtext.test.jsonl'] = [503, 'break']
        arguments = '--download', 'small-117M', '--data_dir', 'data', '--base_url', f'{server.url}/v1/'
        out, _, status = console('train', *arguments, '--kind', 'words')
    assert status == 0 and out.startswith('# small-117M against webtext') and '| 88.29 % |' in out
    assert 'train 40 and 40; valid 10 and 10; test 10 and 10' in out
    assert len(list((tmp_path / 'data').glob('*.jsonl'))) == 6


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give --human and --machine, files of texts, or --download'),
        (['--human', 'people.jsonl'], 'give --human and --machine'),
        (['--human', 'people.jsonl', '--machine', 'missing'], 'missing cannot be read: No such file'),
        (['--human', 'people.jsonl', '--machine', 'people.jsonl'], 'are both people.jsonl; give two files'),
        (['--human', 'people.jsonl', '--machine', 'webtext.jsonl'], 'give --force'),
        (['--human', '7M.jsonl', '--machine', 'people.jsonl'], '7M.jsonl is called after a model: were'),
        (['--human', 'one.jsonl', '--machine', 'people.jsonl'], 'one.jsonl holds 1 different texts, expected 10'),
        (['--human', 'empty', '--machine', 'people.jsonl'], 'empty holds no text'),
        (['--human', 'latin1', '--machine', 'people.jsonl'], 'latin1 is not UTF-8 at byte 13'),
        (['--human', 'people.jsonl', '--machine', 'plain'], 'plain, line 1 is no JSON'),
        (['--human', 'people.jsonl', '--machine', 'titles'], 'titles, line 1 has no text'),
        (['--download', 'webtext'], "--download is 'webtext', expected small-117M or"),
        (['--download', 'small-117M'], 'give --data_dir'),
        (['--download', 'small-117M', *FILES], '--download stands for --human and --machine'),
        (['--download', 'small-117M', '--data_dir', 'd', '--base_url', 'ftp://x'], "--base_url is 'ftp://x'"),
        ([*FILES, '--kind', 'all'], "--kind is 'all', expected words or model or both"),
        ([*FILES, '--limit', '5'], '--limit is 5, expected at least 20'),
        ([*FILES, '--save', 'people.jsonl'], '--save people.jsonl is a file that is read; choose another'),
        (['people.jsonl', 'samples.jsonl'], "'people.jsonl' belongs to no flag"),
    ],
)  # fmt: skip
def test_training_refuses(console, files, arguments, message):
    for name, content in {
        'webtext.jsonl': b'', '7M.jsonl': b'', 'one.jsonl': b'{"text": "one line only"}', 'empty': b'',
        'latin1': b'{"text": "caf\xe9"}', 'plain': b'Once upon a time', 'titles': b'{"title": "Heidi"}',
    }.items():  # fmt: skip
        (files / name).write_bytes(content)
    refused(console, message, 'train', *arguments)
    assert not (files / 'detector.npz').exists() and not (files / 'd').exists()


def test_texts_of_either_side_are_judged_with_what_is_known_of_such_lengths(console, there, sides, tmp_path):
    texts = [next(text for text in side if len(text) > 300) for side in sides]
    write_records(tmp_path / 'both.jsonl', texts)
    out, err, status = console('predict', '--file', 'both.jsonl')
    assert (err, status) == ('', 0) and out.endswith(f'\n\n{detector.CAVEAT}\n')
    lines = out.splitlines()[:2]
    found = [re.fullmatch(r'both.jsonl, text (\d), (\d+) tokens: machine (0\.\d+) \(words .*, model .*\); (.+)', line)
             for line in lines]  # fmt: skip
    assert [each[1] for each in found] == ['1', '2']
    assert float(found[0][3]) < 0.5 < float(found[1][3])
    known = r'of \d+ texts of \d+ to \d+ tokens it judged [\d.]+ \(.+\) % right'
    assert all(re.fullmatch(known, each[4]) for each in found)
    assert console.opened[-1][0] == '7M'  # the model that the detector was trained with
    out, err, status = console('predict', texts[1], '--json')
    [one] = objects(out)
    assert (err, status, one['text'], one['caveat']) == ('', 0, 'a text', detector.CAVEAT)
    assert one['probability'] == one['both'] == pytest.approx(float(found[1][3]), abs=6e-4)
    assert {'words', 'model', 'tokens', 'experience'} < set(one)


def test_short_texts_are_judged_only_if_forced(console, there, encoder):
    count = len(encoder.encode(TEXT))
    refused(console, f'a text has {count} tokens, expected 50 or more', 'predict', TEXT)
    out, err, status = console('predict', TEXT, '--force')
    assert (err, status) == ('', 0) and out.startswith(f'a text, {count} tokens: machine 0.')


def test_words_that_would_steer_a_terminal_do_not(console, there, sides, tmp_path):
    write_records(tmp_path / 'a\x1b[31m.jsonl', sides[0][:1])
    out, err, status = console('predict', '--force', '--file', 'a\x1b[31m.jsonl')
    assert (err, status) == ('', 0) and '\x1b' not in out and 'a\\x1b[31m.jsonl, text 1' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([TEXT, '--detector', 'missing.npz'], 'missing.npz holds no detector (No such file'),
        ([TEXT, '--detector', '.'], '. holds no detector (Is a directory'),
        ([TEXT, '--detector', 'plain'], 'plain holds no detector ('),
        ([], 'neither given'),
        (['--file', 'none.jsonl'], 'none.jsonl cannot be read'),
        (['--file', 'plain.jsonl'], 'plain.jsonl, line 1 is no JSON'),
        ([TEXT, '--file', 'plain.jsonl'], 'expected one TEXT in quotes, or --file PATH'),
    ],
)
def test_predicting_refuses(console, there, tmp_path, arguments, message):
    for name in ('plain', 'plain.jsonl'):
        (tmp_path / name).write_text('Once upon a time')
    refused(console, message, 'predict', *arguments)


def test_another_model_than_the_detectors_is_refused(console, there, monkeypatch, encoder):
    other = reading_model(encoder, '124M')
    other.source.identity = '1' * 64
    monkeypatch.setattr(detect, 'open_model', lambda *arguments, **settings: other)
    refused(console, '124M is not the model that the detector was trained with, which was called 7M', 'predict', TEXT)
