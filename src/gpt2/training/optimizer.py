"""The optimizer, which is Keras' own, the rate it moves at, and what is saved of it beside a checkpoint."""

import math
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpt2.checkpoints.bundle import read_index, read_values
from gpt2.checkpoints.files import CheckpointError
from gpt2.errors import Error
from gpt2.training import lora
from gpt2.training.settings import frozen_names

if TYPE_CHECKING:
    import keras

    from gpt2.training.settings import Settings

BACKEND = 'tensorflow'
CLIP_NORM = 1.0  # of all gradients together
RATE = 'learning_rate'  # the one variable of an optimizer that is no state
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {  # Keras' names, and the constants that are not as they are there
    'adamw': ('AdamW', {'beta_1': 0.9, 'beta_2': 0.95, 'epsilon': 1e-8}),
    'adafactor': ('Adafactor', {'relative_step': False}),
    'lion': ('Lion', {'beta_1': 0.9, 'beta_2': 0.99}),
    'sgd': ('SGD', {'momentum': 0.9}),
}


def learning_rate(settings: 'Settings', step: int) -> float:
    """The rate of update number `step`, from 0: a linear warm-up, whose last update is the first at the peak, then a
    cosine down to a tenth of it at the run's last update."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    peak = max(settings.warmup - 1, 0)
    progress = (step - peak) / max(1, settings.steps - 1 - peak)
    return settings.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def trained(params: dict, freeze: str | None) -> list[Any]:
    """The variables that an optimizer is to move: all or, where there are adapters, theirs. freeze: as
    settings.frozen() takes it."""
    from gpt2 import model

    found = lora.adapters(params) or model.flatten(params)
    fixed = frozen_names(freeze)
    return [variable for name, variable in found.items() if not name.startswith(fixed)]


def make_optimizer(variables: Sequence[Any], settings: 'Settings') -> 'keras.optimizers.Optimizer':
    """Keras' optimizer of that name over TensorFlow variables, each of a name of its own: the decay on matrices only,
    the embeddings among them."""
    kind, constants = OPTIMIZERS[settings.optimizer]
    optimizer = in_turn(getattr(load_keras().optimizers, kind))(0.0, weight_decay=settings.weight_decay, **constants)
    optimizer.exclude_from_weight_decay(var_list=[each for each in variables if len(each.shape) < 2])
    if settings.precision == 'float16':  # whose smallest gradients would be 0
        optimizer = load_keras().optimizers.LossScaleOptimizer(optimizer)
    optimizer.build([Renamed(each) for each in variables])
    return optimizer


def in_turn(kind: type) -> type:
    """An optimizer of Keras that moves one variable after another: TensorFlow would begin with all at once, and have
    what is between of all of them in memory, their clipped gradients too. What AdamW does is one operation of
    TensorFlow's own."""
    from gpt2.system.tensorflow import tf

    class InTurn(kind):
        clipping: Any = 1.0  # what a gradient is multiplied with

        def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
            self.before: list[Any] = []
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            self.before = []

        def _apply_weight_decay(self, variables: Any) -> None:
            """Each variable decays before it moves."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            with tf.control_dependencies(self.before):
                gradient = gradient * self.clipping
                if self.weight_decay and self._use_weight_decay(variable):
                    variable.assign_sub(self.weight_decay * learning_rate * variable)
                if kind.__name__ == 'AdamW':
                    self.adam_step(gradient, variable, learning_rate)
                else:
                    super().update_step(gradient, variable, learning_rate)
            if not tf.executing_eagerly():
                self.before = tf.compat.v1.get_default_graph().get_operations()[-1:]

        def adam_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            index = self._get_variable_index(variable)
            step = tf.cast(self.iterations.value + 1, tf.float32)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=self._momentums[index].value.handle, v=self._velocities[index].value.handle,
                beta1_power=tf.pow(self.beta_1, step), beta2_power=tf.pow(self.beta_2, step), lr=learning_rate,
                beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon, grad=gradient,
            )  # fmt: skip

    InTurn.__name__ = kind.__name__  # after which Keras names what it keeps
    return InTurn


def apply(
    optimizer: 'keras.optimizers.Optimizer', gradients: Sequence[Any], variables: Sequence[Any], norm: Any
) -> None:
    """Move variables by gradients, scaled as the optimizer wants it, whose norm would be norm if they were not: made
    smaller to one of CLIP_NORM at most. Where it is not finite, none of them is."""
    from gpt2.system.tensorflow import tf

    within = getattr(optimizer, 'inner_optimizer', optimizer)
    within.clipping = CLIP_NORM * tf.minimum(1 / norm, 1 / CLIP_NORM) + (norm - norm)
    optimizer.apply(gradients, variables)


def loss_scale(optimizer: 'keras.optimizers.Optimizer') -> Any:
    """What an optimizer wants losses to be multiplied with: 1 but in float16."""
    return optimizer.dynamic_scale.value if hasattr(optimizer, 'dynamic_scale') else 1.0


class Renamed:
    """A TensorFlow variable, its name without the `/` and `:` that Keras' Adafactor refuses."""

    def __init__(self, variable: Any) -> None:
        self.variable, self.name = variable, re.sub('[/:]', '_', variable.name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # by which tf.distribute knows that its replicas have copies of this
        return type(self.variable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.variable, name)


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
    """What is saved of an optimizer: {name: its Keras variable}, the count of updates among them.

    Adafactor has three variables for one, two of which share its name.
    """
    scaling = [optimizer.dynamic_scale, optimizer.step_counter] if hasattr(optimizer, 'dynamic_scale') else []
    found: dict[str, Any] = {}
    for each in [*scaling, *getattr(optimizer, 'inner_optimizer', optimizer).variables]:
        name = f'optimizer/{each.name}'
        if each.name != RATE:
            found[f'{name}_2' if name in found else name] = each
    return found


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
