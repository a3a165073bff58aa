"""The graph of a model as a .meta file, the seventh of the release's."""

from gpt2 import model
from gpt2.hparams import HParams, variable_shapes
from gpt2.system.files import whole_file
from gpt2.system.tensorflow import tf


def write_meta_graph(path: str, hparams: HParams) -> None:
    """Export the graph of the model, as the release does: tokens in, logits and loss out."""
    with tf.Graph().as_default():
        params = model.nest({
            name: tf.compat.v1.get_variable(name, shape, initializer=tf.zeros_initializer(), use_resource=True)
            for name, shape in variable_shapes(hparams).items()
        })
        tokens = tf.compat.v1.placeholder(tf.int32, [None, None], name='tokens')
        tf.identity(model.logits(params, model.forward(hparams, params, tokens)), name='logits')
        tf.identity(model.loss(hparams, params, tokens), name='loss')
        graph = tf.compat.v1.train.Saver().export_meta_graph()
    with whole_file(path, 'wb') as file:
        file.write(graph.SerializeToString())
