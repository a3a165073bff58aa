"""The train step, one update from one batch, and the loss of held-out text. Imports TensorFlow as they are made."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2.hparams import HParams
from gpt2.system import progress
from gpt2.training.batches import Batch

if TYPE_CHECKING:
    import keras


class Update(NamedTuple):
    """loss: of the batch before the update, mean nats a target. norm: of all gradients together, before clipping."""

    loss: float
    norm: float


TrainStep = Callable[[Batch, float], Update]
Evaluate = Callable[[Batch], float]


def total_loss(hparams: HParams, params: dict, tokens: Any, weights: Any, starts: Any = None) -> Any:
    """Next-token losses of a batch's tensors in nats, summed with its weights, a scalar."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    logits = model.logits(params, model.forward(hparams, params, tokens[:, :-1], starts=starts))
    return tf.reduce_sum(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, 1:], logits=logits))


def signature(packed: bool) -> list[Any]:
    """Of a batch's tensors. packed: whether it has starts."""
    from gpt2.system.tensorflow import tf

    dtypes = [tf.int32, tf.float32, tf.int32] if packed else [tf.int32, tf.float32]
    return [tf.TensorSpec([None, None], dtype) for dtype in dtypes]


def tensors(batch: Batch) -> list[np.ndarray]:
    return [part for part in batch if part is not None]


def make_train_step(
    hparams: HParams, params: dict, optimizer: 'keras.optimizers.Optimizer', packed: bool = False
) -> TrainStep:
    """A function: one update from a batch at a rate. A batch without a target has loss 0."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    variables = list(model.flatten(params).values())

    @tf.function(input_signature=[signature(packed), tf.TensorSpec([], tf.float32)])
    def update(batch: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = total_loss(hparams, params, *batch) / tf.maximum(tf.reduce_sum(batch[1]), 1)
        # Those of wte and wpe come in slices, which the optimizer would take one by one.
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, variables)
        return loss, tf.linalg.global_norm(gradients)

    return lambda batch, rate: Update(*map(float, update(tensors(batch), np.float32(rate))))


def make_evaluate(hparams: HParams, params: dict, batch_size: int, packed: bool = False) -> Evaluate:
    """A function: mean loss in nats a target over a batch of any number of windows; so many are computed at once."""
    from gpt2.system.tensorflow import tf

    @tf.function(input_signature=[signature(packed)])
    def loss(batch: Any) -> Any:
        return total_loss(hparams, params, *batch)

    def evaluate(batch: Batch) -> float:
        parts = [batch.rows(slice(first, first + batch_size)) for first in range(0, len(batch.tokens), batch_size)]
        total = sum(float(loss(tensors(part))) for part in progress.bar(parts, 'evaluating', unit='batch', delay=2))
        return total / float(batch.weights.sum())

    return evaluate
