"""SavedModel, TensorFlow's own package of graph and weights: a model that needs none of our code.

The graph has two signatures, `logits` and `generate`. It is built without a value in memory, and the
variables beside it are a checkpoint as the release has it, written tensor by tensor; so a model takes
no more memory to write than its largest tensor and TensorFlow itself.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2 import model, sample
from gpt2.checkpoints import bundle
from gpt2.checkpoints.source import Source
from gpt2.encoder import write_encoder
from gpt2.hparams import HParams, save_hparams, variable_shapes
from gpt2.system.files import make_folder
from gpt2.system.tensorflow import tf

DTYPES = ('float32',)
GRAPH = 'saved_model.pb'
VARIABLES = os.path.join('variables', 'variables')
EXTRA = 'assets.extra'  # where TensorFlow lets other files lie
GREEDY_BELOW = np.finfo(np.float32).tiny  # temperatures that mean the likeliest token
Tensors = dict[str, tf.Tensor]
Pair = tuple[tf.Tensor, tf.Tensor]  # keys and values of a layer
Past = list[Pair]


def write(destination: str, source: Source, dtype: str = 'float32') -> None:
    """Write a model as a new SavedModel folder. Raises Error, OSError.

    dtype: of DTYPES, of which there is one. Vocabulary and hparams.json lie in assets.extra, for programs
    that turn text into tokens.
    """
    prefix, extra = os.path.join(destination, VARIABLES), os.path.join(destination, EXTRA)
    for folder in (os.path.dirname(prefix), extra):
        make_folder(folder, 'choose another destination')
    if source.encoder is not None:
        write_encoder(extra, source.encoder)
    save_hparams(os.path.join(extra, 'hparams.json'), source.hparams)
    bundle.write_values(prefix, source.values(sorted(source.shapes)))
    with open(os.path.join(destination, GRAPH), 'wb') as file:
        file.write(package(source.hparams).SerializeToString())


def package(hparams: HParams) -> Any:
    """The SavedModel protocol buffer of a model of this shape: graph, signatures, how variables are restored."""
    from tensorflow.core.protobuf import saved_model_pb2

    with tf.Graph().as_default() as graph:
        params = model.nest({
            name: tf.compat.v1.get_variable(name, shape, initializer=tf.zeros_initializer(), use_resource=True)
            for name, shape in variable_shapes(hparams).items()
        })
        signatures = {'logits': logits_ends(hparams, params), 'generate': generate_ends(hparams, params)}
        saver = tf.compat.v1.train.Saver().as_saver_def()
        meta = tf.compat.v1.train.export_meta_graph(graph=graph, saver_def=saver, strip_default_attrs=True)
    meta.meta_info_def.tags.append(tf.saved_model.SERVING)
    for name, (inputs, outputs) in signatures.items():
        signature = meta.signature_def[name]
        signature.method_name = tf.saved_model.PREDICT_METHOD_NAME
        describe(signature.inputs, inputs)
        describe(signature.outputs, outputs)
    return saved_model_pb2.SavedModel(saved_model_schema_version=1, meta_graphs=[meta])


def describe(described: Any, tensors: Tensors) -> None:
    """Fill one side of a signature, a map of TensorInfo, with tensors by name."""
    for name, tensor in tensors.items():
        info = described[name]
        info.name, info.dtype = tensor.name, tensor.dtype.as_datatype_enum
        info.tensor_shape.CopyFrom(tensor.shape.as_proto())


def placeholders(signature: str, **specs: tuple[tf.DType, Sequence[int | None]]) -> Tensors:
    """A placeholder for each input of a signature, given as (dtype, shape)."""
    return {
        name: tf.compat.v1.placeholder(dtype, shape, f'{signature}/{name}') for name, (dtype, shape) in specs.items()
    }


def logits_ends(hparams: HParams, params: model.Params) -> tuple[Tensors, Tensors]:
    """(inputs, outputs): tokens int32 [batch, n] -> logits float32 [batch, n, n_vocab]."""
    inputs = placeholders('logits', tokens=(tf.int32, [None, None]))
    features = model.forward(hparams, params, inputs['tokens'])
    return inputs, {'logits': model.logits(params, features)}


def generate_ends(hparams: HParams, params: model.Params) -> tuple[Tensors, Tensors]:
    """(inputs, outputs): tokens int32 [batch, n] and scalars -> tokens int32 [batch, n + length]: see generate()."""
    inputs = placeholders(
        'generate',
        tokens=(tf.int32, [None, None]),
        length=(tf.int32, []),
        seed=(tf.int64, []),
        temperature=(tf.float32, []),
        top_k=(tf.int32, []),
        top_p=(tf.float32, []),
    )
    return inputs, {'tokens': generate(hparams, params, **inputs)}


def generate(
    hparams: HParams, params: model.Params, tokens: tf.Tensor, length: tf.Tensor, seed: tf.Tensor,
    temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor,
) -> tf.Tensor:  # fmt: skip
    """The context, int32 [batch, n], and length drawn tokens after it, as sample_sequence returns them.

    Settings mean what they mean there. The noise is drawn here, from the seed, int64: that of a row
    depends on the seed, on which row it is and on the step alone.
    """
    limit = hparams.n_ctx + 1  # one more than n_ctx, since the last token drawn is never fed back
    fits = tf.debugging.assert_less_equal(
        tf.shape(tokens)[1] + length, limit, f'tokens and length exceed the limit of {limit} together'
    )
    allowed = [
        tf.debugging.assert_non_negative(top_k, 'top_k must be at least 0'),
        tf.debugging.assert_positive(top_p, 'top_p must be above 0'),
    ]
    with tf.control_dependencies([fits, *allowed]):
        tokens = tf.identity(tokens)
    greedy = temperature < GREEDY_BELOW
    settings = tf.where(greedy, 1.0, temperature), tf.where(greedy, 0, top_k), tf.where(greedy, 1.0, top_p)

    def step(count: tf.Tensor, tokens: tf.Tensor, new: tf.Tensor, past: Past) -> tuple[Any, ...]:
        features, past = continued(hparams, params, new, past)
        logits = model.logits(params, features[:, -1])
        noise = tf.where(greedy, 1.0, exponential_noise(seed, count, tf.shape(logits)))
        drawn = sample.draw(logits, noise, *settings)[:, tf.newaxis]
        return count + 1, tf.concat([tokens, drawn], axis=1), drawn, past

    heads = [hparams.n_head, hparams.n_embd // hparams.n_head]
    nothing = tf.zeros([tf.shape(tokens)[0], heads[0], 0, heads[1]])
    growing, cached = tf.TensorShape([None, None]), tf.TensorShape([None, heads[0], None, heads[1]])
    _, tokens, _, _ = tf.while_loop(
        lambda count, *_: count < length,
        step,
        (tf.constant(0), tokens, tokens, [(nothing, nothing)] * hparams.n_layer),
        (tf.TensorShape([]), growing, growing, [(cached, cached)] * hparams.n_layer),
    )
    return tokens


def exponential_noise(seed: tf.Tensor, step: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Exponential variates, float32; in float64 until the end, since float32 has too few numbers near 1."""
    seed = tf.stack([seed, tf.cast(step, tf.int64)])
    uniform = tf.random.stateless_uniform(shape, seed, dtype=tf.float64, alg='philox')
    return tf.cast(-tf.math.log(uniform), tf.float32)


def continued(hparams: HParams, params: model.Params, tokens: tf.Tensor, past: Past) -> tuple[tf.Tensor, Past]:
    """(features [batch, n, n_embd] of tokens [batch, n] that come after the past, the past with them).

    past: keys and values of each layer, [batch, heads, m, features / heads]. What model.forward does with
    a cache that it writes in place, which a loop within a graph cannot be trusted with.
    """
    p = params['model']
    before, n = tf.shape(past[0][0])[2], tf.shape(tokens)[1]
    positions = before + tf.range(n)
    mask = tf.where(tf.range(before + n) <= positions[:, tf.newaxis], 0.0, -1e10)
    x = tf.gather(p['wte'], tokens) + tf.gather(p['wpe'], positions)
    now = []
    for layer in range(hparams.n_layer):
        block = p[f'h{layer}']
        attended, pair = attention(model.norm(x, block['ln_1']), block['attn'], hparams.n_head, mask, past[layer])
        x += attended
        x += model.mlp(model.norm(x, block['ln_2']), block['mlp'])
        now.append(pair)
    return model.norm(x, p['ln_f']), now


def attention(
    x: tf.Tensor, p: model.Params, n_head: int, mask: tf.Tensor, past: Pair
) -> tuple[tf.Tensor, Pair]:
    q, k, v = (model.split_heads(part, n_head) for part in tf.split(model.linear(x, p['c_attn']), 3, axis=-1))
    k, v = (tf.concat(pair, axis=2) for pair in zip(past, (k, v)))
    attended = model.attend(q / q.shape[-1] ** 0.5, k, v, mask)
    return model.linear(model.merge_heads(attended), p['c_proj']), (k, v)
