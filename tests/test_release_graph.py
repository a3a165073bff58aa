"""Our forward against the graph that OpenAI exported, with one set of random 124M weights."""

import numpy as np
import pytest
from example_models import RELEASE, random_values

from gpt2 import model
from gpt2.checkpoints import release as checkpoint
from gpt2.hparams import load_hparams, variable_shapes
from gpt2.scoring import log_probabilities as scoring
from gpt2.scoring import windows
from gpt2.system.tensorflow import tf

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def prefix(tmp_path_factory):
    """A checkpoint of random weights under the release's names and with its index layout."""
    prefix = str(tmp_path_factory.mktemp('124M') / 'model.ckpt')
    values = random_values(load_hparams(RELEASE / '124M' / 'hparams.json'), scale=0.05)
    checkpoint.write_values(prefix, {name: tf.constant(value) for name, value in values.items()})
    return prefix


@pytest.fixture(scope='module')
def tokens():
    return np.random.default_rng(5).integers(50257, size=(1, 1024)).astype(np.int32)


@pytest.fixture(scope='module')
def released(prefix, tokens):
    """Logits [1024, n_vocab] and loss of the released graph, restored from the checkpoint."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(RELEASE / '124M' / 'model.ckpt.meta'))
        saver.restore(session, prefix)
        return session.run(['model/MatMul_2:0', 'model/Mean:0'], {'Placeholder:0': tokens})


@pytest.fixture(scope='module')
def loaded(prefix):
    hparams = load_hparams(RELEASE / '124M' / 'hparams.json')
    return hparams, checkpoint.load_params(prefix, hparams)


def test_logits_of_1024_tokens_equal_the_released_graph(released, loaded, tokens):
    hparams, params = loaded
    found = model.logits(params, model.forward(hparams, params, tf.constant(tokens)))[0].numpy()
    assert np.abs(released[0]).max() > 1
    np.testing.assert_allclose(found, released[0], atol=1e-4)


def test_loss_equals_the_released_graph(released, loaded, tokens):
    hparams, params = loaded
    assert float(model.loss(hparams, params, tf.constant(tokens))) == pytest.approx(released[1].item(), abs=1e-4)


def test_cached_decoding_equals_the_released_graph(released, loaded, tokens):
    """Prompt, then one token at a time across a growth of the cache, at 124M's real size."""
    hparams, params = loaded
    cache = model.new_cache(hparams, 1, 1024)

    @tf.function(reduce_retracing=True)
    def step(tokens, position, cache):
        return model.logits(params, model.forward(hparams, params, tokens, cache, position))

    found = [step(tf.constant(tokens[:, :1000]), tf.constant(0), cache)[0].numpy()]
    for position in range(1000, 1024):
        found.append(step(tf.constant(tokens[:, position : position + 1]), tf.constant(position), cache)[0].numpy())
    np.testing.assert_allclose(np.concatenate(found), released[0], atol=1e-4)


def test_our_index_lists_what_the_released_index_lists(prefix):
    reader = tf.train.load_checkpoint(str(RELEASE / '124M' / 'model.ckpt'))
    assert reader.get_variable_to_shape_map() == tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    shapes = variable_shapes(load_hparams(RELEASE / '124M' / 'hparams.json'))
    assert reader.get_variable_to_shape_map() == shapes and len(shapes) == 148


def test_scores_of_1024_tokens_sum_to_the_loss_of_the_released_graph(released, loaded, tokens):
    score = scoring.make_score(*loaded)
    [row] = windows.windows(tokens[0].tolist(), 1024, 512)
    [(log_probabilities, _, _)] = score([row])
    assert len(log_probabilities) == 1023
    assert -log_probabilities.mean() == pytest.approx(released[1].item(), abs=1e-4)
