"""Texts that no sample may hold, whichever tokens would spell them."""

import bisect
import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from gpt2.encoder import Encoder, utf8


class Ban:
    """The rule that a sample holds none of some texts. Its prompt may, and a text that begins there is none of the
    sample's."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], silent: AbstractSet[int] = frozenset()) -> None:
        """texts: of at least one character each. silent: ids that end a sample, and so are no part of its text."""
        self.encoder, self.silent = encoder, silent
        self.words = [utf8(text) for text in texts]
        self.longest = max(map(len, self.words))
        self.found: dict[tuple[bytes, int], np.ndarray] = {}  # what completing() found

    def begin(self, prompt: Sequence[int]) -> 'BanWalk':
        return BanWalk(self, b'')

    def completing(self, word: bytes, known: int) -> np.ndarray:
        """Ids, int [n], of the tokens that begin with what is left of a word after so many of its bytes, at least 1;
        with none known, of those that hold it anywhere."""
        if (word, known) not in self.found:
            ids = self.beginning(word[known:]) if known else self.holding(word)
            self.found[word, known] = np.array([index for index in ids if index not in self.silent], int)
        return self.found[word, known]

    def holding(self, part: bytes) -> list[int]:
        """Ids of the tokens that hold some bytes."""
        return [index for index, spelt in enumerate(self.encoder.token_bytes) if part in spelt]

    def beginning(self, start: bytes) -> list[int]:
        """Ids of the tokens that begin with some bytes."""
        ids, spelt = self.encoder.alphabetical, self.encoder.token_bytes

        def cut(index: int) -> bytes:
            return spelt[index][: len(start)]

        first, last = (side(ids, start, key=cut) for side in (bisect.bisect_left, bisect.bisect_right))
        return ids[first:last]


class BanWalk:
    """tail: the last bytes of the sample, as many as can still matter."""

    def __init__(self, ban: Ban, tail: bytes) -> None:
        self.ban, self.tail = ban, tail

    def exclude(self, logits: np.ndarray) -> None:
        for word in self.ban.words:
            for known in range(len(word)):
                if self.tail.endswith(word[:known]):
                    logits[self.ban.completing(word, known)] = -math.inf

    def take(self, token: int) -> None:
        self.tail = (self.tail + self.ban.encoder.token_bytes[token])[-self.ban.longest :]

    def fork(self) -> 'BanWalk':
        return BanWalk(self.ban, self.tail)
