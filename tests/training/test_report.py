"""What is said of a trained model."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from example_models import RELEASE

from gpt2.encoder import Encoder, get_encoder
from gpt2.hparams import HParams
from gpt2.training.report import draw_curves, held_out_report, text_bytes, unigram_loss


def test_unigram_loss_by_hand():
    expected = -np.mean(np.log(np.array([3, 3, 4, 1]) / 9))
    assert unigram_loss(np.array([3, 2, 0, 0]), np.array([1, 2, 1, 0])) == pytest.approx(expected, rel=1e-6)


def test_text_bytes_count_targets_and_not_the_end_of_text():
    encoder = get_encoder('124M', str(RELEASE))
    ids = encoder.encode('Grüße')
    assert text_bytes(encoder, np.bincount([*ids, 50256])) == len('Grüße'.encode())


def test_no_token_that_ends_a_text_counts_as_bytes():
    found = get_encoder('124M', str(RELEASE))
    encoder = Encoder(found.encoder, list(found.bpe_ranks), end_ids=found.encode('!'))
    assert text_bytes(encoder, np.bincount([*found.encode('ab!'), encoder.end_of_text], minlength=60000)) == 2


@pytest.mark.parametrize(('loss', 'side'), [(10.0, '7.6% below'), (12.0, '10.9% above')])
def test_the_report_says_on_which_side_of_a_unigram_model_a_loss_is(loss, side):
    encoder = get_encoder('124M', str(RELEASE))
    unknown = SimpleNamespace(counts=lambda n_vocab: np.zeros(n_vocab, int))
    targets = np.bincount([0, 1], minlength=len(encoder))
    said = held_out_report(HParams(len(encoder), 8, 4, 1, 1), encoder, loss, [unknown], targets)
    assert said.endswith(f'; {side} a unigram model (10.8249)')


def test_the_curves_are_a_picture(tmp_path):
    pytest.importorskip('matplotlib')
    entries = [{'step': 1, 'loss': 3.0}, {'step': 2, 'loss': 2.0, 'held_out_loss': 2.5}]
    assert draw_curves(str(tmp_path / 'x.png'), entries)
    assert (tmp_path / 'x.png').read_bytes().startswith(b'\x89PNG')


def test_without_matplotlib_there_are_no_curves(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    assert not draw_curves(str(tmp_path / 'x.png'), [{'step': 1, 'loss': 3.0}])
    assert not list(tmp_path.iterdir())
