"""Texts of people and machines: files as the release has them, what is amiss with others."""

import json

import pytest
from misbehaving_server import MisbehavingServer
from reading_engine import write_records

from gpt2.detection import texts
from gpt2.detection.texts import SPLITS, download_texts, named, read_both, read_records, read_side
from gpt2.errors import UsageError
from gpt2.system.download import DownloadError


def of(name, count=30):
    return [f'{name} {number} said so.' for number in range(count)]


def test_the_files_of_the_release_are_taken_as_they_are(tmp_path):
    for split in SPLITS:
        write_records(tmp_path / f'small-117M.{split}.jsonl', of(split))
    found, sampled = read_side(str(tmp_path / 'small-117M.train.jsonl'), limit=20)
    assert (sorted(found.train), found.valid, found.test) == (sorted(of('train', 20)), of('valid'), of('test'))
    assert not sampled


def test_where_there_is_no_other_file_a_tenth_each_is_held_back_and_always_the_same(tmp_path):
    path = str(write_records(tmp_path / 'all.jsonl', of('Somebody')))
    found, again = read_side(path), read_side(path)
    assert found == again and [len(part) for part in found[0]] == [24, 3, 3]
    assert sorted([*found[0].train, *found[0].valid, *found[0].test]) == sorted(of('Somebody'))
    write_records(tmp_path / 'some.train.jsonl', of('Somebody'))
    write_records(tmp_path / 'some.test.jsonl', of('Test'))
    found, _ = read_side(str(tmp_path / 'some.train.jsonl'))
    assert [len(part) for part in found] == [27, 3, 30] and found.test == of('Test')


def test_a_text_that_comes_again_and_one_of_white_space_are_left_out(tmp_path):
    write_records(tmp_path / 'a.train.jsonl', [*of('Again'), *of('Again'), ' \n'])
    for split in SPLITS[1:]:
        write_records(tmp_path / f'a.{split}.jsonl', [*of('Again'), split, split])
    found, _ = read_side(str(tmp_path / 'a.train.jsonl'))
    assert (len(found.train), found.valid, found.test) == (30, ['valid'], ['test'])


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('data/small-117M-k40.train.jsonl', ('small-117M-k40', 'train')), ('x.jsonl', ('x', '')),
        ('v1.0/a.b.jsonl', ('a.b', '')), ('train.jsonl', ('train', '')), ('a.valid.jsonl', ('a', 'valid')),
    ],
)  # fmt: skip
def test_what_files_are_called(path, name):
    assert named(path) == name


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'holds no text; give a file of JSON lines'),
        (b'{"text": " "}\n', 'holds no text'),
        (b'{"text": "one line only"}\n', 'holds 1 different texts, expected 10 or more; give more'),
        (b'{"text": "caf\xe9"}\n', 'is not UTF-8 at byte 13; convert it to UTF-8'),
        (b'Once upon a time\n', 'line 1 is no JSON'),
        (b'{"text": "a"}\n["b"]\n', 'line 2 has no text; expected an object such as'),
        (b'{"text": "a"}\n\n{"prompt": "b"}\n', 'line 3 has no text'),
        (b'{"text": ["a"]}\n', 'line 1: text is list, expected a string'),
        (b'[' * 10**5, 'line 1 is no JSON'),
    ],
)  # fmt: skip
def test_what_is_no_file_of_texts_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / 'texts.jsonl'
    path.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        read_side(str(path))
    assert str(raised.value).startswith(f'{path}') and message in str(raised.value)
    assert '\n' not in str(raised.value)


def test_a_test_that_training_has_whole_is_refused(tmp_path):
    for split in SPLITS:
        write_records(tmp_path / f'a.{split}.jsonl', of('Somebody'))
    with pytest.raises(UsageError, match=r'every text of .*a.valid.jsonl is in another file of .*a.train.jsonl too'):
        read_side(str(tmp_path / 'a.train.jsonl'))


def test_a_limit_reads_no_further(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"text": "a"}\n{"text": "b"}\nbroken')
    assert read_records(str(tmp_path / 'a.jsonl'), 2).texts == ['a', 'b']


@pytest.mark.parametrize(
    ('human', 'machine', 'message'),
    [
        ('small-117M.train.jsonl', 'webtext.train.jsonl', 'small-117M.train.jsonl is called after a model'),
        ('7M-k40.train.jsonl', 'books.jsonl', '7M-k40.train.jsonl is called after a model'),
        ('books.jsonl', 'webtext.jsonl', 'webtext.jsonl is called webtext, which people wrote'),
        ('drawn.jsonl', 'books.jsonl', 'drawn.jsonl holds samples with their seeds'),
    ],
)
def test_files_that_look_exchanged_are_refused_unless_forced(tmp_path, human, machine, message):
    fields = {'prompt': '', 'seed': 1, 'sample': 1, 'finish_reason': 'length'} if human == 'drawn.jsonl' else {}
    paths = str(write_records(tmp_path / human, of('A'), **fields)), str(write_records(tmp_path / machine, of('B')))
    with pytest.raises(UsageError) as raised:
        read_both(*paths, '7M')
    assert message in str(raised.value) and str(raised.value).endswith('exchange them, or give --force')
    people, machines = read_both(*paths, '7M', force=True)
    assert (people.train[0][0], machines.train[0][0]) == ('A', 'B')
    assert read_both(*reversed(paths), '9M')[0].train[0][0] == 'B'


def test_the_same_file_twice_or_under_two_names_is_refused(tmp_path):
    path = write_records(tmp_path / 'a.jsonl', of('A'))
    copy = write_records(tmp_path / 'b.jsonl', of('A'))
    (tmp_path / 'link.jsonl').symlink_to(path)
    for other, message in [(path, 'are both'), (tmp_path / 'link.jsonl', 'are both'), (copy, '24 texts are in both')]:
        with pytest.raises(UsageError, match=message):
            read_both(str(path), str(other), '7M', force=True)


def test_downloaded_are_the_six_files_also_from_a_server_that_breaks(tmp_path, monkeypatch):
    files = {
        f'/v1/{name}.{split}.jsonl': json.dumps({'text': f'{name} {split}' * 50}).encode()
        for name in ('webtext', 'xl-1542M') for split in SPLITS
    }  # fmt: skip
    with MisbehavingServer(files) as server:
        server.faults['/v1/xl-1542M.train.jsonl'] = ['break']
        found = download_texts('xl-1542M', str(tmp_path), f'{server.url}/v1')
        assert [named(path) for path in found] == [('webtext', 'train'), ('xl-1542M', 'train')]
        assert {f'/v1/{path.name}': path.read_bytes() for path in tmp_path.iterdir()} == files
        count = len(server.requests)
        download_texts('xl-1542M', str(tmp_path), f'{server.url}/v1')
        assert len(server.requests) == count == 7
        with pytest.raises(DownloadError, match=r'small-117M.train.jsonl: the server answers 404'):
            download_texts('small-117M', str(tmp_path), f'{server.url}/v1')
        monkeypatch.setattr(texts, 'LARGEST', 100)
        (tmp_path / 'webtext.test.jsonl').unlink()
        with pytest.raises(DownloadError, match=r'webtext.test.jsonl is longer than 100 bytes, and was not kept'):
            download_texts('xl-1542M', str(tmp_path), f'{server.url}/v1')


def test_published_figures_are_of_files_that_can_be_fetched():
    assert len(texts.PUBLISHED) == 8 and all(74 < figure < 97 for figure in texts.PUBLISHED.values())
    assert all(texts.PUBLISHED[f'{name}-k40'] > texts.PUBLISHED[name] for name in list(texts.PUBLISHED)[:4])
