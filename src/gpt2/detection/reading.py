"""What a model says of each token of a text, and of what could have stood in its place. Imports no TensorFlow."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gpt2.encoder import Encoder
from gpt2.engine import Engine
from gpt2.scoring.logits import make_reader, score_logits
from gpt2.scoring.scores import Text, score_rows
from gpt2.scoring.windows import check_stride
from gpt2.text_stream import Measure

NEVER = np.float32(200)  # nats: what is so surprising has a probability of 0 in float32


class Reading(NamedTuple):
    """A text as a model reads it: arrays [tokens].

    ids: int. log_probabilities: float32, in nats, at most 0. ranks: int32, 1 for the likeliest token. entropies:
    float32, in nats: the surprise, -log_probability, that the model expects in the place of each token. variances:
    float32, in nats squared: that of the surprise.
    """

    ids: np.ndarray
    log_probabilities: np.ndarray
    ranks: np.ndarray
    entropies: np.ndarray
    variances: np.ndarray


NOTHING = Reading(*(np.empty([0], dtype) for dtype in (int, np.float32, np.int32, np.float32, np.float32)))


def read_texts(engine: Engine, encoder: Encoder, texts: Iterable[str]) -> Iterator[Reading]:
    """Yield the Reading of each of texts, of any lengths, as what follows the end-of-text token. Beyond n_ctx tokens
    the window moves by half of it."""
    n_ctx = engine.hparams.n_ctx
    opened = (Text({}, itertools.chain([encoder.end_of_text], encoder.encode(text)), Measure()) for text in texts)
    parts: list[tuple[np.ndarray, ...]] = []  # of the text that is being read
    for _, ids, found in score_rows(make_reader(engine, read_logits), opened, n_ctx, check_stride('', None, n_ctx), 1):
        if ids is not None:
            parts.append((np.array(ids), *found))
        else:
            yield Reading(*map(np.concatenate, zip(*parts))) if parts else NOTHING
            parts = []


def read_logits(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
    """What logits, float32 [n, n_vocab], say of targets, int [n], the ids that came, and of all others: the arrays of
    a Reading but for ids, [n] each."""
    log_probabilities, ranks, _ = score_logits(logits, targets)
    target = np.take_along_axis(logits, targets[:, np.newaxis], axis=1)
    surprises = (target - log_probabilities[:, np.newaxis]) - logits  # of every token, [n, n_vocab]
    surprises = np.minimum(surprises, NEVER)  # of one that cannot come it is infinite
    terms = np.exp(-surprises) * surprises
    entropies, squares = terms.sum(axis=1), (terms * surprises).sum(axis=1)
    return log_probabilities, ranks, entropies, np.maximum(squares - entropies**2, 0)
