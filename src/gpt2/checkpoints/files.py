"""The files of a checkpoint, and which of a folder's is current. Imports no TensorFlow.

A checkpoint is a prefix: `<prefix>.index` names every variable, `<prefix>.data-00000-of-00001`
holds the values, `<prefix>.meta` an exported graph. The folder's state file `checkpoint` names
the current prefix.
"""

import glob
import hashlib
import os
import re

from gpt2.errors import Error

STATE_FILE = 'checkpoint'
RELEASED_PREFIX = 'model.ckpt'
DATA_SUFFIX = '.data-00000-of-00001'
OPTIMIZER_SUFFIX = '.optimizer'


class CheckpointError(Error):
    """A checkpoint that is missing, damaged or not of the model its hparams.json describes."""


def find_prefix(path):
    """The checkpoint prefix that path means: a model folder, or a prefix itself.

    In a folder the state file decides (only its last path component counts: a checkpoint that
    was copied from elsewhere may name a folder of that machine); without one, a lone .index
    file does. Raises CheckpointError.
    """
    if not os.path.isdir(path):
        if os.path.exists(f'{path}.index'):
            return path
        raise CheckpointError(f'{path} is neither a model folder nor the prefix of a checkpoint')
    state = os.path.join(path, STATE_FILE)
    if os.path.exists(state):
        prefix = os.path.join(path, read_state_file(state))
    else:
        prefix = lone_prefix(path)
    if not os.path.exists(f'{prefix}.index'):
        raise CheckpointError(f'{prefix}.index is not there; download the model again')
    return prefix


def read_state_file(state):
    """The file name of the prefix that a state file names."""
    try:
        with open(state, encoding='utf-8') as file:
            match = re.search(r'^model_checkpoint_path:\s*"(.+)"', file.read(), re.MULTILINE)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f'{state} cannot be read ({error}); download the model again') from None
    if not match:
        raise CheckpointError(f'{state} has no line `model_checkpoint_path: "..."`; download the model again')
    return os.path.basename(match.group(1))


def lone_prefix(folder):
    """The prefix of the only checkpoint in a folder that has no state file."""
    prefixes = [path.removesuffix('.index') for path in glob.glob(os.path.join(glob.escape(folder), '*.index'))]
    models = [prefix for prefix in prefixes if not prefix.endswith(OPTIMIZER_SUFFIX)]
    if len(models) != 1:
        raise CheckpointError(
            f'{folder} has no state file `{STATE_FILE}` and {len(models)} .index files; '
            'download the model again, or name one checkpoint prefix'
        )
    return models[0]


def index_digest(prefix):
    """SHA-256, in hexadecimal, of a checkpoint's index, which holds shape, place and checksum of every variable."""
    try:
        with open(f'{prefix}.index', 'rb') as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise CheckpointError(f'{prefix}.index cannot be read ({error.strerror}); download the model again') from None
