"""Which format lies at a path, and what is the same in all."""

import os
import shutil

import numpy as np
import pytest
from example_models import BUNDLED, HERE, TINY, random_values

from gpt2.checkpoints import bundle
from gpt2.checkpoints import source as source_module
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.source import Source, files_identity, open_source, reader, without_unowned_rows
from gpt2.encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.errors import Error
from gpt2.hparams import HParams, save_hparams

VALUES = random_values(TINY)


def source_of(values, hparams=TINY, encoder=None):
    return Source('somewhere', 'release', hparams, encoder, values.__getitem__, 'identity')


def make(folder, *names):
    for name in names:
        (folder / name).write_bytes(b'')
    return str(folder)


# Recognition


@pytest.mark.parametrize(
    'names, module',
    [
        (['hparams.json', 'model.ckpt.index'], 'bundle'),
        (['hparams.json', 'model.ckpt.index', 'config.json', 'model.safetensors'], 'bundle'),
        (['config.json', 'model.safetensors'], 'huggingface'),
        (['config.json'], 'huggingface'),
        (['config.json', 'hparams.json', 'pytorch_model.bin'], 'huggingface'),
        (['ckpt.pt', 'encoder.json'], 'nanogpt'),
        (['hparams.json'], 'bundle'),
        (['checkpoint'], 'bundle'),
    ],
)
def test_a_folder_is_known_by_what_is_in_it(tmp_path, names, module):
    assert reader(make(tmp_path, *names)) == module


def test_a_file_is_known_by_how_it_begins(tmp_path):
    (tmp_path / 'model.bin').write_bytes(b'GGUF\3\0\0\0')
    assert reader(str(tmp_path / 'model.bin')) == 'gguf'
    make(tmp_path, 'other.pt', 'mine.index')
    assert reader(str(tmp_path / 'other.pt')) == 'nanogpt'
    assert reader(str(tmp_path / 'mine')) == 'bundle'


@pytest.mark.parametrize('name', ['notes.txt', 'model.safetensors', ''])
def test_anything_else_is_refused(tmp_path, name):
    make(tmp_path, 'notes.txt', 'model.safetensors')
    with pytest.raises(CheckpointError, match=r'is no model that can be read: .*hparams\.json.*config\.json.*GGUF'):
        open_source(str(tmp_path / name))


def test_nothing_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='absent is not there'):
        open_source(str(tmp_path / 'absent'))


def test_the_bundled_model_without_tensorflow_or_other_packages(without_tensorflow):
    import subprocess
    import sys

    program = (
        'import sys; from gpt2.checkpoints.source import open_source; '
        f'source = open_source({str(BUNDLED)!r}); print(len(source.digest()), len(source.encoder)); '
        'print({"tensorflow", "torch", "safetensors", "gguf", "requests"} & set(sys.modules))'
    )
    path = f'{without_tensorflow["PYTHONPATH"]}:{HERE.parent / "src"}'
    command = [sys.executable, '-c', program]
    shown = subprocess.run(command, env={'PYTHONPATH': path}, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ['64 8192', 'set()']


# Values and digests


def test_values_come_one_at_a_time_in_any_order():
    asked = []

    def read(name):
        asked.append(name)
        return VALUES[name]

    source = Source('somewhere', 'release', TINY, None, read, 'identity')
    names = ['model/wpe', 'model/h1/mlp/c_fc/w', 'model/wpe']
    values = source.values(names)
    assert asked == []
    assert [(name, value.shape) for name, value in values] == [(name, VALUES[name].shape) for name in names]
    assert asked == names
    assert list(dict(source.values())) == list(source.shapes)


def test_values_are_contiguous_float32():
    turned = VALUES | {'model/wte': VALUES['model/wte'].T.copy().T.astype(np.float64)}
    value = source_of(turned).value('model/wte')
    assert value.dtype == np.float32
    assert value.flags.c_contiguous
    assert (value == VALUES['model/wte']).all()


def test_a_value_of_another_shape_is_refused():
    with pytest.raises(CheckpointError, match=r'model/wpe is \[3, 20\], expected \[40, 20\]'):
        source_of(VALUES | {'model/wpe': VALUES['model/wpe'][:3]}).value('model/wpe')


def test_the_digest_is_that_of_the_values_alone(tmp_path):
    digest = source_of(VALUES).digest()
    bundle.write_values(str(tmp_path / 'model.ckpt'), ((name, VALUES[name]) for name in sorted(VALUES)))
    save_hparams(str(tmp_path / 'hparams.json'), TINY)
    assert open_source(str(tmp_path)).digest() == digest
    other = VALUES | {'model/ln_f/b': VALUES['model/ln_f/b'] + np.float32(1e-6)}
    assert source_of(other).digest() != digest
    swapped = VALUES | {'model/h0/ln_1/b': VALUES['model/h1/ln_1/b'], 'model/h1/ln_1/b': VALUES['model/h0/ln_1/b']}
    assert source_of(swapped).digest() != digest


def test_an_identity_needs_no_reading_and_changes_with_any_file(tmp_path):
    import os

    path = make(tmp_path, 'a', 'b')
    paths = [f'{path}/a', f'{path}/b']
    before = files_identity(paths)
    assert files_identity(paths) == before
    os.utime(paths[0], ns=(0, os.stat(paths[0]).st_mtime_ns + 1000))
    touched = files_identity(paths)
    (tmp_path / 'b').write_text('longer')
    assert len({before, touched, files_identity(paths)}) == 3


# Files that are not what they seem

SMALL_FILES = {
    'huggingface/tiny': ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json',
                         'model.safetensors'],
    'release': ['hparams.json', 'encoder.json', 'vocab.bpe', 'checkpoint', 'model.ckpt.index'],
}  # fmt: skip


@pytest.mark.skipif(os.name != 'posix', reason='pipes with names')
@pytest.mark.parametrize('damage', ['pipe', 'zero', 'pointer', 'dangling'])
@pytest.mark.parametrize(('model', 'name'), [(model, name) for model, names in SMALL_FILES.items() for name in names])
def test_a_file_that_is_none_is_refused(tmp_path, model, name, damage):
    folder = tmp_path / 'model'
    if model == 'release':
        bundle.write(str(folder), open_source(str(HERE / 'huggingface/tiny')))
    else:
        shutil.copytree(HERE / model, folder)
    path = folder / name
    path.unlink(missing_ok=True)
    if damage == 'pipe':
        os.mkfifo(path)
    elif damage == 'pointer':
        path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n')
    else:
        path.symlink_to('/dev/zero' if damage == 'zero' else 'nowhere')
    with pytest.raises(Error) as caught:
        list(open_source(str(folder)).values())
    message = str(caught.value)
    assert '\n' not in message
    if damage == 'pointer':
        assert 'git lfs pull' in message and name in message


# Vocabularies


def bytes_encoder():
    return Encoder({token: index for index, token in enumerate([*bytes_to_unicode().values(), END_OF_TEXT])}, [])


@pytest.mark.parametrize('size', [1000, 3_000_000])
@pytest.mark.parametrize('place', [0, 500, -1, 'block'])
def test_an_identity_changes_with_a_file_of_the_same_size_and_times(tmp_path, monkeypatch, size, place):
    path = tmp_path / 'weights'
    path.write_bytes(bytes(size))
    about = os.stat(path)
    monkeypatch.setattr(source_module.os, 'stat', lambda _: about)
    before = files_identity([str(path)])
    assert files_identity([str(path)]) == before
    place = source_module.sampled(size)[-2 if size > 1000 else 0][0] if place == 'block' else place
    with open(path, 'r+b') as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(b'x')
    assert files_identity([str(path)]) != before


@pytest.mark.skipif(os.name != 'posix', reason='ctime')
def test_an_identity_changes_with_a_byte_between_the_samples(tmp_path):
    path = tmp_path / 'weights'
    path.write_bytes(bytes(3_000_000))
    about, before = os.stat(path), files_identity([str(path)])
    with open(path, 'r+b') as file:
        file.seek(70_000)
        file.write(b'x')
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert os.stat(path).st_mtime_ns == about.st_mtime_ns
    assert files_identity([str(path)]) != before


def test_of_a_large_file_little_is_read():
    for size in (10**6, 10**9, 10**12):
        samples = source_module.sampled(size)
        assert sum(count for _, count in samples) < 400_000
        assert all(place + count <= size for place, count in samples)


def test_rows_of_no_token_are_left_out_and_said_so():
    hparams = HParams(n_vocab=300, n_ctx=40, n_embd=20, n_head=4, n_layer=2)
    found, [notice] = without_unowned_rows('mine', hparams, bytes_encoder())
    assert (found.n_vocab, found.n_ctx) == (257, 40)
    assert '43 rows of wte' in notice
    assert without_unowned_rows('mine', found, bytes_encoder()) == (found, [])
    assert without_unowned_rows('mine', hparams, None) == (hparams, [])
    with pytest.raises(CheckpointError, match='mine: the vocabulary has 257 tokens, and wte 61 rows'):
        without_unowned_rows('mine', TINY, bytes_encoder())


def test_a_missing_vocabulary_is_refused_where_it_is_needed():
    with pytest.raises(CheckpointError, match=r'somewhere has no vocabulary; put encoder\.json'):
        source_of(VALUES).vocabulary  # noqa: B018
    assert source_of(VALUES, encoder=bytes_encoder()).vocabulary.end_of_text == 256
