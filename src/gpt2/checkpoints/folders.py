"""Where models lie and what they are called. Imports no TensorFlow."""

import dataclasses
import os
import re
import shlex
from collections.abc import Callable
from typing import TypeVar

from gpt2.checkpoints.files import is_prefix, prefixes_in
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS

DEFAULT_MODEL = '124M'
BUNDLED_MODEL = '7M'
# Sizes as the paper counts them, as the release first named them, and as others name the models.
OTHER_NAMES = {
    '117M': '124M', '345M': '355M', '762M': '774M', '1542M': '1558M', '1.5B': '1558M',
    'gpt2': '124M', 'gpt2-medium': '355M', 'gpt2-large': '774M', 'gpt2-xl': '1558M',
}  # fmt: skip
DEFAULT_MODELS_DIR = 'models'
OTHER_FORMATS = ('config.json', 'ckpt.pt')  # files by which a folder without a checkpoint is a model
CHECKPOINT_SUFFIX = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')
PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
Found = TypeVar('Found')


def repository_of(package: str) -> str | None:
    """The clone that a package's sources lie in; None if it was installed without one."""
    repository = os.path.dirname(os.path.dirname(package))
    return repository if os.path.isfile(os.path.join(repository, 'download_model.py')) else None


REPOSITORY = repository_of(PACKAGE)
# Where the bundled model is: a package that was installed brings it along.
OWN_MODELS = os.path.join(REPOSITORY or PACKAGE, 'models')


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """A model that is there.

    name: what it is called beside its results, fit for a file name: its folder's, and for one file or
    checkpoint in it that one's too. path: what open_source opens. notice: a line the user should see, or None.
    """

    name: str
    path: str
    notice: str | None = None

    @property
    def folder(self) -> str:
        """Where the files beside the weights are, such as hparams.json."""
        return self.path if os.path.isdir(self.path) else os.path.dirname(self.path) or '.'


def canonical_name(model_name: str, flag: str = '--model_name') -> str:
    """The name of a model's folder inside the models folder, where one is to be made; old names are understood.

    Raises UsageError, which calls the name by its flag, for one that could leave the models folder.
    """
    name = todays_name(str(model_name))
    if name in ('', '.', '..') or any(mark in name for mark in ('/', '\\', '\x00')):
        raise UsageError(f'{flag} is {name!r}, expected the name of a folder inside the models folder')
    return name


def todays_name(name: str) -> str:
    return next((ours for other, ours in OTHER_NAMES.items() if other.lower() == name.lower()), name)


def expand(path: str) -> str:
    """A path with ~ and $VARS expanded, unless it is there as it stands."""
    path = str(path)
    return path if os.path.lexists(path) else os.path.expanduser(os.path.expandvars(path))


def models_folders(models_dir: str) -> list[str]:
    """Folders to look in: models_dir and, when it is the default, which means the current folder's,
    that of the bundled model."""
    given = expand(models_dir)
    return [given, OWN_MODELS] if models_dir == DEFAULT_MODELS_DIR else [given]


def downloads_folder() -> str:
    """Where models are downloaded to, unless the user says otherwise: there they are found again."""
    return os.path.join(REPOSITORY, 'models') if REPOSITORY else DEFAULT_MODELS_DIR


def find_model(
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, flag: str | None = '--model_name'
) -> ModelFiles:
    """The model that a name or a path means; None means 124M if it is there and the bundled model if not.

    A name is that of a folder in models_dir. A path is that of a model's folder, of one checkpoint in it, with
    or without .index, or of a model's file, seen from the current folder or from models_dir. A folder
    of the release without an .index file is no model yet: the downloader fetches that file last.
    Raises UsageError for a model that is not there, in whose remedy flag is what the bundled model is given to; None
    where that would be of no use.
    """
    asked = DEFAULT_MODEL if model_name is None else str(model_name)
    if found := search(asked, models_dir, model_at):
        return found
    if model_name is None and (bundled := model_at(os.path.join(OWN_MODELS, BUNDLED_MODEL))):
        how = download_command(asked, models_dir)
        notice = f'no {asked} model here; using the bundled {BUNDLED_MODEL} model. To get {asked}: {how}'
        return dataclasses.replace(bundled, notice=notice)
    raise not_found('model', asked, models_dir, flag)


def find_vocabulary(name: str, models_dir: str = DEFAULT_MODELS_DIR, flag: str = '--vocabulary') -> str:
    """The folder with encoder.json and vocab.bpe that a name or a path means, as for find_model. Raises UsageError."""
    folder = search(str(name), models_dir, vocabulary_at)
    if folder is None:
        raise not_found('vocabulary', str(name), models_dir, flag)
    return folder


def search(name: str, models_dir: str, look: Callable[[str], Found | None]) -> Found | None:
    """What look finds at the first of the places that a name or path may mean."""
    return next(filter(None, map(look, places(name, models_dir))), None)


def places(name: str, models_dir: str) -> list[str]:
    folders, here = models_folders(models_dir), expand(name)
    if not name:
        return []
    if is_path(name):
        inside = [] if os.path.isabs(name) or re.match(r'\.\.?(?![^/\\])', name) else folders
        return [here, *(os.path.join(folder, name) for folder in inside)]
    bundled = [OWN_MODELS] if todays_name(name) == BUNDLED_MODEL else []
    return [*(os.path.join(folder, todays_name(name)) for folder in [*folders, *bundled]), here]


def is_path(name: str) -> bool:
    """Whether a name can only be a path."""
    return name in ('.', '..', '~') or any(separator in name for separator in (os.sep, os.altsep) if separator)


def model_at(path: str) -> ModelFiles | None:
    """The ModelFiles of a model's folder, of a checkpoint or of a file in another format; None if there is none."""
    if prefixes_in(path) or any(os.path.isfile(os.path.join(path, file)) for file in OTHER_FORMATS):
        return ModelFiles(os.path.basename(os.path.abspath(path)), path)
    for prefix in (path, CHECKPOINT_SUFFIX.sub('', path)):
        if is_prefix(prefix):
            return ModelFiles('-'.join(os.path.abspath(prefix).split(os.sep)[-2:]), prefix)
    if path.endswith(('.gguf', '.pt')) and os.path.isfile(path):
        return ModelFiles(os.path.splitext(os.path.basename(path))[0], path)
    return None


def vocabulary_at(path: str) -> str | None:
    files = (os.path.join(path, file) for file in ('encoder.json', 'vocab.bpe'))
    return path if all(map(os.path.isfile, files)) else None


def not_found(kind: str, name: str, models_dir: str, flag: str | None) -> UsageError:
    """The UsageError for a model or a vocabulary that is not there."""
    remedies = []
    if is_path(name) or not name:
        where = f'no {kind} at {name!r}' if not name or not name.isprintable() else f'no {kind} at {name}'
        folder, name = os.path.split(expand(name).rstrip(os.sep))
    else:
        folder, name = models_dir, todays_name(name)
        where = f'no {kind} {name} in {" or ".join(dict.fromkeys(map(os.path.abspath, models_folders(models_dir))))}'
    if name in RELEASED_HPARAMS:
        remedies.append(f'get it with `{download_command(name, folder)}`')
    elif kind == 'model':
        remedies.append('name a folder with an .index file, or a checkpoint in one')
    else:
        remedies.append('name a folder with encoder.json and vocab.bpe')
    if flag is not None and prefixes_in(os.path.join(OWN_MODELS, BUNDLED_MODEL)):
        remedies.append(f'use the bundled one: {f"{flag} {BUNDLED_MODEL}".strip()}')
    return UsageError(f'{where}; {", or ".join(remedies)}')


def download_command(name: str, models_dir: str = DEFAULT_MODELS_DIR) -> str:
    """The command that fetches a released model to where it was looked for."""
    command = 'python download_model.py' if REPOSITORY else 'gpt2 download'
    folder = '' if models_dir == DEFAULT_MODELS_DIR else f' --models_dir {shlex.quote(str(models_dir))}'
    return f'{command} {name}{folder}'
