"""What a run will do, said before it begins."""

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np

from gpt2.hparams import HParams, parameter_count, variable_shapes
from gpt2.training import lora
from gpt2.training.batches import Text
from gpt2.training.loop import Run, duration
from gpt2.training.settings import Settings, frozen, frozen_names

BYTES = 4  # of a float32
STATES = {'adamw': 2, 'adafactor': 1, 'lion': 1, 'sgd': 1}  # numbers that an optimizer keeps for each it moves
PROGRAM = 0.6e9  # bytes that TensorFlow takes by itself
BESIDE = 0.01  # seconds of an update that are no products: nearly all that one of a tiny model takes
SHARE = 0.5  # of the speed of a large matrix product that a train step reaches


def lines(
    run: Run, texts: Sequence[Text], origin: str, an_epoch: float, first: int, teacher: HParams | None = None
) -> list[str]:
    """The plan. texts: those trained on. origin: what the weights are from. an_epoch: updates in one. first: updates
    that are done already. teacher: the shape of the model that is distilled."""
    hparams, settings, held_out = run.hparams, run.settings, run.held_out
    documents, count = sum(len(text.documents) for text in texts), sum(map(len, texts))
    held = 'no held-out text' if held_out is None else f'{int(held_out.targets.sum()):,} tokens held out'
    left = settings.steps - first
    share = dataclasses.replace(settings, batch_size=settings.batch_size // run.team.replicas)
    whole = f'{settings.steps:,} updates' + (f', {first:,} of them done' if first else '')
    seconds = left * step_seconds(hparams, share, teacher)
    each = f' on each of {run.team.replicas} devices' if run.team.replicas > 1 else ''
    return [
        f'{run.folder}: {parameter_count(hparams) / 1e6:,.1f}M parameters, {origin}{of_adapters(hparams, settings)}',
        f'text: {counted(documents, "document")}, {count:,} tokens; {held}',
        f'{whole}, each of {settings.rows} windows of {settings.window} tokens: '
        f'{settings.steps / an_epoch:.3g} epochs; {settings.optimizer}, learning rate {settings.learning_rate:g}, '
        f'warm-up {settings.warmup}{", compiled by XLA" if settings.jit_compile else ""}',
        f'about {duration(seconds)} and {memory(hparams, share, teacher) / 1e9:.1f} GB of memory{each}; '
        f'{saved_bytes(hparams, settings) / 1e6:,.0f} MB a checkpoint, the optimizer with it',
    ]


def of_adapters(hparams: HParams, settings: Settings) -> str:
    rank = settings.lora_rank
    return f'; {trained(hparams, settings) / 1e6:,.2f}M in adapters of rank {rank} are trained' if rank else ''


def trained(hparams: HParams, settings: Settings) -> int:
    """How many numbers are trained."""
    rank, fixed = settings.lora_rank, frozen_names(settings.freeze)
    shapes = lora.shapes(hparams, rank) if rank else variable_shapes(hparams)
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.startswith(fixed))


def saved_bytes(hparams: HParams, settings: Settings) -> int:
    """Of a checkpoint: all parameters, what the optimizer keeps of those that are trained, and the adapters."""
    adapters = lora.size(hparams, settings.lora_rank) if settings.lora_rank else 0
    return BYTES * (parameter_count(hparams) + STATES[settings.optimizer] * trained(hparams, settings) + adapters)


def counted(count: int, unit: str) -> str:
    return f'{count:,} {unit}{"" if count == 1 else "s"}'


def step_seconds(hparams: HParams, settings: Settings, teacher: HParams | None = None) -> float:
    """Time of an update, roughly."""
    return BESIDE + step_operations(hparams, settings, teacher) / (SHARE * measured_speed())


def step_operations(hparams: HParams, settings: Settings, teacher: HParams | None = None) -> float:
    """Floating-point operations of an update: forward, which may be done twice, twice that backward, and the teacher's
    forward."""
    own = (4 if settings.recompute else 3) * forward_operations(hparams, settings)
    return own + (forward_operations(teacher, settings) if teacher else 0)


def forward_operations(hparams: HParams, settings: Settings) -> float:
    """Two a parameter and token, and attention."""
    matrices = parameter_count(hparams) - hparams.n_ctx * hparams.n_embd
    attention = 2 * hparams.n_layer * hparams.n_embd * settings.window
    return 2.0 * (matrices + attention) * settings.rows * settings.window


def memory(hparams: HParams, settings: Settings, teacher: HParams | None = None) -> float:
    """Bytes that a run needs at most, roughly: parameters and what goes with them, what the backward pass keeps, and
    the logits, the teacher's too; the teacher's parameters."""
    from gpt2.training.gradients import BLOCKS, CHUNK

    count, half = parameter_count(hparams), settings.precision != 'float32'
    copies = 1 + STATES[settings.optimizer] + (settings.accumulate > 1)  # of what is trained: gradients first
    halves = count / 2 if half else 0  # a copy of each matrix
    tokens = settings.batch_size * settings.window
    at_work = max(20 * hparams.n_embd, 3 * hparams.n_head * settings.window // BLOCKS)  # in a layer, a token
    kept = tokens * (kept_numbers(hparams, settings) * (0.7 if half else 1) + at_work)
    kept += (8 if teacher else 2) * min(tokens, CHUNK) * hparams.n_vocab
    if settings.lora_rank:  # when it saves, with the adapters added, the weights are there twice
        kept = max(kept, count)
    taught = parameter_count(teacher) * (1.5 if half else 1) + tokens * at_work if teacher else 0
    return PROGRAM + BYTES * (count + copies * trained(hparams, settings) + halves + kept + taught)


def kept_numbers(hparams: HParams, settings: Settings) -> int:
    """How many numbers of a token the layers keep for the backward pass: below the lowest that is trained, none."""
    layer = (18 if settings.dropout else 17) * hparams.n_embd + hparams.n_head
    embeddings, blocks = frozen(settings.freeze)
    layers = hparams.n_layer - (blocks if embeddings or settings.lora_rank else 0)
    return layers * hparams.n_embd + layer if settings.recompute else layers * layer


def measured_speed() -> float:
    """Operations a second of a large matrix product here, by a trial of some hundredths of a second."""
    from gpt2.system.tensorflow import tf

    size = 1024
    matrix = tf.constant(np.ones([size, size], np.float32))
    tf.matmul(matrix, matrix).numpy()
    start = time.perf_counter()
    for _ in range(4):
        result = tf.matmul(matrix, matrix)
    result.numpy()
    return 4 * 2 * size**3 / (time.perf_counter() - start)
