import sys
import types

import pytest

from gpt2.commands import train_vocabulary
from gpt2.encoder import get_encoder
from gpt2.errors import Error, UsageError


@pytest.fixture
def text(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('the cat sat on the mat', encoding='utf-8')
    return str(path)


def test_ids_are_laid_out_as_in_the_release(tmp_path, text, monkeypatch):
    merges = [('t', 'h'), ('th', 'e'), ('h', 'e'), ('t', 'he')]  # the last makes `the` a second time
    monkeypatch.setattr(train_vocabulary, 'learn_merges', lambda paths, size: merges)
    train_vocabulary.train_vocabulary(text, folder=str(tmp_path / 'v'), held_out=0)
    encoder = get_encoder('v', str(tmp_path))
    assert [encoder.decoder[index] for index in (0, 255)] == ['!', 'Ń']
    assert [encoder.decoder[index] for index in range(256, 260)] == ['th', 'the', 'he', '<|endoftext|>']
    assert encoder.decode(encoder.encode('the theme')) == 'the theme'


def test_a_missing_package_is_one_line(text, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tokenizers', types.ModuleType('tokenizers'))
    with pytest.raises(Error, match='pip install tokenizers'):
        train_vocabulary.train_vocabulary(text, folder='nowhere', held_out=0)


def test_wrong_use(text):
    with pytest.raises(UsageError, match='--folder'):
        train_vocabulary.train_vocabulary(text)
    with pytest.raises(UsageError, match='--n_vocab is 100'):
        train_vocabulary.train_vocabulary(text, folder='nowhere', n_vocab='100')
