"""TensorFlow as this library uses it."""

import pytest
from example_models import REPOSITORY

from gpt2.system.tensorflow import tf, traced


def test_a_function_is_traced_as_it_is_written():
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        traced(lambda x: 1 if x > 0 else 2)(tf.constant(3))


def test_no_graph_is_made_in_another_way():
    paths = [path for path in (REPOSITORY / 'src').rglob('*.py') if 'tf.function' in path.read_text(encoding='utf-8')]
    assert [path.name for path in paths] == ['tensorflow.py']
