"""The exported file: what it is made from, what is wrong with it, and how it is written."""

import dataclasses
import os
import resource
import signal
import threading

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, save
from samples import draw_samples

from gpt2.checkpoints import release as checkpoint
from gpt2.checkpoints.source import open_source
from gpt2.commands.export import export_model
from gpt2.errors import Error
from gpt2.hparams import save_hparams
from gpt2.litert import export as export_litert
from gpt2.litert.engine import Generator
from gpt2.litert.export import exported_file
from gpt2.system import progress
from gpt2.system.files import WriteError


@pytest.fixture
def folder(tmp_path, tiny_params):
    return save(tmp_path, TINY, tiny_params)


@pytest.fixture
def exports(monkeypatch):
    """The paths exported so far; nothing else is changed."""
    done, export = [], export_litert.export

    def noted(path, *arguments):
        done.append(path)
        export(path, *arguments)

    monkeypatch.setattr(export_litert, 'export', noted)
    return done


def sampled(path):
    return draw_samples(Generator(path, TINY), [3, 1, 4], 10, [1], 1)


@pytest.mark.parametrize('precision', export_litert.PRECISIONS)
def test_a_file_is_exported_once_and_kept(folder, exports, precision):
    path = exported_file(open_source(folder), precision)
    assert exported_file(open_source(folder), precision) == path
    assert exports == [path] == [f'{folder}/litert-{precision}.tflite']


@pytest.mark.parametrize('precision', ['int8', 'int4'])
def test_what_is_no_number_cannot_be_an_integer(tmp_path, precision):
    values = random_values(TINY)
    values['model/h1/mlp/c_fc/b'][3] = np.nan
    with pytest.raises(Error, match=f'model/h1/mlp/c_fc/b holds what is no number, of which {precision}'):
        exported_file(open_source(save(tmp_path, TINY, values)), precision)
    assert not [*tmp_path.glob('*.tflite*')]


def test_a_folder_that_is_not_ours_to_write_in_is_exported_to_the_cache(folder, exports, tmp_path, monkeypatch):
    monkeypatch.setattr(export_litert.os, 'access', lambda place, mode: place != folder)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    path, other = exported_file(open_source(folder), 'int8'), exported_file(open_source(folder), 'float32')
    assert path.startswith(f'{tmp_path}/cache/gpt-2/')
    assert exported_file(open_source(folder), 'int8') == path
    assert exports == [path, other]
    monkeypatch.setattr(export_litert.os, 'access', lambda place, mode: True)
    assert exported_file(open_source(folder), 'int8') == path  # what is there is used


def cut(path):
    with open(path, 'r+b') as file:
        file.truncate(file.seek(0, 2) - 1000)


def empty(path):
    open(path, 'wb').close()


def flip_a_bit_at(fraction):
    def flip(path):
        with open(path, 'r+b') as file:
            place = int(file.seek(0, 2) * fraction)
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 16]))

    return flip


def test_an_export_is_told_where_nobody_sees_a_bar(folder, capsys, monkeypatch):
    for name in ('shown', 'told'):
        monkeypatch.setattr(progress, name, True)
    for expected in (f'exporting {folder} for LiteRT ...\n', ''):  # what is there is taken without a word
        exported_file(open_source(folder), 'int8')
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize('fault', [cut, empty, *map(flip_a_bit_at, (0, 0.1, 0.5, 0.9, 0.98, 0.9999))])
def test_a_damaged_file_is_exported_anew(folder, exports, capsys, monkeypatch, fault):
    monkeypatch.setattr(progress, 'shown', True)
    path = exported_file(open_source(folder), 'float32')
    expected = sampled(path)
    fault(path)
    assert sampled(exported_file(open_source(folder), 'float32')) == expected
    assert len(exports) == 2
    assert f'{path} is damaged; exporting anew\n' in capsys.readouterr().err


def test_a_changed_byte_is_noticed_wherever_it_is(folder):
    path = exported_file(open_source(folder), 'int8')
    wanted = export_litert.identity(open_source(folder), 'int8')
    with open(path, 'r+b') as file:
        size = file.seek(0, 2)
        for place in [*range(0, size, 499), *range(size - 900, size)]:
            file.seek(place)
            byte = file.read(1)[0]
            for value in (byte ^ 1, byte):
                file.seek(place)
                file.write(bytes([value]))
                file.flush()
                assert export_litert.defect(path, wanted) == ('is damaged' if value != byte else None)


@pytest.mark.parametrize('directory', ['[' * 100_000, '[]', '{}', 'null', '5'])
def test_an_export_whose_directory_is_none_is_damaged(tmp_path, directory):
    path, content = tmp_path / 'export', directory.encode() + b' ' * (-len(directory) % 8)
    checksum = int(np.frombuffer(content, np.uint64).sum())
    path.write_bytes(content + export_litert.FOOTER.pack(export_litert.MAGIC, len(content), checksum))
    assert export_litert.defect(str(path), {}) == 'is damaged'


def test_a_file_is_summed_in_shares_and_one_that_ends_too_soon_is_damaged(tmp_path, monkeypatch):
    path, words = tmp_path / 'words', np.random.default_rng(0).integers(2**64, size=5000, dtype=np.uint64)
    path.write_bytes(words.tobytes() + b'the rest')
    expected = sum(words.tolist()) % 2**64
    for share, chunk in ((1 << 25, 1 << 19), (4096, 1024), (8000, 1 << 19)):
        monkeypatch.setattr(export_litert, 'SHARE', share)
        monkeypatch.setattr(export_litert, 'CHUNK', chunk)
        assert export_litert.sum_words(str(path), words.nbytes) == expected
        with pytest.raises(ValueError, match='ends after 40008 bytes'):  # as another program makes it shorter
            export_litert.sum_words(str(path), words.nbytes + 16)


def test_another_checkpoint_is_exported_anew(folder, tmp_path, exports, capsys, monkeypatch):
    monkeypatch.setattr(progress, 'shown', True)
    before = sampled(exported_file(open_source(folder), 'float32'))
    checkpoint.save(folder, 'model-2', TINY, as_params(random_values(TINY, seed=1)))
    assert sampled(exported_file(open_source(folder), 'float32')) != before
    assert len(exports) == 2
    assert 'is of another checkpoint or another version; exporting anew' in capsys.readouterr().err


def test_other_hyperparameters_of_the_same_weights_are_exported_anew(folder, exports):
    exported_file(open_source(folder), 'float32')
    save_hparams(os.path.join(folder, 'hparams.json'), dataclasses.replace(TINY, n_head=2))
    exported_file(open_source(folder), 'float32')
    assert len(exports) == 2


def test_a_file_of_another_version_is_exported_anew(folder, exports, monkeypatch):
    exported_file(open_source(folder), 'float32')
    monkeypatch.setattr(export_litert, 'FORMAT_VERSION', export_litert.FORMAT_VERSION + 1)
    exported_file(open_source(folder), 'float32')
    assert len(exports) == 2


@pytest.mark.parametrize('limit', [5000, 60_000])
def test_a_full_disk_leaves_nothing(folder, tmp_path, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(WriteError, match='cannot be written'):
            exported_file(open_source(folder), 'float32')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.glob('*.tflite*'))


def test_a_file_cut_short_by_a_crash_is_overwritten(folder, tmp_path):
    (tmp_path / 'litert-float32.tflite.part').write_bytes(b'x' * 10_000_000)
    path = exported_file(open_source(folder), 'float32')
    assert export_litert.defect(path, export_litert.identity(open_source(folder), 'float32')) is None
    assert [found.name for found in tmp_path.glob('*.tflite*')] == ['litert-float32.tflite']


def test_of_two_exports_at_once_one_is_made_and_both_have_it(folder, exports):
    paths = []
    source = open_source(folder)
    threads = [threading.Thread(target=lambda: paths.append(exported_file(source, 'int8'))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exports) == 1
    assert paths == [exports[0]] * 2


def test_the_script_exports_and_says_where(tmp_path, tiny_params, capsys):
    (tmp_path / 'tiny').mkdir()
    save(tmp_path / 'tiny', TINY, tiny_params)
    export_model(model_name='tiny', models_dir=str(tmp_path), precision='int8')
    assert capsys.readouterr().out == f'{tmp_path}/tiny/litert-int8.tflite\n'
    assert (tmp_path / 'tiny' / 'litert-int8.tflite').exists()
