"""src/evaluate.py as a user runs it, on data of a few lines."""

import functools
import http.server
import importlib.util
import json
import shutil
import threading
import zipfile

import pytest
from example_models import REPOSITORY
from running import BUNDLED, fails_in_one_line, help_names_every_flag_and_no_other, run

from gpt2.commands import evaluate
from gpt2.evaluation import report as evaluation_report
from gpt2.evaluation.data import fetch
from gpt2.evaluation.tasks import TASKS
from gpt2.evaluation.tasks.task import Source
from gpt2.system.download import DownloadError

SCRIPT = REPOSITORY / 'src' / 'evaluate.py'
LAMBADA = [{'text': 'Once upon a time there was a king'}, {'text': 'The little girl opened the “door”'}]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    (folder / 'ptb.test.txt').write_text(" the king was n't there \n he said <unk> \n")
    (folder / 'lambada_test.jsonl').write_text(''.join(json.dumps(entry) + '\n' for entry in LAMBADA))
    (folder / 'cbtest_NE_valid_2000ex.txt').write_text('nonsense\n')
    return folder


@pytest.fixture(scope='module')
def first_run(data, tmp_path_factory):
    """Standard output, standard error, status and the folder of a run of two tasks and one without data."""
    folder = tmp_path_factory.mktemp('run')
    return *run(SCRIPT, *BUNDLED, '--data_dir', data, '--tasks', 'ptb,text8,lambada', cwd=folder), folder


MISTAKES = [
    pytest.param([], 'give --data_dir', id='no data folder'),
    pytest.param(['--data_dir', 'missing'], '--data_dir missing is no folder', id='missing data folder'),
    pytest.param(['--data_dir', '.', '--tasks', 'ptb,lambda'], "--tasks names 'lambda', expected some of", id='task'),
    pytest.param(['--data_dir', '.', '--tasks', ''], "--tasks names ''", id='no task'),
    pytest.param(
        ['--data_dir', '.', '--tasks', 'wikitext2'],
        'wikitext2: no wikitext2.test.txt in .; it is published: wiki.test.tokens of wikitext-2-v1.zip', id='no data',
    ),
    pytest.param(['--data_dir', '.', '--stride', '513'], '--stride is 513, expected at most n_ctx 512', id='stride'),
    pytest.param(['--data_dir', '.', '--batch_size', '0'], '--batch_size is 0', id='batch size'),
    pytest.param(['--data_dir', '.', 'ptb'], "'ptb' belongs to no flag", id='a word'),
    pytest.param(['--data_dir', '.', '--model_name', '9M'], 'no model 9M', id='unknown model'),
    pytest.param(
        ['--tasks', 'ptb,cbt-ne', '--data_dir', 'DATA'], 'cbtest_NE_valid_2000ex.txt, line 1: no sentence number',
        id='malformed file',
    ),
]  # fmt: skip


@pytest.mark.parametrize(('arguments', 'message'), MISTAKES)
def test_refuses(elsewhere, without_tensorflow, data, arguments, message):
    arguments = [str(data) if argument == 'DATA' else argument for argument in arguments]
    fails_in_one_line(SCRIPT, [*BUNDLED, *arguments], message, elsewhere, without_tensorflow)


def test_help_names_every_flag_and_no_other():
    help_names_every_flag_and_no_other(evaluate.evaluate_model)


def test_a_run_prints_figures_and_recipes_and_says_what_it_skips(first_run):
    out, err, status, _ = first_run
    assert status == 0
    lines = out.splitlines()
    assert lines[2] == '| task | metric | 7M | paper |'
    assert [line.split(' | ')[0] for line in lines[4:17]] == ['| ptb'] * 6 + ['| lambada'] * 7
    assert f'{TASKS["ptb"].recipe}.' in lines and f'{TASKS["lambada"].recipe}.' in lines
    assert err.splitlines()[0].startswith('skipping text8: no text8 in ')
    assert err.splitlines()[0].endswith('it is published: text8 in http://mattmahoney.net/dc/text8.zip')


def test_results_are_saved_with_all_they_depend_on(first_run, data):
    folder = first_run[3] / 'evaluation'
    results = json.loads((folder / '7M.json').read_text())
    assert results['model']['name'] == '7M' and results['model']['hparams']['n_embd'] == 256
    entry = results['tasks']['ptb']
    assert entry['metrics']['words'] == 10 and entry['stride'] == 256 and entry['recipe'] == TASKS['ptb'].recipe
    assert len(entry['files']['ptb.test.txt']) == 64 and entry['versions']['tensorflow']
    report = (folder / '7M.md').read_text()
    assert first_run[0] == report
    has_chart = (folder / '7M.png').exists()
    assert has_chart == (importlib.util.find_spec('matplotlib') is not None)
    assert has_chart or 'no chart without matplotlib' in first_run[1]
    assert not list(folder.glob('*.part'))


def test_what_is_done_is_not_run_again(first_run, data, without_tensorflow):
    out, err, status, folder = first_run
    command = [SCRIPT, *BUNDLED, '--data_dir', data, '--tasks', 'ptb,lambada']
    again, err, status = run(*command, cwd=folder, **without_tensorflow)
    assert (again, status) == (out, 0)
    shown = json.loads(run(*command, '--json', cwd=folder, **without_tensorflow)[0])
    assert shown['tasks'] == json.loads((folder / 'evaluation' / '7M.json').read_text())['tasks']
    for change in (['--stride', '100'], ['--tasks', 'ptb,lambada,cbt-ne']):
        out, err, status = run(*command, *change, cwd=folder, **without_tensorflow)
        assert status == (1 if '--stride' in change else 2), err  # the first goes on to import TensorFlow
        assert set(json.loads((folder / 'evaluation' / '7M.json').read_text())['tasks']) == {'ptb', 'lambada'}


def test_an_interrupted_run_goes_on_with_the_task_it_was_at(first_run, data, tmp_path):
    shutil.copytree(first_run[3] / 'evaluation', tmp_path / 'evaluation')
    path = tmp_path / 'evaluation' / '7M.json'
    results = json.loads(path.read_text())
    whole = results['tasks'].pop('lambada')
    results['tasks']['ptb']['metrics']['words'] = -1  # would be mended if it were run again
    path.write_text(json.dumps(results))
    status = run(SCRIPT, *BUNDLED, '--data_dir', data, '--tasks', 'ptb,lambada', cwd=tmp_path)[2]
    found = json.loads(path.read_text())['tasks']
    assert status == 0
    assert found['ptb']['metrics']['words'] == -1
    assert found['lambada']['metrics'] == pytest.approx(whole['metrics'])


def test_results_of_another_model_are_left_alone(first_run, data, tmp_path, without_tensorflow):
    for folder, content, message in [
        ('other', json.dumps({'model': {'name': '7M'}, 'tasks': {}}), 'holds results of another model of that name'),
        ('broken', 'not json', 'holds no results'),
    ]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / '7M.json').write_text(content)
        arguments = [*BUNDLED, '--data_dir', str(data), '--tasks', 'ptb', '--output_dir', folder]
        fails_in_one_line(SCRIPT, arguments, message, tmp_path, without_tensorflow)
        assert (tmp_path / folder / '7M.json').read_text() == content


def test_missing_packages_are_named_with_their_remedy(monkeypatch):
    monkeypatch.setattr(evaluate.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(evaluate.Error, match=r'cnn-dm needs rouge_score: pip install -r requirements-evaluate.txt'):
        evaluate.check_packages([TASKS['ptb'], TASKS['cnn-dm']])


def test_a_released_model_stands_beside_its_published_figures():
    hparams = {'n_vocab': 50257, 'n_ctx': 1024, 'n_embd': 1024, 'n_head': 16, 'n_layer': 24}
    tasks = {'ptb': {'metrics': {'perplexity': 50.0, 'words': 7}}, 'coqa': {'metrics': {'f1': 20.0}}}
    assert evaluation_report.table({'model': {'name': 'mine', 'hparams': hparams}, 'tasks': tasks}).splitlines() == [
        '| task | metric | mine | paper, 355M |', '|---|---|---|---|', '| ptb | perplexity | 50 | 47.33 |',
        '| ptb | words | 7 | – |', '| coqa | f1 | 20 | – |',
    ]  # fmt: skip


def test_every_published_figure_belongs_to_a_metric_of_a_released_size():
    for task in TASKS.values():
        for figures in task.published.values():
            assert figures and set(figures) <= set(evaluation_report.RELEASED_HPARAMS)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_files_are_fetched_alone_or_out_of_archives(server, tmp_path):
    folder, address = server
    (folder / 'plain').write_text('plain text')
    with zipfile.ZipFile(folder / 'packed.zip', 'w') as packed:
        packed.writestr('inside/text', 'packed text')
    (folder / 'texts').mkdir()
    (folder / 'texts' / 'a').write_text('in a tar file')
    shutil.make_archive(str(folder / 'packed'), 'gztar', folder / 'texts')
    for source, expected in [
        (Source(f'{address}/plain'), 'plain text'),
        (Source(f'{address}/packed.zip', 'inside/text'), 'packed text'),
        (Source(f'{address}/packed.tar.gz', './a'), 'in a tar file'),
    ]:
        fetch(source, str(tmp_path / 'found'))
        assert (tmp_path / 'found').read_text() == expected
        (tmp_path / 'found').unlink()
    for source in (Source(f'{address}/packed.zip', 'outside'), Source(f'{address}/packed.tar.gz', './b')):
        with pytest.raises(DownloadError, match='holds no readable'):
            fetch(source, str(tmp_path / 'found'))
    with pytest.raises(DownloadError):
        fetch(Source(f'{address}/plain', sha256='0' * 64), str(tmp_path / 'other'))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['packed.tar.gz', 'packed.zip', 'served']


def test_an_address_that_fails_leaves_its_task_to_be_skipped(server, tmp_path, capsys):
    folder, address = server
    (folder / 'there').write_text('x')
    sources = {name: Source(f'{address}/{name}') for name in ('there', 'missing')} | {'unknown': Source(note='?')}
    task = evaluate.dataclasses.replace(TASKS['ptb'], files=sources)
    evaluate.fetch_missing(task, str(tmp_path))
    assert (tmp_path / 'there').exists() and not (tmp_path / 'missing').exists()
    assert '404' in capsys.readouterr().err
