"""Which folder a model's name means."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from example_models import MODELS, REPOSITORY

from gpt2.checkpoints import folders as model_folder
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.folders import (
    BUNDLED_MODEL,
    DEFAULT_MODELS_DIR,
    canonical_name,
    downloads_folder,
    find_model,
    find_vocabulary,
)
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with the bundled model alone, seen from an empty folder elsewhere."""
    models = tmp_path / 'repository' / 'models'
    make_model(models, BUNDLED_MODEL)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(model_folder, 'OWN_MODELS', str(models))
    return models


def make_model(models, name):
    (models / name).mkdir(parents=True)
    (models / name / 'model.ckpt.index').touch()
    return models


def found(name, models_dir=DEFAULT_MODELS_DIR):
    """(name, models folder) of a model that has to be found by its name without a notice."""
    model = find_model(name, models_dir)
    assert model.notice is None
    path = Path(model.path).resolve()
    assert path == Path(model.folder).resolve()
    assert path.name == model.name
    return model.name, path.parent


def failure(name, models_dir=DEFAULT_MODELS_DIR, flag='--model_name', find=find_model):
    with pytest.raises(UsageError) as error:
        find(name, models_dir, flag)
    assert '\n' not in str(error.value)
    assert error.value.status == 2
    return str(error.value)


# Names


@pytest.mark.parametrize('name', [*RELEASED_HPARAMS, BUNDLED_MODEL, 'my model', 'run-3_b', '.hidden', 'a..b', '模型'])
def test_a_name_means_itself(name):
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    ('old', 'name'),
    [
        ('117M', '124M'), ('345M', '355M'), ('762M', '774M'), ('1542M', '1558M'), ('1.5B', '1558M'),
        ('gpt2', '124M'), ('gpt2-medium', '355M'), ('gpt2-large', '774M'), ('gpt2-xl', '1558M'), ('GPT2-XL', '1558M'),
        ('117m', '124M'), ('1.5b', '1558M'),
    ],
)  # fmt: skip
def test_other_names_of_the_released_models(old, name):
    assert canonical_name(old) == name


@pytest.mark.parametrize(
    'name',
    [
        '', '.', '..', '/', '../7M', '7M/..', 'a/b', '7M/', './7M', 'a\\b', '..\\7M', 'C:\\models', '/etc', '7M\x00',
        '\x00', '7M/../../elsewhere',
    ],
)  # fmt: skip
def test_a_new_models_name_that_could_leave_the_models_folder_is_refused(name):
    with pytest.raises(UsageError) as error:
        canonical_name(name)
    assert repr(name) in str(error.value)
    assert '--model_name' in str(error.value)


# Paths


@pytest.mark.parametrize(
    ('path', 'folder'),
    [
        ('mine', 'mine'), ('./mine', 'mine'), ('mine/', 'mine'), ('../elsewhere/mine', 'mine'),
        ('models/7M', 'models/7M'),
        ('./models/7M', 'models/7M'), ('deep/er', 'models/deep/er'), ('~/7M', 'models/7M'), ('$HOME/7M', 'models/7M'),
    ],
)  # fmt: skip
def test_a_path_to_a_model_is_a_model(repository, monkeypatch, path, folder):
    monkeypatch.setenv('HOME', str(Path('models').resolve()))
    for made in ('mine', 'models/7M', 'models/deep/er'):
        make_model(Path(made).parent, Path(made).name)
    model = find_model(path)
    assert Path(model.path).resolve() == Path(folder).resolve()
    assert (model.name, model.notice) == (Path(folder).name, None)
    assert find_model(str(Path(folder).resolve()), 'nowhere').name == Path(folder).name


@pytest.mark.parametrize('suffix', ['', '.index', '.meta', '.data-00000-of-00001'])
@pytest.mark.parametrize('path', ['run/model-1000', 'models/run/model-1000', './models/run/model-1000'])
def test_a_checkpoint_is_a_model(repository, path, suffix):
    make_model(Path('models'), 'run')
    for number in (900, 1000):
        Path('models', 'run', f'model-{number}.index').touch()
    model = find_model(path + suffix)
    assert model.name == 'run-model-1000'
    assert Path(model.path).resolve() == Path('models', 'run', 'model-1000').resolve()
    assert Path(model.folder).resolve() == Path('models', 'run').resolve()


def test_a_checkpoint_in_the_current_folder_is_a_model(repository, monkeypatch):
    make_model(Path('models'), 'run')
    Path('models', 'run', 'model-1000.index').touch()
    monkeypatch.chdir(Path('models', 'run'))
    assert (find_model('model-1000').path, find_model('model-1000').folder) == ('model-1000', '.')
    assert find_model('.').name == 'run'


def test_the_models_folder_comes_before_the_current_one(repository):
    make_model(Path('.'), 'mine')
    make_model(Path('models'), 'mine')
    assert found('mine') == ('mine', Path('models').resolve())
    assert found('./mine') == ('mine', Path('.').resolve())


@pytest.mark.parametrize('name', ['config.json', 'ckpt.pt', 'model.gguf'])
def test_models_of_other_formats_are_found(repository, name):
    Path('models', 'theirs').mkdir(parents=True)
    Path('models', 'theirs', name).touch()
    inside = name == 'model.gguf'
    assert find_model('theirs/model.gguf' if inside else 'theirs').name == ('model' if inside else 'theirs')


@pytest.mark.parametrize(
    'name', ['/', '..', '../7M', '7M/..', 'a/b', './7M', '/etc', '/7M', '', '7M/\x00', 'x' * 300 + '/y']
)
def test_a_path_where_no_model_is_is_refused_in_one_line(repository, name):
    message = failure(name)
    assert message.startswith('no model at ')
    assert f'--model_name {BUNDLED_MODEL}' in message


def test_the_path_of_a_released_model_that_is_not_there_yet(repository):
    message = failure('my models/124M')
    assert "no model at my models/124M; get it with `python download_model.py 124M --models_dir 'my models'`" in message


@pytest.mark.parametrize(
    'name',
    [
        'sp ace', '[2]', 'proj [2024]', 'a*b', 'a?b', 'a\\b', '{a,b}', 'two\nlines', 'tab\t', '"quoted"', "it's", '~',
        '$HOME', '%41', '模型', 'caf\udce9', '-dash', '#', 'a:b', ' ', 'x.index',
    ],
)  # fmt: skip
def test_any_folder_name_that_the_system_allows(repository, name):
    make_model(Path('models', name), name)
    for path in (f'{name}/{name}', f'./models/{name}/{name}', os.path.abspath(f'models/{name}/{name}')):
        assert find_model(path).name == name
        assert os.path.samefile(find_model(path).path, f'models/{name}/{name}')
    assert found(name, f'models/{name}')[0] == name


def test_a_symbolic_link_to_a_model_is_a_model(repository):
    make_model(Path('far'), 'away')
    os.symlink('far/away', 'near')
    assert (find_model('near').name, find_model('./near').name) == ('near', 'near')


def test_a_folder_that_cannot_be_read_is_named(repository, monkeypatch):
    make_model(Path('models'), 'shut')

    def refuse(path):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('gpt2.checkpoints.files.os.listdir', refuse)
    with pytest.raises(CheckpointError, match=r'models/shut cannot be read \(Permission denied\)'):
        find_model('shut')


# Vocabularies


def test_a_vocabulary_needs_no_checkpoint(repository):
    folder = Path('models', 'words')
    folder.mkdir(parents=True)
    (folder / 'encoder.json').touch()
    assert 'no vocabulary words in ' in failure('words', flag='--vocabulary', find=find_vocabulary)
    (folder / 'vocab.bpe').touch()
    for name in ('words', './models/words', str(folder.resolve())):
        assert os.path.samefile(find_vocabulary(name), folder)
    assert '--vocabulary 7M' in failure('others', flag='--vocabulary', find=find_vocabulary)


# Folders


def test_an_old_name_finds_the_folder_of_the_new_one(repository, tmp_path):
    assert found('117M', make_model(tmp_path / 'mine', '124M')) == ('124M', tmp_path / 'mine')


def test_the_default_is_the_smallest_released_model(repository):
    make_model(repository, '124M')
    assert found(None) == ('124M', repository)


def test_the_default_folder_is_the_current_folders(repository):
    make_model(Path('models'), '355M')
    assert found('355M') == ('355M', Path('models').resolve())


def test_the_default_folder_falls_back_to_the_repositorys(repository):
    make_model(repository, '355M')
    assert found('355M') == ('355M', repository)
    make_model(Path('models'), '774M')
    assert found('355M') == ('355M', repository)


def test_the_current_folder_comes_before_the_repository(repository):
    make_model(repository, '355M')
    make_model(Path('models'), '355M')
    assert found('355M') == ('355M', Path('models').resolve())


def test_a_folder_that_was_given_does_not_fall_back(repository, tmp_path):
    make_model(repository, '355M')
    assert str(tmp_path / 'mine') in failure('355M', tmp_path / 'mine')


@pytest.mark.parametrize('models_dir', [DEFAULT_MODELS_DIR, 'nowhere', '/nowhere'])
def test_the_bundled_model_is_found_whatever_the_folder(repository, models_dir):
    assert found(BUNDLED_MODEL, models_dir) == (BUNDLED_MODEL, repository)


def test_a_model_of_the_bundled_ones_name_comes_before_it(repository, tmp_path):
    assert found(BUNDLED_MODEL, make_model(tmp_path / 'mine', BUNDLED_MODEL)) == (BUNDLED_MODEL, tmp_path / 'mine')


@pytest.mark.parametrize('models_dir', ['~/mine', '$PLACE/mine', '${PLACE}/mine', '$PLACE/$FOLDER'])
def test_home_and_variables_are_expanded(repository, tmp_path, monkeypatch, models_dir):
    for name, value in {'HOME': tmp_path, 'PLACE': tmp_path, 'FOLDER': 'mine'}.items():
        monkeypatch.setenv(name, str(value))
    make_model(tmp_path / 'mine', '355M')
    assert found('355M', models_dir) == ('355M', tmp_path / 'mine')


def test_a_relative_folder_is_the_current_folders(repository):
    make_model(Path('mine'), '355M')
    assert found('355M', 'mine') == ('355M', Path('mine').resolve())


def test_a_file_is_no_model(repository, tmp_path):
    (tmp_path / '355M').write_text('no folder')
    assert str(tmp_path) in failure('355M', tmp_path)


# The fallback and the error


@pytest.mark.parametrize('models_dir', [DEFAULT_MODELS_DIR, 'nowhere'])
def test_without_a_name_the_bundled_model_stands_in_with_a_notice(repository, models_dir):
    model = find_model(None, models_dir)
    assert (model.name, model.path) == (BUNDLED_MODEL, str(repository / BUNDLED_MODEL))
    for part in ('124M', BUNDLED_MODEL, 'python download_model.py 124M'):
        assert part in model.notice
    assert '\n' not in model.notice


@pytest.mark.parametrize(('asked', 'name'), [('124M', '124M'), ('117M', '124M'), ('1.5B', '1558M'), ('774M', '774M')])
def test_a_released_model_asked_for_by_name_must_be_there(repository, tmp_path, asked, name):
    message = failure(asked, tmp_path / 'mine')
    assert f'no model {name} in {tmp_path / "mine"};' in message
    assert f'python download_model.py {name}' in message
    assert f'--model_name {BUNDLED_MODEL}' in message


@pytest.mark.parametrize('flag', ['--init_from', '--vocabulary'])
def test_the_remedy_is_one_for_the_flag_that_was_given(repository, flag):
    assert failure('355M', flag=flag).endswith(f'or use the bundled one: {flag} {BUNDLED_MODEL}')
    assert '--model_name' not in failure('355M', flag=flag)
    assert failure('355M', flag='').endswith(f'or use the bundled one: {BUNDLED_MODEL}')


def test_the_download_goes_to_where_the_model_was_looked_for(repository):
    assert '`python download_model.py 355M`' in failure('355M')
    assert "`python download_model.py 355M --models_dir 'my models'`" in failure('355M', 'my models')
    assert find_model(None, 'here').notice.endswith(': python download_model.py 124M --models_dir here')


def test_where_the_bundled_model_is_missing_it_is_no_remedy(repository, monkeypatch):
    monkeypatch.setattr(model_folder, 'OWN_MODELS', '/nowhere')
    assert failure(None).endswith('; get it with `python download_model.py 124M`')
    assert failure('355M').endswith('; get it with `python download_model.py 355M`')


def test_the_error_names_an_absolute_folder(repository, tmp_path):
    assert str(tmp_path / 'elsewhere' / 'models') in failure('355M')


def test_the_error_for_a_name_nobody_released_offers_no_download(repository, tmp_path):
    message = failure('mine', tmp_path)
    assert str(tmp_path) in message
    assert f'--model_name {BUNDLED_MODEL}' in message
    assert 'download' not in message


def test_an_unfinished_download_is_no_model_yet(repository):
    (repository / '124M').mkdir()
    (repository / '124M' / 'model.ckpt.data-00000-of-00001.part').touch()
    assert find_model(None, DEFAULT_MODELS_DIR).name == BUNDLED_MODEL
    with pytest.raises(UsageError, match=r'download_model\.py 124M'):
        find_model('124M', DEFAULT_MODELS_DIR)


# This repository


def test_the_bundled_model_is_in_the_repository():
    folder = Path(model_folder.OWN_MODELS, BUNDLED_MODEL)
    assert folder == MODELS / BUNDLED_MODEL
    assert set(json.loads((folder / 'hparams.json').read_text())) == {'n_vocab', 'n_ctx', 'n_embd', 'n_head', 'n_layer'}


def test_the_bundled_model_is_named_after_its_size():
    from gpt2.hparams import load_hparams, parameter_count

    hparams = load_hparams(Path(model_folder.OWN_MODELS, BUNDLED_MODEL, 'hparams.json'))
    assert re.fullmatch(r'\d+M', BUNDLED_MODEL)
    assert round(parameter_count(hparams) / 1e6) == int(BUNDLED_MODEL[:-1])


def test_the_repository_is_found_through_a_link_to_its_sources(tmp_path):
    (tmp_path / 'src').symlink_to(REPOSITORY / 'src')
    command = 'import src; from gpt2.checkpoints import folders; print(folders.OWN_MODELS)'
    shown = subprocess.run([sys.executable, '-c', command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == f'{model_folder.OWN_MODELS}\n'


def test_downloads_go_to_the_repository():
    assert downloads_folder() == str(REPOSITORY / 'models')


def test_an_installed_package_brings_the_bundled_model_and_downloads_to_the_current_folder(tmp_path):
    package = tmp_path / 'site-packages' / 'gpt2'
    shutil.copytree(REPOSITORY / 'src' / 'gpt2', package, ignore=shutil.ignore_patterns('models', '__pycache__'))
    make_model(package / 'models', BUNDLED_MODEL)
    code = """
from gpt2.checkpoints.folders import *
print(find_model().path, downloads_folder(), find_model().notice, sep='\\n')
try:
    find_model('355M')
except Exception as error:
    print(error)
"""
    command = [sys.executable, '-c', code]
    shown = subprocess.run(
        command, cwd=tmp_path, env={'PYTHONPATH': str(package.parent)}, capture_output=True, text=True, check=True
    )
    path, folder, notice, error = shown.stdout.splitlines()
    assert (path, folder) == (str(package / 'models' / BUNDLED_MODEL), 'models')
    assert notice.endswith('To get 124M: gpt2 download 124M')
    assert f'get it with `gpt2 download 355M`, or use the bundled one: --model_name {BUNDLED_MODEL}' in error
