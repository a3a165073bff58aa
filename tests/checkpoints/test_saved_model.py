"""SavedModels, read by TensorFlow alone."""

import ctypes
import functools
import glob
import os
import subprocess
import sys

import numpy as np
import pytest
import reference_numpy
from example_models import BUNDLED, TINY, random_tokens, random_values
from samples import CASES, assert_follow, draw_samples

from gpt2 import sample
from gpt2.checkpoints import bundle, saved_model
from gpt2.checkpoints.convert import convert
from gpt2.checkpoints.source import Source, load_params
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.system.tensorflow import tf

DRAWS = 100_000
GREEDY = {'temperature': 0.0, 'top_k': 0, 'top_p': 1.0}
PLAIN = {'temperature': 1.0, 'top_k': 0, 'top_p': 1.0}
# What a program does that knows the folder and TensorFlow, and nothing of this library.
STRANGER = """
import sys
import numpy as np
import tensorflow as tf

folder, given, taken = sys.argv[1:]
signatures = tf.saved_model.load(folder).signatures
tokens = np.load(given)
logits = signatures['logits'](tokens=tf.constant(tokens))['logits']
greedy = signatures['generate'](
    tokens=tf.constant(tokens), length=tf.constant(30), seed=tf.constant(1, tf.int64),
    temperature=tf.constant(0.0), top_k=tf.constant(0), top_p=tf.constant(1.0),
)['tokens']
np.savez(taken, logits=logits, greedy=greedy)
assert not any(name.split('.')[0] == 'gpt2' for name in sys.modules)
"""


def in_memory(hparams, values):
    return Source('in memory', 'release', hparams, None, values.__getitem__, 'none')


def fixed(logits):
    """A source whose logits are always these."""
    hparams = HParams(n_vocab=len(logits), n_ctx=4, n_embd=2, n_head=1, n_layer=1)
    values = random_values(hparams)
    values['model/ln_f/g'][:] = 0
    values['model/ln_f/b'][:] = [1, 0]
    values['model/wte'][:, 0] = logits
    return in_memory(hparams, values)


def generator(folder):
    """The signature `generate` of a folder, as a function of plain numbers."""
    loaded = tf.saved_model.load(str(folder))

    def generate(tokens, length, seed=1, temperature=1.0, top_k=0, top_p=1.0):
        inputs = {
            'tokens': tf.constant(tokens, tf.int32),
            'length': tf.constant(length),
            'seed': tf.constant(seed, tf.int64),
            'temperature': tf.constant(temperature, tf.float32),
            'top_k': tf.constant(top_k),
            'top_p': tf.constant(top_p, tf.float32),
        }
        return loaded.signatures['generate'](**inputs)['tokens'].numpy()

    return generate


@pytest.fixture(scope='module')
def tiny():
    return in_memory(TINY, random_values(TINY))


@pytest.fixture(scope='module')
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp('saved') / 'tiny'
    saved_model.write(str(folder), tiny)
    return folder


@pytest.fixture(scope='module')
def generate(folder):
    return generator(folder)


def test_a_process_that_knows_nothing_of_us_gets_our_logits_and_our_greedy_tokens(folder, tiny, tmp_path):
    tokens = random_tokens(TINY, 3, 7)
    np.save(tmp_path / 'given.npy', tokens)
    (tmp_path / 'stranger.py').write_text(STRANGER)
    command = [sys.executable, '-W', 'error', 'stranger.py', str(folder), 'given.npy', 'taken.npz']
    subprocess.run(command, cwd=tmp_path, check=True)
    taken = np.load(tmp_path / 'taken.npz')
    for row, context, greedy in zip(taken['logits'], tokens.tolist(), taken['greedy'].tolist()):
        expected = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, context)
        np.testing.assert_allclose(row, expected, atol=1e-4)
        ours = sample.Generator(TINY, load_params(tiny))
        assert greedy == context + draw_samples(ours, context, 30, [1], 1, temperature=0)[0]


def test_the_signatures_are_those_of_the_documents(folder):
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == {'logits', 'generate'}

    def specs(tensors):
        return {name: (spec.dtype.name, spec.shape.as_list()) for name, spec in tensors.items()}

    scalars = {'length': 'int32', 'seed': 'int64', 'temperature': 'float32', 'top_k': 'int32', 'top_p': 'float32'}
    tokens = {'tokens': ('int32', [None, None])}
    assert specs(signatures['logits'].structured_input_signature[1]) == tokens
    assert specs(signatures['logits'].structured_outputs) == {'logits': ('float32', [None, None, TINY.n_vocab])}
    expected = tokens | {name: (dtype, []) for name, dtype in scalars.items()}
    assert specs(signatures['generate'].structured_input_signature[1]) == expected
    assert specs(signatures['generate'].structured_outputs) == tokens


def test_the_loader_of_tensorflow_serving_takes_it(folder):
    """TensorFlow Serving loads through C++, as TensorFlow's C interface does."""
    [path] = glob.glob(os.path.join(tf.sysconfig.get_lib(), 'libtensorflow_cc.so*'))
    library = ctypes.CDLL(path)
    for name in ('TF_NewStatus', 'TF_NewGraph', 'TF_NewSessionOptions', 'TF_LoadSessionFromSavedModel', 'TF_Message'):
        getattr(library, name).restype = ctypes.c_char_p if name == 'TF_Message' else ctypes.c_void_p
    status, graph, options = (
        ctypes.c_void_p(make()) for make in (library.TF_NewStatus, library.TF_NewGraph, library.TF_NewSessionOptions)
    )
    tags = (ctypes.c_char_p * 1)(b'serve')
    session = library.TF_LoadSessionFromSavedModel(options, None, str(folder).encode(), tags, 1, graph, None, status)
    assert session, library.TF_Message(status)


@pytest.fixture(scope='module')
def generators(tmp_path_factory):
    """From logits to a generator that has them always."""

    @functools.cache
    def make(*logits):
        folder = str(tmp_path_factory.mktemp('fixed') / 'saved')
        saved_model.write(folder, fixed(logits))
        return generator(folder)

    return make


@pytest.mark.parametrize(('logits', 'how'), CASES)
def test_tokens_follow_the_exact_probabilities(generators, logits, how):
    drawn = generators(*logits)(np.zeros([DRAWS, 1]), 3, seed=11, **how)[:, 1:]
    expected = reference_numpy.probabilities(logits, **how)
    for step in drawn.T:
        assert_follow(step, expected)
    # Of two steps each pair comes as often as if they knew nothing of each other.
    pairs = drawn[:, 0] * len(logits) + drawn[:, 2]
    counts = np.bincount(pairs, minlength=len(logits) ** 2) / DRAWS
    joint = np.outer(expected, expected).ravel()
    np.testing.assert_allclose(counts, joint, atol=5.5 * np.sqrt(joint.max() / DRAWS))


def test_tokens_follow_the_model_after_those_drawn_before(generate):
    pairs = [tuple(row) for row in generate(np.full([4000, 2], 7), 2, top_k=2)[:, 2:].tolist()]

    def next_probabilities(*tokens):
        rows = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, tokens)
        return reference_numpy.probabilities(rows[-1], top_k=2)

    first = next_probabilities(7, 7)
    for token in np.flatnonzero(first):
        second = next_probabilities(7, 7, token)
        for following in np.flatnonzero(second):
            expected = first[token] * second[following]
            assert pairs.count((token, following)) / 4000 == pytest.approx(expected, abs=4.5 * np.sqrt(expected / 4000))


def test_the_noise_of_a_row_depends_on_seed_row_and_step_alone(generate):
    context = [[3, 1, 4]]
    all_rows = generate(context * 9, 30, **PLAIN)
    np.testing.assert_array_equal(generate(context * 4, 30, **PLAIN), all_rows[:4])
    np.testing.assert_array_equal(generate(context * 9, 12, **PLAIN), all_rows[:, :15])
    assert len({tuple(row) for row in all_rows.tolist()}) == 9
    for seed in (2, -1, 2**62):
        assert (generate(context * 9, 30, seed=seed) != all_rows).any(axis=1).all()


@pytest.mark.parametrize('temperature', [0.0, 1e-40, -1.0])
def test_a_temperature_near_zero_or_below_is_greedy(generate, temperature):
    greedy = generate([[3, 1, 4]], 30, **GREEDY)
    found = generate([[3, 1, 4]], 30, seed=5, temperature=temperature, top_k=3, top_p=0.5)
    np.testing.assert_array_equal(found, greedy)


def test_as_many_tokens_as_the_window_takes_and_no_more(generate):
    assert generate([[3, 1, 4]], 0).tolist() == [[3, 1, 4]]
    assert generate([[3, 1, 4]], TINY.n_ctx - 2).shape == (1, TINY.n_ctx + 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match='exceed the limit of 41 together'):
        generate([[3, 1, 4]], TINY.n_ctx - 1)


@pytest.mark.parametrize('setting', [{'top_k': -1}, {'top_p': 0.0}, {'top_p': -0.5}])
def test_settings_that_leave_no_token_are_refused(generate, setting):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f'{next(iter(setting))} must be'):
        generate([[3, 1, 4]], 2, **PLAIN | setting)


def test_the_variables_are_a_checkpoint_in_the_releases_layout(folder, tiny):
    entries, shards = bundle.read_index(str(folder / saved_model.VARIABLES))
    assert entries.keys() == tiny.shapes.keys()
    for name, value in tiny.values():
        found = bundle.read_value(str(folder / saved_model.VARIABLES), name, entries[name], shards)
        np.testing.assert_array_equal(found, value)


def test_vocabulary_and_shape_lie_beside_the_graph(tmp_path):
    saved_model.write(str(tmp_path), bundle.read(str(BUNDLED)))
    for name in ('encoder.json', 'vocab.bpe', 'hparams.json'):
        assert (tmp_path / 'assets.extra' / name).read_bytes() == (BUNDLED / name).read_bytes()


def test_another_dtype_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="--dtype is 'float16', and --to saved_model holds float32"):
        convert(tiny, str(tmp_path / 'saved'), 'saved_model', 'float16')
    assert os.listdir(tmp_path) == []
