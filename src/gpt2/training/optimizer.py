"""The optimizer, which is Keras' own, the rate it moves at, and what is saved of it beside a checkpoint."""

import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt2.checkpoints.bundle import read_index, read_values
from gpt2.checkpoints.files import CheckpointError
from gpt2.errors import Error

if TYPE_CHECKING:
    import keras

    from gpt2.training.settings import Settings

BACKEND = 'tensorflow'
CLIP_NORM = 1.0  # of all gradients together
RATE = 'learning_rate'  # the one variable of an optimizer that is no state


def learning_rate(settings: 'Settings', step: int) -> float:
    """The rate of update number `step`, from 0: a linear warm-up, whose last update is the first at the peak, then a
    cosine down to a tenth of it at the run's last update."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    peak = max(settings.warmup - 1, 0)
    progress = (step - peak) / max(1, settings.steps - 1 - peak)
    return settings.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def make_optimizer(variables: Sequence[Any], weight_decay: float) -> 'keras.optimizers.Optimizer':
    """AdamW over TensorFlow variables, each of a name of its own: gradients clipped to a norm of 1, the decay on
    matrices only, the embeddings among them."""
    optimizers = load_keras().optimizers
    optimizer = optimizers.AdamW(
        0.0, beta_1=0.9, beta_2=0.95, epsilon=1e-8, weight_decay=weight_decay, global_clipnorm=CLIP_NORM
    )
    optimizer.exclude_from_weight_decay(var_list=[each for each in variables if len(each.shape) < 2])
    optimizer.build(list(variables))
    return optimizer


def load_keras() -> Any:
    """Keras over TensorFlow, whatever else this user has it compute with. Raises Error if that was done already."""
    if 'keras' not in sys.modules:
        os.environ['KERAS_BACKEND'] = BACKEND
    from gpt2.system.tensorflow import tf  # noqa: F401, without its chatter

    import keras  # isort: skip

    if keras.backend.backend() != BACKEND:
        raise Error(f'Keras computes with {keras.backend.backend()} here; set KERAS_BACKEND={BACKEND} and start again')
    return keras


def state(optimizer: 'keras.optimizers.Optimizer') -> dict[str, Any]:
    """What is saved of an optimizer: {name: its Keras variable}, the count of updates among them."""
    return {f'optimizer/{each.name}': each for each in optimizer.variables if each.name != RATE}


def saved_values(optimizer: 'keras.optimizers.Optimizer') -> dict[str, Any]:
    """The state as float32 tensors; the count of updates is exact up to 2**24."""
    from gpt2.system.tensorflow import tf

    return {name: tf.cast(each.value, tf.float32) for name, each in state(optimizer).items()}


def restore(optimizer: 'keras.optimizers.Optimizer', prefix: str) -> None:
    """Give an optimizer the state that was saved at prefix. Raises CheckpointError."""
    found = state(optimizer)
    entries, _ = read_index(prefix)
    if missing := set(found) - set(entries):
        raise CheckpointError(
            f'{prefix} holds the state of another optimizer, without {min(missing)}, or of an older version; '
            f'start a new run with --init_from {os.path.dirname(prefix)} and another --model_name'
        )
    for name, value in read_values(prefix, {name: list(each.shape) for name, each in found.items()}):
        found[name].assign(value)
