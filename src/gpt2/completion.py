"""From token ids, as they are drawn, to the text of a sample."""

import codecs
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2.drawing import NO_TOKEN
from gpt2.encoder import Encoder
from gpt2.engine import Rows


class Completion:
    """One sample: its text so far, and why it ended.

    text: str, which ends before what ended it. ids: list of int, all that were drawn. finish_reason: None while
    it grows, then 'length', 'stop' (a stop text came), 'end_of_text', 'choice' (it is one of those given) or, where
    what was asked for excludes every token, 'nothing_left'. prompt: the text it continues, or None for one from
    nothing. number: which sample of its prompt it is, from 1. seed: int, with which it is drawn again. Where they were
    asked for, else None: choices, (text, log-probability in nats) of each; logprobs, a TokenScore of each of ids;
    log_probability, that of all ids, in nats, by which beams are compared.
    """

    def __init__(
        self,
        encoder: Encoder,
        number: int,
        stop: Sequence[str] = (),
        stop_at_end: bool = False,
        length: int | None = None,
        prompt: str | None = None,
        seed: int | None = None,
    ) -> None:
        """length: tokens after which it ends; None never ends it so."""
        self.prompt, self.number, self.seed = prompt, number, seed
        self.ids: list[int] = []
        self.text = ''
        self.finish_reason: str | None = None
        self.choices: list[tuple[str, float]] | None = None
        self.logprobs: list[Any] | None = None
        self.log_probability: float | None = None
        self.encoder, self.stop, self.length = encoder, stop, length
        self.end_ids = ending_ids(encoder) if stop_at_end else set()
        # A character may be cut between two tokens: its first bytes wait for the others.
        self.decoder = codecs.getincrementaldecoder('utf-8')(encoder.errors)
        self.released = 0

    def __repr__(self) -> str:
        return f'Completion(text={self.text!r}, finish_reason={self.finish_reason!r})'

    def add(self, token: int) -> None:
        """Take the next id; one that comes after the sample has ended is passed over."""
        if self.finish_reason:
            return
        if token == NO_TOKEN:
            self.finish('nothing_left')
            return
        self.ids.append(int(token))
        if token in self.end_ids:
            self.finish('end_of_text')
            return
        self.extend(self.decoder.decode(self.encoder.decode_bytes([int(token)])))
        if len(self.ids) == self.length:
            self.finish('length')

    def offset_of(self, token: int) -> int:
        """Where the text of a token would begin, were it added now: the number of the character in which its first
        byte lies, which may have begun before it; what will become U+FFFD counts."""
        waiting, _ = self.decoder.getstate()
        decoder = codecs.getincrementaldecoder('utf-8')(self.encoder.errors)
        begun = decoder.decode(waiting + self.encoder.decode_bytes([int(token)])[:1])
        return len(self.text) + len(begun) + bool(decoder.getstate()[0]) - 1

    def extend(self, new_text: str) -> None:
        """Append new_text; end before the first stop text, should the whole now hold one."""
        longest = max(map(len, self.stop), default=0)
        start = max(0, len(self.text) - longest + 1)
        self.text += new_text
        found = [index for stop in self.stop if (index := self.text.find(stop, start)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.finish_reason = 'stop'

    def finish(self, reason: str) -> None:
        """End the sample unless it has ended; bytes of a character that was cut become U+FFFD."""
        if not self.finish_reason:
            self.extend(self.decoder.decode(b'', final=True))
            self.finish_reason = self.finish_reason or reason

    def new_text(self) -> str:
        """Text that can be printed now and was not before: all but what may begin a stop text."""
        end = len(self.text)
        if not self.finish_reason:
            end -= max((overlap(self.text, stop) for stop in self.stop), default=0)
        text = self.text[self.released : end]
        self.released = max(self.released, end)
        return text


def ending_ids(encoder: Encoder) -> set[int]:
    """Ids of the tokens that end a text."""
    return {encoder.end_of_text, *encoder.end_ids}


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that is a beginning of stop, but not all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def complete(
    rows: Rows, completions: Sequence[Completion], hear: Callable[[Completion, int, np.ndarray], None] | None = None
) -> Iterator[None]:
    """Step rows until their completions, one a row, have ended. Yields after every step, so that a caller can print
    what is new. A row is dropped as soon as its completion has ended. hear: called with each token that is drawn and
    the logits that the model gave before it, float32 [n_vocab]; the rows must have been asked to tell them."""
    growing = list(completions)
    with contextlib.closing(rows):
        while growing:
            for place, (completion, token) in enumerate(zip(growing, rows.step(), strict=True)):
                completion.add(token)
                if hear and token != NO_TOKEN:
                    hear(completion, int(token), rows.logits[place])
            left = [place for place, completion in enumerate(growing) if not completion.finish_reason]
            if len(left) < len(growing):
                rows.keep(left)
                growing = [growing[place] for place in left]
            yield
