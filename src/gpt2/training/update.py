"""The train step, one update from one batch, and the loss of held-out text. Imports TensorFlow as they are made."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.hparams import HParams
from gpt2.system import progress

if TYPE_CHECKING:
    import keras

TrainStep = Callable[[np.ndarray, float], float]
Evaluate = Callable[[np.ndarray], float]


def make_train_step(hparams: HParams, params: dict, optimizer: 'keras.optimizers.Optimizer') -> TrainStep:
    """A function: one update from a batch int32 [batch, n] at a rate; returns the loss before it."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    variables = list(model.flatten(params).values())

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)])
    def update(batch: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = model.loss(hparams, params, batch)
        gradients = tape.gradient(loss, variables)
        optimizer.learning_rate.assign(rate)
        # Those of wte and wpe come in slices, which the optimizer would take one by one.
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], variables)
        return loss

    return lambda batch, rate: float(update(batch, np.float32(rate)))


def make_evaluate(hparams: HParams, params: dict, batch_size: int) -> Evaluate:
    """A function: mean loss in nats a token over windows int32 [count, n]."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    loss = tf.function(
        lambda batch: model.loss(hparams, params, batch), input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )

    def evaluate(rows: np.ndarray) -> float:
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        shown = progress.bar(parts, 'evaluating', unit='batch', delay=2)
        return sum(float(loss(part)) * len(part) for part in shown) / len(rows)

    return evaluate
