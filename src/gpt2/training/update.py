"""The train step, one update from one batch, and the loss of held-out text. Imports TensorFlow as they are made."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2.hparams import HParams
from gpt2.system import progress
from gpt2.training.batches import Batch
from gpt2.training.distribution import ALONE, Team, divisible
from gpt2.training.optimizer import loss_scale, trained

if TYPE_CHECKING:
    import keras

    from gpt2.training.settings import Settings


TRIALS = 2  # of each way to compute gradients


class Update(NamedTuple):
    """loss: of the batch before the update, mean nats a target. norm: of all gradients together, before clipping."""

    loss: float
    norm: float


TrainStep = Callable[[Batch, float], Update]
Evaluate = Callable[[Batch], float]
TotalLoss = Callable[..., Any]  # as total_loss
Gradients = Callable[[Sequence[Any], Any], tuple[Any, list[Any]]]


def total_loss(
    hparams: HParams, params: dict, tokens: Any, weights: Any, starts: Any = None, *, dtype: str = 'float32',
    **how: Any,
) -> Any:  # fmt: skip
    """Next-token losses of a batch's tensors in nats, summed with its weights, a scalar. dtype: of the products of
    matrices. how: dropout and recompute, as model.forward() takes them."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    features = model.forward(hparams, params, tokens[:, :-1], starts=starts, dtype=tf.as_dtype(dtype), **how)
    logits = model.logits(params, tf.cast(features, dtype))
    return tf.reduce_sum(weights * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, 1:], logits=logits))


def signature(packed: bool) -> list[Any]:
    """Of a batch's tensors. packed: whether it has starts."""
    from gpt2.system.tensorflow import tf

    dtypes = [tf.int32, tf.float32, tf.int32] if packed else [tf.int32, tf.float32]
    return [tf.TensorSpec([None, None], dtype) for dtype in dtypes]


def tensors(batch: Batch) -> list[np.ndarray]:
    return [part for part in batch if part is not None]


def make_train_step(
    hparams: HParams, params: dict, optimizer: 'keras.optimizers.Optimizer', settings: 'Settings',
    total: TotalLoss = total_loss, team: Team = ALONE,
) -> TrainStep:  # fmt: skip
    """A function: one update from a batch at a rate. A batch without a target has loss 0. total: the loss that is to
    fall, as total_loss. team: who shares it.

    Where gradients overflow in float16, nothing is moved but the scale of the loss, and their norm is 0.
    """
    from gpt2.system.tensorflow import tf, traced

    variables = trained(params, settings.freeze)
    gradients = make_gradients(hparams, params, variables, settings, optimizer, total)
    loss_and_gradients = accumulated(gradients, settings.accumulate)

    def update(batch: Any, rate: Any) -> Any:
        tokens, weights, *starts = batch
        weights /= tf.maximum(tf.reduce_sum(weights), 1)
        seed = tf.stack([settings.seed, tf.cast(optimizer.iterations.value, tf.int32)])
        loss, gradients = team.sum(loss_and_gradients(team.share([tokens, weights, *starts]), team.seed(seed)))
        norm = tf.linalg.global_norm(gradients) / loss_scale(optimizer)
        step = optimizer.iterations + 1
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, variables)
        optimizer.iterations.assign(step)  # also where float16 overflowed, so that nothing was moved
        return loss, tf.where(tf.math.is_finite(norm), norm, 0.0)

    form = [signature(settings.pack), tf.TensorSpec([], tf.float32)]
    compiled = traced(team.each(update), input_signature=form, jit_compile=bool(settings.jit_compile))
    return lambda batch, rate: Update(*map(float, compiled(tensors(batch), np.float32(rate))))


def make_gradients(
    hparams: HParams, params: dict, variables: Sequence[Any], settings: 'Settings',
    optimizer: 'keras.optimizers.Optimizer', total: TotalLoss = total_loss,
) -> Gradients:  # fmt: skip
    """A function of a batch's tensors and a seed: (summed loss, its gradient at each variable, scaled as the optimizer
    wants it)."""
    from gpt2.model import Dropout
    from gpt2.system.tensorflow import tf

    def gradients(batch: Sequence[Any], seed: Any) -> tuple[Any, list[Any]]:
        dropout = Dropout(settings.dropout, seed) if settings.dropout else None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            how: dict[str, Any] = {'dropout': dropout, 'recompute': settings.recompute, 'dtype': settings.precision}
            loss = total(hparams, params, *batch, **how)
            scaled = loss * loss_scale(optimizer)
        # Those of wte and wpe come in slices, which the optimizer would take one by one.
        return loss, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(scaled, variables)]

    return gradients


def faster_compiled(
    hparams: HParams, params: dict, settings: 'Settings', batch: Batch, optimizer: Any, total: TotalLoss = total_loss
) -> bool:
    """Whether gradients of a batch are computed faster once XLA has compiled them: the best of some trials of each
    way, by turns. Nothing is moved."""
    from gpt2.system.tensorflow import tf, traced

    variables, part = trained(params, settings.freeze), tensors(batch.rows(slice(settings.batch_size)))
    gradients = make_gradients(hparams, params, variables, settings, optimizer, total)
    ways = {jit: traced(gradients, jit_compile=jit) for jit in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + TRIALS):
        for jit, way in ways.items():
            start = time.perf_counter()
            try:
                way([tf.constant(each) for each in part], tf.constant([0, 0]))[0].numpy()
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):  # not for XLA, or not here
                return False
            seconds[jit].append(time.perf_counter() - start)
    return min(seconds[True][1:]) < min(seconds[False][1:])


def accumulated(gradients: Gradients, count: int) -> Gradients:
    """gradients of a batch as the sum of those of so many equal parts, one after another, each with its own seed."""
    from gpt2.system.tensorflow import tf

    def summed(batch: Sequence[Any], seed: Any) -> tuple[Any, list[Any]]:
        parts = [tf.reshape(each, [count, -1, tf.shape(each)[1]]) for each in batch]

        def part(index: Any) -> tuple[Any, list[Any]]:
            return gradients([each[index] for each in parts], tf.random.experimental.stateless_fold_in(seed, index))

        def add(index: Any, loss: Any, sums: list[Any]) -> tuple[Any, Any, list[Any]]:
            more, found = part(index)
            return index + 1, loss + more, [total + each for total, each in zip(sums, found)]

        return tf.while_loop(lambda index, *_: index < count, add, (1, *part(0)), parallel_iterations=1)[1:]

    return gradients if count == 1 else summed


def make_evaluate(
    hparams: HParams, params: dict, batch_size: int, packed: bool = False, team: Team = ALONE
) -> Evaluate:
    """A function: mean loss in nats a target over a batch of any number of windows; so many are computed at once, and
    shared by a team."""
    from gpt2.system.tensorflow import traced

    def share_of_loss(batch: Any) -> Any:
        return team.sum(total_loss(hparams, params, *team.share(batch)))

    loss = traced(team.each(share_of_loss), input_signature=[signature(packed)])

    def evaluate(batch: Batch) -> float:
        parts = [batch.rows(slice(first, first + batch_size)) for first in range(0, len(batch.tokens), batch_size)]
        parts = [divisible(part, team.replicas) for part in parts]
        total = sum(float(loss(tensors(part))) for part in progress.bar(parts, 'evaluating', unit='batch', delay=2))
        return total / float(batch.weights.sum())

    return evaluate
