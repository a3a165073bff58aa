"""Batches of windows, and in which order they come: a function of the step alone, so that an interrupted run goes on
exactly where it stopped. Imports no TensorFlow.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpt2.checkpoints.folders import expand
from gpt2.errors import UsageError
from gpt2.training.data import DatasetError
from gpt2.training.settings import Settings
from gpt2.training.tokens import Tokens

BLOCK = 1024  # steps for which the rows of a mixture are drawn at once
MOST_WEIGHT = 10**9
SHARE = re.compile(r'(?P<pattern>.+):(?P<first>\d+(\.\d+)?)(->(?P<last>\d+(\.\d+)?))?', re.DOTALL | re.ASCII)
CHUNK, COUNTED = 2**20, 2**26  # tokens


class Batch(NamedTuple):
    """tokens: int32 [batch, n + 1], each a target of the one before. weights: float32 [batch, n], 1 where the target
    counts in the loss and 0 elsewhere. starts: int32 [batch, n], where in its window the document of each input
    begins, or None where attention reaches over documents."""

    tokens: np.ndarray
    weights: np.ndarray
    starts: np.ndarray | None = None

    @property
    def size(self) -> int:
        return len(self.tokens)

    def rows(self, rows: Any) -> 'Batch':
        """Some rows of it, as a slice or an array of their numbers says."""
        return Batch(self.tokens[rows], self.weights[rows], None if self.starts is None else self.starts[rows])


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    starts = [each.starts for each in batches if each.starts is not None]
    return Batch(
        np.concatenate([each.tokens for each in batches]), np.concatenate([each.weights for each in batches]),
        np.concatenate(starts) if starts else None,
    )  # fmt: skip


class Text:
    """Stretches of a token file, as if they followed one another.

    bounds: int64 [count, 2], where each begins and ends in the token file, in order.
    """

    def __init__(self, tokens: Tokens, bounds: np.ndarray) -> None:
        self.tokens = tokens
        bounds = without_gaps(bounds)
        self.firsts = bounds[:, 0]
        self.offsets = np.concatenate([[0], np.cumsum(bounds[:, 1] - bounds[:, 0])])

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def places(self, places: np.ndarray) -> np.ndarray:
        """Where in the token file each of some places in this text is."""
        stretch = np.searchsorted(self.offsets, places, side='right') - 1
        return self.firsts[stretch] + places - self.offsets[stretch]

    def ids(self, places: np.ndarray) -> np.ndarray:
        return self.tokens.ids[self.places(places)].astype(np.int32)

    def trained(self, places: np.ndarray) -> np.ndarray:
        """1 where the token at a place is a target, else 0, as float32."""
        if self.tokens.trained is None:
            return np.ones(places.shape, np.float32)
        return self.tokens.trained[self.places(places)].astype(np.float32)

    @functools.cached_property
    def documents(self) -> np.ndarray:
        """int64 [count, 2]: where each document, or what of it is in this text, begins and ends here."""
        if not len(self):
            return np.zeros([0, 2], np.int64)
        ends = self.tokens.ends
        sizes = np.diff(self.offsets)
        stretch = np.maximum(np.searchsorted(self.firsts, ends - 1, side='right') - 1, 0)
        inside = ends - self.firsts[stretch]
        inside = (inside + self.offsets[stretch])[(inside > 0) & (inside <= sizes[stretch])]
        borders = np.unique(np.concatenate([self.offsets, inside]))
        return np.stack([borders[:-1], borders[1:]], axis=1)

    def counts(self, n_vocab: int) -> np.ndarray:
        """How often each token comes, int64 [n_vocab], in the text or in the first COUNTED tokens of a longer one."""
        result = np.zeros(n_vocab, np.int64)
        for start in range(0, min(len(self), COUNTED), CHUNK):
            ids = self.ids(np.arange(start, min(start + CHUNK, len(self), COUNTED)))
            result += np.bincount(ids, minlength=n_vocab)
        return result


def without_gaps(bounds: np.ndarray) -> np.ndarray:
    """bounds with those that touch made one, and empty ones left out."""
    bounds = bounds[bounds[:, 1] > bounds[:, 0]].reshape(-1, 2)
    apart = bounds[1:, 0] != bounds[:-1, 1]
    first, last = np.concatenate([[True], apart]), np.concatenate([apart, [True]])
    return np.stack([bounds[first[: len(bounds)], 0], bounds[last[: len(bounds)], 1]], axis=1)


def hold_out(sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which documents of these sizes may be held out, bool [count]: of the given fraction of them, at least one unless
    it is 0, never all, those that have no more than that fraction of the whole. Which they are of depends on their
    count, fraction and seed alone."""
    count = len(sizes)
    drawn = min(max(1, round(count * fraction)), count - 1) if fraction else 0
    result = np.zeros(count, bool)
    result[np.random.default_rng(seed).permutation(count)[: max(drawn, 0)]] = True
    return result & (sizes <= int(sizes.sum() * fraction))


def kept_of_longest(sizes: np.ndarray, fraction: float) -> int:
    """How much of the longest document is left where its end is held out, since hold_out() finds none."""
    longest = int(sizes.max())
    return longest - min(max(1, int(sizes.sum() * fraction)), longest - 1)


def split(tokens: Tokens, fraction: float, seed: int) -> tuple[Text, Text]:
    """(training text, held-out text): of the documents of hold_out() those that together have the given fraction of
    all tokens at most or, where there is none, the last part of the longest document."""
    ends = tokens.ends
    sizes = np.diff(ends, prepend=0)
    bounds = np.stack([ends - sizes, ends], axis=1)
    held = hold_out(sizes, fraction, seed)
    held &= np.cumsum(sizes * held) <= int(sizes.sum() * fraction)
    if not fraction or not len(ends) or held.any():
        return Text(tokens, bounds[~held]), Text(tokens, bounds[held])
    longest = int(sizes.argmax())
    kept, last = bounds.copy(), bounds[[longest]]
    kept[longest, 1] = last[0, 0] = bounds[longest, 0] + kept_of_longest(sizes, fraction)
    return Text(tokens, kept), Text(tokens, last)


class Windows(Protocol):
    """Windows of a text: so many an epoch, and any of them by its number in the run."""

    count: int

    def batch(self, numbers: np.ndarray) -> Batch: ...


class Stream:
    """Windows cut out of the text one after another, wherever documents end. Every epoch begins to cut at another
    place and shuffles the windows anew."""

    def __init__(self, text: Text, window: int, seed: int) -> None:
        self.text, self.window, self.seed = text, window, seed
        self.count = max(0, (len(text) - window) // window)

    def batch(self, numbers: np.ndarray) -> Batch:
        pairs = zip(*(each.tolist() for each in np.divmod(numbers, self.count)))
        firsts = [cuts(len(self.text), self.window, self.seed, epoch)[index] for epoch, index in pairs]
        places = np.array(firsts)[:, np.newaxis] + np.arange(self.window + 1)
        return Batch(self.text.ids(places), self.text.trained(places[:, 1:]))


@functools.lru_cache(maxsize=8)
def cuts(length: int, window: int, seed: int, epoch: int) -> np.ndarray:
    """Where the windows of an epoch begin in a text, in their order."""
    random = np.random.default_rng([seed, epoch])
    offset = int(random.integers(window))
    return offset + window * random.permutation((length - 1 - offset) // window)


class Packed:
    """Windows that each hold as many whole documents as fit, none of which sees another; one that is longer than a
    window is cut. Every epoch shuffles the windows anew."""

    def __init__(self, text: Text, window: int, seed: int) -> None:
        self.text, self.window, self.seed = text, window, seed
        self.bins = pack(text.documents, window)
        self.count = len(self.bins)

    def batch(self, numbers: np.ndarray) -> Batch:
        pairs = zip(*(each.tolist() for each in np.divmod(numbers, self.count)))
        return self.rows([int(shuffled(self.count, self.seed, epoch)[index]) for epoch, index in pairs])

    def rows(self, bins: Sequence[int] | np.ndarray) -> Batch:
        """The windows of these bins. What a window has left is filled with token 0, which is no target."""
        tokens = np.zeros([len(bins), self.window + 1], np.int32)
        weights = np.zeros([len(bins), self.window], np.float32)
        starts = np.tile(np.arange(self.window, dtype=np.int32), [len(bins), 1])
        for row, index in enumerate(bins):
            place = 0
            for first, last in self.bins[index]:
                places, end = np.arange(first, last), place + last - first
                tokens[row, place:end] = self.text.ids(places)
                weights[row, place : end - 1] = self.text.trained(places[1:])
                starts[row, place:end] = place
                place = end
        return Batch(tokens, weights, starts)


@functools.lru_cache(maxsize=8)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def pack(documents: np.ndarray, window: int) -> list[list[tuple[int, int]]]:
    """Documents, int64 [count, 2], dealt out to windows: the longest first, each to the fullest with room for it."""
    parts = [(first, min(first + window + 1, last)) for begin, last in documents.tolist()
             for first in range(begin, last - 1, window)]  # fmt: skip
    parts.sort(key=lambda part: part[0] - part[1])
    bins: list[list[tuple[int, int]]] = []
    with_room: list[list[int]] = [[] for _ in range(window + 2)]
    rooms = 0  # a bit for each room that some window has
    for first, last in parts:
        size = last - first
        fitting = rooms >> size << size
        room = (fitting & -fitting).bit_length() - 1 if fitting else window + 1
        index = with_room[room].pop() if fitting else len(bins)
        if not fitting:
            bins.append([])
        elif not with_room[room]:
            rooms ^= 1 << room
        bins[index].append((first, last))
        if room - size > 1:
            with_room[room - size].append(index)
            rooms |= 1 << room - size
    return bins


class Evaluable(Protocol):
    """Windows that a loss is computed of: how many, and some of them by their numbers."""

    @property
    def size(self) -> int: ...

    def rows(self, rows: np.ndarray) -> Batch: ...


class InOrder:
    """Windows of a text in its order: every token but the first is a target once, in the last window before what is no
    target."""

    def __init__(self, text: Text, window: int) -> None:
        self.text, self.window = text, window
        self.count = -(-(len(text) - 1) // window) if len(text) > 1 else 0

    def rows(self, numbers: np.ndarray) -> Batch:
        places = self.window * numbers[:, np.newaxis] + np.arange(self.window + 1)
        there = places < len(self.text)
        places = np.minimum(places, len(self.text) - 1)
        return Batch(np.where(there, self.text.ids(places), 0), np.where(there, self.text.trained(places), 0)[:, 1:])


class HeldOut:
    """All windows of held-out texts, one text after another, made of their token files as they are asked for.

    size: how many there are.
    """

    def __init__(self, texts: Sequence[Text], window: int, packed: bool, n_vocab: int) -> None:
        self.window, self.n_vocab = window, n_vocab
        self.parts = [Packed(text, window, 0) if packed else InOrder(text, window) for text in texts]
        self.firsts = np.cumsum([0, *(part.count for part in self.parts)])
        self.size = int(self.firsts[-1])

    def rows(self, rows: np.ndarray) -> Batch:
        """The windows of these numbers, which are in order."""
        found = [part.rows(rows[(rows >= first) & (rows < first + part.count)] - first)
                 for part, first in zip(self.parts, self.firsts.tolist())]  # fmt: skip
        return joined(found)

    @functools.cached_property
    def targets(self) -> np.ndarray:
        """How often each token is a target, int64 [n_vocab]."""
        result = np.zeros(self.n_vocab, np.int64)
        for batch in in_parts(self, max(1, CHUNK // self.window)):
            result += np.bincount(batch.tokens[:, 1:][batch.weights > 0], minlength=self.n_vocab)
        return result


def in_parts(windows: Evaluable, size: int) -> Iterator[Batch]:
    """Yield windows in batches of so many, the last of which may be smaller."""
    for first in range(0, windows.size, size):
        yield windows.rows(np.arange(first, min(first + size, windows.size)))


@dataclasses.dataclass(frozen=True)
class Weight:
    """The share of a text in a mixture, against the others': from first at the run's start to last at its end."""

    first: float = 1.0
    last: float = 1.0

    def at(self, progress: np.ndarray) -> np.ndarray:
        return self.first + (self.last - self.first) * progress


def weighted(word: str) -> tuple[str, Weight | None]:
    """`PATTERN:3` or `PATTERN:1->0` as (pattern, its weight), which is None where a file has that name or none is
    given."""
    match = SHARE.fullmatch(word)
    if not match or os.path.exists(expand(word)):
        return word, None
    first = float(match['first'])
    return match['pattern'], Weight(first, first if match['last'] is None else float(match['last']))


class Batches:
    """The batches of a run. windows: of each text. weights: of each, which only count where there are several."""

    def __init__(self, windows: Sequence[Windows], weights: Sequence[Weight], settings: Settings) -> None:
        self.windows, self.rows = windows, settings.rows
        self.draw = functools.partial(drawn, tuple(weights), settings.rows, settings.steps, settings.seed)
        self.counted = 0, np.zeros(len(windows), np.int64)  # a block, and how many of each come before it

    def batch(self, step: int) -> Batch:
        """The batch of an update, from 0."""
        if len(self.windows) == 1:
            return self.windows[0].batch(step * self.rows + np.arange(self.rows))
        block, place = divmod(step, BLOCK)
        texts = self.draw(block)
        before = self.before(block) + self.count(texts[:place])
        numbers = zip(self.windows, before.tolist(), self.count(texts[place]).tolist())
        parts = [windows.batch(first + np.arange(count)) for windows, first, count in numbers if count]
        return joined(parts)

    def before(self, block: int) -> np.ndarray:
        """How many windows of each text come before a block of steps."""
        known, counts = self.counted if self.counted[0] <= block else (0, np.zeros(len(self.windows), np.int64))
        for each in range(known, block):
            counts = counts + self.count(self.draw(each))
        self.counted = block, counts
        return counts

    def count(self, texts: np.ndarray) -> np.ndarray:
        return np.bincount(texts.ravel(), minlength=len(self.windows))


@functools.lru_cache(maxsize=2)
def drawn(weights: tuple[Weight, ...], rows: int, steps: int, seed: int, block: int) -> np.ndarray:
    """Which text each row of the steps of a block is of, int64 [BLOCK, rows]."""
    progress = np.clip(np.arange(block * BLOCK, (block + 1) * BLOCK) / max(steps - 1, 1), 0, 1)
    shares = np.cumsum([weight.at(progress) for weight in weights], axis=0)  # -> [texts, BLOCK]
    random = np.random.default_rng([seed, block]).random([BLOCK, rows]) * shares[-1][:, np.newaxis]
    return sum(random >= share[:, np.newaxis] for share in shares[:-1]).astype(np.int64)


def check_enough(windows: Sequence[Windows], texts: Sequence[Text], rows: int, window: int) -> None:
    """Raise DatasetError for too little text."""
    if len(texts) > 1 and (short := [index for index, each in enumerate(windows) if not each.count]):
        raise DatasetError(
            f'text {short[0] + 1} of the mixture has {len(texts[short[0]])} training tokens, fewer than a window of '
            f'{window} and one more; give more of it, or a smaller --window'
        )
    if not all(each.count for each in windows) or sum(each.count for each in windows) < rows:
        raise DatasetError(
            f'{sum(map(len, texts))} training tokens do not fill a batch of {rows} windows of {window}; '
            'give more text, or a smaller --batch_size or --window'
        )


def check_weights(weights: Sequence[Weight]) -> None:
    """Raise UsageError for a mixture of nothing, and for numbers whose sum could not be held."""
    for when, values in (('first', [each.first for each in weights]), ('last', [each.last for each in weights])):
        if max(values) > MOST_WEIGHT:
            remedy = f'the limit is {MOST_WEIGHT:,}; give a smaller one'
            raise UsageError(f'a weight of the data is {max(values):,.20g}, {remedy}')
        if not any(values):
            raise UsageError(f'all weights of the data are 0 at the {when} update; give one above 0')
