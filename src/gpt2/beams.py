"""Beam search: the likeliest continuations that going on with the likeliest beginnings finds. Knows nothing of text."""

import math
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np

from gpt2.engine import Rows


class Hypothesis(NamedTuple):
    """Token ids that may be continued, and their log-probability in nats, after all adjustments of the logits."""

    ids: tuple[int, ...]
    log_probability: float

    def rank(self, penalty: float, length: int | None = None) -> float:
        """By which hypotheses are compared; length: as if it were so long and no less likely."""
        return self.log_probability / (length or len(self.ids)) ** penalty


def search(
    rows: Rows, beams: int, length: int, penalty: float, ends: Callable[[tuple[int, ...]], bool], ends_at_once: int
) -> Generator[None, None, list[Hypothesis]]:
    """The likeliest continuations, at most `beams`, likeliest first: those of the highest log-probability divided by
    the number of tokens to the power of penalty.

    rows: of one prompt, one so far. length: tokens after which a continuation ends, if ends(ids) is not true before.
    ends_at_once: how many tokens, at most, end any one. Yields after every step. It goes on until nothing that is open
    can become better than the worst of as many as are wanted, which is what `early_stopping='never'` means to
    transformers' generate(), whose search this is.
    """
    growing, ended = [Hypothesis((), 0.0)], []
    while True:
        following, parents = [], []
        for place, (row, new) in enumerate(extended(rows, growing, (1 + max(ends_at_once, 1)) * beams)):
            if len(new.ids) == length or ends(new.ids):
                if place < beams:
                    ended.append(new)
            elif len(following) < beams:
                following.append(new)
                parents.append(row)
        ended = sorted(ended, key=lambda each: -each.rank(penalty))[:beams]
        longest = length if penalty > 0 else None
        worst = ended[-1].rank(penalty) if len(ended) == beams else -math.inf
        if not any(each.rank(penalty, longest) > worst for each in following):
            return ended
        rows.keep(parents)
        rows.take([each.ids[-1] for each in following])
        growing = following
        yield


def extended(rows: Rows, growing: Sequence[Hypothesis], count: int) -> list[tuple[int, Hypothesis]]:
    """The `count` likeliest of all that are a token longer than those that rows hold, each with its row, likeliest
    first."""
    found = []
    for row, (one, history, logits) in enumerate(zip(growing, rows.histories, rows.next_logits())):
        scores = log_softmax(history.adjusted(logits))
        tokens = np.argpartition(scores, -min(count, len(scores)))[-count:]
        found += [
            (row, Hypothesis((*one.ids, token), one.log_probability + score))
            for token, score in zip(tokens.tolist(), scores[tokens].tolist())
            if score > -math.inf
        ]
    return sorted(found, key=lambda each: -each[1].log_probability)[:count]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities in nats, float32 [n_vocab]; all -inf where no logit is above that."""
    highest = logits.max()
    return logits - highest - np.log(np.exp(logits - highest).sum()) if highest > -math.inf else logits
