"""What every engine is: token ids in, token ids out. Knows nothing of text, and nothing of TensorFlow.

An engine starts rows: the samples of a batch, which may have prompts of any lengths. Rows are stepped
together, and each step draws the next token of each; some may be dropped between two steps. Several
callers may have rows of one engine, and step them in any order and from any thread.
"""

import abc
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from gpt2.checks import integer, number
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.noise import noise_stream

FLOAT32 = np.finfo(np.float32)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: temperature first, then top_k, then top_p. Raises UsageError.

    temperature: at least 0; 0 takes the likeliest token. top_k: at least 0; 0 keeps all. top_p: above 0, at
    most 1; 1 keeps all (see sample.top_p_logits).
    """

    temperature: float = 1
    top_k: int = 0
    top_p: float = 1

    def __post_init__(self) -> None:
        integer('top_k', self.top_k, 0)
        number('temperature', self.temperature, lambda value: value >= 0, 'of at least 0')
        number('top_p', self.top_p, lambda value: 0 < value <= 1, 'above 0 and at most 1')

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken; TensorFlow takes temperatures this small for 0."""
        return float(self.temperature) < float(FLOAT32.tiny)

    def bounded(self, n_vocab: int) -> tuple[float, int, float]:
        """(temperature, top_k, top_p) that mean the same, within what float32 and int32 hold."""
        if self.greedy:
            return 1.0, 0, 1.0
        return min(float(self.temperature), float(FLOAT32.max)), min(int(self.top_k), n_vocab), float(self.top_p)


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """What is added to the logits before a token is drawn.

    presence, frequency: taken from the logit of every token the sample holds already: once, and as often as it
    was drawn. bias: added to the logit of a token, by its id.
    """

    presence: float = 0
    frequency: float = 0
    bias: tuple[tuple[int, float], ...] = ()

    def apply(self, logits: np.ndarray, drawn: Sequence[int]) -> np.ndarray:
        """Logits, float32 [n_vocab], after the tokens drawn; a copy where anything changes."""
        if self.bias:
            logits = logits.copy()
            logits[[token for token, _ in self.bias]] += np.array([value for _, value in self.bias], np.float32)
        if drawn and (self.presence or self.frequency):
            held, counts = np.unique(drawn, return_counts=True)
            logits = logits.copy()
            logits[held] -= (self.presence + self.frequency * counts).astype(np.float32)
        return logits


class Rows(abc.ABC):
    """Samples that are drawn together. To be closed when no more steps are wanted."""

    @abc.abstractmethod
    def step(self) -> np.ndarray:
        """The next token of each row, int32 [rows]. A prompt and what is drawn after it are at most
        n_ctx + 1 tokens: the last token drawn is never fed back. Raises UsageError beyond that."""

    @abc.abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, given by their places in the batch, and forget the others."""

    def close(self) -> None:
        """Forget all rows, and give back their memory."""
        self.keep([])


class Engine(abc.ABC):
    """A model that can be stepped. Use it in the process it was made in.

    package: the distribution that computes, whose version figures depend on.
    """

    package: str

    def __init__(self, hparams: HParams) -> None:
        self.hparams = hparams
        self.process = os.getpid()
        self.closed = False

    @abc.abstractmethod
    def open_rows(self, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling) -> Rows:
        """Rows that have not been stepped yet, one for each of prompts; streams is the noise of each."""

    @abc.abstractmethod
    def map_logits(self, function: Callable[[np.ndarray], Any], ids: Sequence[int], first: int = 0) -> list[Any]:
        """The results of function for the logits, float32 [n, n_vocab], after each of ids from number `first` on,
        in order, some at a time: those of a whole text would take much memory. ids: one to n_ctx token ids."""

    def close(self) -> None:
        """Give back what the engine holds; it cannot be used after that."""
        self.closed = True

    def start(
        self, prompts: Sequence[Sequence[int]], *, numbers: Sequence[int], seed: int, sampling: Sampling
    ) -> Rows:
        """Rows that continue prompts, each of at least one token id and at most n_ctx.

        numbers: of each row, which sample of its prompt it is. seed: int, at least 0; with it, a row's sample
        depends on its prompt, its number and sampling alone.
        Raises UsageError; Error for an engine that is closed, or that of another process.
        """
        self.check_usable()
        rows = [[int(token) for token in prompt] for prompt in prompts]
        for row in rows:
            check_prompt(self.hparams, row)
        streams = [noise_stream(seed, row, number) for row, number in zip(rows, numbers, strict=True)]
        return self.open_rows(rows, streams, sampling)

    def generate(
        self, context: Sequence[Sequence[int]], length: int, *, numbers: Sequence[int], seed: int, **sampling: Any
    ) -> Generator[np.ndarray, None, None]:
        """Yield int32 [rows], the next token of each row of context, `length` times; see start.

        sampling: fields of Sampling. Raises UsageError when a prompt and length exceed n_ctx + 1.
        """
        length = integer('length', length, 1)
        for row in context:
            check_window(self.hparams, len(row), length)
        how = Sampling(**sampling)
        with contextlib.closing(self.start(context, numbers=numbers, seed=seed, sampling=how)) as rows:
            for _ in range(length):
                yield rows.step()

    def check_usable(self) -> None:
        """Raise Error once closed, and in a process that was forked from the engine's, where its threads are not."""
        if self.closed:
            raise Error('the model is closed; load it again')
        if os.getpid() != self.process:
            raise Error('the model was loaded before this process was forked; load it after the fork')


def check_prompt(hparams: HParams, prompt: Sequence[int]) -> None:
    """Raise UsageError for a prompt, token ids, that is empty, too long or not of the vocabulary."""
    if not len(prompt):
        raise UsageError('the prompt is empty, expected one token or more; give a text')
    if len(prompt) > hparams.n_ctx:
        raise UsageError(f'the prompt has {len(prompt)} tokens, the limit is {hparams.n_ctx}; shorten it')
    if wrong := [token for token in prompt if not 0 <= token < hparams.n_vocab]:
        raise UsageError(f'the prompt has the token id {wrong[0]}, expected 0 to {hparams.n_vocab - 1}')


def check_window(hparams: HParams, n: int, length: int) -> None:
    """Raise UsageError when n prompt tokens and length drawn ones exceed n_ctx + 1.

    One more than n_ctx, since the last token drawn is never fed back.
    """
    if n + length > hparams.n_ctx + 1:
        raise UsageError(f'{n} prompt tokens and length {length} exceed the limit of {hparams.n_ctx + 1}')


def distinct_prompts(prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """(prompts, each once, and of each row which of them is its own): no prompt is processed twice."""
    places = {tuple(prompt): 0 for prompt in prompts}
    places = {prompt: place for place, prompt in enumerate(places)}
    return [list(prompt) for prompt in places], [places[tuple(prompt)] for prompt in prompts]
