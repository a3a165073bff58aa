"""The parts of a layer, and the loss over the vocabulary, with gradients written out by hand: they keep as little as
they can for the backward pass, and go over it fewer times than what TensorFlow derives operation by operation.

Imports TensorFlow.
"""

import math
from collections.abc import Callable
from typing import Any

from gpt2.model import PLAIN, Dropout, Params, Tap, dropped, untapped
from gpt2.system.tensorflow import tf

BLOCKS, SHORTEST = 4, 128  # of queries: at most so many blocks, each of at least so many
CHUNK = 512  # positions whose logits are there at the same time
GELU = math.sqrt(8 / math.pi)  # gelu(x) is x * sigmoid(GELU * (x + CUBIC * x**3)) in its tanh form
CUBIC = 0.044715


def after(before: tf.Tensor | None, x: tf.Tensor) -> tf.Tensor:
    """x, which is there only once another tensor is: so what is computed from it is computed then, and is not taken for
    what was computed from x earlier, which would have to be kept."""
    with tf.control_dependencies([] if before is None else [before]):
        return tf.identity(x)


def norm(x: tf.Tensor, p: Params) -> tf.Tensor:
    """As model.norm; of what it computes, a mean and a scale a position are kept."""

    @tf.custom_gradient
    def normed(x: tf.Tensor, g: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axis=-1, keepdims=True)
        scale = tf.math.rsqrt(variance + 1e-5)

        def gradient(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            unit = (after(d, x) - mean) * scale
            inner = d * g
            along = tf.reduce_mean(inner * unit, axis=-1, keepdims=True)
            d_x = (inner - tf.reduce_mean(inner, axis=-1, keepdims=True) - unit * along) * scale
            return d_x, tf.reduce_sum(d * unit, axis=[0, 1]), tf.reduce_sum(d, axis=[0, 1])

        return (x - mean) * scale * g + b, gradient

    return normed(x, tf.convert_to_tensor(p['g']), tf.convert_to_tensor(p['b']))


@tf.custom_gradient
def gelu(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """The tanh form of gelu, of which nothing is kept but x."""

    def share(x: tf.Tensor, square: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(x * (GELU + GELU * CUBIC * square))

    def gradient(d: tf.Tensor) -> tf.Tensor:
        again = after(d, x)
        square = again * again
        found = share(again, square)
        return d * (found + found * (1 - found) * again * (GELU + 3 * GELU * CUBIC * square))

    return x * share(x, x * x), gradient


def attend(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, mask: tf.Tensor, dropout: Dropout | None, place: int,
    tap: Tap = untapped,
) -> tf.Tensor:  # fmt: skip
    """As model.attend, but that a tap sees no weights: what queries take from keys and values, [batch, heads, n,
    features] each, in blocks of queries that look at no key behind them. Kept of each query is one number, the
    logarithm of the sum of all weights, from which the backward pass computes them again (Dao et al. 2022, section
    3.1)."""
    blocks = spans(q.shape[2], max(SHORTEST, -(-(q.shape[2] or 1) // BLOCKS)))
    drops = [own(dropout, number) for number in range(len(blocks))]

    def scores(q: tf.Tensor, k: tf.Tensor, first: int, last: int | None) -> tf.Tensor:
        products = tf.matmul(q[:, :, first:last], k[:, :, :last], transpose_b=True)
        return tf.cast(products, tf.float32) + mask[:, :, first:last, :last]

    @tf.custom_gradient
    def attended(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        found: list[tf.Tensor] = []
        sums: list[tf.Tensor] = []
        for (first, last), drop in zip(blocks, drops):
            score = scores(after(found[-1] if found else None, q), k, first, last)  # one block after the other
            top = tf.reduce_max(score, axis=-1, keepdims=True)
            weights = tf.exp(score - top)
            total = tf.reduce_sum(weights, axis=-1, keepdims=True)
            taken = tf.matmul(dropped(tf.cast(weights, v.dtype), drop, place), v[:, :, :last])
            found.append(taken / tf.cast(total, v.dtype))
            sums.append(top + tf.math.log(total))
        result = tf.concat(found, axis=2)

        def gradient(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            along = tf.reduce_sum(tf.cast(d, tf.float32) * tf.cast(result, tf.float32), axis=-1, keepdims=True)
            d_q: list[tf.Tensor] = []
            d_k = d_v = None
            for (first, last), drop, logarithm in zip(blocks, drops, sums):
                before = d_q[-1] if d_q else d
                part = after(before, d)[:, :, first:last]
                weights = tf.exp(scores(after(before, q), k, first, last) - logarithm)
                d_v = added(d_v, tf.matmul(dropped(tf.cast(weights, v.dtype), drop, place), part, transpose_a=True))
                d_weights = dropped(tf.matmul(part, v[:, :, :last], transpose_b=True), drop, place)
                d_scores = weights * (tf.cast(d_weights, tf.float32) - along[:, :, first:last])
                d_scores = tf.cast(d_scores, v.dtype)
                d_q.append(tf.matmul(d_scores, k[:, :, :last]))
                d_k = added(d_k, tf.matmul(d_scores, q[:, :, first:last], transpose_a=True))
            return tf.concat(d_q, axis=2), d_k, d_v

        return result, gradient

    return attended(q, k, v)


def spans(count: int | None, size: int) -> list[tuple[int, int | None]]:
    """(first, last) of parts of so many things, each of size of them; all in one where the count is not known yet."""
    if count is None:
        return [(0, None)]
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def own(dropout: Dropout | None, number: int) -> Dropout | None:
    """Of a block: the first has the seed of all."""
    if dropout is None or number == 0:
        return dropout
    return dropout._replace(seed=tf.random.experimental.stateless_fold_in(dropout.seed, -number))


def added(x: tf.Tensor | None, y: tf.Tensor) -> tf.Tensor:
    """x + y, [batch, heads, m, features] each, where y has more positions."""
    if x is None:
        return y
    return tf.pad(x, [[0, 0], [0, 0], [0, tf.shape(y)[2] - tf.shape(x)[2]], [0, 0]]) + y


Losses = Callable[[tf.Tensor, slice], tuple[tf.Tensor, tf.Tensor]]


def vocabulary_loss(features: tf.Tensor, wte: Any, weights: tf.Tensor, losses: Losses) -> tf.Tensor:
    """What logits cost, summed over positions with their weights, a scalar float32.

    features: [batch, n, n_embd], of any dtype, in which the products are computed. wte: float32 [n_vocab, n_embd].
    weights: float32 [batch, n]. losses: of some positions' logits float32 [count, n_vocab], with which of all
    batch * n positions they are: (the losses [count], their gradients [count, n_vocab]). The gradients are computed
    with the loss, a chunk of positions after the other, so no logits are kept.
    """
    shares = tf.reshape(weights, [-1, 1])

    @tf.custom_gradient
    def summed(features: tf.Tensor, wte: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        matrix = tf.cast(wte, features.dtype)
        found: list[tf.Tensor] = []
        d_features: list[tf.Tensor] = []
        d_wte = None
        for first, last in spans(features.shape[0], CHUNK):
            chunk = after(found[-1] if found else None, features)[first:last]
            loss, d_logits = losses(logits_of(chunk, matrix), slice(first, last))
            found.append(tf.reduce_sum(loss[:, tf.newaxis] * shares[first:last]))
            d_logits = tf.cast(d_logits * shares[first:last], features.dtype)
            d_features.append(tf.matmul(d_logits, matrix))
            more = tf.cast(tf.matmul(d_logits, chunk, transpose_a=True), tf.float32)
            d_wte = more if d_wte is None else d_wte + more

        def gradient(d: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.cast(d, features.dtype) * tf.concat(d_features, axis=0), d * d_wte

        return tf.add_n(found), gradient

    return summed(tf.reshape(features, [-1, features.shape[-1]]), tf.convert_to_tensor(wte))


def logits_of(features: tf.Tensor, wte: tf.Tensor) -> tf.Tensor:
    """float32 [count, n_vocab] of features [count, n_embd]."""
    return tf.cast(tf.matmul(features, wte, transpose_b=True), tf.float32)


def next_token(targets: tf.Tensor) -> Losses:
    """Next-token losses in nats. targets: int32 [batch, n]."""
    labels = tf.reshape(targets, [-1])
    return lambda logits, part: tuple(
        tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels[part])
    )


def divergence(teacher: tf.Tensor, wte: Any, temperature: float) -> Losses:
    """KL divergences in nats from the teacher's probabilities, whose final features [batch, n, n_embd] are given and
    its wte, both over the temperature, times its square, so that the gradient is as large at any."""
    features = tf.reshape(teacher, [-1, teacher.shape[-1]])
    matrix = tf.cast(tf.convert_to_tensor(wte), teacher.dtype)

    def losses(logits: tf.Tensor, part: slice) -> tuple[tf.Tensor, tf.Tensor]:
        ours = tf.nn.log_softmax(logits / temperature)
        theirs = tf.nn.log_softmax(logits_of(after(logits, features)[part], matrix) / temperature)
        expected = tf.exp(theirs)
        found = temperature**2 * tf.reduce_sum(expected * (theirs - ours), axis=-1)
        return found, temperature * (tf.exp(ours) - expected)

    return losses


SPARING = PLAIN._replace(norm=norm, gelu=gelu, attend=attend)
AGAIN = SPARING._replace(around=tf.recompute_grad)
