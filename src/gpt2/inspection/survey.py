"""What neurons do over a corpus, for all neurons of some layers at once, in one pass that keeps nothing it need not.

Of each neuron: the moments of its activations, and the passages in which it is largest. Of all together: a random
sample of passages, which is read once more at the end, when it is known which of them show a neuron at a quantile.
"""

import dataclasses
import itertools
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.inspection.passages import TOKENS
from gpt2.inspection.records import NeuronRecord, Passage

TOP = 20  # passages in which a neuron is largest
RANDOM = 20  # random ones
QUANTILES = (0, 0.5, 0.9, 0.99, 0.999, 1)  # of the passages' largest activations, as the published records have them
OF_A_QUANTILE = 5
SAMPLE = 1000  # passages among which quantiles are found: all of a corpus of 64,000 tokens

Read = Callable[[np.ndarray], list[Any]]  # passages int32 [b, TOKENS] -> a Reading of each layer


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the neurons of a layer do in some passages: activations float32 [b, TOKENS, neurons], the largest of each
    passage [b, neurons], and over all tokens the mean and the sums of the second to fourth power of what differs from
    it, [4, neurons]."""

    activations: np.ndarray
    largest: np.ndarray
    sums: np.ndarray


class Moments:
    """Of a stream of values, each of several neurons: merged without loss of digits (Pébay 2008, section 3)."""

    def __init__(self, neurons: int) -> None:
        self.count = 0
        self.mean, self.m2, self.m3, self.m4 = np.zeros([4, neurons])

    def add(self, count: int, sums: np.ndarray) -> None:
        """Take the mean and the sums of powers of `count` more values."""
        mean, m2, m3, m4 = sums.astype(np.float64)
        a, b, n = self.count, count, self.count + count
        d = mean - self.mean
        self.m4 += (
            m4 + d**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * d**2 * (a * a * m2 + b * b * self.m2) / n**2 + 4 * d * (a * m3 - b * self.m3) / n
        )  # fmt: skip
        self.m3 += m3 + d**3 * a * b * (a - b) / n**2 + 3 * d * (a * m2 - b * self.m2) / n
        self.m2 += m2 + d**2 * a * b / n
        self.mean += d * b / n
        self.count = n

    @property
    def figures(self) -> np.ndarray:
        """float64 [4, neurons]: mean, variance, skewness, kurtosis; nan of what never varies."""
        with np.errstate(divide='ignore', invalid='ignore'):
            variance = self.m2 / self.count
            skewness, kurtosis = self.m3 / self.count / variance**1.5, self.m4 / self.count / variance**2
        return np.array([self.mean, variance, skewness, kurtosis])


class Top:
    """The passages in which each neuron is largest: their numbers and their activations, [neurons, TOP, ...]."""

    def __init__(self, neurons: int) -> None:
        self.largest = np.full([neurons, TOP], -np.inf, np.float32)
        self.passages = np.full([neurons, TOP], -1)
        self.activations = np.zeros([neurons, TOP, TOKENS], np.float32)

    def add(self, first: int, reading: Reading) -> None:
        """Take passages with numbers from `first` on."""
        both = np.concatenate([self.largest, reading.largest.T], axis=1)
        best = np.argsort(-both, axis=1, kind='stable')[:, :TOP]  # of equals the earlier
        kept = np.zeros([len(both), TOP], bool)
        neurons, places = np.nonzero(best < TOP)
        kept[neurons, best[neurons, places]] = True
        # As many leave as enter, neuron by neuron, so the two lists below go together.
        neurons, slots = np.nonzero(~kept)
        _, places = np.nonzero(best >= TOP)
        entering = best[neurons, places] - TOP if len(neurons) else np.zeros(0, int)
        self.largest[neurons, slots] = reading.largest[entering, neurons]
        self.passages[neurons, slots] = first + entering
        self.activations[neurons, slots] = reading.activations[entering, :, neurons]

    def of(self, neuron: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number of the passage, activations), largest first."""
        for slot in np.lexsort([self.passages[neuron], -self.largest[neuron]]):
            if self.passages[neuron, slot] >= 0:
                yield self.passages[neuron, slot], self.activations[neuron, slot]


class Sample:
    """Passages at random, all with the same chance (Vitter 1985, algorithm R): their numbers, and the largest
    activation of each neuron in each, a list of layers of [sample, neurons]."""

    def __init__(self, neurons: Sequence[int], seed: int) -> None:
        self.numbers: list[int] = []
        self.largest = [np.zeros([SAMPLE, count], np.float32) for count in neurons]
        self.random = random.Random(seed)

    def add(self, first: int, readings: Sequence[Reading]) -> None:
        for row in range(len(readings[0].largest)):
            number = first + row
            place = number if number < SAMPLE else self.random.randrange(number + 1)
            if place >= SAMPLE:
                continue
            self.numbers[place : place + 1] = [number]
            for largest, reading in zip(self.largest, readings):
                largest[place] = reading.largest[row]


class Survey:
    """What was found of the neurons of some layers. corpus: the passages, int32 [passages, TOKENS]."""

    def __init__(
        self, layers: Sequence[int], neurons: Sequence[int], moments: list[Moments], tops: list[Top],
        sample: Sample, corpus: np.ndarray, seed: int,
    ) -> None:  # fmt: skip
        self.layers, self.neurons, self.corpus = layers, neurons, corpus
        self.tops, self.figures = tops, [each.figures for each in moments]
        count, generator = len(sample.numbers), np.random.default_rng(seed)
        self.numbers = np.array(sample.numbers)
        self.ends = [np.quantile(largest[:count], QUANTILES[1:-1], axis=0) for largest in sample.largest]
        self.chosen = [choose(largest[:count], generator) for largest in sample.largest]
        self.shown = [np.zeros([*chosen.shape, TOKENS], np.float32) for chosen in self.chosen]

    def read_sample(self, read: Read, size: int) -> None:
        """Read the sample once more, for the activations of what was chosen from it."""
        for first in range(0, len(self.numbers), size):
            part = self.numbers[first : first + size]
            for chosen, shown, reading in zip(self.chosen, self.shown, read(self.corpus[part])):
                neurons, slots = np.nonzero((chosen >= first) & (chosen < first + len(part)))
                shown[neurons, slots] = reading.activations[chosen[neurons, slots] - first, :, neurons]

    def records(self, encoder: Encoder) -> Iterator[NeuronRecord]:
        """Yield the record of each neuron, layer by layer."""
        for place, layer in enumerate(self.layers):
            for row, neuron in enumerate(self.neurons):
                yield self.record(encoder, place, layer, row, neuron)

    def record(self, encoder: Encoder, place: int, layer: int, row: int, neuron: int) -> NeuronRecord:
        def passage(number: int, activations: np.ndarray) -> Passage:
            return as_passage(encoder, self.corpus[number], activations)

        chosen, shown = self.chosen[place][row], self.shown[place][row]
        random_ones = [
            tuple(passage(self.numbers[chosen[slot]], shown[slot]) for slot in slots if chosen[slot] >= 0)
            for slots in parts()
        ]
        mean, variance, skewness, kurtosis = self.figures[place][:, row].tolist()
        return NeuronRecord(
            layer, neuron, tuple(passage(*each) for each in self.tops[place].of(row)), random_ones[0],
            tuple(random_ones[1:]), tuple(self.ends[place][:, row].tolist()), mean, variance, skewness, kurtosis,
        )  # fmt: skip


def as_passage(encoder: Encoder, ids: np.ndarray, activations: np.ndarray) -> Passage:
    return Passage(tuple(encoder.decode([token]) for token in ids.tolist()), tuple(activations.tolist()))


def parts() -> list[range]:
    """The places, among those chosen of a neuron, of the random sample and of each quantile."""
    starts = [0, *(RANDOM + OF_A_QUANTILE * part for part in range(len(QUANTILES)))]
    return [range(start, end) for start, end in itertools.pairwise(starts)]


def choose(largest: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Which of a sample each neuron shows, int [neurons, places], -1 for none. largest: [sample, neurons]."""
    count, neurons = largest.shape
    order = np.argsort(largest, axis=0, kind='stable')
    chosen = np.full([neurons, parts()[-1].stop], -1)
    bounds = [int(count * quantile) for quantile in QUANTILES]
    for places, (start, end) in zip(parts(), [(0, count), *itertools.pairwise(bounds)]):
        size = min(len(places), end - start)
        if size:
            ranks = start + np.argsort(generator.random([neurons, end - start]), axis=1)[:, :size]
            chosen[:, places.start : places.start + size] = np.take_along_axis(order.T, ranks, axis=1)
    return chosen


def survey(
    read: Read, batches: Iterable[np.ndarray], layers: Sequence[int], neurons: Sequence[int], size: int, seed: int = 0
) -> Survey:
    """Read passages once. read: see Read; batches: of passages, int32 [b, TOKENS], of at most size each; layers and
    neurons: those that read reads. The passages lie on the disk meanwhile, 4 bytes a token."""
    moments = [Moments(len(neurons)) for _ in layers]
    tops, sample, number = [Top(len(neurons)) for _ in layers], Sample([len(neurons)] * len(layers), seed), 0
    with tempfile.TemporaryFile() as kept:
        for batch in batches:
            kept.write(batch.tobytes())
            readings = read(batch)
            for moment, top, reading in zip(moments, tops, readings):
                moment.add(batch.size, reading.sums)
                top.add(number, reading)
            sample.add(number, readings)
            number += len(batch)
        found = Survey(layers, neurons, moments, tops, sample, mapped(kept, number), seed)
    found.read_sample(read, size)
    return found


def top_passages(read: Read, corpus: np.ndarray, layers: int, neurons: int, size: int) -> list[Top]:
    """Of the neurons of each layer, the passages in which they are largest, and nothing else. corpus: int32 [passages,
    TOKENS], which is read by `size` at a time."""
    tops = [Top(neurons) for _ in range(layers)]
    for first in range(0, len(corpus), size):
        for top, reading in zip(tops, read(corpus[first : first + size])):
            top.add(first, reading)
    return tops


def mapped(file: IO[bytes], count: int) -> np.ndarray:
    file.flush()
    return np.memmap(file, np.int32, 'r', shape=(count, TOKENS))
