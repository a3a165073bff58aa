"""n-grams of words as numbers, and a Bloom filter of them (Radford et al. 2019, section 4). Imports no datatrove.

Words are runs of letters and digits, in lower case; a mark between them, such as the one in `don't`, divides them.
"""

import hashlib
import math
import re
from collections.abc import Iterable

import numpy as np

WORD = re.compile(r'[^\W_]+')
REMEMBERED = 2**20  # words whose hashes are kept
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
STEP = np.uint64(0x9E3779B97F4A7C15)
BATCH = 2**16  # n-grams that go into a filter at once


class WordHashes(dict):
    """Numbers of words, each computed when it first comes."""

    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        found = int.from_bytes(hashlib.blake2b(word.encode('utf-8', 'replace'), digest_size=8).digest(), 'little')
        self[word] = found
        return found


HASHES = WordHashes()


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def ngram_hashes(text: str, n: int) -> np.ndarray:
    """uint64 [count], a number for each n-gram of a text's words, in order; none for a text of fewer words."""
    numbers = np.array([HASHES[word] for word in words(text)], np.uint64)
    if len(numbers) < n:
        return np.empty(0, np.uint64)
    count = len(numbers) - n + 1
    found = np.zeros(count, np.uint64)
    for place in range(n):  # each word changes all that comes after it, so order matters
        found = mixed(found ^ numbers[place : place + count]) + STEP
    return found


def mixed(numbers: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one, each bit depending on all (the finaliser of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * MULTIPLIERS[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * MULTIPLIERS[1]
    return numbers ^ (numbers >> np.uint64(31))


class Bloom:
    """A set of numbers that may take one in 1 / rate others for its own, once it holds count of them (Bloom 1970)."""

    def __init__(self, count: int, rate: float = 1e-8) -> None:
        self.size = max(8, math.ceil(-count * math.log(rate) / math.log(2) ** 2))  # bits
        self.hashes = math.ceil(-math.log2(rate))
        self.bits = np.zeros(-(-self.size // 8), np.uint8)

    def places(self, numbers: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """The place that one of the hash functions gives each number: its byte, and its bit in that."""
        places = mixed(numbers + np.uint64((int(STEP) * (which + 1)) % 2**64)) % np.uint64(self.size)
        return places >> np.uint64(3), (places & np.uint64(7)).astype(np.uint8)

    def add(self, numbers: np.ndarray) -> None:
        for start in range(0, len(numbers), BATCH):
            for which in range(self.hashes):
                place, bits = self.places(numbers[start : start + BATCH], which)
                np.bitwise_or.at(self.bits, place, np.uint8(1) << bits)

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """bool [count]: which of some numbers are in it."""
        left = np.arange(len(numbers))
        for which in range(self.hashes):
            place, bits = self.places(numbers[left], which)
            left = left[(self.bits[place] >> bits) & 1 == 1]
        found = np.zeros(len(numbers), bool)
        found[left] = True
        return found


def overlap(tested: Iterable[str], corpus: Bloom, n: int) -> tuple[int, int]:
    """(n-grams of some documents that a corpus has too, all their n-grams), each as often as it comes."""
    shared = whole = 0
    for text in tested:
        numbers = ngram_hashes(text, n)
        shared, whole = shared + int(corpus.holds(numbers).sum()), whole + len(numbers)
    return shared, whole
