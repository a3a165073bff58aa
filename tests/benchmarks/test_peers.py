"""What is scored beside other programs, and how their answers are read."""

import numpy as np
import peer_systems
import peers
import pytest
import quality
from example_models import HERE, TINY, as_params, random_values, save

from gpt2.checkpoints.source import open_source
from gpt2.encoder import get_encoder
from gpt2.hparams import save_hparams
from gpt2.litert.engine import Generator
from gpt2.litert.export import exported_file

LOG = """\
0.00.457.818 I perplexity: tokenizing the input ..
0.59.968.941 I perplexity: calculating perplexity over 2 chunks, n_ctx=1024, batch_size=1024, n_seq=1
1.06.196.978 I perplexity: 5.73 seconds per pass - ETA 1.12.337.656 I Final estimate: PPL = 65644.9717 +/- 1057.89052
"""


def test_the_perplexity_tool_is_timed_from_its_first_window_to_its_result():
    found = peer_systems.told(LOG)
    assert found == {'seconds': pytest.approx(12.368715), 'perplexity': 65644.9717}


def test_the_windows_are_the_start_of_the_text(tmp_path):
    text, path = tmp_path / 'text.txt', tmp_path / 'ids.npy'
    text.write_text((HERE / 'held_out.txt').read_text(encoding='utf-8') * 3, encoding='utf-8')
    peers.save_windows(path, text)
    windows = np.load(path)
    assert windows.shape == (peers.SCORING, peer_systems.N_CTX)
    encoder = get_encoder('124M', str(HERE / 'release'))
    assert text.read_text(encoding='utf-8').startswith(encoder.decode(windows.ravel()[:-1]))


def test_our_score_is_of_the_last_tokens_of_each_window(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_systems, 'SCORED', 9)
    folder = save(tmp_path, TINY, as_params(random_values(TINY)))
    save_hparams(f'{folder}/hparams.json', TINY)
    generator = Generator(exported_file(open_source(folder), 'float32'), TINY)
    windows = np.random.default_rng(0).integers(TINY.n_vocab, size=[3, 20]).astype(np.int32)
    np.save(tmp_path / 'ids.npy', windows)
    _, score = peer_systems.our_tasks(generator)
    found = score('', tmp_path / 'ids.npy', 2)
    expected = [
        quality.log_softmax(quality.window_logits(generator, window[:-1]))[np.arange(10, 19), window[-9:]]
        for window in windows[:2]
    ]
    assert found['perplexity'] == pytest.approx(np.exp(-np.mean(expected)), rel=1e-5)


def test_systems_that_have_not_scored_the_same_are_found_out():
    peers.check_same({'litert float32': 1000.0, 'llama.cpp f32': 1000.9, 'llama.cpp q8_0': 1020.0})
    with pytest.raises(RuntimeError, match='perplexities differ'):
        peers.check_same({'litert float32': 1000.0, 'llama.cpp f32': 1002.0})
