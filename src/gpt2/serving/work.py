"""What the server asks of the process that computes, and what it hears back; both sides know these classes alone."""

import dataclasses
import pickle
import struct
from typing import Any

LENGTH = struct.Struct('<Q')  # before every message: its bytes


@dataclasses.dataclass(frozen=True)
class Completions:
    """Continue prompts.

    prompts: token ids of each. n: choices of each prompt that are wanted, the likeliest of best_of. length: tokens
    a sample at most; 0 draws nothing. sampling: fields of sampling.Sampling but for the rules; texts: of which these
    are made, as planning.make_rules takes them. logprobs: how many likeliest tokens are told of each; None tells
    nothing. echo: of the prompt's tokens too. choices: token ids of continuations of which each choice is one; then
    length is that of the longest. beams: with how many the likeliest are searched; 1 draws. length_penalty: see
    beams.search(). keep: how many tokens of a prompt stay when its text outgrows the window; None for one that has
    room in it.
    """

    prompts: tuple[tuple[int, ...], ...]
    n: int
    best_of: int
    seed: int
    length: int
    sampling: dict[str, Any]
    texts: dict[str, Any]
    stop: tuple[str, ...]
    stop_at_end: bool
    logprobs: int | None
    echo: bool
    choices: tuple[tuple[int, ...], ...] = ()
    beams: int = 1
    length_penalty: float = 1
    keep: int | None = None

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))


@dataclasses.dataclass(frozen=True)
class Scoring:
    """Tell of each of ids but the first how likely it was, and so many of the likeliest in its place."""

    ids: tuple[int, ...]
    likeliest: int

    @property
    def prompt_tokens(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Embedding:
    """The final hidden state of each of texts, token ids: the mean over its tokens, or that of the last."""

    texts: tuple[tuple[int, ...], ...]
    last: bool

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.texts))


@dataclasses.dataclass(frozen=True)
class Token:
    """A token and what the model thought of it, before any setting: the logarithm of its probability, its rank, and
    (id, log-probability) of the likeliest. A text's first token has none of these. offset: of its first character."""

    id: int
    offset: int
    log_probability: float | None = None
    rank: int | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Piece:
    """What is new of a choice: text, and tokens if they were asked for. finish_reason: None while it grows.

    drawn: how many tokens were drawn since the last piece, whatever became of them.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None
    drawn: int = 0


@dataclasses.dataclass(frozen=True)
class Vector:
    """The embedding of a text, by its number in the request."""

    index: int
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Done:
    """The last word on a request. drawn: tokens of all its samples. fault: what went wrong, if anything did.
    failed: whether that is the server's fault, not the request's."""

    drawn: int = 0
    fault: str | None = None
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class Load:
    """How busy a process is: samples and prompts that share its steps, and requests that wait."""

    running: int
    waiting: int


def packed(message: Any) -> bytes:
    content = pickle.dumps(message)
    return LENGTH.pack(len(content)) + content
