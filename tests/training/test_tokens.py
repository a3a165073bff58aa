import contextlib
import gzip
import json
import os
import shutil
import types

import numpy as np
import pytest
from example_models import MODELS, RELEASE

from gpt2.encoder import get_encoder
from gpt2.token_files import vocabulary_digest, write_about
from gpt2.training import tokens as token_files
from gpt2.training.data import DatasetError, Piece, Reading, find_files
from gpt2.training.tokens import encode, encoded_before, token_file

END = 50256


@pytest.fixture(scope='module')
def encoder():
    return get_encoder('124M', str(RELEASE))


@pytest.fixture
def folder(tmp_path):
    for name in 'abc':
        (tmp_path / f'{name}.txt').write_text(f'Text of {name}. ' * 3, encoding='utf-8')
    return tmp_path


def encoded(folder, encoder, workers=0, **reading):
    return token_file(find_files([str(folder)]), Reading(**reading), encoder, str(folder), workers)


def ids_of(folder, encoder):
    texts = [(folder / f'{name}.txt').read_text() for name in 'abc']
    return [token for text in texts for token in [*encoder.encode(text), END]]


def test_every_document_ends_with_the_end_of_text_id(folder, encoder):
    tokens = encoded(folder, encoder)
    assert tokens.ids.dtype == np.uint16 and tokens.ids.tolist() == ids_of(folder, encoder)
    assert tokens.ends.tolist() == (np.flatnonzero(tokens.ids == END) + 1).tolist() and tokens.trained is None


def test_line_ends_and_a_byte_order_mark_are_those_of_the_shared_rule(tmp_path, encoder):
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfThe king\r\nsaid\ra\n')
    assert encoded(tmp_path, encoder).ids.tolist() == [*encoder.encode('The king\nsaid\ra\n'), END]


def test_what_is_no_target_is_marked(tmp_path, encoder):
    (tmp_path / 'a.jsonl').write_text(json.dumps({'prompt': 'Who are you?', 'completion': ' I'}))
    tokens = encoded(tmp_path, encoder)
    prompt = encoder.encode('Who are you?')
    assert tokens.ids.tolist() == [*prompt, *encoder.encode(' I'), END]
    assert tokens.trained.tolist() == [False] * len(prompt) + [True, True]
    assert encoded(tmp_path, encoder, train_on_prompt=True).trained is None


def test_added_tokens_in_a_text_are_what_they_are(encoder):
    assert encode(encoder, [Piece('a<|endoftext|>b', True, True)]).ids.tolist() == [64, END, 65, END]


def test_documents_are_encoded_once(folder, encoder, monkeypatch):
    tokens = encoded(folder, encoder)
    monkeypatch.setattr(token_files, 'encode', lambda *_: pytest.fail('encoded again'))
    again = encoded(folder, encoder)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    assert again.digest == tokens.digest and isinstance(again.ids, np.memmap)


def test_changed_text_is_encoded_again(folder, encoder):
    before = encoded(folder, encoder)
    (folder / 'a.txt').write_text('other', encoding='utf-8')
    after = encoded(folder, encoder)
    assert after.ids.tolist() != before.ids.tolist() and after.digest != before.digest


def test_another_vocabulary_is_another_token_file(folder, encoder):
    small = get_encoder('7M', str(MODELS))
    assert encoded(folder, small).ids.tolist() != encoded(folder, encoder).ids.tolist()


@pytest.mark.parametrize('name', ['ids', 'ends', 'about.json'])
@pytest.mark.parametrize('harm', ['cut', 'lost', 'empty', 'longer', 'other', 'a link to nothing'])
def test_a_damaged_token_file_is_made_again(folder, encoder, name, harm):
    before = encoded(folder, encoder).ids.tolist()
    [path] = folder.glob(f'tokens-*/{name}')
    content = path.read_bytes()
    path.unlink()
    if harm == 'a link to nothing':
        path.symlink_to(folder / 'nothing')
    elif harm != 'lost':
        other = b'[' * len(content)
        path.write_bytes({'cut': content[:-3], 'empty': b'', 'longer': content + b'xx', 'other': other}[harm])
    assert encoded(folder, encoder).ids.tolist() == before


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_a_token_file_in_whose_place_lies_something_else_is_made_again(folder, encoder, kind):
    before = encoded(folder, encoder).ids.tolist()
    [path] = folder.glob('tokens-*')
    shutil.rmtree(path)
    path.write_text('x') if kind == 'file' else path.symlink_to(folder / 'nothing')
    assert encoded(folder, encoder).ids.tolist() == before


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_an_encoding_that_is_broken_off_leaves_nothing(folder, encoder, monkeypatch, error):
    monkeypatch.setattr('gpt2.token_files.json.dump', lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(error):
        encoded(folder, encoder)
    assert sorted(os.listdir(folder)) == ['a.txt', 'b.txt', 'c.txt']


def test_pieces_are_encoded_as_the_whole_is(folder, encoder, monkeypatch):
    whole = encoded(folder, encoder).ids.tolist()
    monkeypatch.setattr('gpt2.training.data.PIECE', 10)
    monkeypatch.setattr(token_files, 'PIECE', 10)
    monkeypatch.setattr(token_files, 'FORM', 0)  # another name
    assert encoded(folder, encoder).ids.tolist() == whole


def test_processes_encode_as_one_does(folder, encoder, monkeypatch):
    whole = encoded(folder, encoder)
    monkeypatch.setattr(token_files, 'ALONE_BELOW', 0)
    monkeypatch.setattr(token_files, 'PIECE', 10)
    monkeypatch.setattr(token_files, 'FORM', 0)
    parted = encoded(folder, encoder, workers=2)
    assert parted.ids.tolist() == whole.ids.tolist() and parted.ends.tolist() == whole.ends.tolist()
    assert parted.digest == whole.digest


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(type(encoder), '__len__', lambda self: 2**16 + 1)
    (tmp_path / 'a.txt').write_text('a')
    assert encoded(tmp_path, encoder).ids.dtype == np.uint32


@pytest.mark.parametrize('end', ['', '.gz', '.zst'])
def test_the_bar_follows_the_place_in_the_file(tmp_path, monkeypatch, end):
    """Of JSON lines with fields that are not text, and of what is compressed: to its end, and not before."""
    random = np.random.default_rng(0)
    rows = [{'text': 'a', 'other': random.bytes(50).hex()} for _ in range(5000)]
    content = ''.join(json.dumps(row) + '\n' for row in rows).encode()
    if end:
        content = gzip.compress(content) if end == '.gz' else pytest.importorskip('zstandard').compress(content)
    path, bar, places = tmp_path / f'a.jsonl{end}', types.SimpleNamespace(n=0), []
    path.write_bytes(content)
    monkeypatch.setattr(token_files, 'PIECE', 20)
    monkeypatch.setattr(token_files.progress, 'bar', lambda **_: contextlib.nullcontext(bar))
    bar.update = lambda more: setattr(bar, 'n', bar.n + more) or places.append(bar.n)
    assert sum(map(len, token_files.read_ahead([str(path)], Reading(), len(content)))) == len(rows)
    assert places == sorted(places) and places[-1] == len(content)
    assert 0.1 < places[len(places) // 4] / len(content) < 0.6  # Zstandard reads 128 kB at once


def test_files_without_text_are_an_empty_token_file(tmp_path, encoder):
    (tmp_path / 'a.txt').write_text('')
    tokens = encoded(tmp_path, encoder)
    assert len(tokens.ids) == len(tokens.ends) == 0


# Token files that were made before


def made_before(path, encoder, texts, vocabulary=None):
    path.mkdir(parents=True)
    documents = [np.array([*encoder.encode(text), END], '<u2') for text in texts]
    np.concatenate(documents).tofile(path / 'ids')
    np.cumsum([len(each) for each in documents]).astype('<i8').tofile(path / 'ends')
    files = {'ids': ['<u2', sum(map(len, documents))], 'ends': ['<i8', len(documents)]}
    write_about(str(path), files, [1, 0], vocabulary=vocabulary or vocabulary_digest(encoder))
    return [token for each in documents for token in each.tolist()]


def test_a_token_file_is_data_too(tmp_path, encoder):
    expected = made_before(tmp_path / 'tokens', encoder, ['One.', 'Two and three.'])
    [path] = find_files([str(tmp_path / 'tokens')])
    found = encoded_before([path], encoder)
    assert found.ids.tolist() == expected and len(found.ends) == 2
    assert encoded_before([str(tmp_path / 'a.txt')], encoder) is None


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda path: None, 'was encoded with another vocabulary; name its model by --vocabulary'),
        (lambda path: (path / 'ids').write_bytes(b''), 'is a token file that is empty or not whole'),
    ],
)
def test_a_token_file_of_another_vocabulary_or_that_is_cut_is_refused(tmp_path, encoder, spoil, message):
    made_before(tmp_path / 'tokens', encoder, ['One.'], vocabulary='another')
    spoil(tmp_path / 'tokens')
    with pytest.raises(DatasetError, match=message):
        encoded_before([str(tmp_path / 'tokens')], encoder)


def test_token_files_and_texts_are_not_one_corpus(folder, encoder):
    made_before(folder / 'tokens', encoder, ['One.'])
    with pytest.raises(DatasetError, match='give each token file a weight of its own'):
        encoded_before(find_files([str(folder / 'tokens'), str(folder / 'a.txt')]), encoder)
