import inspect
import json
import re
import sys
import types

import numpy as np
import pytest
from running import help_names_every_flag_and_no_other

from gpt2.commands import train, train_vocabulary
from gpt2.commands.flags import run
from gpt2.encoder import get_encoder
from gpt2.errors import Error, UsageError
from gpt2.token_files import Tokens
from gpt2.training import vocabulary
from gpt2.training.batches import split


@pytest.fixture
def text(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('the cat sat on the mat', encoding='utf-8')
    return str(path)


def test_ids_are_laid_out_as_in_the_release(tmp_path, text, monkeypatch):
    merges = [('t', 'h'), ('th', 'e'), ('h', 'e'), ('t', 'he')]  # the last makes `the` a second time
    monkeypatch.setattr(vocabulary, 'learn_merges', lambda texts, size: merges)
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
    with pytest.raises(UsageError, match='--model_name'):
        train_vocabulary.train_vocabulary(text, folder='nowhere', model_name='mine')


def test_what_training_may_hold_out_is_not_learnt_from():
    """Of a book and its preface the end of the book, whichever of them the draw names; of many the same documents."""
    for seed in range(4):
        assert train_vocabulary.learnt_from(np.array([31000, 3500]), 0.05, seed).tolist() == [31000 - 1725, 3500]
    sizes = np.random.default_rng(0).integers(1, 40, 200)
    kept = train_vocabulary.learnt_from(4 * sizes, 0.05, seed=3)
    ends = np.cumsum(sizes)
    _, held = split(Tokens(np.arange(ends[-1]), ends, None, [0]), 0.05, seed=3)
    starts = held.places(held.documents[:, 0])
    assert len(starts) and not kept[np.searchsorted(ends, starts, side='right')].any()
    assert (kept == 0).sum() == 10 and set(kept) <= {0, *(4 * sizes)}
    assert train_vocabulary.learnt_from(np.array([5, 6]), 0, 0).tolist() == [5, 6]
    assert train_vocabulary.learnt_from(np.array([], np.int64), 0.05, 0).tolist() == []


def test_the_help_names_every_flag():
    help_names_every_flag_and_no_other(train_vocabulary.train_vocabulary)


def test_the_workflow_of_the_help_works_as_shown(tmp_path, monkeypatch, capsys):
    """From the current folder: learn a vocabulary, and train with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'stories').mkdir()
    (tmp_path / 'stories' / 'a.txt').write_text('the cat sat on the mat, and the dog ran. ' * 40)
    pattern = r'python src/train(_vocabulary)?\.py (.*)'
    first, second = re.findall(pattern, inspect.getdoc(train_vocabulary.train_vocabulary))
    assert (first[0], second[0]) == ('_vocabulary', '')
    as_shown(train_vocabulary.train_vocabulary, first[1])
    printed = capsys.readouterr().out
    assert re.fullmatch(r'models/stories-vocabulary: \d+ tokens, learnt from 1 document\n', printed)
    tiny = ['--n_ctx=8', '--n_embd=4', '--n_head=1', '--n_layer=1', '--batch_size=1', '--steps=1']
    as_shown(train.train_model, ' '.join([second[1], *tiny]))
    size = json.loads((tmp_path / 'models' / 'mine' / 'hparams.json').read_text())['n_vocab']
    assert f' {size} tokens' in printed


def as_shown(function, words):
    run(function, arguments=words.split())


@pytest.mark.parametrize(
    ('content', 'message'), [(b'abc\xff', 'is not UTF-8 at byte 3'), (b'\xff\xfea\0', 'it begins as UTF-16 does')]
)
def test_text_that_is_not_utf8_is_one_line(tmp_path, content, message):
    (tmp_path / 'a.txt').write_bytes(content)
    with pytest.raises(Error, match=message) as caught:
        train_vocabulary.train_vocabulary(str(tmp_path / 'a.txt'), folder=str(tmp_path / 'v'), held_out=0)
    assert '\n' not in str(caught.value) and not (tmp_path / 'v').exists()


def test_text_is_read_by_the_shared_rule(tmp_path):
    """A byte-order mark and the \\r of \\r\\n are no text, so no merge holds them."""
    (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfa b\r\n' * 1 + b'a b\r\n' * 20)
    train_vocabulary.train_vocabulary(str(tmp_path / 'a.txt'), folder=str(tmp_path / 'v'), held_out=0)
    encoder = get_encoder('v', str(tmp_path))
    learnt = [encoder.decode_bytes([index]) for index in range(256, len(encoder) - 1)]
    assert b' b' in learnt and not any(b'\r' in token or b'\xef' in token for token in learnt)


def test_a_folder_that_holds_a_vocabulary_is_not_written_over(tmp_path, text):
    (tmp_path / 'v').mkdir()
    (tmp_path / 'v' / 'encoder.json').write_text('mine')
    with pytest.raises(UsageError, match='holds a vocabulary'):
        train_vocabulary.train_vocabulary(text, model_name='v', models_dir=str(tmp_path))
    assert (tmp_path / 'v' / 'encoder.json').read_text() == 'mine'
