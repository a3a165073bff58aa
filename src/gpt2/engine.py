"""What every engine is: token ids in, token ids out. Knows nothing of text, and nothing of TensorFlow.

An engine starts rows: the samples of a batch, which may have prompts of any lengths. Rows are stepped
together, and each step draws the next token of each; some may be dropped between two steps. Several
callers may have rows of one engine, and step them in any order and from any thread.
"""

import abc
import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np

from gpt2.checks import integer
from gpt2.drawing import NO_TOKEN, draw, exponential_noise
from gpt2.errors import Error, UsageError
from gpt2.history import History
from gpt2.hparams import HParams
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling


class Rows(abc.ABC):
    """Samples that are drawn together. To be closed when no more steps are wanted.

    logits: what the model said before the tokens drawn last, float32 [rows, n_vocab], before any setting; only where
    it was asked to tell.
    """

    logits: np.ndarray

    def __init__(
        self, hparams: HParams, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling
    ) -> None:
        self.hparams, self.prompts, self.streams = hparams, prompts, streams
        self.greedy, self.drawing = sampling.greedy, sampling.drawing(hparams.n_vocab)
        self.histories = [History(sampling, prompt) for prompt in prompts]
        self.tokens = np.empty([0], np.int32)  # drawn last

    def step(self) -> np.ndarray:
        """The next token of each row, int32 [rows]; NO_TOKEN where settings exclude every one, and such a row goes no
        further. A prompt and what is drawn after it are at most n_ctx + 1 tokens: the last token drawn is never fed
        back. Raises UsageError beyond that."""
        self.logits = self.next_logits()
        self.take([self.draw_row(row, self.noise(stream)) for row, stream in enumerate(self.streams)])
        return self.tokens

    def draw_row(self, row: int, noise: np.ndarray | None) -> int:
        """The next token of a row, drawn from its logits."""
        return draw(self.histories[row].adjusted(self.logits[row]), noise, *self.drawing)

    def noise(self, stream: np.random.Generator) -> np.ndarray | None:
        return None if self.greedy else exponential_noise(stream, self.hparams.n_vocab)

    @abc.abstractmethod
    def next_logits(self) -> np.ndarray:
        """What the model says of the next token of each row, float32 [rows, n_vocab]. To be followed by take()."""

    def take(self, tokens: Sequence[int] | np.ndarray) -> None:
        """Go on with these tokens, one a row."""
        self.tokens = np.array(tokens, np.int32)
        for history, token in zip(self.histories, self.tokens.tolist(), strict=True):
            history.take(token)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, given by their places in the batch, and forget the others. A row that is given
        several times goes on in as many ways, with one stream of noise."""
        self.tokens = self.tokens[np.array(rows, int)] if len(self.tokens) else self.tokens
        self.prompts, self.streams = [self.prompts[row] for row in rows], [self.streams[row] for row in rows]
        taken: set[int] = set()
        histories = []
        for row in rows:
            histories.append(self.histories[row].fork() if row in taken else self.histories[row])
            taken.add(row)
        self.histories = histories

    def close(self) -> None:
        """Forget all rows, and give back their memory."""
        self.keep([])


class Batch(Protocol):
    """Samples of any prompts that join and leave between two steps, each with settings of its own."""

    hparams: HParams

    def add_prompt(self, ids: Sequence[int], first: int | None = None, listen: Callable | None = None) -> Any:
        """Take a prompt, token ids, in the next steps. listen: called with logits [n, n_vocab] and hidden features
        [n, n_embd] of its positions from number `first` on, as they are found."""

    def add_row(
        self, prompt: Any, stream: np.random.Generator, sampling: Sampling, told: bool = True,
        history: History | None = None,
    ) -> Any:  # fmt: skip
        """Draw a sample of a prompt in the next steps, until it is removed. stream: its noise. told: whether the
        logits before its tokens are asked for. history: what its settings look back at, if that is more than the
        prompt. The row has prompt, stream, history, drawn, the ids so far, and fault, why no token came in the last
        step; then, and after NO_TOKEN, it must be removed."""

    def remove_row(self, row: Any) -> None:
        """Draw no more of it."""

    def remove_prompt(self, prompt: Any) -> None:
        """Forget a prompt, whose rows are removed already or never came."""

    def step(self) -> list[tuple[Any, np.ndarray]]:
        """The rows that have a new token, each with the logits [n_vocab] that the model gave before it."""


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
    def open_rows(
        self, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling, told: bool = False
    ) -> Rows:
        """Rows that have not been stepped yet, one for each of prompts; streams is the noise of each; told: whether
        they tell the logits."""

    @abc.abstractmethod
    def map_logits(self, function: Callable[[np.ndarray], Any], ids: Sequence[int], first: int = 0) -> list[Any]:
        """The results of function for the logits, float32 [n, n_vocab], after each of ids from number `first` on,
        in order, some at a time: those of a whole text would take much memory. They are in memory that is used again:
        the function copies what it keeps. ids: one to n_ctx token ids."""

    def close(self) -> None:
        """Give back what the engine holds; it cannot be used after that."""
        self.closed = True

    def start(
        self, prompts: Sequence[Sequence[int]], *, numbers: Sequence[int], seed: int, sampling: Sampling,
        told: bool = False,
    ) -> Rows:  # fmt: skip
        """Rows that continue prompts, each of at least one token id and at most n_ctx.

        numbers: of each row, which sample of its prompt it is. seed: int, at least 0; with it, a row's sample
        depends on its prompt, its number and sampling alone. told: whether the rows tell the logits.
        Raises UsageError; Error for an engine that is closed, or that of another process.
        """
        self.check_usable()
        rows = [[int(token) for token in prompt] for prompt in prompts]
        for row in rows:
            check_prompt(self.hparams, row)
        streams = [noise_stream(seed, row, number) for row, number in zip(rows, numbers, strict=True)]
        return self.open_rows(rows, streams, sampling, told)

    def generate(
        self, context: Sequence[Sequence[int]], length: int, *, numbers: Sequence[int], seed: int, **sampling: Any
    ) -> Generator[np.ndarray, None, None]:
        """Yield int32 [rows], the next token of each row of context, `length` times; see start.

        sampling: fields of Sampling. Raises UsageError when a prompt and length exceed n_ctx + 1, Error where settings
        exclude every token.
        """
        length = integer('length', length, 1)
        for row in context:
            check_window(self.hparams, len(row), length)
        how = Sampling(**sampling)
        with contextlib.closing(self.start(context, numbers=numbers, seed=seed, sampling=how)) as rows:
            for _ in range(length):
                if NO_TOKEN in (tokens := rows.step()):
                    raise Error('no token is left to draw: what is asked for excludes every one')
                yield tokens

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
