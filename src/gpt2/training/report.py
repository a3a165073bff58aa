"""What is said of a trained model, and its curves."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.hparams import HParams
from gpt2.system.files import whole_file
from gpt2.training.batches import Text


def unigram_loss(counts: np.ndarray, targets: np.ndarray) -> float:
    """Loss in nats a token of the best model blind to context. counts: of each token in the training text, to which one
    is added; targets: how often each is a target. Both int [n_vocab]."""
    counts = counts + 1
    return float(-np.log(counts / counts.sum()) @ targets / targets.sum())


def text_bytes(encoder: Encoder, targets: np.ndarray) -> int:
    """Bytes of text of tokens, of which each comes so often, int [n_vocab]; end-of-text tokens stand for none."""
    lengths = np.array([len(encoder.decode_bytes([token])) for token in range(len(encoder))])
    lengths[list(encoder.end_ids)] = 0
    return int(lengths @ targets[: len(lengths)])


def held_out_report(
    hparams: HParams, encoder: Encoder, loss: float, texts: Sequence[Text], targets: np.ndarray
) -> str:
    """One line on the held-out text. loss: nats a target; texts: those trained on; targets: of HeldOut."""
    count, bytes_ = int(targets.sum()), text_bytes(encoder, targets)
    unigram = unigram_loss(np.sum([text.counts(hparams.n_vocab) for text in texts], axis=0), targets)
    side = 'below' if loss <= unigram else 'above'
    bits = f'{loss * count / bytes_ / math.log(2):.4f} bits a byte; ' if bytes_ else ''
    return (
        f'held out: {count} tokens, {bytes_} bytes; loss {loss:.4f} nats a token, '
        f'perplexity {math.exp(min(loss, 700)):.2f}; {bits}'
        f'{abs(1 - loss / unigram):.1%} {side} a unigram model ({unigram:.4f})'
    )


def draw_curves(path: str, entries: list[dict[str, Any]]) -> bool:
    """Write a PNG of the losses over the updates; False if matplotlib, which draws it, is not there.

    entries: of training.jsonl.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.add_subplot(xlabel='updates', ylabel='loss, nats a token')
    for key, label in (('loss', 'training text'), ('held_out_loss', 'held-out text')):
        points = [(entry['step'], entry[key]) for entry in entries if key in entry]
        if points:
            axes.plot(*zip(*points), label=label, marker='.' if len(points) < 50 else None)
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path, 'wb') as file:
        figure.savefig(file, format='png', dpi=120)
    return True
