"""src/evaluate.py as a user runs it, on data of a few lines."""

import functools
import http.server
import importlib.util
import json
import os
import re
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
    pytest.param(['--data_dir', '.', '--limit', '0'], '--limit is 0, expected at least 1', id='limit'),
    pytest.param(['--data_dir', '.', '--limit', 'few'], "--limit is 'few', expected an integer", id='limit, text'),
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
    assert lines[2] == '| Task | Metric | 7M | Over |'
    assert [line.split(' | ')[0] for line in lines[4:16]] == ['| Penn Treebank'] * 5 + ['| LAMBADA'] * 7
    assert lines[8].endswith(' | 0 | 10 words |') and lines[11].endswith('.00 % | 2 passages |')
    assert not re.search('[{}]|n_embd', out) and '6 layers of width 256 with 8 heads' in out
    assert f'{TASKS["ptb"].recipe}.' in lines and f'{TASKS["lambada"].recipe}.' in lines
    assert err.splitlines()[0].startswith('skipping text8: no text8 in ')
    assert err.splitlines()[0].endswith('it is published: text8 in http://mattmahoney.net/dc/text8.zip')


def test_results_are_saved_with_all_they_depend_on(first_run, data):
    folder = first_run[3] / 'evaluation'
    results = json.loads((folder / '7M.json').read_text())
    assert results['model']['name'] == '7M' and results['model']['hparams']['n_embd'] == 256
    entry = results['tasks']['ptb']
    assert entry['metrics']['words'] == 10 and entry['stride'] == 256 and entry['recipe'] == TASKS['ptb'].recipe
    assert len(entry['files']['ptb.test.txt']) == 64 and entry['versions']['ai-edge-litert']
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
    for change in (['--stride', '100', '--engine', 'tf'], ['--tasks', 'ptb,lambada,cbt-ne']):
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


def test_what_lacks_a_package_is_skipped_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(evaluate.importlib.util, 'find_spec', lambda name: None)
    chosen = [TASKS[name] for name in ('ptb', 'cnn-dm', 'ntrex-en-fr', 'coqa')]
    assert evaluate.able_tasks(chosen, 1024, others=False) == [TASKS['ptb'], TASKS['coqa']]
    remedy = 'cnn-dm, ntrex-en-fr: a package is missing; pip install rouge-score sacrebleu'
    assert capsys.readouterr().err == f'skipping {remedy}\n'
    with pytest.raises(evaluate.Error, match=f'^nothing to evaluate; {remedy}$'):
        evaluate.able_tasks(chosen[1:3], 1024, others=False)
    assert evaluate.able_tasks(chosen[1:3], 1024, others=True) == []


def test_what_a_window_has_no_room_for_is_skipped(capsys):
    chosen = [TASKS[name] for name in ('coqa', 'ptb', 'nq')]
    assert evaluate.able_tasks(chosen, 63, others=False) == [TASKS['ptb']]
    assert capsys.readouterr().err.startswith('skipping coqa, nq: n_ctx 63 is too small to draw up to 32 tokens')
    assert evaluate.able_tasks(chosen, 64, others=False) == chosen


def test_many_tasks_without_files_are_one_line(data, capsys):
    present = evaluate.present_tasks(list(TASKS.values()), str(data), download=False)
    assert [task.name for task in present] == ['lambada', 'cbt-ne', 'ptb']
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('skipping lambada-plain, cbt-cn, wikitext2, ') and '--download' in line
    assert os.path.isfile(re.search(r'; (\S+) says where they are published', line).group(1))
    with pytest.raises(evaluate.UsageError, match='nothing to evaluate; coqa, nq: not all of their files are in '):
        evaluate.present_tasks([TASKS['coqa'], TASKS['nq']], str(data), download=False)


def test_a_limited_run_is_marked_and_kept_apart(first_run, data, tmp_path, without_tensorflow):
    shutil.copytree(first_run[3] / 'evaluation', tmp_path / 'evaluation')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'evaluation').iterdir()}
    command = [SCRIPT, *BUNDLED, '--data_dir', data, '--tasks', 'lambada', '--limit', '1']
    out, err, status = run(*command, cwd=tmp_path)
    assert status == 0, err
    assert out.startswith('# 7M: zero-shot evaluation, a quick look at the first item of each task\n')
    table = [line for line in out.splitlines() if line.startswith('| LAMBADA')]
    assert len(table) == 7 and all(line.endswith(' | first passage |') for line in table)
    assert {name: (tmp_path / 'evaluation' / name).read_bytes() for name in before} == before
    shown = json.loads(run(*command, '--json', cwd=tmp_path, **without_tensorflow)[0])  # which is not run again
    assert shown == json.loads((tmp_path / 'evaluation' / '7M-first-1.json').read_text())
    assert shown['limit'] == shown['tasks']['lambada']['limit'] == shown['tasks']['lambada']['metrics']['passages'] == 1
    # Not taken for a full result, even where the one lies in the place of the other.
    path = tmp_path / 'evaluation' / '7M.json'
    path.write_text(json.dumps({name: value for name, value in shown.items() if name != 'limit'}))
    status = run(*command[:-2], '--engine', 'tf', cwd=tmp_path, **without_tensorflow)[2]
    assert status == 1  # goes on to import TensorFlow


def test_results_of_int8_are_kept_apart(first_run, data, tmp_path):
    shutil.copytree(first_run[3] / 'evaluation', tmp_path / 'evaluation')
    before = (tmp_path / 'evaluation' / '7M.json').read_bytes()
    command = [SCRIPT, *BUNDLED, '--data_dir', data, '--tasks', 'lambada', '--precision', 'int8']
    out, err, status = run(*command, cwd=tmp_path)
    assert status == 0, err
    assert (tmp_path / 'evaluation' / '7M.json').read_bytes() == before
    found = json.loads((tmp_path / 'evaluation' / '7M-int8.json').read_text())
    assert found['model']['precision'] == 'int8' and out.startswith('# 7M, int8: ')
    metrics = [results['tasks']['lambada']['metrics']['perplexity_word'] for results in (found, json.loads(before))]
    assert metrics[0] == pytest.approx(metrics[1], rel=0.2) and metrics[0] != metrics[1]


def test_the_chart_marks_a_limit(first_run):
    pytest.importorskip('matplotlib')
    results = json.loads((first_run[3] / 'evaluation' / '7M.json').read_text())
    for limit, expected in [({}, '7M, 2 passages'), ({'limit': 2}, '7M, first 2 passages')]:
        results['tasks']['lambada'] |= limit
        figure = evaluation_report.draw({**results, 'tasks': {'lambada': results['tasks']['lambada']}})
        legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
        assert len(legends) == 6 and all(legend == ['paper', expected] for legend in legends)


def test_a_released_model_stands_beside_its_published_figures():
    hparams = {'n_vocab': 50257, 'n_ctx': 1024, 'n_embd': 1024, 'n_head': 16, 'n_layer': 24}
    tasks = {'ptb': {'metrics': {'perplexity': 50.0, 'words': 7}}, 'coqa': {'metrics': {'f1': 20.0, 'questions': 3}}}
    assert evaluation_report.table({'model': {'name': 'mine', 'hparams': hparams}, 'tasks': tasks}).splitlines() == [
        '| Task | Metric | mine | Over | Paper, 355M |', '| --- | --- | ---: | --- | ---: |',
        '| Penn Treebank | perplexity a word | 50.00 | 7 words | 47.33 |', '| CoQA | F1 | 20.00 | 3 questions | – |',
    ]  # fmt: skip


def test_figures_have_their_unit_and_say_what_they_are_over():
    hparams = {'n_vocab': 50257, 'n_ctx': 1024, 'n_embd': 1600, 'n_head': 25, 'n_layer': 48}
    tasks = {
        'lambada': {'metrics': {'accuracy_word': 52.661, 'passages': 5153}, 'items': 5153},
        'wmt14-en-fr': {'metrics': {'bleu': 1.0, 'sentences': 3}, 'items': 3, 'limit': 3},
        'coqa': {'metrics': {'f1': 20.0, 'questions': 1234}, 'items': 2, 'limit': 2},
        'ptb': {'metrics': {'perplexity': None, 'words': 1}, 'items': 1, 'limit': 1},
        '1bw': {'metrics': {'perplexity': 42.0, 'words': 9000}, 'items': 1000},
        'enwik8': {'metrics': {'bits_per_byte': 0.931}, 'items': 5000},
    }  # fmt: skip
    found = evaluation_report.table({'model': {'name': 'XL', 'hparams': hparams}, 'tasks': tasks}).splitlines()[2:]
    assert found == [
        '| LAMBADA | accuracy, whole word | 52.66 % | 5,153 passages | 52.66 % |',
        '| WMT-14, English to French | BLEU | 1.00 | first 3 sentences | 5.0 |',
        '| CoQA | F1 | 20.00 | first 2 conversations: 1,234 questions | 55.0 |',
        '| Penn Treebank | perplexity a word | – | first line: 1 word | 35.76 |',
        '| One Billion Words | perplexity a word | 42.00 | 9,000 words | 42.16 |',
        '| enwik8 | bits a byte | 0.93 | 5,000 kilobytes | 0.93 |',
    ]


def test_every_metric_of_the_paper_has_a_name():
    metrics = {metric for task in TASKS.values() for metric in task.published}
    assert metrics <= {'accuracy', *evaluation_report.NAMES}


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
