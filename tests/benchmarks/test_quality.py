"""What benchmarks/quality.py says that int8 changes."""

import numpy as np
import pytest
import quality
from example_models import BUNDLED, HERE, TINY, as_params, random_values, save

from gpt2 import model
from gpt2.checkpoints import release as checkpoint
from gpt2.encoder import get_encoder
from gpt2.hparams import save_hparams


def test_windows_predict_every_token_but_the_first_once():
    text = (HERE / 'held_out.txt').read_text(encoding='utf-8')[:8000]
    ids = get_encoder('7M', str(BUNDLED.parent)).encode(text)
    windows = quality.text_windows(str(BUNDLED), text)
    assert windows.shape == (len(ids) // 512, 513) and len(windows) > 2
    assert windows[:, 1:].ravel().tolist() == ids[1 : 1 + windows[:, 1:].size]
    assert windows[:, :-1].ravel().tolist() == ids[: windows[:, 1:].size]


def test_figures_are_those_of_the_whole_model(tmp_path):
    params = as_params(random_values(TINY))
    folder = save(tmp_path, TINY, params)
    save_hparams(f'{folder}/hparams.json', TINY)
    windows = np.random.default_rng(0).integers(TINY.n_vocab, size=[6, 33])
    found = quality.compare(folder, windows)
    expected = np.exp(float(model.loss(TINY, params, windows.astype(np.int32))))
    assert found['tokens'] == 6 * 32
    assert found['perplexity_float32'] == pytest.approx(expected, rel=1e-4)
    assert found['perplexity_ratio'] == pytest.approx(found['perplexity_int8'] / found['perplexity_float32'])
    assert 0.98 < found['perplexity_ratio'] < 1.02 and 0.8 < found['top_1_agreement'] < 1
    assert 0 < found['mean_kl_nats'] < 0.01


def test_the_model_with_outliers_has_them(tmp_path):
    quality.write_outlier_model(str(tmp_path), TINY, channels=2, factor=20)
    values = checkpoint.load_params(str(tmp_path), TINY)['model']['h1']
    assert sorted(values['ln_2']['g'].numpy()) == [1] * 18 + [20, 20]
    spread = values['mlp']['c_fc']['w'].numpy()[0].std(axis=0)
    assert ((spread > 0.15).sum(), (spread < 0.04).sum()) == (2, 78)
