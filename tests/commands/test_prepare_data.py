import importlib.util
import inspect
import json

import filelock
import pytest
from running import help_names_every_flag_and_no_other, run

from gpt2.commands import prepare_data as command
from gpt2.commands.prepare_data import alone_in, blocked, checked, merged, prepare_data, seconds
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
        ({'output': '', 'warc': 'a'}, 'give --output'),
        ({'output': 'x', 'warc': ''}, '--warc is empty'),
        ({'output': 'x', 'submissions': 'a', 'contact': '漢@x.org'}, '--contact is'),
        ({'output': 'x', 'submissions': 'a', 'contact': 'a\nb: c'}, '--contact is'),
        ({'output': 'x', 'warc': 'a', 'seed': '9' * 71}, '--seed is'),
        ({'output': 'x', 'warc': 'a', 'max_bytes': '9' * 30}, '--max_bytes is'),
        ({'output': 'x', 'warc': 'a', 'max_seconds': '1e300'}, '--max_seconds is'),
        ({'output': 'x', 'warc': 'a', 'pause': '1e300'}, '--pause is'),
        ({'output': 'x', 'warc': 'a', 'try_again': True}, '--try_again asks for pages over the network'),
        ({'output': 'a b', 'warc': 'a', 'executor': 'slurm', 'partition': 'p'}, 'what a Slurm script cannot'),
        ({'output': 'x', 'warc': 'a', 'executor': 'slurm', 'partition': 'p; q'}, '--partition .* cannot'),
    ],
)
def test_wrong_use(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, 'check_packages', lambda: None)
    with pytest.raises(UsageError, match=message):
        prepare_data(**flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('stage', 'message'), [('links', 'links needs --submissions'), ('contamination', 'contamination needs --against')]
)
def test_a_stage_that_has_nothing_to_read(stage, message, tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'check_packages', lambda: None)
    with pytest.raises(UsageError, match=message):
        prepare_data(stage, output=str(tmp_path / 'x'), warc='a')


def test_who_asks_is_told_where_pages_are_asked_for():
    flags = {'submissions': ['a.jsonl']}
    command.check_source(flags, ['links'], False)
    for wanted in ([], ['fetch'], ['links', 'fetch']):
        with pytest.raises(UsageError, match='give --contact'):
            command.check_source(flags, wanted, False)


def test_slurm_needs_its_program(tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'check_packages', lambda: None)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(Error, match='needs sbatch, which is not here'):
        prepare_data(output=str(tmp_path / 'x'), warc='a', executor='slurm', partition='p')


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / 'x').write_text('')
    with pytest.raises(UsageError, match='x is a file'), alone_in(str(tmp_path / 'x')):
        pass


def test_all_of_it_is_done_by_one_at_a_time(tmp_path, monkeypatch):
    def second(output, *_):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(f'{output}/prepare.lock').acquire(timeout=0)
        found.append(json.loads((tmp_path / 'out' / 'flags.json').read_text()))

    found = []
    monkeypatch.setattr(command, 'check_packages', lambda: None)
    monkeypatch.setattr(command, 'carry_out', second)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'flags.json').write_text('{"seed": 1}')
    prepare_data(output=str(tmp_path / 'out'), warc='a', seed='2')
    assert found == [{'seed': 1}]  # unchanged, until nothing refuses what is new


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
    (tmp_path / 'list').write_text(
        'Bad.example\n# mine\n\nworse.example # why\n.a.example\n*.b.example\nstraße.de\n', 'utf-8-sig'
    )
    path = checked({'blocked_domains': 'list'})['blocked_domains']
    monkeypatch.chdir('/')
    assert list(blocked(path)) == ['bad.example', 'worse.example', 'a.example', 'b.example', 'xn--strae-oqa.de']
    (tmp_path / 'list').write_text('good.example\nhttp://bad.example/\n')
    with pytest.raises(UsageError, match='is no domain'):
        list(blocked(path))
    with pytest.raises(UsageError, match='cannot be read'):
        list(blocked(str(tmp_path / 'none')))


def test_a_day_begins_at_midnight_in_greenwich():
    assert seconds('1970-01-02') == 86400.0


def test_flags_that_are_left_out_are_as_they_were(tmp_path):
    (tmp_path / 'flags.json').write_text(json.dumps({'min_score': 5, 'seed': 1}))
    assert merged(str(tmp_path), checked({'min_score': '4'})) == {'min_score': 4, 'seed': 1}
    for content in ('{', '[]', '{"zzz": 1}', '{"tasks": "x"}', '{"warc": 5}'):
        (tmp_path / 'flags.json').write_text(content)
        with pytest.raises(UsageError, match=r'flags\.json cannot be read'):
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
    prepare_data('report', output=flags['output'], min_tokens=500)
    assert capsys.readouterr().out == out
    assert (tmp_path / 'out' / 'data_card.md').read_text() == 'Mine.'
    with pytest.raises(UsageError, match='contamination was made with another contaminated'):
        prepare_data('contamination', output=flags['output'], contaminated='list')
    prepare_data(output=flags['output'])  # as if that had not been asked


@pytest.mark.parametrize('against', ['/nowhere', '{}/set.jsonl'])
def test_evaluation_sets_that_are_none(tmp_path, against):
    pytest.importorskip('datatrove')
    (tmp_path / 'a.warc').write_bytes(b'')
    (tmp_path / 'set.jsonl').write_text('{"question": "x"}\n')
    with pytest.raises(UsageError, match=r'^--against: ') as refused:
        prepare_data(output=str(tmp_path / 'out'), warc=str(tmp_path / 'a.warc'), against=against.format(tmp_path))
    assert 'text_field' not in str(refused.value)  # a flag that it has not
    assert not (tmp_path / 'out' / 'flags.json').exists()


@pytest.mark.slow
def test_an_output_that_is_a_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip('datatrove')
    from example_models import REPOSITORY

    (tmp_path / 'a.warc').write_bytes(b'')
    (tmp_path / 'out').write_text('a file')
    out, err, status = run(REPOSITORY / SCRIPT, '--output', 'out', '--warc', 'a.warc', cwd=tmp_path)
    assert (out, len(err.splitlines()), status) == ('', 1, 2), err
