"""What a sample holds so far, as far as settings look back at it. Knows nothing of text."""

import collections
import copy
import math
from collections.abc import Iterable, Sequence

import numpy as np

from gpt2.sampling import Sampling, Walk


class History:
    """The tokens of a prompt and of one sample of it, and what they mean for the next one."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self.sampling, self.adjusting = sampling, sampling.adjusting
        self.drawn: collections.Counter[int] = collections.Counter()
        self.held = set(prompt) if sampling.repetition_penalty != 1 else set()
        rules = [*([NoRepeat(sampling.no_repeat_ngram)] if sampling.no_repeat_ngram else []), *sampling.rules]
        self.walks: list[Walk] = [rule.begin(prompt) for rule in rules]

    def adjusted(self, logits: np.ndarray) -> np.ndarray:
        """Logits, float32 [n_vocab], as they are before the temperature acts; a copy where anything changes."""
        sampling = self.sampling
        if not self.adjusting:
            return logits
        logits = logits.copy()
        if sampling.repetition_penalty != 1:
            discount(logits, self.held, sampling.repetition_penalty)
        if sampling.logit_bias:
            tokens, values = zip(*sampling.logit_bias)
            logits[list(tokens)] += np.array(values, np.float32)
        if self.drawn and (sampling.presence_penalty or sampling.frequency_penalty):
            ids, counts = np.array(list(self.drawn)), np.array(list(self.drawn.values()))
            logits[ids] -= (sampling.presence_penalty + sampling.frequency_penalty * counts).astype(np.float32)
        for walk in self.walks:
            walk.exclude(logits)
        return logits

    def take(self, token: int) -> None:
        """Note the token that was drawn."""
        if self.adjusting:
            self.drawn[token] += 1
            self.held.add(token)
            for walk in self.walks:
                walk.take(token)

    def fork(self) -> 'History':
        """Another one that goes on from here."""
        new = copy.copy(self)
        new.drawn, new.held = self.drawn.copy(), self.held.copy()
        new.walks = [walk.fork() for walk in self.walks]
        return new


def discount(logits: np.ndarray, tokens: Iterable[int], penalty: float) -> None:
    """Make tokens less likely, in place: a logit above 0 is divided by the penalty, one below 0 multiplied. The paper
    divides either, which would make likelier what is below 0."""
    ids = np.array(list(tokens), int)
    values = logits[ids]
    logits[ids] = np.where(values < 0, values * np.float32(penalty), values / np.float32(penalty))


class NoRepeat:
    """The rule that no n tokens come twice in the same order, in prompt and sample together (Paulus et al. 2018,
    section 2.5, have it for n = 3)."""

    def __init__(self, n: int) -> None:
        self.n = n

    def begin(self, prompt: Sequence[int]) -> 'NoRepeatWalk':
        return NoRepeatWalk(self.n, prompt)


class NoRepeatWalk:
    """last: the n - 1 tokens before the next. following: by so many tokens, those that have come after them."""

    def __init__(self, n: int, ids: Sequence[int]) -> None:
        self.n, self.last = n, tuple[int, ...]()
        self.following: dict[tuple[int, ...], tuple[int, ...]] = {}
        for token in ids:
            self.take(token)

    def exclude(self, logits: np.ndarray) -> None:
        logits[[*self.following.get(self.last, ())]] = -math.inf

    def take(self, token: int) -> None:
        before = self.n - 1
        if len(self.last) == before:
            self.following[self.last] = (*self.following.get(self.last, ()), token)
        self.last = (*self.last, token)[-before:] if before else ()

    def fork(self) -> 'NoRepeatWalk':
        new = copy.copy(self)
        new.following = self.following.copy()
        return new
