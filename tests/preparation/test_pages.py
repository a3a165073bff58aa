import codecs
import gzip
import io
import os
import zlib

import pytest

pytest.importorskip('datatrove')
from example_pages import pages, write_warc

from gpt2.preparation import pages as preparation_pages
from gpt2.preparation.blocks import matching
from gpt2.preparation.pages import HEADERS, WEB, Folder, Warcs, decoded, document, records

SIZE = 10**6


def read(path, size=SIZE, links=None):
    block = Warcs((str(path),), links, size, frozenset())
    found = list(block.run())
    counted = {name: block.stats[name].total for name in block.stats.stats}
    return [each.text for each in found], counted


def record(body, headers='Content-Type: text/html', status='200 OK', address='http://a.example/', length=None):
    payload = f'HTTP/1.1 {status}\r\n{headers}\r\n\r\n'.encode() + body
    length = len(payload) if length is None else length
    head = f'WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {address}\r\nContent-Length: {length}\r\n\r\n'
    return head.encode() + payload + b'\r\n\r\n'


@pytest.fixture(scope='module')
def found():
    return [page for page in pages(24) if page.kind != 'wikipedia']


@pytest.mark.parametrize('name', ['a.warc', 'a.warc.gz'])
def test_pages_are_read_as_they_were_written(tmp_path, found, name):
    write_warc(tmp_path / name, found)
    texts, counted = read(tmp_path / name)
    assert texts == [page.markup for page in found]
    assert counted == {'total': 23, 'forwarded': 23}


@pytest.mark.parametrize('broken', [(0,), (5, 6), (23,), (0, 5, 6, 20, 23)])
def test_a_broken_record_takes_no_other_with_it(tmp_path, found, broken):
    write_warc(tmp_path / 'a.warc.gz', found, broken)
    texts, counted = read(tmp_path / 'a.warc.gz')
    assert texts == [page.markup for page in found if page.number not in broken]
    gaps = sum(number - 1 not in broken for number in broken)  # neighbours count once
    assert counted['dropped_broken record'] == gaps


@pytest.mark.parametrize('damage', [b'', b'\0\0\0\0', b'WARX'])
def test_a_damaged_start_costs_one_record(tmp_path, found, damage):
    write_warc(tmp_path / 'a.warc.gz', found)
    content = (tmp_path / 'a.warc.gz').read_bytes()
    (tmp_path / 'a.warc.gz').write_bytes(damage + content[len(damage) :])
    texts, counted = read(tmp_path / 'a.warc.gz')
    assert texts == [page.markup for page in found[bool(damage) :]]
    assert counted.get('dropped_broken record', 0) == bool(damage)


def test_a_file_that_was_compressed_as_a_whole(tmp_path):
    whole = [record(b'<p>%d ' % number + b'x' * 900) for number in range(400)]
    whole[7] = whole[7].replace(b'WARC/1.0', b'CRAW/1.0')
    whole[300] = record(b'<p>long ' + b'y' * 200_000)
    (tmp_path / 'a.warc.gz').write_bytes(gzip.compress(b''.join(whole), 1))
    texts, counted = read(tmp_path / 'a.warc.gz', size=1000)
    assert [int(text[3:].split()[0]) for text in texts] == [n for n in range(400) if n not in (7, 300)]
    assert counted == {'total': 400, 'forwarded': 398, 'dropped_broken record': 1, 'dropped_too large': 1}


def test_a_file_that_was_compressed_as_a_whole_and_cut_off(tmp_path):
    whole = b''.join(record(b'<p>%d ' % number + os.urandom(900).hex().encode()) for number in range(400))
    packed = gzip.compress(whole, 1)
    (tmp_path / 'a.warc.gz').write_bytes(packed[: len(packed) * 3 // 4] + gzip.compress(record(b'<p>after')))
    texts, counted = read(tmp_path / 'a.warc.gz', size=2000)
    assert counted['dropped_broken record'] == 1
    assert 250 < len(texts) < 350


@pytest.mark.parametrize('length', [0, 50, 10**6, 10**30])
def test_a_record_of_another_length_than_it_says(tmp_path, length):
    path = tmp_path / 'a.warc'
    path.write_bytes(record(b'<p>one') + record(b'<p>two ' * 20, length=length) + record(b'<p>three'))
    assert read(path) == (['<p>one', '<p>three'], {'total': 3, 'forwarded': 2, 'dropped_broken record': 1})


@pytest.mark.parametrize('content', [b'', b'no archive at all', b'\x1f\x8b\x08', b'WARC/1.0\r\n', b'WARC/1.0' * 10**4])
def test_a_file_that_is_no_archive(tmp_path, content):
    (tmp_path / 'a.warc').write_bytes(content)
    texts, _ = read(tmp_path / 'a.warc')
    assert texts == []


def test_what_is_no_page_is_left_out_with_its_reason(tmp_path):
    path = tmp_path / 'a.warc'
    others = [
        record(b'<p>a', status='404 Not Found'), record(b'%PDF', 'Content-Type: application/pdf'), record(b''),
        record(b'<p>\0'), record(b'<p>b', address='ftp://a.example/'), record(b'x' * (SIZE + 1)), record(b'<p>', ''),
        record(b'<p>c', address='https://en.wikipedia.org/wiki/A'),
        record(b'<p>d', 'Content-Type: text/html\r\nbroken'),
    ]  # fmt: skip
    path.write_bytes(b''.join(others))
    texts, counted = read(path)
    assert texts == ['<p>d']
    assert {name for name in counted if name.startswith('dropped_')} == {
        'dropped_status 404', 'dropped_not HTML', 'dropped_empty', 'dropped_no text', 'dropped_no web address',
        'dropped_too large', 'dropped_Wikipedia',
    }  # fmt: skip


def bomb(size):
    """Zeros, so many of them, packed."""
    packer = zlib.compressobj(9, wbits=31)
    return b''.join(packer.compress(bytes(2**20)) for _ in range(size // 2**20)) + packer.flush()


def test_what_unpacks_to_more_than_fits_is_never_held(tmp_path):
    packed = bomb(2**24)
    inner = tmp_path / 'inner.warc'  # the page is packed
    inner.write_bytes(record(packed, 'Content-Type: text/html\r\nContent-Encoding: gzip') + record(b'<p>after'))
    outer = tmp_path / 'outer.warc.gz'  # the record is
    content = record(bytes(2**24))
    outer.write_bytes(gzip.compress(content, 1) + gzip.compress(record(b'<p>after')))
    for path in (inner, outer):
        assert read(path) == (['<p>after'], {'total': 2, 'forwarded': 1, 'dropped_too large': 1})
    [first, _] = [each.content_stream().read() for each in records(str(outer), SIZE)]
    assert len(first) <= SIZE + HEADERS


def test_only_pages_that_a_link_leads_to(tmp_path, found):
    from datatrove.data import Document

    from gpt2.preparation.blocks import writer

    write_warc(tmp_path / 'a.warc.gz', found)
    links = [Document(page.address.replace('http:', 'https:'), page.address) for page in found[:3]]
    list(writer(str(tmp_path / 'links')).run(iter(links)))
    texts, counted = read(tmp_path / 'a.warc.gz', links=str(tmp_path / 'links'))
    assert texts == [page.markup for page in found[:3]]
    assert counted['dropped_no link leads there'] == len(found) - 3


@pytest.mark.parametrize(
    ('content', 'kind', 'expected'),
    [
        ('<p>Grüße'.encode(), 'text/html', '<p>Grüße'),
        ('<p>Grüße'.encode('latin-1'), 'text/html; charset=ISO-8859-1', '<p>Grüße'),
        ('<meta charset=shift_jis><p>日本'.encode('shift_jis'), 'text/html', '<meta charset=shift_jis><p>日本'),
        ('<p>Grüße'.encode('utf-16'), 'text/html; charset=utf-8', '<p>Grüße'),
        ('<p>Grüße'.encode(), 'text/html; charset=klingon', '<p>Grüße'),
        ('<p>Grüße'.encode(), 'text/html; charset=ascii', '<p>Grüße'),  # the server is wrong
        (b'<meta charset=unicode_escape>\\ud800', 'text/html', '<meta charset=unicode_escape>\\ud800'),
        (b'<p>+2AA-', 'text/html; charset=utf-7', '<p>+2AA-'),
        (b'<p>a-' + b'b9' * 100_000, 'text/html; charset=punycode', '<p>a-' + 'b9' * 100_000),  # would take minutes
        (b'<p>' + '“日”'.encode('gb18030'), 'text/html; charset=gb18030', '<p>“日”'),
    ],
)
def test_encodings(content, kind, expected):
    assert decoded(content, kind) == expected


def test_an_encoding_that_nobody_names_is_guessed():
    text = '<p>' + 'Die Straße führt über die Brücke, wo größere Häuser stehen. ' * 20
    assert decoded(text.encode('cp1252'), 'text/html; charset=utf-8') == text


def test_bytes_that_are_no_text():
    content = bytes(range(256)) * 20
    assert document(content, '', 'http://a.example/', SIZE) == 'no text'


def test_names_of_encodings_are_python_s():
    assert {name for name in WEB if codecs.lookup(name).name != name} == set()


def test_half_a_pair_is_no_text(monkeypatch):
    monkeypatch.setattr(preparation_pages, 'decoded', lambda content, kind: '<p>\ud800')
    assert document(b'x', '', 'http://a.example/', SIZE) == 'no text'


def test_a_file_of_any_name(tmp_path):
    path = os.fsencode(tmp_path) + b'/\xff.html'
    with open(path, 'wb') as file:
        file.write(b'<p>one')
    [page] = Folder([os.fsdecode(path)], 100).run()
    assert page.id.endswith('\\udcff.html')
    page.id.encode()


def test_a_status_that_is_none_is_no_reason_of_its_own(tmp_path):
    (tmp_path / 'a.warc').write_bytes(record(b'<p>', status='<img onerror=alert(1)>'))
    _, counted = read(tmp_path / 'a.warc')
    assert counted == {'total': 1, 'dropped_broken answer': 1}


def test_a_folder_of_html(tmp_path):
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep' / 'a.HTML').write_text('<p>one')
    (tmp_path / 'b.htm').write_text('x' * 101)
    (tmp_path / 'c.txt').write_text('no page')
    block = Folder(sorted(matching(str(tmp_path), Folder.suffixes)), 100)
    [page] = block.run()
    assert (page.text, page.id) == ('<p>one', str(tmp_path / 'deep' / 'a.HTML'))
    assert block.stats['dropped_too large'].total == 1


def test_records_of_streams_are_what_warcio_reads(tmp_path, found):
    from warcio.archiveiterator import ArchiveIterator

    write_warc(tmp_path / 'a.warc.gz', found)
    with open(tmp_path / 'a.warc.gz', 'rb') as file:
        theirs = [each.content_stream().read() for each in ArchiveIterator(io.BytesIO(file.read()))]
    assert [each.content_stream().read() for each in records(str(tmp_path / 'a.warc.gz'), SIZE)] == theirs
