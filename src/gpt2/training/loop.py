"""The training loop: one update after another, with evaluations and saves between."""

import contextlib
import dataclasses
import json
import math
import os
import signal

import numpy as np
from tqdm import tqdm

from gpt2.checkpoints.files import RELEASED_PREFIX
from gpt2.training.data import training_batch
from gpt2.training.optimizer import adamw, learning_rate

LOG = 'training.jsonl'
INTERVAL_WINDOWS = 64  # held-out windows evaluated while training; at the end it is all of them


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the losses of a run depend on, beside its text and initial weights."""

    steps: int
    batch_size: int
    window: int
    learning_rate: float
    warmup: int
    weight_decay: float
    held_out: float
    seed: int


def make_train_step(hparams, params, optimizer, settings):
    """A graph function: one update from a batch int32 [batch, n] at a rate; returns the loss before it."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    variables = model.flatten(params)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)])
    def train_step(batch, rate):
        with tf.GradientTape() as tape:
            loss = model.loss(hparams, params, batch)
        gradients = tape.gradient(loss, list(variables.values()))
        gradients, _ = tf.clip_by_global_norm([tf.convert_to_tensor(gradient) for gradient in gradients], 1.0)
        step = optimizer['step'].assign_add(1.0)
        for (name, variable), gradient in zip(variables.items(), gradients):
            moments = optimizer[f'{name}/adam_m'], optimizer[f'{name}/adam_v']
            adamw(variable, gradient, *moments, rate, step, settings.weight_decay)
        return loss

    return train_step


def make_evaluate(hparams, params, batch_size):
    """A function: mean loss in nats a token over windows int32 [count, n]."""
    from gpt2 import model
    from gpt2.system.tensorflow import tf

    loss = tf.function(
        lambda batch: model.loss(hparams, params, batch), input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )

    def evaluate(rows):
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        progress = tqdm(parts, 'evaluating', unit='batch', leave=False, delay=2, disable=None)
        return sum(float(loss(part)) * len(part) for part in progress) / len(rows)

    return evaluate


def unigram_loss(train_tokens, rows, n_vocab):
    """Loss in nats a token of the best model blind to context: frequencies, plus one for each token."""
    counts = np.bincount(train_tokens, minlength=n_vocab) + 1
    return float(-np.log(counts / counts.sum())[rows[:, 1:]].mean())


def text_bytes(encoder, rows):
    """Bytes of text that the targets of windows stand for; end-of-text tokens stand for none."""
    lengths = np.array([len(encoder.decode_bytes([token])) for token in range(len(encoder))])
    lengths[encoder.end_of_text] = 0
    return int(lengths[rows[:, 1:]].sum())


def train(folder, hparams, settings, params, optimizer, tokens, held_out, every):
    """Train until settings.steps or Ctrl-C, evaluating and saving every so many steps.

    tokens: int32 [count]; held_out: windows int32 [count, n + 1]. Yields (step, loss), the step
    just made and the mean training loss of its batch.
    """
    from gpt2.checkpoints import release as checkpoint

    train_step = make_train_step(hparams, params, optimizer, settings)
    evaluate = make_evaluate(hparams, params, settings.batch_size)
    some = held_out[np.linspace(0, len(held_out) - 1, min(INTERVAL_WINDOWS, len(held_out))).astype(int)]
    first = int(optimizer['step'])
    progress = tqdm(total=settings.steps, initial=first, desc='training', unit='token', disable=None)
    progress.unit_scale = settings.batch_size * settings.window
    losses, latest = [], {}
    with interruption() as interrupted, progress:
        for step in range(first, settings.steps):
            rate = learning_rate(settings, step)
            batch = training_batch(tokens, step, settings.batch_size, settings.window, settings.seed)
            losses.append(float(train_step(batch, np.float32(rate))))
            done = step + 1
            progress.update()
            progress.set_postfix(loss=f'{np.mean(losses[-50:]):.3f}', **latest)
            yield done, losses[-1]
            if done % every == 0 or done == settings.steps or interrupted:
                entry = {'step': done, 'loss': float(np.mean(losses)), 'learning_rate': rate}
                if len(some) and not interrupted:
                    entry['held_out_loss'] = evaluate(some)
                    latest = {'held_out': f'{entry["held_out_loss"]:.3f}'}
                name = RELEASED_PREFIX if done == settings.steps else f'model-{done}'
                checkpoint.save(folder, name, hparams, params, optimizer)
                append_line(os.path.join(folder, LOG), entry)
                losses.clear()
            if interrupted:
                raise KeyboardInterrupt


@contextlib.contextmanager
def interruption():
    """Context in which the first Ctrl-C only makes the list it gives non-empty."""
    came = []

    def remember(*_):
        came.append(True)
        signal.signal(signal.SIGINT, previous)  # the second one interrupts

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, previous)


def append_line(path, entry):
    with open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')


def report(hparams, params, encoder, tokens, held_out, batch_size):
    """One line on the whole held-out text."""
    loss = make_evaluate(hparams, params, batch_size)(held_out)
    count, bytes_ = held_out[:, 1:].size, text_bytes(encoder, held_out)
    unigram = unigram_loss(tokens, held_out, hparams.n_vocab)
    return (
        f'held out: {count} tokens, {bytes_} bytes; loss {loss:.4f} nats a token, perplexity {math.exp(loss):.2f}; '
        f'{loss * count / bytes_ / math.log(2):.4f} bits a byte; {1 - loss / unigram:.1%} below a unigram model '
        f'({unigram:.4f})'
    )
