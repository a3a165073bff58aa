import numpy as np
import pytest
from example_models import RELEASE

from gpt2.encoder import get_encoder
from gpt2.training import data as load_dataset
from gpt2.training.data import DatasetError, encode_documents, find_files, hold_out, training_batch, windows

END = 50256


@pytest.fixture(scope='module')
def encoder():
    return get_encoder('124M', str(RELEASE))


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


def test_text_that_is_not_utf8_is_refused_with_the_offset(tmp_path, encoder):
    (tmp_path / 'bad.txt').write_bytes(b'abc\xff')
    with pytest.raises(DatasetError, match=r'bad\.txt is not UTF-8 at byte 3'):
        encode_documents([str(tmp_path / 'bad.txt')], encoder, str(tmp_path))


def test_line_ends_and_a_byte_order_mark_are_those_of_the_shared_rule(tmp_path, encoder):
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfThe king\r\nsaid\ra\n')
    tokens = encode_documents([str(tmp_path / 'a.txt')], encoder, str(tmp_path))
    assert tokens.tolist() == [*encoder.encode('The king\nsaid\ra\n'), END]


def test_every_document_ends_with_the_end_of_text_id(folder, encoder):
    paths = find_files([str(folder)])
    tokens = encode_documents(paths, encoder, str(folder))
    expected = [token for path in paths for token in [*encoder.encode(open(path, encoding='utf-8').read()), END]]
    assert tokens.dtype == np.int32 and tokens.tolist() == expected


def test_documents_are_encoded_once(folder, encoder, monkeypatch):
    paths = find_files([str(folder)])
    tokens = encode_documents(paths, encoder, str(folder))
    monkeypatch.setattr(encoder, 'encode', lambda text: pytest.fail('encoded again'))
    np.testing.assert_array_equal(encode_documents(paths, encoder, str(folder)), tokens)


def test_changed_text_is_encoded_again(folder, encoder):
    paths = find_files([str(folder)])
    before = encode_documents(paths, encoder, str(folder))
    (folder / 'a.txt').write_text('other', encoding='utf-8')
    assert encode_documents(paths, encoder, str(folder)).tolist() != before.tolist()


HOLD_OUT = [(73, 0.05, 4), (10, 0.05, 1), (10, 0, 0), (1, 0.5, 0), (4, 0.99, 3)]


@pytest.mark.parametrize(('count', 'fraction', 'held'), HOLD_OUT)
def test_hold_out(count, fraction, held):
    documents = [f'{index:03}' for index in range(count)]
    train, held_out = hold_out(documents, fraction, seed=0)
    assert len(held_out) == held and sorted(train + held_out) == documents
    assert hold_out(documents, fraction, seed=0) == (train, held_out)


def test_windows_cover_every_target_once():
    rows = windows(np.arange(101), 10)
    assert rows.shape == (10, 11)
    assert rows[:, 1:].ravel().tolist() == list(range(1, 101))
    assert windows(np.arange(5), 10).shape == (0, 11)


def test_an_epoch_visits_each_window_at_most_once_and_misses_few():
    tokens, batches = np.arange(1003, dtype=np.int32), 99 // 4
    rows = np.concatenate([training_batch(tokens, step, 4, 10, seed=3) for step in range(batches)])
    assert (np.diff(rows, axis=1) == 1).all()
    starts = rows[:, 0]
    assert len(set(starts)) == len(starts) == 96 and len(set(starts % 10)) == 1


def test_epochs_differ_and_batches_depend_on_the_step_alone():
    tokens = np.arange(1003, dtype=np.int32)
    first, second = training_batch(tokens, 0, 4, 10, seed=3), training_batch(tokens, 24, 4, 10, seed=3)
    assert (first != second).any()
    np.testing.assert_array_equal(training_batch(tokens, 24, 4, 10, seed=3), second)
    assert (training_batch(tokens, 0, 4, 10, seed=4) != first).any()


def test_too_little_text_is_refused():
    with pytest.raises(DatasetError, match='25 training tokens do not fill a batch of 4 windows of 10'):
        training_batch(np.arange(25), 0, 4, 10, seed=0)


def test_the_cache_is_written_under_another_name_first(folder, encoder, monkeypatch):
    monkeypatch.setattr(load_dataset.os, 'replace', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode_documents([str(folder / 'a.txt')], encoder, str(folder))
    assert not list(folder.glob('tokens-*.npy'))
