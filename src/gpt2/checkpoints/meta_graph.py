"""The graph of a model as a .meta file, the seventh of the release's."""

import functools

from gpt2 import model
from gpt2.hparams import HParams, variable_shapes
from gpt2.system.files import whole_file
from gpt2.system.tensorflow import tf


def write_meta_graph(path: str, hparams: HParams) -> None:
    """Export the graph of the model, as the release does: tokens in, logits and loss out."""
    with whole_file(path, 'wb') as file:
        file.write(meta_graph(hparams))


@functools.lru_cache(maxsize=1)  # all checkpoints of a run have the same
def meta_graph(hparams: HParams) -> bytes:
    with tf.Graph().as_default():
        params = model.nest({
            name: tf.compat.v1.get_variable(name, shape, initializer=tf.zeros_initializer(), use_resource=True)
            for name, shape in variable_shapes(hparams).items()
        })
        tokens = tf.compat.v1.placeholder(tf.int32, [None, None], name='tokens')
        tf.identity(model.logits(params, model.forward(hparams, params, tokens)), name='logits')
        tf.identity(model.loss(hparams, params, tokens), name='loss')
        return tf.compat.v1.train.Saver().export_meta_graph().SerializeToString()
