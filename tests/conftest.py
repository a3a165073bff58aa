"""What several test files share."""

import os
import signal

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'

import pytest
from example_models import MODELS, TINY, as_params, random_values

from gpt2.encoder import get_encoder

# A shell that runs the tests in the background has them ignore Ctrl-C, and nohup SIGHUP; so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, 'SIGHUP'):  # not on Windows
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='session')
def tiny_params():
    return as_params(random_values(TINY))


@pytest.fixture(scope='session')
def encoder():
    """The bundled model's."""
    return get_encoder('7M', str(MODELS))


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory):
    """A current folder that is not the repository."""
    return tmp_path_factory.mktemp('elsewhere')


@pytest.fixture(scope='session')
def without_tensorflow(tmp_path_factory):
    """An environment in which importing TensorFlow fails."""
    folder = tmp_path_factory.mktemp('fake')
    (folder / 'tensorflow.py').write_text('raise ImportError("TensorFlow was imported")')
    return {'PYTHONPATH': str(folder)}


@pytest.fixture(scope='session')
def without_engines(tmp_path_factory):
    """An environment in which importing TensorFlow fails, and importing LiteRT too."""
    folder = tmp_path_factory.mktemp('fakes')
    (folder / 'tensorflow.py').write_text('raise ImportError("TensorFlow was imported")')
    (folder / 'ai_edge_litert.py').write_text('raise ImportError("LiteRT was imported")')
    return {'PYTHONPATH': str(folder)}
