"""Which folder a model's name means."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_models import MODELS, REPOSITORY

from gpt2.checkpoints import folders as model_folder
from gpt2.checkpoints.folders import BUNDLED_MODEL, DEFAULT_MODELS_DIR, canonical_name, find_model
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
    monkeypatch.setattr(model_folder, 'REPOSITORY_MODELS', str(models))
    return models


def make_model(models, name):
    (models / name).mkdir(parents=True)
    (models / name / 'model.ckpt.index').touch()
    return models


def found(name, models_dir=DEFAULT_MODELS_DIR):
    """(name, folder) of a model that has to be found without a notice."""
    name, folder, notice = find_model(name, models_dir)
    assert notice is None
    return name, Path(folder).resolve()


def failure(name, models_dir=DEFAULT_MODELS_DIR):
    with pytest.raises(UsageError) as error:
        find_model(name, models_dir)
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
def test_a_name_that_could_leave_the_models_folder_is_refused(repository, name):
    message = failure(name)
    assert repr(name) in message
    assert '--model_name' in message


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
    name, folder, notice = find_model(None, models_dir)
    assert (name, folder) == (BUNDLED_MODEL, str(repository))
    for part in ('124M', BUNDLED_MODEL, 'python download_model.py 124M'):
        assert part in notice
    assert '\n' not in notice


@pytest.mark.parametrize(('asked', 'name'), [('124M', '124M'), ('117M', '124M'), ('1.5B', '1558M'), ('774M', '774M')])
def test_a_released_model_asked_for_by_name_must_be_there(repository, tmp_path, asked, name):
    message = failure(asked, tmp_path / 'mine')
    assert f'no model {name} in {tmp_path / "mine"};' in message
    assert f'python download_model.py {name}' in message
    assert f'--model_name {BUNDLED_MODEL}' in message


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
    assert find_model(None, DEFAULT_MODELS_DIR)[0] == BUNDLED_MODEL
    with pytest.raises(UsageError, match=r'download_model\.py 124M'):
        find_model('124M', DEFAULT_MODELS_DIR)


# This repository


def test_the_bundled_model_is_in_the_repository():
    folder = Path(model_folder.REPOSITORY_MODELS, BUNDLED_MODEL)
    assert folder == MODELS / BUNDLED_MODEL
    assert set(json.loads((folder / 'hparams.json').read_text())) == {'n_vocab', 'n_ctx', 'n_embd', 'n_head', 'n_layer'}


def test_the_bundled_model_is_named_after_its_size():
    from gpt2.hparams import load_hparams, parameter_count

    hparams = load_hparams(Path(model_folder.REPOSITORY_MODELS, BUNDLED_MODEL, 'hparams.json'))
    assert re.fullmatch(r'\d+M', BUNDLED_MODEL)
    assert round(parameter_count(hparams) / 1e6) == int(BUNDLED_MODEL[:-1])


def test_the_repository_is_found_through_a_link_to_its_sources(tmp_path):
    (tmp_path / 'src').symlink_to(REPOSITORY / 'src')
    command = 'import src; from gpt2.checkpoints import folders; print(folders.REPOSITORY_MODELS)'
    shown = subprocess.run([sys.executable, '-c', command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout == f'{model_folder.REPOSITORY_MODELS}\n'
