"""The downloader as a user runs it, and the whole way from a server to a sample."""

import os
import shutil
from pathlib import Path

import pytest
from example_models import RELEASE, REPOSITORY
from misbehaving_server import MisbehavingServer
from running import INTERACTIVE, objects, run

from gpt2 import model
from gpt2.checkpoints import downloads as download_model
from gpt2.checkpoints import release as checkpoint
from gpt2.checkpoints.folders import downloads_folder
from gpt2.commands import download as command
from gpt2.hparams import RELEASED_HPARAMS, HParams, save_hparams, weights_bytes
from gpt2.system.download import problem

SCRIPT = REPOSITORY / 'download_model.py'
SMALL = HParams(n_vocab=50257, n_ctx=32, n_embd=8, n_head=2, n_layer=2)


def publish(folder, hparams):
    """A model in the released layout, with random weights; its files as a dict from name to bytes."""
    shutil.copytree(RELEASE / '124M', folder)
    save_hparams(folder / 'hparams.json', hparams)
    checkpoint.write_values(str(folder / 'model.ckpt'), model.flatten(model.initial_params(hparams, seed=1)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def at(name, files):
    return {f'/models/{name}/{file}': body for file, body in files.items()}


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return publish(tmp_path_factory.mktemp('source') / 'small', SMALL)


@pytest.fixture
def server(small):
    with MisbehavingServer(at('small', small)) as server:
        yield server


@pytest.fixture
def download(tmp_path, without_tensorflow):
    """Run the script elsewhere, where importing TensorFlow fails: (standard output, standard error, status)."""

    def start(*arguments, **changes):
        return run(SCRIPT, *arguments, cwd=tmp_path, **without_tensorflow, **changes)

    return start


def mirror(server, folder):
    return '--base_url', f'{server.url}/models/', '--models_dir', folder


# Flags


def test_help_names_every_flag_and_model(download):
    out, err, status = download('--help')
    assert (err, status) == ('', 0)
    for word in ('--models_dir', '--base_url', 'GPT2_BASE_URL', *RELEASED_HPARAMS):
        assert word in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'name at least one model: 124M, 355M, 774M, 1558M'),
        (('12M',), 'no model 12M was released'),
        (('124M', '--modelsdir', 'x'), 'did you mean --models_dir?'),
        (('124M', '--base_url', 'ftp://here'), 'expected one that starts with http:// or https://'),
        (('../124M', '--base_url', 'http://here'), 'expected the name of a folder'),
        (('124M', '--base_url'), '--base_url needs a value'),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_line(download, arguments, message):
    out, err, status = download(*arguments)
    assert (out, len(err.splitlines()), status) == ('', 1, 2)
    assert message in err


def test_a_folder_that_cannot_be_made_is_an_error(download, tmp_path):
    (tmp_path / 'file').touch()
    out, err, status = download('124M', '--models_dir', tmp_path / 'file')
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert 'choose another --models_dir' in err


@pytest.mark.parametrize('url', ['http://no-such-host.invalid', 'http://127.0.0.1:1'])
def test_without_a_server_it_ends_at_once_says_what_to_do_and_leaves_nothing(download, tmp_path, url):
    for name in ('124M', 'small'):
        out, err, status = download(name, '--models_dir', tmp_path / 'new' / 'models', '--base_url', url)
        assert (out, len(err.splitlines()), status) == ('', 1, 1)
        for word in (f'{url}/{name}/hparams.json', 'check the network', '--base_url', '--model_name 7M'):
            assert word in err
        assert 'kept' not in err and 'trying again' not in err
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_not_there_leaves_no_folder(download, server, tmp_path):
    err = download('nobody', *mirror(server, tmp_path / 'new'))[1]
    assert 'nobody/hparams.json: the server answers 404' in err
    assert os.listdir(tmp_path) == []


def test_whoever_has_the_released_model_is_told_how_to_check_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, 'download_model', lambda *_: True)
    command.download_models('117M', models_dir=str(tmp_path / 'my models'))
    line = capsys.readouterr().out.splitlines()[1]
    assert line.endswith(f"GPT2_MODELS='{tmp_path}/my models' python -m pytest -m released")
    command.download_models('124M')
    assert capsys.readouterr().out.endswith(': python -m pytest -m released\n')
    command.download_models('355M')  # of which no answers are known
    assert 'pytest' not in capsys.readouterr().out
    monkeypatch.setattr(command, 'REPOSITORY', None)
    command.download_models('124M')
    assert 'pytest' not in capsys.readouterr().out


# Files


def test_a_model_is_fetched_once(download, server, small, tmp_path):
    out, err, status = download('small', *mirror(server, tmp_path))
    assert (out, err, status) == (f'small is in {tmp_path}/small\n', '', 0)
    assert {path.name: path.read_bytes() for path in (tmp_path / 'small').iterdir()} == small
    assert sorted(small) == sorted(download_model.FILES)
    count = len(server.requests)
    out, err, status = download('small', *mirror(server, tmp_path))
    assert (out, err, status) == (f'small is in {tmp_path}/small and whole; nothing was downloaded\n', '', 0)
    assert len(server.requests) == count == len(download_model.FILES)


def test_only_what_is_missing_or_damaged_is_fetched(download, server, small, tmp_path):
    download('small', *mirror(server, tmp_path))
    server.requests.clear()
    (tmp_path / 'small' / 'vocab.bpe').unlink()
    weights = tmp_path / 'small' / download_model.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    assert download('small', *mirror(server, tmp_path))[2] == 0
    assert [request[0].rsplit('/')[-1] for request in server.requests] == ['vocab.bpe', download_model.WEIGHTS]
    assert {path.name: path.read_bytes() for path in (tmp_path / 'small').iterdir()} == small


def test_several_models_and_old_names_at_once(download, server, small, tmp_path):
    server.files |= at('another', small)
    server.files |= at('124M', {'hparams.json': (RELEASE / '124M' / 'hparams.json').read_bytes()})
    out, err, status = download('small', 'another', 'small', '117M', *mirror(server, tmp_path))
    assert out.splitlines() == [f'small is in {tmp_path}/small', f'another is in {tmp_path}/another']
    assert (len(err.splitlines()), status) == (1, 1)
    assert f'{server.url}/models/124M/encoder.json: the server answers 404' in err


def test_the_variable_names_a_mirror_and_the_flag_another(download, server, tmp_path):
    url = f'{server.url}/models'
    assert download('small', '--models_dir', tmp_path / 'a', GPT2_BASE_URL=url)[2] == 0
    flags = ('--models_dir', tmp_path / 'b', '--base_url', url)
    assert download('small', *flags, GPT2_BASE_URL='http://127.0.0.1:1')[2] == 0


def test_the_default_folder_is_the_repositorys():
    assert str(REPOSITORY / 'models') == downloads_folder()


def test_weights_of_another_length_than_hparams_implies_are_refused(download, server, small, tmp_path):
    weights = f'/models/small/{download_model.WEIGHTS}'
    server.files[weights] += b'\0'
    out, err, status = download('small', *mirror(server, tmp_path))
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    expected = weights_bytes(SMALL)
    assert f'is {expected + 1} bytes long, expected {expected}' in err
    assert not (tmp_path / 'small' / download_model.WEIGHTS).exists()
    assert not (tmp_path / 'small' / 'model.ckpt.index').exists()


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('hparams.json', 'expected HParams(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12)'),
        ('encoder.json', 'has SHA-256'),
        ('vocab.bpe', 'has SHA-256'),
        ('checkpoint', 'has SHA-256'),
        ('model.ckpt.meta', 'has SHA-256'),
    ],
)
def test_a_mirror_that_changes_the_released_model_is_refused(download, server, small, tmp_path, file, message):
    real = {path.name: path.read_bytes() for path in (RELEASE / '124M').iterdir()}
    changed = small['hparams.json'] if file == 'hparams.json' else real[file] + b'\n'
    server.files |= at('124M', real | {file: changed})
    out, err, status = download('124M', *mirror(server, tmp_path))
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert message in err
    assert not (tmp_path / '124M' / file).exists()


def test_the_known_hashes_are_those_of_the_released_files():
    for file, sha256 in download_model.SHA256['124M'].items():
        assert problem(RELEASE / '124M' / file, sha256=sha256) is None
    assert download_model.hparams_problem('124M', RELEASE / '124M' / 'hparams.json') is None
    assert set(download_model.SHA256['124M']) | {'hparams.json', download_model.WEIGHTS} == set(download_model.FILES)


def test_the_address_of_the_release():
    assert download_model.BASE_URL == 'https://openaipublic.blob.core.windows.net/gpt-2/models'


# The whole way


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'shape'), [('tiny', SMALL), ('standin-124M', RELEASED_HPARAMS['124M'])])
def test_from_a_server_that_breaks_to_a_sample(tmp_path, without_tensorflow, name, shape):
    files = publish(tmp_path / 'source', shape)
    assert len(files[download_model.WEIGHTS]) == weights_bytes(shape)
    shutil.rmtree(tmp_path / 'source')
    with MisbehavingServer(at(name, files)) as server:
        server.faults[f'/models/{name}/{download_model.WEIGHTS}'] = ['break']
        server.faults[f'/models/{name}/encoder.json'] = [503]
        got = run(SCRIPT, name, *mirror(server, tmp_path), cwd=tmp_path, **without_tensorflow)
        assert (got[0], got[2]) == (f'{name} is in {tmp_path}/{name}\n', 0)
    flags = ('--model_name', name, '--models_dir', tmp_path, '--length', '8', '--json', '--seed', '3')
    out, err, status = run(INTERACTIVE, *flags, '--prompt', 'Hello, world', cwd=tmp_path)
    assert (err, status) == ('', 0)
    [sample] = objects(out)
    assert len(sample['tokens']) == 8
    # A flipped bit has the right length: the loader finds it by the checkpoint's own checksums.
    weights = Path(tmp_path, name, download_model.WEIGHTS)
    body = bytearray(weights.read_bytes())
    body[-5] ^= 16
    weights.write_bytes(body)
    Path(tmp_path, name, 'litert-float32.tflite').unlink()
    out, err, status = run(INTERACTIVE, *flags, '--prompt', 'Hello, world', cwd=tmp_path)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert 'its checksum does not match' in err
    assert 'delete it and download the model again' in err
