"""The rule for text from files and pipes."""

import itertools
import json
import os
import random
import re
import subprocess
import sys

import pytest

from gpt2.errors import UsageError
from gpt2.system import text

MARK = '\ufeff'.encode()
SIZES = [1, 2, 3, 5, 4096]
CONTENTS = [
    (b'', ''),
    (b'The king\r\n\r\nsaid\r\n', 'The king\n\nsaid\n'),
    (b'a\rb\r\r\nc\n\rd\r', 'a\rb\r\nc\n\rd\r'),
    (MARK + b'The king', 'The king'),
    (MARK, ''),
    (MARK + MARK + b'a' + MARK, '\ufeffa\ufeff'),
    (b'\n' + MARK, '\n\ufeff'),
    (MARK + b'\r\n', '\n'),
    ('aé中😀\r\n'.encode() * 9, 'aé中😀\n' * 9),
]


@pytest.fixture(params=SIZES)
def file(request, tmp_path, monkeypatch):
    """A path whose file is read in chunks of each of SIZES."""
    monkeypatch.setattr(text, 'READ_BYTES', request.param)
    return tmp_path / 'text'


@pytest.mark.parametrize(('content', 'expected'), CONTENTS)
def test_line_ends_and_the_byte_order_mark(file, content, expected):
    file.write_bytes(content)
    assert text.read_text(file) == text.text_of(content, 'name') == expected
    assert all(text.pieces(file))


def test_the_rule_does_not_depend_on_where_reading_cuts(tmp_path):
    chosen = random.Random(0)
    for _ in range(500):
        content = ''.join(chosen.choices('\r\n\ufeffaé😀', k=chosen.randint(0, 12)))
        expected = content.removeprefix('\ufeff').replace('\r\n', '\n')
        encoded = content.encode()
        places = sorted(chosen.choices(range(len(encoded) + 1), k=3))
        parts = [encoded[start:end] for start, end in itertools.pairwise([0, *places, len(encoded)]) if start < end]
        assert ''.join(text.normal(text.characters(parts, 'name', 'strict', ''))) == expected


LINES = [
    (b'', []),
    (b'a', ['a']),
    (b'a\n', ['a']),
    (b'a\r\n\r\nb', ['a', '', 'b']),
    (b'\n\n', ['', '']),
    (b'a\rb\x0b\x1c\xc2\x85\xe2\x80\xa8c\nd', ['a\rb\x0b\x1c\x85\u2028c', 'd']),
]


@pytest.mark.parametrize(('content', 'expected'), LINES)
def test_lines_have_no_ends_and_only_a_newline_divides_them(file, content, expected):
    file.write_bytes(content)
    assert list(text.lines(file)) == expected


@pytest.mark.parametrize(
    ('content', 'offset'),
    [
        (b'\xff', 0),
        (b'ab\x80', 2),
        ('é中'.encode() + b'\xe4\xb8', 5),
        ('中中'.encode() + b'\xe4a', 6),
        (b'a\xf0\x9f\x98', 1),
        (MARK + b'a\r\n\r\nb\xff', 9),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_with_their_offset_in_the_file(file, content, offset):
    file.write_bytes(content)
    message = re.escape(f'{file} is not UTF-8 at byte {offset}; mend it')
    with pytest.raises(UsageError, match=message) as caught:
        text.read_text(file, remedy='mend it')
    assert caught.value.offset == offset
    with pytest.raises(UsageError, match=message):
        text.text_of(content, file, remedy='mend it')
    replaced = content.decode('utf-8-sig', 'replace').replace('\r\n', '\n')
    assert text.read_text(file, 'replace') == text.text_of(content, file, 'replace') == replaced


def test_utf_16_is_named():
    for encoding in ('utf-16-le', 'utf-16-be'):
        with pytest.raises(UsageError, match=r'is not UTF-8 at byte 0; it begins as UTF-16 does; convert it to UTF-8$'):
            text.text_of('\ufeffThe king'.encode(encoding), 'notes', remedy='or give --errors replace')


@pytest.mark.parametrize('name', ['missing', '.', 'nul\x00'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    path = os.path.join(tmp_path, name)
    with pytest.raises(UsageError, match=re.escape(f'{path} cannot be read: ') + '.*; name a text file that can$'):
        list(text.pieces(path))


def test_an_empty_name_is_shown():
    with pytest.raises(UsageError, match=r"^'' cannot be read: No such file"):
        text.read_text('')


def test_a_line_comes_as_soon_as_it_is_written():
    program = 'from gpt2.system.text import lines\nfor line in lines("-"): print(repr(line), flush=True)'
    command = [sys.executable, '-c', program]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        for given, expected in [(b'\xef\xbb\xbfThe king\r\n', b"'The king'\n"), (b'said\n', b"'said'\n")]:
            process.stdin.write(given)
            process.stdin.flush()
            assert process.stdout.readline() == expected
        process.stdin.write(b'no end')
        process.stdin.close()
        assert process.stdout.readline() == b"'no end'\n"


def test_a_line_of_many_pieces_is_put_together_once():
    [line] = text.split_lines(itertools.repeat('ab', 100_000))
    assert line == 'ab' * 100_000


def test_json_holds_letters_as_they_are_and_nothing_utf8_cannot_encode():
    line = text.json_line({'file': os.fsdecode(b'caf\xe9'), 'text': 'é中😀\n'})
    assert line == '{"file": "caf\ufffd", "text": "é中😀\\n"}'
    assert json.loads(line.encode('utf-8'))['text'] == 'é中😀\n'


def test_nothing_that_steers_a_terminal_is_left_in_a_line():
    line = text.one_line('a\n b\t\x1b[31mred\x1b]0;title\x07 \x9b2J \x7f \u202egpj.exe é漢😀')
    assert line == r'a b \x1b[31mred\x1b]0;title\x07 \x9b2J \x7f \u202egpj.exe é漢😀'
