import gzip
import json
import os

import pytest

pytest.importorskip('datatrove')
import zstandard

from gpt2.preparation import links
from gpt2.preparation.blocks import matching, statistics
from gpt2.preparation.links import Submissions, lines

SUBMISSIONS = [
    {'url': 'http://a.example/?x=1&amp;y=2', 'score': 3, 'created_utc': '1500000000'},
    {'url': 'http://a.example/low', 'score': 2, 'created_utc': 1500000000},
    {'url': 'http://a.example/late', 'score': 9, 'created_utc': 1600000000},
    {'url': '/r/self', 'score': 9, 'created_utc': 1500000000},
    {'url': 'https://de.wikipedia.org/wiki/A', 'score': 9, 'created_utc': 1500000000},
    {'url': 'https://imgur.com/a', 'score': 9, 'created_utc': 1500000000},
    {'url': 'https://a.example/a.png', 'score': 9, 'created_utc': 1500000000},
    {'title': 'no link', 'score': 9, 'created_utc': 1500000000},
    {'url': 5, 'score': 9, 'created_utc': 1500000000},
    {'url': 'http://a.example/', 'score': None, 'created_utc': 1500000000},
    ['a list'],
]
CONTENT = b'\n'.join([json.dumps(each).encode() for each in SUBMISSIONS] + [b'{broken', b'[' * 10**5, b'', b''])


def submissions(folder):
    return Submissions(sorted(matching(str(folder), Submissions.suffixes)), 3, 1514764800.0, frozenset())


def read(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    block = submissions(tmp_path)
    return block, list(block.run())


@pytest.mark.parametrize(
    ('name', 'pack'),
    [('a.jsonl', bytes), ('a.gz', gzip.compress), ('a.zst', zstandard.ZstdCompressor(level=1).compress)],
)
def test_links_that_count_are_read_and_the_others_counted(tmp_path, name, pack):
    block, found = read(tmp_path, name, pack(CONTENT))
    assert [document.text for document in found] == ['http://a.example/?x=1&y=2']
    assert found[0].metadata == {'domain': 'a.example', 'score': 3, 'created': 1500000000.0}
    counted = {label: block.stats[label].total for label in block.stats.stats}
    assert counted == {
        'total': 13, 'forwarded': 1, 'dropped_score too low': 1, 'dropped_too late': 1, 'dropped_no web address': 1,
        'dropped_Wikipedia': 1, 'dropped_blocked domain': 1, 'dropped_file type': 1, 'dropped_no link': 4,
        'dropped_no JSON': 2,
    }  # fmt: skip


def test_dumps_that_look_back_far_are_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = packed.compress(CONTENT) + packed.flush()
    _, found = read(tmp_path, 'RS_2017-01.zst', content)
    assert len(found) == 1


@pytest.mark.parametrize(('name', 'pack'), [('a.gz', gzip.compress), ('a.zst', zstandard.compress)])
def test_a_damaged_file_is_counted_and_the_next_is_read(tmp_path, name, pack):
    content = b'\n'.join(json.dumps({**SUBMISSIONS[0], 'n': n}).encode() for n in range(5000))
    packed = bytearray(pack(content))
    middle = len(packed) // 2
    packed[middle : middle + 100] = b'\xff' * 100
    (tmp_path / name).write_bytes(packed)
    block, found = read(tmp_path, 'z.jsonl', CONTENT)
    assert found[-1].text == 'http://a.example/?x=1&y=2'
    assert block.stats['dropped_damaged file'].total == 1


def start_of_zst(content):
    """All of a content, but not the end of its frame."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(content) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


@pytest.mark.parametrize(
    ('name', 'start'), [('a.gz', lambda content: gzip.compress(content)[:-8]), ('a.zst', start_of_zst)]
)
def test_a_file_that_is_cut_is_counted_and_what_is_there_is_read(tmp_path, name, start):
    """Also where it is cut right after a line."""
    whole = b''.join(json.dumps({**SUBMISSIONS[0], 'n': n}).encode() + b'\n' for n in range(3))
    (tmp_path / name).write_bytes(start(whole))
    found = list(lines(str(tmp_path / name)))
    assert (b''.join(found[:-1]), found[-1]) == (whole, 'damaged file')


def test_a_line_without_an_end_is_left_out_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(links, 'LONGEST_LINE', 1000)
    path = tmp_path / 'a.jsonl'
    path.write_bytes(b'{"a": 1}\n' + b'x' * 5500 + b'\n{"b": 2}\n' + b'y' * 1000 + b'\n')
    assert list(lines(str(path))) == [b'{"a": 1}\n', 'line too long', b'{"b": 2}\n', 'line too long']


@pytest.mark.parametrize(
    'fields', [{'url': []}, {'url': {}}, {'score': 10**30}, {'created_utc': float('nan')}, {'created_utc': 'Infinity'}]
)
def test_fields_that_are_none_cost_one_line(tmp_path, fields):
    good = SUBMISSIONS[0]
    block, found = read(tmp_path, 'a.jsonl', f'{json.dumps(good | fields)}\n{json.dumps(good)}\n'.encode())
    assert len(found) == 1
    assert block.stats['dropped_no link'].total == 1


def test_an_error_of_one_line_is_counted_and_one_of_the_disk_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(links, 'domain_of', lambda address: {}[address])
    block, found = read(tmp_path, 'a.jsonl', CONTENT)
    assert (found, block.stats['dropped_unexpected content (KeyError)'].total) == ([], 1)
    monkeypatch.setattr(links, 'domain_of', lambda address: open('/nowhere/at/all'))
    with pytest.raises(OSError, match='nowhere'):
        read(tmp_path, 'a.jsonl', CONTENT)


def test_what_is_no_file_is_counted(tmp_path):
    (tmp_path / 'gone.jsonl').symlink_to('/nowhere/at/all')
    os.mkfifo(tmp_path / 'pipe.jsonl')
    block, found = read(tmp_path, 'z.jsonl', CONTENT)
    assert (len(found), block.stats['dropped_unreadable file'].total) == (1, 2)


def test_tasks_share_the_files(tmp_path):
    for name in 'abc':
        (tmp_path / f'{name}.jsonl').write_bytes(CONTENT)
    block = submissions(tmp_path)
    assert [len(list(block.run(rank=rank, world_size=2))) for rank in range(2)] == [2, 1]


def test_counts_of_all_tasks_are_added(tmp_path):
    (tmp_path / 'stats').mkdir()
    for rank, count in enumerate((1, {'total': 5, 'mean': 2.5})):
        blocks = [{'name': 'reader: submissions', 'stats': {'dropped_x': count}}]
        (tmp_path / 'stats' / f'{rank:05d}.json').write_text(json.dumps(blocks))
    assert statistics(str(tmp_path)) == {'submissions': {'dropped_x': 6}}
