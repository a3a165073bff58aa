"""Log-probabilities and ranks of token ids, in rows as windows.py makes them. Knows nothing of text or tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt2 import model
from gpt2.errors import Error
from gpt2.hparams import HParams
from gpt2.scoring.windows import Row
from gpt2.system.tensorflow import interrupts_held_back, tf, traced

LOGIT_ROWS = 128  # positions whose logits exist at once: 26 MB with the released vocabulary


class OutOfMemory(Error):
    """A batch of windows needs more memory than there is."""


def flat_targets(batch: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of rows as arrays int32: tokens [batch, n], padded at the end, which no earlier
    position sees; and for each scored id the flat position [count] it is predicted at and itself [count]."""
    n = max(len(ids) for ids, _ in batch) - 1
    tokens = np.zeros([len(batch), n], np.int32)
    positions, targets = [], []
    for index, (ids, count) in enumerate(batch):
        tokens[index, : len(ids) - 1] = ids[:-1]
        end = index * n + len(ids) - 1
        positions.extend(range(end - count, end))
        targets.extend(ids[-count:])
    return tokens, np.array(positions, np.int32), np.array(targets, np.int32)


def scored(logits: tf.Tensor, targets: tf.Tensor, excluded: np.ndarray, likeliest: int) -> tuple[tf.Tensor, ...]:
    """What logits [n, n_vocab] say of targets [n]: the arrays of make_score."""
    target = tf.gather(logits, targets[:, tf.newaxis], batch_dims=1)
    normaliser = tf.reduce_logsumexp(logits, axis=-1, keepdims=True)
    ranks = 1 + tf.math.count_nonzero(logits > target, axis=-1, dtype=tf.int32)
    likelier = tf.math.count_nonzero(tf.gather(logits, excluded, axis=1) > target, axis=-1, dtype=tf.int32)
    found = (target - normaliser)[:, 0], ranks, likelier
    if not likeliest:
        return found
    highest, ids = tf.math.top_k(logits, likeliest)
    return *found, ids, highest - normaliser


def make_score(
    hparams: HParams, params: model.Params, excluded: Sequence[int] = (), likeliest: int = 0,
    tap: model.Tap = model.untapped,
) -> Callable[[Sequence[Row]], list[tuple[np.ndarray, ...]]]:  # fmt: skip
    """A function that scores a batch of rows: a list of (log_probabilities, ranks, likelier), one a row.

    Each is an array [count], in the order of the ids: natural logarithms of the probabilities,
    float32; ranks, int32, 1 for the likeliest token; and of the token ids `excluded`, how many are
    likelier, int32. Where likeliest is above 0 two more follow, [count, likeliest] each: ids, int32, and
    log-probabilities, float32, of so many likeliest tokens in the place of each id, likeliest first.
    Memory is bounded by the batch: logits exist for LOGIT_ROWS positions at a time. The graph is traced
    once for all shapes. tap: as model.forward takes it. Raises OutOfMemory where a batch is too large all the same.
    """
    integers = tf.TensorSpec([None], tf.int32)
    shut_out, likeliest = np.array(excluded, np.int32), min(likeliest, hparams.n_vocab)
    outputs: list[tuple] = [(tf.float32, [None]), (tf.int32, [None]), (tf.int32, [None])]
    if likeliest:
        outputs += [(tf.int32, [None, likeliest]), (tf.float32, [None, likeliest])]

    @traced(input_signature=[tf.TensorSpec([None, None], tf.int32), integers, integers])
    def score_flat(tokens: tf.Tensor, positions: tf.Tensor, targets: tf.Tensor) -> list[tf.Tensor]:
        features = tf.reshape(model.forward(hparams, params, tokens, tap=tap), [-1, hparams.n_embd])
        features = tf.gather(features, positions)
        count = tf.shape(targets)[0]
        steps = (count + LOGIT_ROWS - 1) // LOGIT_ROWS

        def body(step: tf.Tensor, *results: tf.TensorArray) -> tuple[Any, ...]:
            part = slice(step * LOGIT_ROWS, (step + 1) * LOGIT_ROWS)
            found = scored(model.logits(params, features[part]), targets[part], shut_out, likeliest)
            return (step + 1, *(array.write(step, value) for array, value in zip(results, found)))

        results = [
            tf.TensorArray(dtype, steps, infer_shape=False, element_shape=shape) for dtype, shape in outputs
        ]
        # One step at a time, or the logits of several would be there at once.
        found = tf.while_loop(lambda step, *_: step < steps, body, (0, *results), parallel_iterations=1)
        return [array.concat() for array in found[1:]]

    def score(batch: Sequence[Row]) -> list[tuple[np.ndarray, ...]]:
        try:
            with interrupts_held_back():
                found = [array.numpy() for array in score_flat(*flat_targets(batch))]
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise OutOfMemory(f'no memory to score {len(batch)} windows at once; lower batch_size') from None
        ends = np.cumsum([count for _, count in batch])[:-1]
        return list(zip(*(np.split(array, ends) for array in found)))

    return score
