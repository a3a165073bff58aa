import json
import os
import resource
import shutil
import signal
import tempfile

import numpy as np
import pytest
from example_models import BUNDLED, TINY, as_params, random_values

from gpt2 import model
from gpt2.checkpoints import release as checkpoint
from gpt2.checkpoints.files import find_prefix
from gpt2.checkpoints.release import CheckpointError
from gpt2.encoder import get_encoder
from gpt2.hparams import HParams, HParamsError, load_hparams, save_hparams
from gpt2.system.tensorflow import tf

VALUES = random_values(TINY)


def write(folder, values=VALUES, name='model.ckpt', state='model.ckpt'):
    """A model folder as the release lays it out; state None leaves out the state file."""
    checkpoint.write_values(str(folder / name), {key: tf.constant(value) for key, value in values.items()})
    if state:
        (folder / 'checkpoint').write_text(f'model_checkpoint_path: "{state}"\nall_model_checkpoint_paths: "{state}"\n')
    return folder


def loaded_values(path):
    return {name: variable.numpy() for name, variable in model.flatten(checkpoint.load_params(path, TINY)).items()}


def assert_loads(path, values=VALUES):
    found = loaded_values(str(path))
    assert found.keys() == values.keys()
    assert all((found[name] == values[name]).all() for name in values)


def error_of(path, hparams=TINY):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_params(str(path), hparams)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_loads_what_the_state_file_names(tmp_path):
    other = {name: value + 1 for name, value in VALUES.items()}
    write(tmp_path, other, 'model-1000', state=None)
    assert_loads(write(tmp_path))


@pytest.mark.parametrize('state', ['model-1000', './model-1000', '/home/someone/else/run1/model-1000'])
def test_loads_fork_prefixes(tmp_path, state):
    assert_loads(write(tmp_path, name='model-1000', state=state))


@pytest.mark.parametrize(
    'state',
    [
        r'C:\\Users\\me\\run\\model-1000', r'C:\Users\me\run\model-1000', r'\\\\host\\run\\model-1000',
        'C:/run/model-1000',
        r'/home/\346\250\241/model-1000', r'it\'s \"here\"/model-1000', r'/a\\b/model-1000', '/caf\udce9/model-1000',
        '/模型/model-1000', r'/tab\t\n/model-1000', r'/octal/m\157del-1000', r'\x2fmodel-1000',
    ],
)  # fmt: skip
@pytest.mark.parametrize('layout', ['{0}: "{1}"\n', "\ufeff{0}: '{1}'\r\n", '  {0}:"{1}"'])
def test_the_last_component_counts_whichever_system_wrote_it(tmp_path, state, layout):
    (tmp_path / 'model-1000.index').touch()
    text = layout.format('model_checkpoint_path', state)
    (tmp_path / 'checkpoint').write_bytes(text.encode('utf-8', 'surrogateescape'))
    assert find_prefix(str(tmp_path)) == str(tmp_path / 'model-1000')


@pytest.mark.parametrize('name', ['a\\b', '模型', 'caf\udce9', 'it"s', 'two\nlines', 'plain'])
def test_a_state_file_as_tensorflow_writes_it(tmp_path, name):
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), 'placeholder')
    octal = ''.join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f'\\{byte:03o}' for byte in os.fsencode(name)
    )
    text = (tmp_path / 'checkpoint').read_text().replace('placeholder', octal)
    (tmp_path / 'checkpoint').write_text(text)
    (tmp_path / f'{name}.index').touch()
    assert find_prefix(str(tmp_path)) == str(tmp_path / name)


ODD_NAMES = [
    'sp ace', '[2]', 'a[2]b', '[^x]', 'a*b', 'a?b', 'a\\b', '{a,b}', 'two\nlines', 'tab\t', '"quoted"', "it's", '~',
    '$HOME', '%41', '模型', 'caf\udce9', '-dash', 'a#b', 'gs:',
]  # fmt: skip


@pytest.mark.parametrize('name', ODD_NAMES)
def test_any_name_that_the_system_allows(tmp_path, name, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    decoy = tmp_path / name.translate(str.maketrans('*?[', 'xxx'))  # what the name means as a pattern, perhaps
    decoy.mkdir(exist_ok=True)
    optimizer = {'step': tf.constant(7.0)}
    checkpoint.save(str(folder), 'model-2', TINY, as_params(VALUES), optimizer)
    assert sorted(path.name for path in folder.iterdir()) == sorted([
        'checkpoint', *(f'model-2.{end}' for end in ('meta', 'index', 'data-00000-of-00001')),
        *(f'model-2.optimizer.{end}' for end in ('index', 'data-00000-of-00001')),
    ])  # fmt: skip
    assert_loads(folder)
    assert_loads(f'{folder}/')
    monkeypatch.chdir(folder)
    assert_loads('.')
    assert_loads('model-2')
    [(_, step)] = checkpoint.read_values(f'{folder}/model-2.optimizer', {'step': []})
    assert step == 7
    save_hparams(str(folder / 'hparams.json'), TINY)
    assert load_hparams(str(folder / 'hparams.json')) == TINY
    for file in ('encoder.json', 'vocab.bpe'):
        shutil.copy(BUNDLED / file, folder)
    assert get_encoder(name, str(tmp_path)).decode(get_encoder(str(folder), '').encode('Once')) == 'Once'


@pytest.mark.parametrize('name', ['a[2]b', 'a*b', 'a\\b', 'caf\udce9'])
def test_checkpoints_of_odd_names_and_only_they_are_removed(tmp_path, name):
    for other in (name, 'axb', 'a2b', 'b'):
        if os.fsencode(other).isascii():
            write(tmp_path, name=other, state=None)
    checkpoint.write_values(str(tmp_path / name), {key: tf.constant(value) for key, value in VALUES.items()})
    assert_loads(tmp_path / name)
    checkpoint.remove(str(tmp_path / name))
    assert {path.name.partition('.')[0] for path in tmp_path.iterdir()} == {'axb', 'a2b', 'b'}


def test_an_error_names_the_users_path_and_no_link(tmp_path):
    folder = tmp_path / '[2]'
    folder.mkdir()
    damage(write(folder), '.data-00000-of-00001', lambda content: content[:-100])
    message = error_of(folder)
    assert message.startswith(f'{folder}/model.ckpt.data-00000-of-00001: model/')
    assert tempfile.gettempdir() not in message.replace(str(tmp_path), '')


def test_a_temporary_folder_of_an_odd_name_is_not_used(tmp_path, monkeypatch):
    odd = tmp_path / '[tmp]'
    odd.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(odd))
    assert_loads(write(odd))


def test_a_symbolic_link_to_a_folder_of_an_odd_name(tmp_path):
    (tmp_path / '[2]').mkdir()
    write(tmp_path / '[2]')
    (tmp_path / 'link').symlink_to('[2]')
    assert_loads(tmp_path / 'link')


def test_loads_a_bare_prefix_and_a_folder_without_state_file(tmp_path):
    write(tmp_path, state=None)
    assert_loads(tmp_path)
    assert_loads(tmp_path / 'model.ckpt')


def test_passes_over_optimizer_variables(tmp_path):
    extra = {f'{name}/Adam': value for name, value in VALUES.items()} | {'beta1_power': np.float32(0.9)}
    assert_loads(write(tmp_path, VALUES | extra))


def test_loads_what_a_tensorflow_1_saver_wrote(tmp_path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in VALUES.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / 'model.ckpt'))
    assert_loads(tmp_path)


def test_missing_variable(tmp_path):
    values = {name: value for name, value in VALUES.items() if name != 'model/h1/mlp/c_fc/w'}
    message = error_of(write(tmp_path, values))
    assert 'model.ckpt.index' in message and 'model/h1/mlp/c_fc/w' in message and '[1, 20, 80]' in message


def test_misshapen_variable(tmp_path):
    message = error_of(write(tmp_path, VALUES | {'model/wpe': VALUES['model/wpe'][:30]}))
    for part in ('model.ckpt.index', 'model/wpe', 'expected float32 [40, 20]', 'found float32 [30, 20]', 'download'):
        assert part in message


def test_other_dtype(tmp_path):
    message = error_of(write(tmp_path, VALUES | {'model/wpe': VALUES['model/wpe'].astype(np.float16)}))
    assert 'model/wpe' in message and 'found float16' in message


def test_hparams_of_another_model(tmp_path):
    wrong = HParams(n_vocab=61, n_ctx=40, n_embd=24, n_head=4, n_layer=2)
    message = error_of(write(tmp_path), wrong)
    assert 'model/wte' in message and '[61, 24]' in message and '[61, 20]' in message and 'hparams.json' in message


def damage(folder, suffix, change):
    path = folder / f'model.ckpt{suffix}'
    path.write_bytes(change(bytearray(path.read_bytes())))


def flip(position):
    def change(content):
        content[position] ^= 1
        return content

    return change


@pytest.mark.parametrize('change', [lambda content: content[:-100], lambda content: content[:10], flip(-1), flip(0)])
def test_damaged_data(tmp_path, change):
    write(tmp_path)
    damage(tmp_path, '.data-00000-of-00001', change)
    message = error_of(tmp_path)
    assert 'model.ckpt.data-00000-of-00001: model/' in message and 'download the model again' in message


@pytest.mark.parametrize('change', [lambda content: content[:-20], lambda content: content[:0], flip(20)])
def test_damaged_index(tmp_path, change):
    write(tmp_path)
    damage(tmp_path, '.index', change)
    message = error_of(tmp_path)
    assert 'model.ckpt.index cannot be read' in message and 'download the model again' in message


def test_missing_data_file(tmp_path):
    write(tmp_path)
    (tmp_path / 'model.ckpt.data-00000-of-00001').unlink()
    assert 'model.ckpt' in error_of(tmp_path)


def test_missing_index_file(tmp_path):
    write(tmp_path)
    (tmp_path / 'model.ckpt.index').unlink()
    assert 'model.ckpt.index is not there' in error_of(tmp_path)


@pytest.mark.parametrize('content', [b'', b'hello', b'\xff\xfe', b'model_checkpoint_path: ""'])
def test_useless_state_file(tmp_path, content):
    write(tmp_path)
    (tmp_path / 'checkpoint').write_bytes(content)
    assert str(tmp_path / 'checkpoint') in error_of(tmp_path)


def test_a_state_file_that_is_a_folder(tmp_path):
    write(tmp_path, state=None)
    (tmp_path / 'checkpoint').mkdir()
    assert f'{tmp_path}/checkpoint cannot be read (Is a directory)' in error_of(tmp_path)


def test_folder_with_no_or_two_checkpoints(tmp_path):
    assert '0 .index files' in error_of(tmp_path)
    write(tmp_path, name='a', state=None)
    write(tmp_path, name='b', state=None)
    assert '2 .index files' in error_of(tmp_path)
    assert f'name one checkpoint by its path, such as {tmp_path}/a' in error_of(tmp_path)


def test_saves_in_the_released_layout(tmp_path):
    checkpoint.save(str(tmp_path), 'model.ckpt', TINY, as_params(VALUES))
    names = ['checkpoint', 'model.ckpt.data-00000-of-00001', 'model.ckpt.index', 'model.ckpt.meta']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / names[1]).stat().st_size == sum(value.nbytes for value in VALUES.values())
    assert (tmp_path / 'checkpoint').read_text().startswith('model_checkpoint_path: "model.ckpt"\n')
    assert_loads(tmp_path)


def test_the_saved_graph_runs_as_the_released_one_does(tmp_path):
    params = as_params(VALUES)
    checkpoint.save(str(tmp_path), 'model.ckpt', TINY, params)
    tokens = np.arange(40, dtype=np.int32)[None]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(tmp_path / 'model.ckpt.meta'))
        saver.restore(session, str(tmp_path / 'model.ckpt'))
        logits, loss = session.run(['logits:0', 'loss:0'], {'tokens:0': tokens})
    expected = model.logits(params, model.forward(TINY, params, tf.constant(tokens)))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert loss == pytest.approx(float(model.loss(TINY, params, tf.constant(tokens))), abs=1e-5)


def test_a_save_replaces_the_previous_one(tmp_path):
    checkpoint.save(str(tmp_path), 'model-1', TINY, as_params(random_values(TINY, seed=1)), {'step': tf.constant(1.0)})
    checkpoint.save(str(tmp_path), 'model-2', TINY, as_params(VALUES))
    assert_loads(tmp_path)
    assert {path.name.partition('.')[0] for path in tmp_path.iterdir()} == {'checkpoint', 'model-2'}


@pytest.mark.parametrize('limit', [0, 500, 3000])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, limit):
    checkpoint.save(str(tmp_path), 'model-1', TINY, as_params(VALUES))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(CheckpointError, match='model-2 cannot be written'):
            checkpoint.save(str(tmp_path), 'model-2', TINY, as_params(random_values(TINY, seed=1)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert_loads(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith('model-2')]


GOOD = {'n_vocab': 61, 'n_ctx': 40, 'n_embd': 20, 'n_head': 4, 'n_layer': 2}


@pytest.mark.parametrize('start', ['', '\ufeff'])
def test_hparams_of_other_systems_lines(tmp_path, start):
    text = start + json.dumps(GOOD, indent=1).replace('\n', '\r\n')
    (tmp_path / 'hparams.json').write_bytes(text.encode())
    assert load_hparams(str(tmp_path / 'hparams.json')) == TINY


def test_hparams_round_trip(tmp_path):
    save_hparams(str(tmp_path / 'hparams.json'), TINY)
    assert load_hparams(str(tmp_path / 'hparams.json')) == TINY
    assert [path.name for path in tmp_path.iterdir()] == ['hparams.json']


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        ('', 'cannot be read'),
        ('<html>404</html>', 'cannot be read'),
        ('[1, 2]', 'list'),
        (json.dumps(GOOD | {'n_extra': 1}), 'n_extra'),
        (json.dumps({'n_vocab': 61}), "['n_vocab']"),
        (json.dumps(GOOD | {'n_head': 3}), 'n_embd 20 is not a multiple of n_head 3'),
        (json.dumps(GOOD | {'n_layer': 0}), 'n_layer is 0'),
        (json.dumps(GOOD | {'n_layer': 2.5}), 'n_layer is 2.5'),
        (json.dumps(GOOD | {'n_layer': True}), 'n_layer is True'),
    ],
)
def test_wrong_hparams_are_refused_in_one_line(tmp_path, content, part):
    path = tmp_path / 'hparams.json'
    path.write_text(content)
    with pytest.raises(HParamsError) as caught:
        load_hparams(str(path))
    assert str(path) in str(caught.value) and part in str(caught.value) and '\n' not in str(caught.value)
