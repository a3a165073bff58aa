"""The training loop: one update after another, with evaluations and saves between."""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.checkpoints.files import RELEASED_PREFIX
from gpt2.hparams import HParams
from gpt2.system import progress
from gpt2.training.data import training_batch
from gpt2.training.optimizer import learning_rate, saved_values
from gpt2.training.settings import Settings
from gpt2.training.update import make_evaluate, make_train_step

if TYPE_CHECKING:
    import keras

LOG = 'training.jsonl'
INTERVAL_WINDOWS = 64  # held-out windows evaluated while training; at the end it is all of them


def train(
    folder: str, hparams: HParams, settings: Settings, params: dict, optimizer: 'keras.optimizers.Optimizer',
    tokens: np.ndarray, held_out: np.ndarray, every: int,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Train until settings.steps or Ctrl-C, evaluating and saving every so many steps.

    tokens: int32 [count]; held_out: windows int32 [count, n + 1]. Yields (step, loss), the step
    just made and the mean training loss of its batch.
    """
    from gpt2.checkpoints import release as checkpoint

    train_step = make_train_step(hparams, params, optimizer)
    evaluate = make_evaluate(hparams, params, settings.batch_size)
    some = held_out[np.linspace(0, len(held_out) - 1, min(INTERVAL_WINDOWS, len(held_out))).astype(int)]
    first = int(optimizer.iterations.numpy())
    bar = progress.bar(total=settings.steps, initial=first, desc='training', unit='step', leave=True)
    losses, latest = [], {}
    with interruption() as interrupted, bar:
        for step in range(first, settings.steps):
            rate = learning_rate(settings, step)
            batch = training_batch(tokens, step, settings.batch_size, settings.window, settings.seed)
            losses.append(train_step(batch, rate))
            done = step + 1
            bar.update()
            bar.set_postfix(loss=f'{np.mean(losses[-50:]):.3f}', **latest)
            yield done, losses[-1]
            if done % every == 0 or done == settings.steps or interrupted:
                entry = {'step': done, 'loss': float(np.mean(losses)), 'learning_rate': rate}
                if len(some) and not interrupted:
                    entry['held_out_loss'] = evaluate(some)
                    latest = {'held_out': f'{entry["held_out_loss"]:.3f}'}
                name = RELEASED_PREFIX if done == settings.steps else f'model-{done}'
                checkpoint.save(folder, name, hparams, params, saved_values(optimizer))
                append_line(os.path.join(folder, LOG), entry)
                losses.clear()
            if interrupted:
                raise KeyboardInterrupt


@contextlib.contextmanager
def interruption() -> Iterator[list[int]]:
    """Context in which the first Ctrl-C only makes the list it gives non-empty. Only the main thread gets any."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def remember(number: int, _: Any) -> None:
        came.append(number)
        signal.signal(number, previous)  # the second one interrupts

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, previous)


def append_line(path: str, entry: dict[str, Any]) -> None:
    with open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')
