"""The release's checkpoints without TensorFlow: byte for byte what TensorFlow writes."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from example_models import BUNDLED, RELEASE, TINY, as_params, random_values

from gpt2 import model
from gpt2.checkpoints import bundle, release, table
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.source import open_source
from gpt2.hparams import HParams, HParamsError, save_hparams, variable_shapes
from gpt2.system.tensorflow import tf

VALUES = random_values(TINY)
RELEASED_INDEX = RELEASE / '124M' / 'model.ckpt.index'


@pytest.fixture
def folder(tmp_path):
    """A model that TensorFlow wrote."""
    release.write_values(str(tmp_path / 'model.ckpt'), {name: tf.constant(value) for name, value in VALUES.items()})
    save_hparams(str(tmp_path / 'hparams.json'), TINY)
    return tmp_path


def refusal(path):
    with pytest.raises((CheckpointError, HParamsError)) as caught:
        source = open_source(str(path))
        list(source.values())
    message = str(caught.value)
    assert '\n' not in message
    return message


# The index


@pytest.mark.parametrize('path', [RELEASED_INDEX, BUNDLED / 'model.ckpt.index'], ids=['released', 'bundled'])
def test_an_index_is_written_as_tensorflow_wrote_it(path):
    data = path.read_bytes()
    entries = table.read_table(data)
    assert table.write_table(entries) == data
    assert bundle.HEADER[b''] == entries.pop(b'')
    parsed, shards = bundle.read_index(str(path).removesuffix('.index'))
    assert shards == 1
    assert {name.encode(): bundle.serialised(entry) for name, entry in parsed.items()} == entries


def test_the_released_index_names_every_variable_in_its_place():
    entries, _ = bundle.read_index(str(RELEASED_INDEX).removesuffix('.index'))
    shapes = variable_shapes(HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12))
    assert {name: list(entry.shape) for name, entry in entries.items()} == shapes
    places = sorted((entry.offset, entry.size) for entry in entries.values())
    assert all(offset + size == after for (offset, size), (after, _) in pairwise(places))
    assert sum(places[-1]) == 497759232


@pytest.mark.parametrize('position', range(0, 2000, 97))
def test_a_flipped_bit_in_an_index_is_found(folder, position):
    path = folder / 'model.ckpt.index'
    data = bytearray(path.read_bytes())
    data[position % (len(data) - table.FOOTER_BYTES)] ^= 4
    path.write_bytes(data)
    assert 'model.ckpt.index cannot be read' in refusal(folder)


@pytest.mark.parametrize('length', [0, 10, 47, 48, 200, -1, -20])
def test_a_cut_index(folder, length):
    path = folder / 'model.ckpt.index'
    path.write_bytes(path.read_bytes()[:length])
    assert 'model.ckpt.index cannot be read' in refusal(folder)


def test_numbers_survive():
    for number in [0, 1, 127, 128, 300, 2**32, 2**63]:
        assert table.read_varint(table.varint(number), 0) == (number, len(table.varint(number)))
    with pytest.raises(table.TableError):
        table.read_varint(b'\xff\xff', 0)


# Values


def test_values_that_tensorflow_wrote_are_read(folder):
    source = open_source(str(folder))
    assert (source.format, source.hparams, source.encoder) == ('release', TINY, None)
    found = dict(source.values())
    assert found.keys() == VALUES.keys()
    assert all((found[name] == VALUES[name]).all() and found[name].shape == VALUES[name].shape for name in VALUES)
    assert open_source(str(folder / 'model.ckpt')).digest() == source.digest()


def test_what_is_written_is_byte_for_byte_tensorflow_s(folder, tmp_path):
    bundle.write_values(str(tmp_path / 'ours'), ((name, VALUES[name]) for name in sorted(VALUES)))
    for suffix in ('.index', '.data-00000-of-00001'):
        assert (tmp_path / f'ours{suffix}').read_bytes() == (folder / f'model.ckpt{suffix}').read_bytes()


def test_several_data_files_are_read(folder):
    """As tf.train.Saver(sharded=True) writes them."""
    prefixes = [str(folder / name) for name in ('a', 'b')]
    halves = np.array_split(sorted(VALUES), 2)
    for prefix, names in zip(prefixes, halves):
        release.write_values(prefix, {str(name): tf.constant(VALUES[name]) for name in names})
    for path in folder.glob('model.ckpt.*'):
        path.unlink()
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=str(folder / 'model.ckpt'))
    assert (folder / 'model.ckpt.data-00001-of-00002').exists()
    found = dict(open_source(str(folder)).values())
    assert all((found[name] == VALUES[name]).all() for name in VALUES)


def test_other_variables_are_passed_over(folder):
    extra = {f'{name}/Adam': value for name, value in VALUES.items()} | {'step': np.float32(1)}
    values = {name: tf.constant(value) for name, value in (VALUES | extra).items()}
    release.write_values(str(folder / 'model.ckpt'), values)
    assert dict(open_source(str(folder)).values()).keys() == VALUES.keys()


@pytest.mark.parametrize('change', [lambda data: data[:-4], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_damaged_data(folder, change):
    path = folder / 'model.ckpt.data-00000-of-00001'
    path.write_bytes(change(path.read_bytes()))
    message = refusal(folder)
    assert 'model.ckpt.data-00000-of-00001: model/' in message
    assert 'delete it and download the model again' in message


def test_missing_data(folder):
    (folder / 'model.ckpt.data-00000-of-00001').unlink()
    assert 'model.ckpt.data-00000-of-00001 cannot be read (No such file' in refusal(folder)


@pytest.mark.parametrize(
    'values, parts',
    [
        ({'model/wpe': VALUES['model/wpe'][:30]}, ['expected float32 [40, 20], found float32 [30, 20]']),
        ({'model/wpe': VALUES['model/wpe'].astype(np.float16)}, ['model/wpe', 'found float16 [40, 20]']),
    ],
)
def test_a_variable_that_does_not_fit(folder, values, parts):
    changed = {name: tf.constant(value) for name, value in (VALUES | values).items()}
    release.write_values(str(folder / 'model.ckpt'), changed)
    message = refusal(folder)
    for part in parts:
        assert part in message


def test_more_layers_than_variables(folder):
    hparams = json.loads((folder / 'hparams.json').read_text())
    (folder / 'hparams.json').write_text(json.dumps(hparams | {'n_layer': 10**9}))
    assert 'n_layer is 1000000000, and the weights are 28 tensors' in refusal(folder)


def test_a_missing_variable(folder):
    values = {name: tf.constant(value) for name, value in VALUES.items() if name != 'model/h1/mlp/c_fc/w'}
    release.write_values(str(folder / 'model.ckpt'), values)
    assert 'model.ckpt.index has no variable model/h1/mlp/c_fc/w, expected float32 [1, 20, 80]' in refusal(folder)


def test_a_vocabulary_of_another_size(tmp_path):
    folder = shutil.copytree(BUNDLED, tmp_path / '7M')
    hparams = json.loads((folder / 'hparams.json').read_text())
    values = random_values(HParams(**hparams | {'n_vocab': 8193}))
    release.write_values(str(folder / 'model.ckpt'), {name: tf.constant(value) for name, value in values.items()})
    (folder / 'hparams.json').write_text(json.dumps(hparams | {'n_vocab': 8193}))
    assert 'encoder.json has 8192 tokens, hparams.json says n_vocab 8193' in refusal(folder)


# A folder


def test_a_written_folder_is_the_release_s(tmp_path):
    source = open_source(str(BUNDLED))
    bundle.write(str(tmp_path / 'mine'), source)
    names = {path.name for path in BUNDLED.iterdir() if path.suffix not in ('.md', '.tflite')}
    assert {path.name for path in (tmp_path / 'mine').iterdir()} == names
    for name in names - {'model.ckpt.meta'}:
        assert (tmp_path / 'mine' / name).read_bytes() == (BUNDLED / name).read_bytes(), name


def test_tensorflow_loads_a_written_folder(tmp_path):
    source = open_source(str(BUNDLED))
    bundle.write(str(tmp_path / 'mine'), source)
    params = model.flatten(release.load_params(str(tmp_path / 'mine'), source.hparams))
    assert all((params[name].numpy() == value).all() for name, value in source.values())
    with tf.Graph().as_default():
        tf.compat.v1.train.import_meta_graph(str(tmp_path / 'mine' / 'model.ckpt.meta'))


def test_params_of_a_source_are_variables_under_their_names(folder):
    from gpt2.checkpoints.source import load_params

    params = load_params(open_source(str(folder)))
    expected = as_params(VALUES)
    assert model.flatten(params).keys() == model.flatten(expected).keys()
    assert params['model']['wte'].name == 'model/wte:0'
