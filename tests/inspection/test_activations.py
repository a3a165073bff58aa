"""What is seen inside a model, against transformers' hooks, and that nothing is slower for it."""

import errno
import functools
import json
import os
import zipfile

import numpy as np
import pytest
from example_models import HERE, TINY, full_logits, random_tokens

import gpt2
from gpt2 import model, sample
from gpt2.errors import UsageError
from gpt2.inspection import files
from gpt2.inspection.activations import look, windows
from gpt2.inspection.names import OF_A_LAYER, OF_ALL, find
from gpt2.system.files import WriteError
from gpt2.system.tensorflow import tf, traced

ALL = [*OF_ALL, *(f'h{layer}.{name}' for layer in range(TINY.n_layer) for name in OF_A_LAYER)]


@pytest.fixture(scope='module')
def generator(tiny_params):
    return sample.Generator(TINY, tiny_params)


@pytest.fixture(scope='module')
def bundled():
    return gpt2.load('7M', engine='tf')


def test_everything_is_what_hooks_of_transformers_see(generator):
    goldens = json.loads((HERE / 'inspection_goldens.json').read_text())
    assert set(goldens['seen']) == set(ALL)
    found = look(generator, goldens['ids'], find(TINY, ALL), 20)
    for name, golden in goldens['seen'].items():
        expected = np.reshape(golden['values'], golden['shape'])
        assert found[name].dtype == np.float32 and found[name].shape == expected.shape, name
        np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=name)


@pytest.mark.peers
def test_everything_in_the_bundled_model_is_what_hooks_of_transformers_see(bundled):
    pytest.importorskip('transformers')
    from transformers_hooks import hooked
    from transformers_model import transformers_model

    text = 'When the king and the queen went to the garden, the king gave a rose to the'
    values = {name: value.numpy() for name, value in model.flatten(bundled.inside.params).items()}
    expected = hooked(transformers_model(bundled.hparams, values), bundled.hparams, bundled.encode(text))
    found = bundled.activations(text, list(expected))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


def test_a_tap_that_changes_nothing_adds_nothing_to_the_graph(tiny_params):
    def operations(tap):
        forward = traced(lambda tokens: model.forward(TINY, tiny_params, tokens, tap=tap))
        graph = forward.get_concrete_function(tf.TensorSpec([2, 5], tf.int32)).graph
        return [operation.type for operation in graph.get_operations()]

    names = []
    plain = operations(model.untapped)
    assert operations(lambda name, value: names.append(name) or value) == plain and 'h1.attn.pattern' in names
    assert len(operations(lambda name, value: value * 1 if name == 'h0.pre' else value)) > len(plain)


def test_a_tap_changes_what_follows(tiny_params):
    tokens = random_tokens(TINY, 1, 6)
    features = model.forward(TINY, tiny_params, tokens, tap=lambda name, value: value * 0 if '.out' in name else value)
    p = tiny_params['model']
    embedded = tf.gather(p['wte'], tokens) + p['wpe'][:6]
    np.testing.assert_allclose(features, model.norm(embedded, p['ln_f']), atol=1e-6)


def test_names_without_a_layer_are_of_all_layers(generator):
    ids = random_tokens(TINY, 1, 9)[0].tolist()
    found = look(generator, ids, find(TINY, ' attn.pattern ,h1.attn.pattern,mlp.act, lens'), 20)
    assert found['attn.pattern'].shape == (2, 4, 9, 9) and found['mlp.act'].shape == (2, 9, 80)
    np.testing.assert_array_equal(found['attn.pattern'][1], found['h1.attn.pattern'])
    np.testing.assert_allclose(found['attn.pattern'].sum(axis=-1), 1, atol=1e-5)
    assert not np.triu(found['attn.pattern'], 1).any()  # no query sees a later key
    np.testing.assert_allclose(
        found['lens'][-1], full_logits(TINY, generator.params, np.array([ids], np.int32))[0], atol=1e-4
    )


def test_tokens_of_a_long_text_are_seen_in_the_first_window_that_holds_them(generator):
    n, stride = 2 * TINY.n_ctx + 7, 15
    ids = random_tokens(TINY, 1, n)[0].tolist()
    whole = look(generator, ids, find(TINY, ['attn.pattern', 'h0.mlp.act', 'logits']), stride)
    assert whole['attn.pattern'].shape == (2, 4, n, TINY.n_ctx) and whole['logits'].shape == (n, TINY.n_vocab)
    assert whole.tokens.tolist() == ids and sorted(set(whole.starts.tolist())) == [0, 15, 30, 45, 60]
    for token in (0, TINY.n_ctx - 1, TINY.n_ctx, n - 1):
        start = whole.starts[token]
        alone = look(generator, ids[start : token + 1], find(TINY, ['attn.pattern', 'h0.mlp.act', 'logits']), stride)
        np.testing.assert_allclose(whole['logits'][token], alone['logits'][-1], atol=1e-4)
        np.testing.assert_allclose(whole['h0.mlp.act'][token], alone['h0.mlp.act'][-1], atol=1e-4)
        np.testing.assert_allclose(
            whole['attn.pattern'][:, :, token, : token + 1 - start], alone['attn.pattern'][:, :, -1], atol=1e-5
        )
        assert not whole['attn.pattern'][:, :, token, token + 1 - start :].any()


@pytest.mark.parametrize(('n', 'stride'), [(1, 4), (8, 4), (9, 4), (9, 1), (30, 8), (30, 3)])
def test_windows_give_each_token_once(n, stride):
    found = list(windows(n, 8, stride))
    assert [token for _, new, end in found for token in range(new, end)] == list(range(n))
    assert all(end - start <= 8 and start <= new for start, new, end in found)
    assert all(end - start == 8 for start, _, end in found[:-1])


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ('h2.mlp.act', 'h2.mlp.act names layer 2; this model has layers 0 to 1'),
        ('mlp.acts', "'mlp.acts' names nothing inside; there are wte, wpe, ln_f, logits, pre"),
        (['h0.'], "'h0.' names nothing inside"),
        ('h00.mlp.act', "'h00.mlp.act' names nothing inside"),
        ('h\u0661.mlp.act', 'names nothing inside'),
        (f'h{"9" * 5000}.mlp.act', 'names nothing inside'),
        (' , ', 'nothing is named'),
        (None, 'the names are None, expected a text or a list of texts'),
        (['mlp.act', 5], 'the names are .*5.*, expected a text or a list of texts'),
    ],
)
def test_names_of_nothing_are_refused(names, message):
    with pytest.raises(UsageError, match=message):
        find(TINY, names)


def test_a_name_that_is_given_twice_is_seen_once():
    assert [each.name for each in find(TINY, 'mlp.act, wte,mlp.act ,h1.post')] == ['mlp.act', 'wte', 'h1.post']


# Files


@pytest.fixture
def two_windows(generator):
    ids = random_tokens(TINY, 1, TINY.n_ctx + 9)[0].tolist()
    return functools.partial(look, generator, ids, find(TINY, ['attn.z', 'h1.mlp.act']), 20)


@pytest.mark.parametrize('name', ['found.npz', 'found.safetensors'])
def test_files_hold_what_is_seen(two_windows, tmp_path, name):
    expected = two_windows()
    with files.array_file(str(tmp_path / name), {'text': 'é'}) as new_array:
        two_windows(new_array)
    if name.endswith('npz'):
        found = dict(np.load(tmp_path / name))
        assert zipfile.ZipFile(tmp_path / name).testzip() is None
    else:
        safetensors = pytest.importorskip('safetensors')
        with safetensors.safe_open(str(tmp_path / name), 'np') as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
            assert file.metadata() == {'text': 'é'}
    assert set(found) == {'tokens', 'starts', 'attn.z', 'h1.mlp.act'}
    np.testing.assert_array_equal(found['tokens'], expected.tokens)
    np.testing.assert_array_equal(found['starts'], expected.starts)
    np.testing.assert_array_equal(found['attn.z'], expected['attn.z'])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_is_not_finished_is_not_there(two_windows, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError), files.array_file(str(tmp_path / 'a.npz'), {}) as new_array:
        two_windows(new_array)
        raise RuntimeError
    monkeypatch.setattr(files, 'write_npz', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(WriteError, match=r'a\.npz cannot be written'), files.array_file(str(tmp_path / 'a.npz'), {}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_arrays_have_their_room_before_they_are_filled(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(files, 'check_space', lambda folder, size, remedy: asked.append(size))
    with files.array_file(str(tmp_path / 'a.npz'), {}) as new_array:
        first, _ = new_array('a', [1 << 18], 'float32'), new_array('b', [2, 4], 'int32')
        assert asked == [2 << 20, (1 << 20) + 64]
        if hasattr(os, 'posix_fallocate'):
            assert os.stat(first.filename).st_blocks * 512 >= 1 << 20

    def no_room(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, 'reserve', no_room)
    message = r'b\.npz cannot be written \(No space left on device\); free space, or name another file'
    with pytest.raises(WriteError, match=message), files.array_file(str(tmp_path / 'b.npz'), {}) as new_array:
        new_array('a', [2], 'float32')
    assert [path.name for path in tmp_path.iterdir()] == ['a.npz']


def test_a_file_of_another_kind_is_refused_before_anything_is_computed(tmp_path):
    closed = gpt2.api.open_model('7M')
    with pytest.raises(UsageError, match=r'a\.csv is no name of a file of arrays; end it with \.npz or \.safetensors'):
        closed.save_activations(str(tmp_path / 'a.csv'), 'The king', 'mlp.act')
    with pytest.raises(WriteError, match='cannot be written'):
        closed.save_activations(str(tmp_path / 'none' / 'a.npz'), 'The king', 'mlp.act')


# The model as a user has it


def test_a_model_on_any_engine_shows_its_inside(bundled):
    text = 'The king was very happy.'
    on_litert = gpt2.load('7M', engine='litert')
    found = on_litert.activations(text, 'h5.mlp.act, logits', end_of_text=True)
    n = 1 + len(bundled.encode(text))
    assert found['h5.mlp.act'].shape == (n, 1024) and found['logits'].shape == (n, 8192)
    assert found.tokens.tolist() == [bundled.encoder.end_of_text, *bundled.encode(text)]
    expected = bundled.activations(text, ['logits'], end_of_text=True)
    np.testing.assert_allclose(found['logits'], expected['logits'], atol=1e-3)
    score = bundled.score(text)
    log_probabilities = tf.nn.log_softmax(found['logits']).numpy()[range(n - 1), found.tokens[1:]]
    np.testing.assert_allclose(log_probabilities, [token.log_probability for token in score.tokens], atol=1e-3)
    on_litert.close()
    with pytest.raises(gpt2.Error, match='closed'):
        on_litert.activations(text, 'logits')


def test_texts_that_are_none_are_refused(bundled):
    for text in ('', None, 5):
        with pytest.raises(UsageError, match=r'the text is .*, expected one of a character or more'):
            bundled.activations(text, 'mlp.act')
    with pytest.raises(UsageError, match='stride is 513'):
        bundled.activations('a', 'mlp.act', stride=513)
