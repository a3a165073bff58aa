import importlib.util
import inspect
import json

import pytest
from running import help_names_every_flag_and_no_other, run

from gpt2.commands import prepare_data as command
from gpt2.commands.prepare_data import blocked, checked, merged, prepare_data, seconds
from gpt2.errors import Error, UsageError

SCRIPT = 'src/prepare_data.py'


def test_the_help_names_every_flag():
    help_names_every_flag_and_no_other(prepare_data)


def test_stages_of_the_help_are_those_of_the_library():
    pytest.importorskip('datatrove')
    from gpt2.preparation import executors, stages, text

    assert command.STAGES == stages.STAGES
    assert command.EXECUTORS == executors.EXECUTORS
    assert tuple(text.QUALITY) == command.QUALITY
    lines = inspect.getdoc(prepare_data).splitlines()
    assert all(any(line.startswith(f'{stage} ') for line in lines) for stage in command.STAGES)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({}, 'give --output'),
        ({'output': 'x'}, 'give --submissions, --warc or --html'),
        ({'output': 'x', 'submissions': 'a'}, 'give --contact'),
        ({'output': 'x', 'html': 'a', 'warc': 'b'}, '--html and --warc exclude each other'),
        ({'output': 'x', 'warc': 'a', 'min_score': 'many'}, '--min_score is'),
        ({'output': 'x', 'warc': 'a', 'before': 'yesterday'}, '--before is'),
        ({'output': 'x', 'warc': 'a', 'held_out': '1'}, '--held_out is'),
        ({'output': 'x', 'warc': 'a', 'pause': '-1'}, '--pause is'),
        ({'output': 'x', 'warc': 'a', 'quality': ['good']}, '--quality is'),
        ({'output': 'x', 'warc': 'a', 'contaminated': 'keep'}, '--contaminated is'),
        ({'output': 'x', 'warc': 'a', 'executor': 'cloud'}, '--executor is'),
        ({'output': 'x', 'warc': 'a', 'executor': 'slurm'}, 'needs --partition'),
        ({'output': 'x', 'warc': 'a', 'workers': '0'}, '--workers is'),
    ],
)
def test_wrong_use(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, 'check_packages', lambda: None)
    with pytest.raises(UsageError, match=message):
        prepare_data(**flags)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_none():
    with pytest.raises(UsageError, match='stages is'):
        prepare_data('sieve', output='x')


def test_without_the_packages_it_says_in_a_line_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'datatrove' else name)
    with pytest.raises(Error, match=r'not here \(datatrove\); pip install -r requirements-data\.txt'):
        prepare_data(output=str(tmp_path / 'x'), warc='a')
    assert list(tmp_path.iterdir()) == []


def test_domains_that_a_file_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'list').write_text('# mine\nBad.example\n\nworse.example\n')
    path = checked({'blocked_domains': 'list'})['blocked_domains']
    monkeypatch.chdir('/')
    assert list(blocked(path)) == ['bad.example', 'worse.example']
    with pytest.raises(UsageError, match='cannot be read'):
        list(blocked(str(tmp_path / 'none')))


def test_a_day_begins_at_midnight_in_greenwich():
    assert seconds('1970-01-02') == 86400.0


def test_flags_that_are_left_out_are_as_they_were(tmp_path):
    (tmp_path / 'flags.json').write_text(json.dumps({'min_score': 5, 'seed': 1}))
    assert merged(str(tmp_path), checked({'min_score': '4'})) == {'min_score': 4, 'seed': 1}
    (tmp_path / 'flags.json').write_text('{')
    with pytest.raises(UsageError, match='cannot be read'):
        merged(str(tmp_path), {})


def test_the_command_goes_through_and_goes_on(tmp_path, capsys):
    pytest.importorskip('datatrove')
    from example_pages import pages, write_warc

    found = list(pages(24))
    write_warc(tmp_path / 'a.warc.gz', found)
    (tmp_path / 'test.txt').write_text(' '.join(found[22].text))
    flags = {'output': str(tmp_path / 'out'), 'warc': str(tmp_path / '*.gz'), 'against': str(tmp_path / 'test.txt')}
    prepare_data('fetch', 'text', tasks=1, **flags)
    assert '| text | 23 | 23 | 0 |' in capsys.readouterr().out
    prepare_data(output=flags['output'])
    out = capsys.readouterr().out
    assert '| contamination | shares 13-grams with an evaluation set | 1 |' in out
    assert '1 documents share 13-grams' in out
    assert (tmp_path / 'out' / 'report.md').read_text() == out
    assert (tmp_path / 'out' / 'report.png').stat().st_size > 1000
    (tmp_path / 'out' / 'data_card.md').write_text('Mine.')
    prepare_data('report', output=flags['output'])
    assert capsys.readouterr().out == out
    assert (tmp_path / 'out' / 'data_card.md').read_text() == 'Mine.'
    with pytest.raises(UsageError, match='contamination was made with another contaminated'):
        prepare_data('contamination', output=flags['output'], contaminated='list')


@pytest.mark.slow
def test_an_output_that_is_a_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip('datatrove')
    from example_models import REPOSITORY

    (tmp_path / 'a.warc').write_bytes(b'')
    (tmp_path / 'out').write_text('a file')
    out, err, status = run(REPOSITORY / SCRIPT, '--output', 'out', '--warc', 'a.warc', cwd=tmp_path)
    assert (out, len(err.splitlines()), status) == ('', 1, 2), err
