"""What a run will do, said before it begins."""

import time
from collections.abc import Sequence

import numpy as np

from gpt2.hparams import HParams, parameter_count
from gpt2.training import lora
from gpt2.training.batches import Text
from gpt2.training.loop import Run, duration
from gpt2.training.settings import Settings

BYTES = 4  # of a float32
BESIDE = 3  # of each number that is trained: its gradient, the optimizer's two moments
PROGRAM = 0.6e9  # bytes that TensorFlow takes by itself
SHARE = 0.5  # of the speed of a large matrix product that a train step reaches


def lines(run: Run, texts: Sequence[Text], origin: str, an_epoch: float, first: int) -> list[str]:
    """The plan. texts: those trained on. origin: what the weights are from. an_epoch: updates in one. first: updates
    that are done already."""
    hparams, settings, held_out = run.hparams, run.settings, run.held_out
    documents, count = sum(len(text.documents) for text in texts), sum(map(len, texts))
    held = 'no held-out text' if held_out is None else f'{int(held_out.weights.sum()):,} tokens held out'
    left = settings.steps - first
    whole = f'{settings.steps:,} updates' + (f', {first:,} of them done' if first else '')
    seconds = left * step_operations(hparams, settings) / (SHARE * measured_speed())
    return [
        f'{run.folder}: {parameter_count(hparams) / 1e6:,.1f}M parameters, {origin}{of_adapters(hparams, settings)}',
        f'text: {counted(documents, "document")}, {count:,} tokens; {held}',
        f'{whole}, each of {settings.rows} windows of {settings.window} tokens: '
        f'{settings.steps / an_epoch:.3g} epochs; learning rate {settings.learning_rate:g}, '
        f'warm-up {settings.warmup}',
        f'about {duration(seconds)} and {memory(hparams, settings) / 1e9:.1f} GB of memory; '
        f'{saved_bytes(hparams, settings) / 1e6:,.0f} MB a checkpoint, the optimizer with it',
    ]


def of_adapters(hparams: HParams, settings: Settings) -> str:
    rank = settings.lora_rank
    return f'; {lora.size(hparams, rank) / 1e6:,.2f}M in adapters of rank {rank} are trained' if rank else ''


def trained(hparams: HParams, settings: Settings) -> int:
    """How many numbers are trained."""
    return lora.size(hparams, settings.lora_rank) if settings.lora_rank else parameter_count(hparams)


def saved_bytes(hparams: HParams, settings: Settings) -> int:
    """Of a checkpoint: all parameters, the two moments of each that is trained, and the adapters."""
    beside = 3 if settings.lora_rank else 2
    return BYTES * (parameter_count(hparams) + beside * trained(hparams, settings))


def counted(count: int, unit: str) -> str:
    return f'{count:,} {unit}{"" if count == 1 else "s"}'


def step_operations(hparams: HParams, settings: Settings) -> float:
    """Floating-point operations of an update: two a parameter and token forward, twice that backward, and attention."""
    matrices = parameter_count(hparams) - hparams.n_ctx * hparams.n_embd
    attention = 2 * hparams.n_layer * hparams.n_embd * settings.window
    return 6.0 * (matrices + attention) * settings.rows * settings.window


def memory(hparams: HParams, settings: Settings) -> float:
    """Bytes that a run needs at most, roughly: parameters and what goes with them, and what the backward pass keeps."""
    tokens = settings.batch_size * settings.window
    block = 34 * hparams.n_embd + 4 * hparams.n_head * settings.window
    kept = tokens * (hparams.n_layer * block + 3 * hparams.n_vocab)
    if settings.lora_rank:  # when it saves, with the adapters added, the weights are there twice
        kept = max(kept, parameter_count(hparams))
    return PROGRAM + BYTES * (parameter_count(hparams) + BESIDE * trained(hparams, settings) + kept)


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
