import json

import pytest
from running import help_names_every_flag_and_no_other

from gpt2.commands.overlap import measure_overlap
from gpt2.errors import UsageError
from gpt2.training.data import DatasetError

LINE = 'One two three four five six seven eight nine ten.'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'test.txt').write_text(LINE)  # three 8-grams
    (tmp_path / 'short.txt').write_text('Too short.')
    (tmp_path / 'all.jsonl').write_text(json.dumps({'text': f'before {LINE.lower()} after'}))
    (tmp_path / 'some').mkdir()
    (tmp_path / 'some' / 'a.txt').write_text('one, two; THREE four -- five six seven eight!')
    return tmp_path


def test_the_table_of_the_paper(folder, capsys):
    measure_overlap('test.txt', 'short.txt', corpus=['all.jsonl', 'some'])
    assert capsys.readouterr().out == (
        '| 8-grams also in | test.txt | short.txt |\n'
        '| --- | ---: | ---: |\n'
        '| all.jsonl | 100.00 % | – |\n'
        '| some | 33.33 % | – |\n'
    )


def test_objects_and_another_n(folder, capsys):
    measure_overlap('test.txt', corpus='some', n='2', json=True)
    assert json.loads(capsys.readouterr().out) == {
        'corpus': 'some', 'test_set': 'test.txt', 'shared': 7, 'n_grams': 9
    }  # fmt: skip


def test_wrong_use(folder):
    with pytest.raises(UsageError, match='--corpus'):
        measure_overlap('test.txt')
    with pytest.raises(UsageError, match='--rate is'):
        measure_overlap('test.txt', corpus='some', rate='1')
    with pytest.raises(DatasetError, match='no text file at nowhere'):
        measure_overlap('test.txt', corpus='nowhere')


def test_the_help_names_every_flag():
    help_names_every_flag_and_no_other(measure_overlap)
