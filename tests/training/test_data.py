import gzip
import itertools
import json
import os
import random
import sys

import pytest

from gpt2.errors import UsageError
from gpt2.training import data
from gpt2.training.data import DatasetError, Reading, documents, find_files, pieces


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'deep').mkdir()
    for name in ('a.txt', 'b.txt', 'notes.md', 'deep/c.txt'):
        (tmp_path / name).write_text(f'Text of {name}. ' * 3, encoding='utf-8')
    return tmp_path


@pytest.mark.parametrize(
    ('patterns', 'expected'),
    [
        (['.'], ['a.txt', 'b.txt', 'deep/c.txt']),
        (['notes.md'], ['notes.md']),
        (['*.txt', 'a.txt'], ['a.txt', 'b.txt']),
        (['deep', 'b.txt'], ['b.txt', 'deep/c.txt']),
    ],
)
def test_files_folders_and_globs(folder, monkeypatch, patterns, expected):
    monkeypatch.chdir(folder)
    assert [path.removeprefix('./') for path in find_files(patterns)] == expected


def test_a_pattern_without_files_is_refused(folder):
    with pytest.raises(DatasetError, match=r'no text file at .*\.rtf'):
        find_files([f'{folder}/a.txt', f'{folder}/*.rtf'])


def test_files_of_every_kind_are_found_in_a_folder(tmp_path):
    names = [f'a{kind}{end}' for kind in ('.txt', '.jsonl', '.csv', '.parquet') for end in ('', '.gz', '.zst')]
    for name in [*names, 'a.py', 'a.gz', 'b.py.gz', 'README']:
        (tmp_path / name).write_text('x')
    assert find_files([str(tmp_path)]) == sorted(str(tmp_path / name) for name in names)
    code = find_files([str(tmp_path)], ['.py', 'README'])
    assert code == sorted(str(tmp_path / name) for name in ('a.py', 'b.py.gz', 'README'))


@pytest.mark.parametrize('name', ['a[1].txt', 'what?.txt', '*.txt', '$HOME.txt', '~', 'a:1', 'naïve 漢.txt', '-x'])
def test_a_file_that_is_there_is_that_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text('x')
    (tmp_path / 'other.txt').write_text('x')
    assert find_files([name]) == [name]


def test_a_file_that_is_called_as_standard_input_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / '-').write_text('x')
    [path] = find_files(['-'])
    assert read(path) == ['x']


@pytest.mark.parametrize('name', ['link.txt', 'pipe.txt', 'pointer.txt'])
def test_what_is_no_file_of_text_is_one_line(tmp_path, name):
    path = tmp_path / name
    if name == 'link.txt':
        path.symlink_to(tmp_path / 'nothing')
    elif name == 'pipe.txt':
        os.mkfifo(path)
    else:
        path.write_text('version https://git-lfs.github.com/spec/v1\n')
    for pattern in ('', '*.txt'):
        with pytest.raises(DatasetError, match=rf'{name} cannot be read \(') as caught:
            find_files([str(tmp_path / pattern)])
        assert '\n' not in str(caught.value)


def test_a_file_is_one_document_by_whatever_way_it_is_reached(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / 'deep' / 'up').symlink_to('..')
    (folder / 'again.txt').symlink_to('a.txt')
    assert find_files(['a.txt', './a.txt', str(folder / 'a.txt'), 'again.txt']) == ['./a.txt']
    assert len(find_files(['**'])) == 4


def test_names_in_capitals_are_of_the_same_kind(tmp_path):
    (tmp_path / 'A.JSONL.GZ').write_bytes(gzip.compress(b'{"text": "a"}'))
    [path] = find_files([str(tmp_path)])
    assert read(path) == ['a']


def test_a_folder_whose_name_is_a_pattern_is_that_folder(tmp_path):
    (tmp_path / 'run[2]').mkdir()
    (tmp_path / 'run[2]' / 'a.txt').write_text('x')
    assert find_files([str(tmp_path / 'run[2]')]) == [str(tmp_path / 'run[2]' / 'a.txt')]


def pieces_of(path, **reading):
    with open(path, 'rb') as raw:
        return list(pieces(str(path), Reading(**reading), raw))


def read(path, **reading):
    return list(documents(str(path), Reading(**reading)))


@pytest.mark.parametrize(
    ('content', 'expected'),
    [
        ('one', ['one']),
        ('one<|endoftext|>two\n', ['one', 'two\n']),
        ('<|endoftext|>one<|endoftext|>\n<|endoftext|>two<|endoftext|>', ['one', 'two']),
        ('', []),
        (' \n', []),
        ('<|endoftext|', ['<|endoftext|']),
    ],
)
def test_plain_text_is_divided_by_the_end_of_text(tmp_path, content, expected):
    (tmp_path / 'a.txt').write_text(content)
    assert read(tmp_path / 'a.txt') == expected


def test_long_documents_come_in_pieces_that_end_before_white_space(tmp_path, monkeypatch):
    monkeypatch.setattr(data, 'PIECE', 50)
    monkeypatch.setattr(data.text, 'READ_BYTES', 10)
    words = [f'word{number}' for number in range(100)]
    content = ' '.join(words) + '<|endoftext|>' + '  \n'.join(words)
    (tmp_path / 'a.txt').write_text(content)
    found = pieces_of(tmp_path / 'a.txt')
    assert ''.join(piece.text + '<|endoftext|>' * piece.ends for piece in found) == content + '<|endoftext|>'
    assert len(found) > 15
    for piece, following in itertools.pairwise(found):
        assert piece.ends or (not piece.text[-1].isspace() and following.text[0].isspace())


def test_text_without_white_space_is_cut_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(data, 'PIECE', 50)
    monkeypatch.setattr(data, 'LONGEST', 200)
    monkeypatch.setattr(data.text, 'READ_BYTES', 10)
    (tmp_path / 'a.txt').write_text('x' * 1000)
    found = pieces_of(tmp_path / 'a.txt')
    assert max(len(piece.text) for piece in found) <= 250 and ''.join(piece.text for piece in found) == 'x' * 1000


RECORDS = [
    ({'text': 'A'}, [('A', True)]),
    ({'text': 'A', 'prompt': 'B', 'completion': 'C'}, [('A', True)]),
    ({'prompt': 'Q', 'completion': 'A'}, [('Q', False), ('A', True)]),
    ({'prompt': '', 'completion': 'A'}, [('A', True)]),
    (
        {'messages': [{'role': 'user', 'content': 'Q'}, {'role': 'assistant', 'content': 'A'}]},
        [('User:', False), (' Q', False), ('\n\nAssistant:', False), (' A', True)],
    ),
    ({'messages': [{'role': 'Assistant', 'content': 'A'}]}, [('Assistant:', False), (' A', True)]),
]


@pytest.mark.parametrize(('record', 'parts'), RECORDS)
def test_records_of_json_lines(tmp_path, record, parts):
    path = tmp_path / 'a.jsonl'
    path.write_text('\n' + json.dumps(record) + '\n\n' + json.dumps({'text': 'next'}) + '\n')
    found = [(*piece[:2], piece.ends) for piece in pieces_of(path)]
    expected = [(*part, place == len(parts)) for place, part in enumerate(parts, start=1)]
    assert found == [*expected, ('next', True, True)]


def test_prompts_are_trained_on_when_asked_for(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text(json.dumps({'prompt': 'Q', 'completion': 'A'}))
    assert all(piece.trained for piece in pieces_of(path, train_on_prompt=True))


def test_a_field_by_name(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"body": "A", "text": "B"}')
    (tmp_path / 'a.csv').write_text('id,body\n1,A\n')
    assert read(tmp_path / 'a.jsonl', text_field='body') == read(tmp_path / 'a.csv', text_field='body') == ['A']


def test_csv_with_quotes_line_ends_and_a_byte_order_mark(tmp_path):
    (tmp_path / 'a.csv').write_bytes(b'\xef\xbb\xbftext,id\r\n"one, ""two""\r\nthree",1\r\nfour,2\r\n')
    assert read(tmp_path / 'a.csv') == ['one, "two"\nthree', 'four']


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    texts = [f'document {number}' for number in range(600)]
    parquet.write_table(pyarrow.table({'text': texts, 'id': list(range(600))}), tmp_path / 'a.parquet')
    (tmp_path / 'b.parquet.gz').write_bytes(gzip.compress((tmp_path / 'a.parquet').read_bytes()))
    assert read(tmp_path / 'a.parquet') == read(tmp_path / 'b.parquet.gz') == texts
    (tmp_path / 'c.parquet').write_bytes(b'PAR1 nonsense')
    with pytest.raises(DatasetError, match=r'c\.parquet cannot be read'):
        read(tmp_path / 'c.parquet')


def test_of_parquet_only_what_is_read_must_be_of_values_that_python_has(tmp_path):
    pyarrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    when = pyarrow.array([1_000_000_001], pyarrow.timestamp('ns'))
    parquet.write_table(pyarrow.table({'text': ['a'], 'when': when}), tmp_path / 'a.parquet')
    assert read(tmp_path / 'a.parquet') == ['a']
    with pytest.raises(DatasetError, match=r'a\.parquet: the field body is not there'):
        read(tmp_path / 'a.parquet', text_field='body')
    letters = [None, pyarrow.py_buffer(b'\0\0\0\0\3\0\0\0'), pyarrow.py_buffer(b'\xff\xfe\xfd')]
    bad = pyarrow.Array.from_buffers(pyarrow.string(), 1, letters)
    parquet.write_table(pyarrow.table({'text': bad}), tmp_path / 'b.parquet')
    with pytest.raises(DatasetError, match=r'b\.parquet cannot be read'):
        read(tmp_path / 'b.parquet')


def test_zstandard_that_is_cut_is_refused_wherever(tmp_path):
    zstandard = pytest.importorskip('zstandard')
    content = zstandard.compress(b'one') + zstandard.compress(bytes(random.Random(0).choices(b'abc d', k=20_000)))
    (tmp_path / 'a.txt.zst').write_bytes(content)
    assert len(read(tmp_path / 'a.txt.zst')) == 1
    for size in (len(content) // 2, len(content) - 1, 20):
        (tmp_path / 'a.txt.zst').write_bytes(content[:size])
        with pytest.raises(DatasetError, match=r'a\.txt\.zst cannot be read .*cut or damaged'):
            read(tmp_path / 'a.txt.zst')


def test_zstandard_of_a_long_window(tmp_path):
    zstandard = pytest.importorskip('zstandard')
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / 'a.txt.zst').write_bytes(writer.compress(b'some text') + writer.flush())
    assert read(tmp_path / 'a.txt.zst') == ['some text']


def test_compressed_files(tmp_path):
    zstandard = pytest.importorskip('zstandard')
    content = ('naïve text. ' * 5000 + '\r\n').encode()
    (tmp_path / 'a.txt.gz').write_bytes(gzip.compress(content))
    frames = zstandard.compress(content[:100]) + zstandard.compress(content[100:])
    (tmp_path / 'a.txt.zst').write_bytes(frames)
    expected = [content.decode().replace('\r\n', '\n')]
    assert read(tmp_path / 'a.txt.gz') == read(tmp_path / 'a.txt.zst') == expected


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.txt', b'abc\xff', r'a\.txt is not UTF-8 at byte 3'),
        ('a.jsonl', b'{"text": "a"}\n{"text": ', r'a\.jsonl, line 2 is no JSON'),
        ('a.jsonl', b'{"body": "a"}', r'line 1 has no text.*--text_field'),
        ('a.jsonl', b'["a"]', 'line 1 has no text'),
        ('a.jsonl', b'{"text": 3}', 'line 1: the field text is int, not text'),
        ('a.jsonl', b'{"messages": "x"}', 'line 1: messages is no list'),
        ('a.jsonl', b'{"messages": [{"role": "user"}]}', 'the field content is not there'),
        ('a.jsonl', b'[' * 100_000, 'line 1 is no JSON'),
        ('a.csv', b'id,body\n1,x\n', 'line 2 has no text'),
        ('a.txt.gz', b'no gzip', r'a\.txt\.gz cannot be read'),
        ('a.txt.gz', gzip.compress(b'some text' * 1000, mtime=0)[:-20], r'a\.txt\.gz cannot be read'),
        ('a.txt.gz', gzip.compress(b'abc\xff', mtime=0), r'a\.txt\.gz is not UTF-8 at byte 3'),
        ('a.txt.zst', b'no zst', r'a\.txt\.zst cannot be read'),
        ('a.parquet.zst', b'no zst', r'a\.parquet\.zst cannot be read'),
        ('a.parquet.gz', b'no gzip', r'a\.parquet\.gz cannot be read'),
        ('a.csv', b'text,id\n"a,2\nx,3\n', r'a\.csv, line 3 is no CSV'),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, message):
    if name.endswith('.zst'):
        pytest.importorskip('zstandard')
    if '.parquet' in name:
        pytest.importorskip('pyarrow')
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DatasetError, UsageError), match=message) as caught:
        read(tmp_path / name)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('name', 'package'), [('a.txt.zst', 'zstandard'), ('a.parquet', 'pyarrow')])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f'{package}.parquet', None)
    (tmp_path / name).write_text('x')
    with pytest.raises(DatasetError, match=f'pip install {package}'):
        read(tmp_path / name)
