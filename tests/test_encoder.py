"""The encoder against tiktoken's goldens, a slow and obvious BPE, and properties of any text."""

import json
import os
import pathlib
import random
import string
import subprocess
import sys
import weakref
from itertools import pairwise

import numpy as np
import pytest

from gpt2.encoder import (
    END_OF_TEXT,
    LONGEST_CACHED,
    Encoder,
    VocabularyError,
    bytes_to_unicode,
    get_encoder,
    get_pairs,
    read_encoder,
    spelt,
    write_encoder,
)

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(HERE, 'release')

with open(os.path.join(HERE, 'encoder_goldens.json'), encoding='utf-8') as goldens_file:
    GOLDENS = [(golden['text'], golden['ids']) for golden in json.load(goldens_file)]


@pytest.fixture(scope='module')
def gpt2():
    return get_encoder('124M', RELEASE)


@pytest.fixture
def fresh_gpt2(gpt2):
    return Encoder(gpt2.encoder, list(gpt2.bpe_ranks))


def vocabulary(merges):
    """Ids laid out as in the release: the 256 bytes, the merges by rank, the end-of-text token."""
    tokens = [*bytes_to_unicode().values(), *map(''.join, merges), END_OF_TEXT]
    return {token: index for index, token in enumerate(tokens)}


def small_encoder(merges, errors='replace'):
    return Encoder(vocabulary(merges), merges, errors)


def random_merges(generator, alphabet, count):
    """Merges as training could have learnt them: each joins two earlier tokens into a new one."""
    tokens, merges = list(alphabet), []
    while len(merges) < count:
        pair = generator.choice(tokens), generator.choice(tokens)
        if ''.join(pair) not in tokens:
            tokens.append(''.join(pair))
            merges.append(pair)
    return merges


def reference_bpe(word, ranks):
    """Find the pair of lowest rank, join it wherever it stands, from the left; again until there is none."""
    symbols = list(word)
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        lowest = min(pairs, key=ranks.get)
        joined = []
        for symbol in symbols:
            if joined and (joined[-1], symbol) == lowest:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return symbols


def random_text(generator, length):
    """Characters of all planes, each plane as likely as any other, between plain letters and white space."""
    planes = [chr(0x10000 * plane + generator.randrange(0xD800)) for plane in range(17)]
    return ''.join(generator.choices([*planes, *" \n\t\r\u00a0\u3000aZ9'!"], k=length))


def random_letters(length):
    return ''.join(random.Random(length).choices(string.ascii_lowercase, k=length))


def in_printable(data):
    return ''.join(bytes_to_unicode()[byte] for byte in data)


# Text to ids and back


@pytest.mark.parametrize('text, ids', GOLDENS, ids=range(len(GOLDENS)))
def test_golden(gpt2, text, ids):
    assert gpt2.encode(text) == ids
    assert gpt2.decode(ids) == text


def test_goldens_cover_every_plane():
    assert {ord(character) >> 16 for text, _ in GOLDENS for character in text} == set(range(17))


def test_warm_cache_gives_the_same_ids(gpt2):
    first = [gpt2.encode(text) for text, _ in GOLDENS]
    assert [gpt2.encode(text) for text, _ in reversed(GOLDENS)] == first[::-1]


@pytest.mark.parametrize('seed', range(20))
def test_round_trip_of_random_text(gpt2, seed):
    generator = random.Random(seed)
    for _ in range(20):
        text = random_text(generator, generator.randrange(100))
        assert gpt2.decode(gpt2.encode(text)) == text


@pytest.mark.parametrize('plane', range(17))
def test_round_trip_of_a_whole_plane(gpt2, plane):
    codes = range(0x10000 * plane, 0x10000 * (plane + 1), 7)
    text = ''.join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)
    assert gpt2.decode(gpt2.encode(text)) == text


def test_round_trip_with_a_vocabulary_of_bytes_alone():
    encoder = small_encoder([])
    text = 'naïve 漢字 😀\n'
    assert encoder.decode(encoder.encode(text)) == text
    assert len(encoder.encode(text)) == len(text.encode())


def test_nothing(gpt2):
    assert gpt2.encode('') == []
    assert gpt2.decode([]) == ''


def test_ids_are_plain_integers(gpt2):
    assert {type(index) for index in gpt2.encode('Hello, world 123')} == {int}


def test_changing_the_ids_does_not_change_the_encoder(gpt2):
    ids = gpt2.encode('hello')
    expected = list(ids)
    ids.append(0)
    assert gpt2.encode('hello') == expected


# End of text


@pytest.mark.parametrize('text', [END_OF_TEXT, f' {END_OF_TEXT}', f'a{END_OF_TEXT}b', END_OF_TEXT * 3])
def test_end_of_text_is_never_encoded(gpt2, text):
    ids = gpt2.encode(text)
    assert gpt2.encoder[END_OF_TEXT] == 50256
    assert 50256 not in ids
    assert gpt2.decode(ids) == text


def test_end_of_text_is_decoded(gpt2):
    assert gpt2.decode([50256]) == '<|endoftext|>'
    assert gpt2.decode([15496, 50256, 995]) == 'Hello<|endoftext|> world'


# Added tokens


def grown(texts):
    """An encoder of MERGES with tokens added after the end of text, from a file's order alone."""
    ids = vocabulary(MERGES)
    return Encoder(ids | {spelt(text): len(ids) + index for index, text in enumerate(texts)}, MERGES)


def test_added_tokens_are_found_by_where_they_stand():
    encoder = grown(texts=['<|startoftext|>', ' a b', '漢'])
    assert encoder.added == {END_OF_TEXT: 260, '<|startoftext|>': 261, ' a b': 262, '漢': 263}
    assert (len(encoder), encoder.end_of_text) == (264, 260)
    assert Encoder(encoder.encoder, MERGES, end_of_text=261).end_of_text == 261


@pytest.mark.parametrize('text', ['<|startoftext|>', 'x<|startoftext|>y', f'{END_OF_TEXT}<|pad|>', ' a b'])
def test_added_tokens_are_encoded_only_where_asked(text):
    encoder = grown(texts=['<|startoftext|>', '<|pad|>', ' a b'])
    assert max(encoder.encode(text)) < 260
    assert max(encoder.encode(text, special=True)) >= 260
    assert encoder.decode(encoder.encode(text)) == encoder.decode(encoder.encode(text, special=True)) == text


def test_the_longest_added_token_counts():
    encoder = grown(texts=['<|a', '<|a|>', '<|a|><|b|>'])
    assert encoder.encode('<|a|>', special=True) == [262]
    assert encoder.encode('<|a|><|b|><|a', special=True) == [263, 261]
    assert encoder.encode('<|a|x', special=True)[0] == 261


def test_text_between_added_tokens_is_encoded_by_itself():
    encoder = grown(texts=['<|a|>'])
    ids = encoder.encode('ab <|a|> abc', special=True)
    assert ids == [*encoder.encode('ab '), 261, *encoder.encode(' abc')]
    assert encoder.encode('', special=True) == []


def test_the_release_has_one_added_token(gpt2):
    assert gpt2.added == {END_OF_TEXT: 50256}
    assert gpt2.encode(f'Hello{END_OF_TEXT} world', special=True) == [15496, 50256, 995]


def test_the_release_s_reader_decodes_added_tokens(tmp_path):
    """Its Encoder needs ids by token, each token in the characters of bytes."""
    encoder = grown(texts=['<|startoftext|>', ' a b', '漢'])
    write_encoder(str(tmp_path), encoder)
    ids = json.loads((tmp_path / 'encoder.json').read_text(encoding='utf-8'))
    token_of = {index: token for token, index in ids.items()}
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    text = bytearray(byte_of[character] for character in ''.join(token_of[index] for index in [261, 262, 263, 260]))
    assert text.decode() == f'<|startoftext|> a b漢{END_OF_TEXT}'


def test_vocabularies_are_written_as_they_were_read(tmp_path, gpt2):
    write_encoder(str(tmp_path), gpt2)
    for name in ('encoder.json', 'vocab.bpe'):
        assert (tmp_path / name).read_bytes() == pathlib.Path(RELEASE, '124M', name).read_bytes()
    assert not (tmp_path / 'generation_config.json').exists()


def test_an_end_token_of_its_own_is_kept_beside_the_vocabulary(tmp_path):
    encoder = grown(texts=['<|end|>'])
    write_encoder(str(tmp_path), Encoder(encoder.encoder, MERGES, end_of_text=261))
    assert json.loads((tmp_path / 'generation_config.json').read_text()) == {'eos_token_id': 261}
    again = read_encoder(str(tmp_path))
    assert (again.end_of_text, again.added) == (261, encoder.added)
    for content, part in [('{"eos_token_id": 9999}', 'the end of text is 9999'), ('{"eos_token_id": "x"}', "is 'x'")]:
        (tmp_path / 'generation_config.json').write_text(content)
        with pytest.raises(VocabularyError, match=part):
            read_encoder(str(tmp_path))


def test_an_added_token_in_the_midst_is_taken_for_damage():
    ids = vocabulary(MERGES)
    ids = {token: index + (index >= 258) for token, index in ids.items()}
    ids = dict(list(ids.items())[:258]) | {'<|a|>': 258} | ids
    with pytest.raises(VocabularyError, match='damaged or of another model'):
        Encoder(ids, MERGES)


def test_a_cut_merges_file_does_not_make_added_tokens(gpt2):
    """Also where the file lists the end of text first."""
    ids = {END_OF_TEXT: 50256} | gpt2.encoder
    with pytest.raises(VocabularyError, match='damaged or of another model'):
        Encoder(ids, list(gpt2.bpe_ranks)[:-1])


def test_a_second_name_of_the_end_of_text():
    ids = {token: index for token, index in vocabulary(MERGES).items() if token != END_OF_TEXT}
    ids |= {END_OF_TEXT: 261, '<s>': 260, '</s>': 261}
    encoder = Encoder(ids, MERGES)
    assert encoder.added == {'<s>': 260, '</s>': 261}
    assert (encoder.end_of_text, encoder.decode([260, 261]), len(encoder)) == (261, '<s></s>', 262)


# The printable characters that stand for bytes


def test_each_byte_has_a_character_of_its_own():
    mapping = bytes_to_unicode()
    assert sorted(mapping) == list(range(256))
    assert len(set(mapping.values())) == 256
    assert all(len(character) == 1 for character in mapping.values())


def test_printable_bytes_stand_for_themselves():
    printable = {byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != ' '}
    assert {byte for byte, character in bytes_to_unicode().items() if ord(character) == byte} == printable


def test_other_bytes_follow_from_u0100_in_order():
    others = [byte for byte in range(256) if not chr(byte).isprintable() or chr(byte) == ' ']
    assert [bytes_to_unicode()[byte] for byte in others] == [chr(0x100 + index) for index in range(68)]


def test_bytes_stand_in_the_order_of_the_release(gpt2):
    assert [gpt2.encoder[character] for character in bytes_to_unicode().values()] == list(range(256))


# Merging


@pytest.mark.parametrize(
    'word, pairs',
    [
        ('', set()),
        ('a', set()),
        ('abab', {('a', 'b'), ('b', 'a')}),
        ('aaa', {('a', 'a')}),
        (('th', 'e', 'Ġ'), {('th', 'e'), ('e', 'Ġ')}),
    ],
)
def test_get_pairs(word, pairs):
    assert get_pairs(word) == pairs


@pytest.mark.parametrize(
    'word, tokens',
    [
        ('', ''),
        ('a', 'a'),
        ('ab', 'ab'),
        ('ba', 'b a'),
        ('aaa', 'aa a'),
        ('aaaa', 'aa aa'),
        ('aab', 'a ab'),
        ('abab', 'abab'),
        ('ababab', 'abab ab'),
        ('abc', 'ab c'),
        ('bcab', 'bc ab'),
    ],
)
def test_bpe_joins_tokens_by_spaces(word, tokens):
    merges = [('a', 'b'), ('a', 'a'), ('b', 'c'), ('ab', 'ab')]
    assert small_encoder(merges).bpe(word) == tokens


@pytest.mark.parametrize('seed', range(30))
def test_bpe_equals_the_reference_on_a_small_alphabet(seed):
    generator = random.Random(seed)
    alphabet = 'abc'[: generator.randrange(1, 4)]
    encoder = small_encoder(random_merges(generator, alphabet, generator.randrange(1, 25)))
    for _ in range(60):
        word = ''.join(generator.choices(alphabet, k=generator.randrange(40)))
        assert encoder.bpe(word) == ' '.join(reference_bpe(word, encoder.bpe_ranks))


@pytest.mark.parametrize('seed', range(10))
def test_bpe_equals_the_reference_on_repeats(seed):
    generator = random.Random(seed)
    encoder = small_encoder(random_merges(generator, 'ab', 20))
    for count in range(40):
        for unit in ('a', 'b', 'ab', 'ba', 'aab', 'abba'):
            assert encoder.bpe(unit * count) == ' '.join(reference_bpe(unit * count, encoder.bpe_ranks))


def test_bpe_equals_the_reference_on_the_words_of_the_release(gpt2):
    generator = random.Random(0)
    tokens = sorted(gpt2.encoder)
    for _ in range(500):
        word = ''.join(generator.sample(tokens, k=3))
        assert gpt2.bpe(word) == ' '.join(reference_bpe(word, gpt2.bpe_ranks))


def test_each_token_of_the_release_is_one_token(gpt2):
    assert [token for token in gpt2.encoder if gpt2.bpe(token) != token] == [END_OF_TEXT]


def test_encode_agrees_with_bpe(gpt2):
    ids = [gpt2.encoder[token] for token in gpt2.bpe('Ġpretokenisation').split(' ')]
    assert len(ids) > 1
    assert gpt2.encode(' pretokenisation') == ids


# Lone surrogates


@pytest.mark.parametrize('byte', range(0x80, 0x100))
def test_surrogate_of_an_undecodable_byte_is_that_byte(gpt2, byte):
    text = bytes([byte]).decode('utf-8', 'surrogateescape')
    assert gpt2.encode(text) == [gpt2.encoder[bytes_to_unicode()[byte]]]
    assert gpt2.decode_bytes(gpt2.encode(text)) == bytes([byte])


@pytest.mark.parametrize('seed', range(20))
def test_any_bytes_survive_as_escaped_text(gpt2, seed):
    generator = random.Random(seed)
    data = generator.randbytes(300) + 'é 漢 \ufffd'.encode() + generator.randbytes(300)
    assert gpt2.decode_bytes(gpt2.encode(data.decode('utf-8', 'surrogateescape'))) == data


@pytest.mark.parametrize('surrogate', ['\ud800', '\udbff', '\udc00', '\udc7f', '\udd00', '\udfff', '\ud83d'])
def test_other_surrogates_are_encoded_like_characters(gpt2, surrogate):
    text = f'é{surrogate} a'
    assert gpt2.decode_bytes(gpt2.encode(text)) == text.encode('utf-8', 'surrogatepass')


def test_no_surrogate_is_refused(gpt2):
    for code in range(0xD800, 0xE000):
        assert gpt2.decode(gpt2.encode(chr(code))).strip('\ufffd') == ''


# Cache


def test_cache_stays_bounded(fresh_gpt2, monkeypatch):
    monkeypatch.setattr('gpt2.encoder.CACHE_ENTRIES', 8)
    sizes = set()
    for number in range(100):
        fresh_gpt2.encode(f' word {number}')
        sizes.add(len(fresh_gpt2.cache))
    assert max(sizes) == 8
    assert min(sizes) >= 1


def test_cache_stays_bounded_within_one_text(fresh_gpt2, gpt2, monkeypatch):
    monkeypatch.setattr('gpt2.encoder.CACHE_ENTRIES', 8)
    text = ' '.join(map(str, range(1000)))
    assert fresh_gpt2.encode(text) == gpt2.encode(text)
    assert 1 <= len(fresh_gpt2.cache) <= 8


@pytest.mark.parametrize('length, kept', [(1, 1), (LONGEST_CACHED, 1), (LONGEST_CACHED + 1, 0), (1000, 0)])
def test_long_pretokens_are_not_kept(fresh_gpt2, length, kept):
    text = random_letters(length)
    assert fresh_gpt2.decode(fresh_gpt2.encode(text)) == text
    assert len(fresh_gpt2.cache) == kept


# Pathological texts


def encode_in_linear_work(encoder, text):
    """The ids of a text, for which the encoder may make 20 times the calls it makes for a tenth of it: work that grows
    with the square of the length is 100 times as much."""
    def encode(part):
        calls = 0

        def count(*_):
            nonlocal calls
            calls += 1

        encoder.cache.clear()
        sys.setprofile(count)
        try:
            ids = encoder.encode(part)
        finally:
            sys.setprofile(None)
        return ids, calls

    _, tenth = encode(text[: len(text) // 10])
    ids, calls = encode(text)
    assert calls < 20 * tenth
    return ids


def test_100_000_random_letters(fresh_gpt2):
    text = random_letters(100_000)
    ids = encode_in_linear_work(fresh_gpt2, text)
    assert fresh_gpt2.decode(ids) == text
    assert not [pair for pair in pairwise(map(fresh_gpt2.decoder.get, ids)) if pair in fresh_gpt2.bpe_ranks]


def test_100_000_random_letters_equal_the_reference_with_few_merges():
    encoder = small_encoder(random_merges(random.Random(0), string.ascii_lowercase, 30))
    text = random_letters(100_000)
    assert encoder.bpe(text) == ' '.join(reference_bpe(text, encoder.bpe_ranks))


@pytest.mark.parametrize('character', ['a', '=', ' ', '\n', '0', 'é', '😀'])
def test_100_000_repeats(fresh_gpt2, character):
    ids = encode_in_linear_work(fresh_gpt2, character * 100_000)
    word = in_printable((character * 100_000).encode())
    assert [fresh_gpt2.decoder[index] for index in ids] == reference_bpe(word, fresh_gpt2.bpe_ranks)


def test_a_megabyte_of_random_bytes(fresh_gpt2):
    text = random.Random(0).randbytes(1_000_000).decode('latin-1')
    assert fresh_gpt2.decode(fresh_gpt2.encode(text)) == text


# Decoding


@pytest.mark.parametrize('index', [50257, -1, 10**20])
def test_unknown_id_is_named(gpt2, index):
    with pytest.raises(ValueError, match=rf'{index}\b.*50257'):
        gpt2.decode([15496, index])


def test_cut_character_is_replaced(gpt2):
    ids = gpt2.encode('a😀')
    assert gpt2.decode(ids[:-1]) == 'a\ufffd'
    assert gpt2.decode(ids) == 'a😀'


def test_errors_names_the_way_of_decoding():
    cut = [small_encoder([]).encoder[character] for character in 'aÃ']
    assert small_encoder([], errors='ignore').decode(cut) == 'a'
    with pytest.raises(UnicodeDecodeError):
        small_encoder([], errors='strict').decode(cut)


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint16])
def test_numpy_ids_are_decoded(gpt2, dtype):
    assert gpt2.decode(np.array([15496, 995], dtype)) == 'Hello world'


def test_an_iterator_is_decoded(gpt2):
    assert gpt2.decode(iter([15496, 995])) == 'Hello world'


# Vocabulary files

MERGES = [('a', 'b'), ('ab', 'c'), ('Ġ', 'a'), ('Ã', '©')]


def write_vocabulary(folder, encoder, merges):
    folder.mkdir()
    (folder / 'encoder.json').write_text(json.dumps(encoder), encoding='utf-8')
    lines = ['#version: 0.2', *map(' '.join, merges)]
    (folder / 'vocab.bpe').write_bytes('\n'.join([*lines, '']).encode('utf-8'))


@pytest.fixture
def tiny(tmp_path):
    write_vocabulary(tmp_path / 'tiny', vocabulary(MERGES), MERGES)
    return tmp_path / 'tiny'


def change_encoder(folder, change):
    path = folder / 'encoder.json'
    encoder = json.loads(path.read_text(encoding='utf-8'))
    change(encoder)
    path.write_text(json.dumps(encoder), encoding='utf-8')


def refusal(folder):
    with pytest.raises(VocabularyError) as raised:
        get_encoder(folder.name, str(folder.parent))
    message = str(raised.value)
    assert '\n' not in message
    assert str(folder) in message
    assert 'download the model again' in message
    return message


def test_tiny_vocabulary_is_read(tiny):
    encoder = get_encoder(tiny.name, str(tiny.parent))
    assert list(encoder.bpe_ranks) == MERGES
    assert [encoder.decoder[index] for index in encoder.encode('abc aé')] == ['abc', 'Ġa', 'Ã©']


@pytest.mark.parametrize('ending', [b'\n', b'\r\n'])
@pytest.mark.parametrize('last', [True, False])
def test_line_endings_do_not_matter(tiny, ending, last):
    lines = (tiny / 'vocab.bpe').read_bytes().splitlines()
    (tiny / 'vocab.bpe').write_bytes(ending.join(lines) + ending * last)
    assert list(get_encoder(tiny.name, str(tiny.parent)).bpe_ranks) == MERGES


def test_the_encoding_of_the_locale_does_not_matter():
    text = 'naïve 漢字 😀'
    program = (
        'import json, locale; from encoder import get_encoder; '
        f'print(locale.getpreferredencoding(False)); print(get_encoder("124M", {RELEASE!r}).encode({text!a}))'
    )
    result = subprocess.run(
        [sys.executable, '-X', 'utf8=0', '-c', program],
        env={**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONPATH': os.path.join(HERE, '..', 'src')},
        capture_output=True,
        text=True,
        check=True,
    )
    preferred, ids = result.stdout.splitlines()
    assert json.loads(ids) == get_encoder('124M', RELEASE).encode(text)
    if sys.platform == 'linux':
        assert 'utf' not in preferred.lower()


@pytest.mark.parametrize('name', ['encoder.json', 'vocab.bpe'])
def test_missing_file(tiny, name):
    (tiny / name).unlink()
    assert f'{name} is not there' in refusal(tiny)


def test_missing_folder(tmp_path):
    assert 'encoder.json is not there' in refusal(tmp_path / 'absent')


@pytest.mark.parametrize('name', ['encoder.json', 'vocab.bpe'])
def test_folder_in_place_of_a_file(tiny, name):
    (tiny / name).unlink()
    (tiny / name).mkdir()
    assert name in refusal(tiny)


@pytest.mark.parametrize('name', ['encoder.json', 'vocab.bpe'])
def test_file_that_is_not_utf8(tiny, name):
    data = (tiny / name).read_bytes()
    (tiny / name).write_bytes(data + b'\xff')
    assert name in refusal(tiny)


@pytest.mark.parametrize('data', ['', '<html>503</html>', '{"a": 0, '])
def test_encoder_json_that_is_not_json(tiny, data):
    (tiny / 'encoder.json').write_text(data, encoding='utf-8')
    assert 'encoder.json cannot be read' in refusal(tiny)


@pytest.mark.parametrize('data', ['["a", "b"]', '"a"', '3', 'null'])
def test_encoder_json_that_is_no_object(tiny, data):
    (tiny / 'encoder.json').write_text(data, encoding='utf-8')
    assert 'encoder.json cannot be read (not an object of token ids)' in refusal(tiny)


@pytest.mark.parametrize('index', ['0', 0.0, 0.5, None, False, [0]])
def test_id_that_is_no_integer(tiny, index):
    change_encoder(tiny, lambda encoder: encoder.update({'!': index}))
    assert 'encoder.json cannot be read (not an object of token ids)' in refusal(tiny)


@pytest.mark.parametrize('line', ['a b c', 'ab', '  '])
def test_merge_that_is_not_two_tokens(tiny, line):
    with open(tiny / 'vocab.bpe', 'a', encoding='utf-8') as file:
        file.write(line + '\n')
    message = refusal(tiny)
    assert 'vocab.bpe' in message
    assert f'line {len(MERGES) + 2} ' in message


def test_merge_whose_result_has_no_id(tiny):
    with open(tiny / 'vocab.bpe', 'a', encoding='utf-8') as file:
        file.write('abc Ġa\n')
    message = refusal(tiny)
    assert 'encoder.json' in message
    assert "'abcĠa'" in message


def test_byte_without_an_id(tiny):
    ids = vocabulary(MERGES)
    ids['another'] = ids.pop('Ģ')
    (tiny / 'encoder.json').write_text(json.dumps(ids), encoding='utf-8')
    message = refusal(tiny)
    assert 'encoder.json' in message
    assert "'Ģ'" in message


@pytest.mark.parametrize('index', [1, -1, 1000])
def test_ids_that_are_not_dense(tiny, index):
    change_encoder(tiny, lambda encoder: encoder.update({END_OF_TEXT: index}))
    message = refusal(tiny)
    assert 'encoder.json' in message
    assert f'0 to {256 + len(MERGES)}' in message


def test_files_of_two_models(tiny, gpt2):
    (tiny / 'encoder.json').write_text(json.dumps(gpt2.encoder), encoding='utf-8')
    with open(tiny / 'vocab.bpe', 'a', encoding='utf-8') as file:
        file.write('abc abc\n')
    assert "'abcabc'" in refusal(tiny)


def test_the_constructor_refuses_too():
    ids = vocabulary(MERGES)
    with pytest.raises(VocabularyError, match="'bb'"):
        Encoder(ids, [*MERGES, ('b', 'b')])
    with pytest.raises(VocabularyError, match='has no id'):
        Encoder({}, [])


def test_of_several_faults_the_first_in_its_file_is_named():
    ids = vocabulary(MERGES)
    first, second = [''.join(pair) for pair in MERGES[:2]]
    left = {token: index for index, token in enumerate(token for token in ids if token not in (first, second))}
    with pytest.raises(VocabularyError, match=f'no id for {first!r}, which vocab.bpe makes'):
        Encoder(left, MERGES)
    unended = {token: index for token, index in ids.items() if token != END_OF_TEXT}
    with pytest.raises(VocabularyError, match=r'endoftext.*, which ends a text'):
        Encoder(unended, MERGES)
    more = unended | {'zz': len(unended), 'qq': len(unended) + 1, END_OF_TEXT: len(unended) + 2}
    with pytest.raises(VocabularyError, match=r"the token 'zz', which vocab\.bpe does not make"):
        Encoder(more, MERGES, added={END_OF_TEXT: more[END_OF_TEXT]})


@pytest.mark.parametrize(
    'damage',
    [
        lambda lines: lines[: len(lines) // 2],
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: [*lines, lines[-1]],
        lambda lines: ['<html>503 Service Unavailable</html>'],
    ],
    ids=['first half', 'empty', 'no version line', 'a merge twice', 'html'],
)
def test_a_damaged_merges_file_of_the_release_is_refused(tmp_path, damage):
    folder = tmp_path / '124M'
    folder.mkdir()
    (folder / 'encoder.json').write_bytes(pathlib.Path(RELEASE, '124M', 'encoder.json').read_bytes())
    lines = pathlib.Path(RELEASE, '124M', 'vocab.bpe').read_text(encoding='utf-8').rstrip('\n').split('\n')
    (folder / 'vocab.bpe').write_text('\n'.join(damage(lines)) + '\n', encoding='utf-8')
    with pytest.raises(VocabularyError, match=r'damaged or of another model|comes twice'):
        get_encoder('124M', str(tmp_path))


def test_an_encoder_that_is_not_needed_any_more_is_gone_at_once():
    """Without waiting for a collection of cycles: each holds megabytes."""
    encoder = get_encoder('124M', RELEASE)
    encoder.encode('some text')
    held = weakref.ref(encoder.cache)
    del encoder
    assert held() is None
