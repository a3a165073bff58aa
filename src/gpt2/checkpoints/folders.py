"""Where models lie and what they are called. Imports no TensorFlow."""

import glob
import os

from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS

DEFAULT_MODEL = '124M'
BUNDLED_MODEL = '7M'
# Sizes as the paper counts them, as the release first named them, and as others name the models.
OTHER_NAMES = {
    '117M': '124M', '345M': '355M', '762M': '774M', '1542M': '1558M', '1.5B': '1558M',
    'gpt2': '124M', 'gpt2-medium': '355M', 'gpt2-large': '774M', 'gpt2-xl': '1558M',
}  # fmt: skip
PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
DEFAULT_MODELS_DIR = 'models'
# An installed package brings the bundled model inside it; in the repository the models lie beside src/.
INSTALLED_MODELS = os.path.join(PACKAGE, 'models')
REPOSITORY_MODELS = os.path.join(os.path.dirname(os.path.dirname(PACKAGE)), 'models')
if os.path.isdir(INSTALLED_MODELS):
    REPOSITORY_MODELS = INSTALLED_MODELS


def canonical_name(model_name):
    """The name of a model's folder. Raises UsageError for one that could leave the models folder."""
    name = str(model_name)
    name = next((ours for other, ours in OTHER_NAMES.items() if other.lower() == name.lower()), name)
    if name in ('', '.', '..') or any(mark in name for mark in ('/', '\\', '\x00')):
        raise UsageError(f'--model_name is {name!r}, expected the name of a folder inside the models folder')
    return name


def expand(models_dir):
    """A folder's path with ~ and $VARS expanded."""
    return os.path.expanduser(os.path.expandvars(str(models_dir)))


def models_folders(models_dir):
    """Folders to look in: models_dir and, when it is the default, which means the current folder's,
    the repository's own."""
    given = expand(models_dir)
    return [given, REPOSITORY_MODELS] if models_dir == DEFAULT_MODELS_DIR else [given]


def find_folder(name, models_dir):
    """The models folder that holds the model, or None; the bundled model is in the repository's.

    A model without an .index file is not there yet: the downloader fetches that file last.
    """
    for folder in [*models_folders(models_dir), *([REPOSITORY_MODELS] if name == BUNDLED_MODEL else [])]:
        if glob.glob(os.path.join(glob.escape(os.path.join(folder, name)), '*.index')):
            return folder
    return None


def find_model(model_name, models_dir):
    """Which model to use: (name, the models folder it is in, a notice for the user or None).

    model_name None means 124M if it is there and the bundled model if not. Raises UsageError
    when a model that was asked for is not there.
    """
    name = canonical_name(DEFAULT_MODEL if model_name is None else model_name)
    folder = find_folder(name, models_dir)
    if folder:
        return name, folder, None
    download = f'python download_model.py {name}'
    if model_name is None:
        notice = f'no {name} model here; using the bundled {BUNDLED_MODEL} model. To get {name}: {download}'
        return BUNDLED_MODEL, REPOSITORY_MODELS, notice
    looked_in = ' or '.join(dict.fromkeys(map(os.path.abspath, models_folders(models_dir))))
    remedy = f'get it with `{download}`' if name in RELEASED_HPARAMS else 'name a folder that is there'
    raise UsageError(f'no model {name} in {looked_in}; {remedy}, or use the bundled one: --model_name {BUNDLED_MODEL}')
