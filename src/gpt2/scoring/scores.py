"""Scores of texts, token by token and in all. Imports no TensorFlow.

`score` here is a function that scores a batch of rows, such as log_probabilities.make_score returns: a list, one
entry a row, of (log_probabilities, ranks, likelier) or, where the likeliest tokens were asked for, of five arrays.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2.encoder import Encoder
from gpt2.scoring.windows import Row, batches, windows
from gpt2.text_stream import Measure

ScoreFunction = Callable[[Sequence[Row]], list[tuple]]


@dataclasses.dataclass(frozen=True)
class TokenScore:
    """One scored token.

    id; bytes: what it stands for, which may be a part of a character; log_probability: the natural logarithm of
    what the model gave it after all that comes before; rank: 1 for the likeliest token; likeliest: those that would
    have been likeliest in its place, as (id, log_probability), as many as were asked for.
    """

    id: int
    bytes: bytes
    log_probability: float
    rank: int
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Score:
    """A text's log-probability in nats, the sum of its tokens', and the tokens that were scored."""

    log_probability: float
    tokens: tuple[TokenScore, ...]


@dataclasses.dataclass
class Text:
    """A text that is being scored: its labels, its ids (an iterator) and, so far, the size and the sums of what is
    scored of it."""

    labels: dict[str, Any]
    ids: Iterator[int]
    measure: Measure
    tokens: int = 0
    log_probability: float = 0.0


def score_text(
    score: ScoreFunction, encoder: Encoder, text: str, n_ctx: int, stride: int, end_of_text: bool = True,
    batch_size: int = 4,
) -> Score:  # fmt: skip
    """The Score of a text of any length.

    stride: tokens from 1 to n_ctx by which the window moves. end_of_text: put that token before the text; without it
    the first token is only context and is not among the score's tokens. batch_size: windows scored at once. A text
    of which nothing is scored, such as an empty one, has log-probability 0.
    """
    start = [encoder.end_of_text] if end_of_text else []
    whole = Text({}, itertools.chain(start, encoder.encode(text)), Measure())
    tokens: list[TokenScore] = []
    for _, ids, found in score_rows(score, [whole], n_ctx, stride, batch_size):
        if ids is not None:
            tokens += token_scores(encoder, ids, *found)
    return Score(whole.log_probability, tuple(tokens))


def score_rows(
    score: ScoreFunction, texts: Iterable[Text], n_ctx: int, stride: int, batch_size: int
) -> Iterator[tuple[Text, list[int] | None, tuple]]:
    """Score texts, whose rows share batches, in bounded memory.

    Yields (text, scored ids, what `score` found of them) for each row, once the text's sums hold it; and
    (text, None, ()) at the end of each text.
    """
    # Rows that are not scored yet, each with its text, and None at the end of each text.
    waiting: collections.deque[tuple[Text, Any]] = collections.deque()

    def rows() -> Iterator[Row]:
        for text in texts:
            for row in windows(text.ids, n_ctx, stride):
                waiting.append((text, row))
                yield row
            waiting.append((text, None))

    def ended() -> Iterator[tuple[Text, None, tuple]]:
        while waiting and waiting[0][1] is None:
            yield waiting.popleft()[0], None, ()

    for batch in batches(rows(), batch_size * n_ctx):
        for found in score(batch):
            yield from ended()
            text, (ids, count) = waiting.popleft()
            text.tokens += count
            text.log_probability += found[0].sum(dtype='float64').item()
            yield text, ids[-count:], found
    yield from ended()


def token_scores(
    encoder: Encoder, ids: Iterable[int], log_probabilities: np.ndarray, ranks: np.ndarray, likelier: np.ndarray,
    likeliest: np.ndarray | None = None, theirs: Any = None,
) -> Iterator[TokenScore]:  # fmt: skip
    """Yield the TokenScore of each of ids from arrays as make_score returns them for one row."""
    for index, (token, log_probability, rank) in enumerate(zip(ids, log_probabilities.tolist(), ranks.tolist())):
        others = () if likeliest is None else tuple(zip(likeliest[index].tolist(), theirs[index].tolist()))
        yield TokenScore(int(token), encoder.decode_bytes([int(token)]), log_probability, rank, others)


def exponential(nats: float, count: int) -> float | None:
    """exp(nats / count), or None where that is no number: without a count, or beyond what a float holds."""
    try:
        return math.exp(nats / count)
    except (ZeroDivisionError, OverflowError):
        return None


def summary(log_probability: float, tokens: int, words: int, bytes_: int) -> dict[str, int | float | None]:
    """The figures of a text from its log-probability in nats and the size of what was scored of it."""
    bits = log_probability / math.log(2)
    return {
        'tokens': tokens,
        'words': words,
        'bytes': bytes_,
        'log_probability': log_probability,
        'log_probability_bits': bits,
        'perplexity_per_token': exponential(-log_probability, tokens),
        'perplexity_per_word': exponential(-log_probability, words),
        'bits_per_byte': -bits / bytes_ if bytes_ else None,
    }
