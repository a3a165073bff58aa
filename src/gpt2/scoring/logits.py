"""Log-probabilities and ranks from logits, in NumPy: for engines that have no TensorFlow."""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gpt2.engine import Engine
from gpt2.scoring.scores import ScoreFunction

ROWS = 4  # of logits at once: 800 kB with the released vocabulary, which stays in a processor's cache


def make_score(engine: Engine, excluded: Sequence[int] = (), likeliest: int = 0) -> ScoreFunction:
    """A function that scores a batch of rows, as log_probabilities.make_score returns, by any engine."""
    return make_reader(engine, functools.partial(score_logits, excluded=excluded, likeliest=likeliest))


def make_reader(engine: Engine, read: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]) -> ScoreFunction:
    """A function that returns for each of a batch of rows what `read`, which may be score_logits, does of logits,
    float32 [n, n_vocab], and the ids that came, int [n]: arrays [n, ...]. They are read in pieces, by threads."""
    threads = concurrent.futures.ThreadPoolExecutor()

    def read_row(ids: list[int], count: int) -> tuple[np.ndarray, ...]:
        first = len(ids) - 1 - count
        targets = iter(ids[-count:])

        def read_block(logits: np.ndarray) -> tuple[np.ndarray, ...]:
            parts = [logits[start : start + ROWS] for start in range(0, len(logits), ROWS)]
            theirs = [np.array(list(itertools.islice(targets, len(part)))) for part in parts]
            return joined(threads.map(read, parts, theirs))

        return joined(engine.map_logits(read_block, ids[:-1], first))

    return lambda batch: [read_row(ids, count) for ids, count in batch]


def joined(found: Iterable[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """What was found of parts that follow one another, as of one."""
    return tuple(map(np.concatenate, zip(*found)))


def score_logits(
    logits: np.ndarray, targets: np.ndarray, excluded: Sequence[int] = (), likeliest: int = 0
) -> tuple[np.ndarray, ...]:
    """What logits, float32 [n, n_vocab], say of targets, int [n]: the ids that came.

    Returns arrays as log_probabilities.make_score does for a row: (log_probabilities float32 [n], ranks int32 [n],
    likelier int32 [n]) and, where likeliest is above 0, (ids int32, log-probabilities float32) of so many likeliest
    tokens (of all, where the vocabulary has fewer), [n, likeliest] each, likeliest first and of equals the lower id.
    """
    logits = np.asarray(logits, np.float32)
    target = np.take_along_axis(logits, np.asarray(targets)[:, np.newaxis], axis=1)  # [n, 1]
    highest = logits.max(axis=1, keepdims=True)
    shifted = logits - highest
    normaliser = highest + np.log(np.exp(shifted, out=shifted).sum(axis=1, keepdims=True))  # [n, 1]
    # Row by row: count_nonzero() with an axis takes five times as long.
    ranks = np.array([1 + np.count_nonzero(row) for row in logits > target], np.int32)
    likelier = np.count_nonzero(logits[:, np.array(excluded, np.int32)] > target, axis=1)
    found = (target - normaliser)[:, 0], ranks, likelier.astype(np.int32)
    if not likeliest:
        return found
    ids = likeliest_ids(logits, min(likeliest, logits.shape[1]))
    return *found, ids, np.take_along_axis(logits, ids, axis=1) - normaliser


def likeliest_ids(logits: np.ndarray, count: int) -> np.ndarray:
    """Ids of the `count` highest of logits [n, n_vocab] as int32 [n, count], in order; a lower id before its equal."""
    limits = np.partition(logits, -count, axis=1)[:, -count]  # the least that is among them; sorting all takes longer
    rows = []
    for row, limit in zip(logits, limits):
        ids = np.flatnonzero(row >= limit)
        rows.append(ids[np.argsort(-row[ids], kind='stable')][:count])
    return np.array(rows, np.int32).reshape(len(logits), count)
