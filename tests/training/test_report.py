"""What is said of a trained model."""

import numpy as np
import pytest
from example_models import RELEASE

from gpt2.encoder import get_encoder
from gpt2.training.report import text_bytes, unigram_loss


def test_unigram_loss_by_hand():
    rows = np.array([[0, 1, 1], [0, 0, 2]])
    expected = -np.mean(np.log(np.array([3, 3, 4, 1]) / 9))
    assert unigram_loss(np.array([0, 0, 0, 1, 1]), rows, 4) == pytest.approx(expected, rel=1e-6)


def test_text_bytes_count_targets_and_not_the_end_of_text():
    encoder = get_encoder('124M', str(RELEASE))
    ids = encoder.encode('Grüße')
    assert text_bytes(encoder, np.array([[50256, *ids, 50256]])) == len('Grüße'.encode())
