"""What is said of a trained model."""

import math

import numpy as np

from gpt2.encoder import Encoder
from gpt2.hparams import HParams


def unigram_loss(train_tokens: np.ndarray, rows: np.ndarray, n_vocab: int) -> float:
    """Loss in nats a token of the best model blind to context: frequencies, plus one for each token."""
    counts = np.bincount(train_tokens, minlength=n_vocab) + 1
    return float(-np.log(counts / counts.sum())[rows[:, 1:]].mean())


def text_bytes(encoder: Encoder, rows: np.ndarray) -> int:
    """Bytes of text that the targets of windows stand for; end-of-text tokens stand for none."""
    lengths = np.array([len(encoder.decode_bytes([token])) for token in range(len(encoder))])
    lengths[encoder.end_of_text] = 0
    return int(lengths[rows[:, 1:]].sum())


def held_out_report(hparams: HParams, encoder: Encoder, loss: float, tokens: np.ndarray, held_out: np.ndarray) -> str:
    """One line on the held-out text. loss: nats a token over the windows held_out; tokens: those trained on."""
    count, bytes_ = held_out[:, 1:].size, text_bytes(encoder, held_out)
    unigram = unigram_loss(tokens, held_out, hparams.n_vocab)
    return (
        f'held out: {count} tokens, {bytes_} bytes; loss {loss:.4f} nats a token, perplexity {math.exp(loss):.2f}; '
        f'{loss * count / bytes_ / math.log(2):.4f} bits a byte; {1 - loss / unigram:.1%} below a unigram model '
        f'({unigram:.4f})'
    )
