"""The train step, one update from one batch, and the loss of held-out text. Imports TensorFlow as they are made."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2.hparams import HParams
from gpt2.system import progress
from gpt2.training.batches import Batch, Evaluable, in_parts
from gpt2.training.distribution import ALONE, Team, divisible
from gpt2.training.optimizer import apply, loss_scale, trained

if TYPE_CHECKING:
    import keras

    from gpt2.training.settings import Settings


TRIALS = 2  # of each way to compute gradients


class Update(NamedTuple):
    """loss: of the batch before the update, mean nats a target. norm: of all gradients together, before clipping."""

    loss: float
    norm: float


TrainStep = Callable[[Batch, float], Update]
Evaluate = Callable[[Evaluable], float]
TotalLoss = Callable[..., Any]  # as total_loss
Gradients = Callable[[Sequence[Any], Any], tuple[Any, list[Any]]]


def total_loss(
    hparams: HParams, params: dict, tokens: Any, weights: Any, starts: Any = None, *, dtype: str = 'float32',
    **how: Any,
) -> Any:  # fmt: skip
    """Next-token losses of a batch's tensors in nats, summed with its weights, a scalar. dtype: of the products of
    matrices. how: dropout and recompute, as features() takes them."""
    from gpt2.system.tensorflow import tf
    from gpt2.training.gradients import next_token, vocabulary_loss

    found = features(hparams, params, tokens[:, :-1], starts, dtype=dtype, **how)
    return vocabulary_loss(tf.cast(found, dtype), params['model']['wte'], weights, next_token(tokens[:, 1:]))


def features(
    hparams: HParams, params: dict, tokens: Any, starts: Any, *, dtype: str, dropout: Any = None,
    recompute: bool = False,
) -> Any:  # fmt: skip
    """As model.forward(), by what keeps little for gradients. recompute: whether these compute each layer again
    instead of keeping it."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf
    from gpt2.training.gradients import AGAIN, SPARING

    how: dict[str, Any] = {'starts': starts, 'dropout': dropout, 'dtype': tf.as_dtype(dtype)}
    return model.forward(hparams, params, tokens, parts=AGAIN if recompute else SPARING, **how)


def tensors(batch: Batch) -> list[Any]:
    """What of a batch is computed with. TensorFlow makes a function of its own of each shape, so all batches of a run
    should have one."""
    from gpt2.system.tensorflow import tf

    return [tf.constant(part) for part in batch if part is not None]


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
        scale = loss_scale(optimizer)
        norm = tf.linalg.global_norm(gradients) / scale
        step = optimizer.iterations + 1
        optimizer.learning_rate.assign(rate)
        apply(optimizer, gradients, variables, norm)
        optimizer.iterations.assign(step)  # also where float16 overflowed, so that nothing was moved
        return loss, tf.where(tf.math.is_finite(norm), norm, 0.0)

    compiled = traced(team.each(update), jit_compile=bool(settings.jit_compile))
    return lambda batch, rate: Update(*map(float, compiled(tensors(batch), tf.constant(rate, tf.float32))))


def make_gradients(
    hparams: HParams, params: dict, variables: Sequence[Any], settings: 'Settings',
    optimizer: 'keras.optimizers.Optimizer', total: TotalLoss = total_loss,
) -> Gradients:  # fmt: skip
    """A function of a batch's tensors and a seed: (summed loss, its gradient at each variable, scaled as the optimizer
    wants it)."""
    from gpt2.model import Dropout
    from gpt2.system.tensorflow import tf

    def gradients(batch: Sequence[Any], seed: Any) -> tuple[Any, list[Any]]:
        tokens, weights, *starts = batch
        scale = loss_scale(optimizer)
        dropout = Dropout(settings.dropout, seed) if settings.dropout else None
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            how: dict[str, Any] = {'dropout': dropout, 'recompute': settings.recompute, 'dtype': settings.precision}
            scaled = total(hparams, params, tokens, weights * scale, *starts, **how)
        # Those of wte and wpe come in slices, which the optimizer would take one by one.
        return scaled / scale, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(scaled, variables)]

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
                way(part, tf.constant([0, 0]))[0].numpy()
            except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):  # not for XLA, or not here
                return False
            seconds[jit].append(time.perf_counter() - start)
    return min(seconds[True][1:]) < min(seconds[False][1:])


def accumulated(gradients: Gradients, count: int) -> Gradients:
    """gradients of a batch as the sum of those of so many equal parts, one after another, each with its own seed."""
    from gpt2.system.tensorflow import tf

    def summed(batch: Sequence[Any], seed: Any) -> tuple[Any, list[Any]]:
        parts = [tf.reshape(each, [count, each.shape[0] // count, each.shape[1]]) for each in batch]

        def part(index: Any) -> tuple[Any, list[Any]]:
            return gradients([each[index] for each in parts], tf.random.experimental.stateless_fold_in(seed, index))

        def add(index: Any, loss: Any, sums: list[Any]) -> tuple[Any, Any, list[Any]]:
            more, found = part(index)
            return index + 1, loss + more, [total + each for total, each in zip(sums, found)]

        return tf.while_loop(lambda index, *_: index < count, add, (1, *part(0)), parallel_iterations=1)[1:]

    return gradients if count == 1 else summed


def make_evaluate(hparams: HParams, params: dict, batch_size: int, team: Team = ALONE) -> Evaluate:
    """A function: mean loss in nats a target over any number of windows; so many are computed at once, and
    shared by a team."""
    from gpt2.system.tensorflow import traced

    def share_of_loss(batch: Any) -> Any:
        return team.sum(total_loss(hparams, params, *team.share(batch)))

    loss = traced(team.each(share_of_loss))

    def evaluate(windows: Evaluable) -> float:
        total = targets = 0.0
        batches, count = in_parts(windows, batch_size), -(-windows.size // batch_size)
        for batch in progress.bar(batches, 'evaluating', total=count, unit='batch', delay=2):
            total += float(loss(tensors(divisible(batch, batch_size))))
            targets += float(batch.weights.sum())
        return total / targets

    return evaluate
