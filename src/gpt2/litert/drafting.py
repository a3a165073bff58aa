"""Sampling with a draft: a small model guesses the next tokens of a large one, which looks at all guesses in one step
(Leviathan et al. 2023; Chen et al. 2023). Knows nothing of text.

Both draw with the same noise. So a guess is right exactly where the large model would have drawn that token itself,
and its sample is what it would be without a draft: no probabilities are compared, and every setting acts as ever. Sums
of several tokens at once differ in their last bits, which in float32 makes another token only where two all but tie.
In int8 what is rounded otherwise would often become another token, so it is for float32 alone.
"""

import collections
from collections.abc import Sequence

import numpy as np

from gpt2.drawing import NO_TOKEN, draw
from gpt2.engine import check_window
from gpt2.hparams import HParams
from gpt2.litert.engine import Generator, LiteRTRows
from gpt2.patterns import Pattern
from gpt2.sampling import Sampling

GUESSES = 4  # a step: with the token before them they are the five rows that float32 products take together at least


class DraftedGenerator(Generator):
    """The engine on LiteRT with a draft, which guesses where one sample is drawn by itself. The draft is closed with
    it."""

    def __init__(self, path: str, hparams: HParams, draft: Generator) -> None:
        super().__init__(path, hparams)
        self.draft = draft

    def open_rows(
        self, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling, told: bool = False
    ) -> LiteRTRows:
        fits = [len(prompt) <= self.draft.hparams.n_ctx for prompt in prompts]
        # What its library finds out of a pattern counts against the pattern's limits, for a wrong guess too.
        if fits == [True] and not any(isinstance(rule, Pattern) for rule in sampling.rules):
            return DraftedRow(self, prompts, streams, sampling)
        return super().open_rows(prompts, streams, sampling, told)

    def close(self) -> None:
        super().close()
        self.draft.close()


class SoloRow(LiteRTRows):
    """A row that takes several tokens in a step, of which it may take back the last."""

    def process(self, tokens: list[int]) -> np.ndarray:
        """Logits [n, n_vocab] after each of the next n tokens."""
        assert self.prompt_owners is not None
        count = len(tokens)
        positions = self.positions[0] + np.arange(count)
        check_window(self.hparams, int(positions[-1]) + 1, 1)
        owners, prompt_owners = np.repeat([[self.lines[0][-1]], self.prompt_owners], count, axis=1)
        with self.generator.alone():
            logits = self.generator.process_tokens(np.array(tokens, np.int32), positions, owners, prompt_owners)
        self.positions = self.positions + count
        return logits

    def take_back(self, count: int) -> None:
        """Forget the last tokens that were processed, of which there may be none to forget."""
        if not count:
            return
        with self.generator.alone():
            self.generator.cache.free_newest(self.lines[0][-1], count)
        self.positions = self.positions - count

    def has_room(self, count: int) -> bool:
        """Whether so many more tokens can be processed."""
        return int(self.positions[0]) + count <= self.hparams.n_ctx


class DraftedRow(SoloRow):
    """A sample whose next tokens a draft guesses.

    found: tokens that are drawn and not given yet, each with its logits. noises: of the tokens after those, as far as
    they have been needed. unseen: tokens that the draft has not processed.
    """

    generator: DraftedGenerator

    def __init__(
        self, generator: DraftedGenerator, prompts: list[list[int]], streams: list[np.random.Generator],
        sampling: Sampling,
    ) -> None:  # fmt: skip
        super().__init__(generator, prompts, streams, sampling)
        self.draft = SoloRow(generator.draft, prompts, streams, sampling)
        self.found: collections.deque[tuple[int, np.ndarray]] = collections.deque()
        self.noises: list[np.ndarray | None] = []
        self.unseen: list[int] = []

    def step(self) -> np.ndarray:
        self.generator.check_usable()
        if not self.found:
            self.find()
        token, logits = self.found.popleft()
        self.tokens, self.logits = np.array([token], np.int32), logits[np.newaxis]
        return self.tokens

    def find(self) -> None:
        """Draw the next token and, as far as the draft guesses right, those after it."""
        if self.prompt_owners is None:
            self.unseen = [self.draw_next(self.next_logits()[0])]
            return
        before = int(self.positions[0]) + 1  # tokens of prompt and sample
        guesses, drawn = self.guess(), list[int]()
        for logits in self.process([int(self.tokens[0]), *guesses]):
            drawn.append(self.draw_next(logits))
            if drawn != guesses[: len(drawn)]:
                break
        right = len(drawn) - 1  # guesses: what is drawn last is the model's own
        self.take_back(len(guesses) - right)
        processed = int(self.draft.positions[0]) - before  # guesses, by the draft; below 0 where it lags behind
        seen = min(processed, right)
        self.draft.take_back(processed - seen)
        self.unseen += drawn[max(seen, 0) :]

    def guess(self) -> list[int]:
        """What the draft would draw next; nothing where it or the model would be at the end of its window."""
        guesses: list[int] = []
        if not (self.has_room(1 + GUESSES) and self.draft.has_room(len(self.unseen) + GUESSES - 1)):
            return guesses
        if self.draft.prompt_owners is None:
            self.draft.next_logits()
        history = self.histories[0].fork()
        while len(guesses) < GUESSES:
            for token in self.unseen or guesses[-1:]:
                [logits] = self.draft.process([token])
            self.unseen = []
            token = draw(history.adjusted(logits), self.noise_ahead(len(guesses)), *self.drawing)
            if token == NO_TOKEN:
                break
            history.take(token)
            guesses.append(token)
        return guesses

    def draw_next(self, logits: np.ndarray) -> int:
        """Draw a token from logits, float32 [n_vocab]."""
        token = draw(self.histories[0].adjusted(logits), self.noise_ahead(0), *self.drawing)
        self.noises.pop(0)
        self.histories[0].take(token)
        self.found.append((token, logits))
        return token

    def noise_ahead(self, place: int) -> np.ndarray | None:
        """The noise of the token that comes so many after the next."""
        while len(self.noises) <= place:
            self.noises.append(self.noise(self.streams[0]))
        return self.noises[place]

    def keep(self, rows: Sequence[int]) -> None:
        try:
            super().keep(rows)
        finally:  # also after an interrupt
            self.draft.keep(rows)
