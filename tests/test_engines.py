"""Which engine is chosen, without loading any."""

import fnmatch

import pytest
from example_models import BUNDLED

from gpt2 import engines
from gpt2.checkpoints.bundle import CheckpointError
from gpt2.checkpoints.source import open_source
from gpt2.errors import Error, UsageError
from gpt2.hparams import RELEASED_HPARAMS
from gpt2.system import progress
from gpt2.system.files import WriteError


@pytest.fixture
def loaded(monkeypatch):
    """The engines that were loaded, by name; what LiteRT's loader raises can be set by .fails(error)."""
    found, failures = [], []

    def load_litert(source, precision):
        if failures:
            raise failures[0]
        found.append(f'litert {precision}')

    monkeypatch.setattr(engines, 'load_tensorflow', lambda source: found.append('tf'))
    monkeypatch.setattr(engines, 'load_litert', load_litert)
    monkeypatch.setattr(engines, 'gpu_at_hand', lambda: False)
    monkeypatch.setattr(engines, 'free_memory', lambda: 10**9)
    return found, failures


def load(engine, precision='float32'):
    engines.load_engine(open_source(str(BUNDLED)), engine, precision)


@pytest.mark.parametrize(
    ('engine', 'precision', 'expected'),
    [
        ('auto', 'float32', 'litert float32'), ('auto', 'int8', 'litert int8'), ('litert', 'float32', 'litert float32'),
        ('litert', 'int8', 'litert int8'), ('auto', 'int4', 'litert int4'), ('tf', 'float32', 'tf'),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_loaded_and_litert_by_default(loaded, engine, precision, expected):
    load(engine, precision)
    assert loaded[0] == [expected]


def test_with_a_graphics_card_the_default_is_tensorflow_but_for_int8(loaded, monkeypatch):
    monkeypatch.setattr(engines, 'gpu_at_hand', lambda: True)
    load('auto'), load('auto', 'int8'), load('litert')
    assert loaded[0] == ['tf', 'litert int8', 'litert float32']


@pytest.mark.parametrize('failure', [engines.LiteRTError('no package'), WriteError('no room')])
def test_where_litert_cannot_be_had_the_default_is_tensorflow_and_says_so(loaded, failure, monkeypatch, capsys):
    monkeypatch.setattr(progress, 'shown', True)
    loaded[1].append(failure)
    load('auto')
    assert loaded[0] == ['tf']
    assert capsys.readouterr().err == f'{failure}; using TensorFlow (--engine tf), which is slower\n'
    for engine, precision in (('litert', 'float32'), ('auto', 'int8')):
        with pytest.raises(type(failure)):
            load(engine, precision)


def test_where_memory_is_short_the_default_is_tensorflow_and_says_so(loaded, monkeypatch, capsys):
    monkeypatch.setattr(progress, 'shown', True)
    monkeypatch.setattr(engines, 'free_memory', lambda: 50_000_000)
    load('auto')
    assert loaded[0] == ['tf']
    assert 'LiteRT needs 55 MB of memory to load this model, 50 are free; using TensorFlow' in capsys.readouterr().err
    monkeypatch.setattr(engines, 'free_memory', lambda: None)  # where the system does not say
    load('auto')
    assert loaded[0] == ['tf', 'litert float32']


def test_a_damaged_model_is_no_reason_to_try_another_engine(loaded):
    loaded[1].append(CheckpointError('damaged'))
    with pytest.raises(Error, match=r'^damaged$'):
        load('auto')
    assert loaded[0] == []


@pytest.mark.parametrize(
    ('there', 'visible', 'expected'),
    [
        (['/dev/nvidia0'], None, True), (['/dev/nvidia0'], '0', True), (['/dev/nvidia0'], '', False),
        (['/dev/nvidia0'], '-1', False), (['/dev/nvidia0'], '-1,0', False), (['/dev/nvidia0'], 'NoDevFiles', False),
        (['/dev/nvidia0'], ' ', False), (['/dev/nvidia0'], 'GPU-8f2a', True), ([], None, False), ([], '0', False),
        (['/dev/nvidia-uvm'], None, False),
        (['/usr/lib/wsl/lib/libcuda.so.1'], None, True), (['/dev/kfd'], None, False),
    ],
)  # fmt: skip
def test_a_graphics_card_is_known_by_the_files_of_its_driver(monkeypatch, there, visible, expected):
    monkeypatch.setattr(engines.glob, 'glob', lambda pattern: fnmatch.filter(there, pattern))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert engines.gpu_at_hand() == expected


def test_free_memory_is_the_least_that_system_and_control_group_leave(monkeypatch):
    files = {'/proc/meminfo': 'MemTotal: 9 kB\nMemAvailable:  2000 kB\n'}
    monkeypatch.setattr(engines, 'read', lambda path: files.get(path, ''))
    assert engines.free_memory() == 2_048_000
    (limit, used), _ = engines.MEMORY_FILES
    files |= {limit: '1000000\n', used: '400000\n'}
    assert engines.free_memory() == 600_000
    files[limit] = 'max\n'
    assert engines.free_memory() == 2_048_000
    files.clear()
    assert engines.free_memory() is None


def test_1558m_is_thought_to_need_what_was_measured():
    """12.5 GB while loading."""
    hparams = RELEASED_HPARAMS['1558M']
    assert 2 * engines.weights_bytes(hparams) == pytest.approx(12.5e9, rel=0.01)


@pytest.mark.parametrize(
    ('engine', 'precision'), [('tf', 'int8'), ('tf', 'int4'), ('torch', 'float32'), ('auto', 'int2'), (None, 'float32')]
)
def test_engines_and_precisions_that_do_not_go_together_are_refused(engine, precision):
    with pytest.raises(UsageError, match=r'--engine|--precision'):
        engines.check_engine(engine, precision, '--')
