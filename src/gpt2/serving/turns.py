"""What batching.Batch is on LiteRT, on TensorFlow: prompts and samples that take turns, a token each. Slower,
for nothing is shared, but right."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt2.engine import Adjustment, Rows, Sampling
from gpt2.errors import UsageError


class Prompt:
    """See batching.Prompt."""

    def __init__(self, ids: Sequence[int], first: int, listen: Callable | None) -> None:
        self.ids, self.first, self.listen = list(ids), first, listen
        self.taken = 0


class Row:
    """See batching.Row. rows: of the engine, one."""

    def __init__(self, prompt: Prompt, rows: Rows, told: bool) -> None:
        self.prompt, self.rows, self.told = prompt, rows, told
        self.drawn: list[int] = []


class Turns:
    """Prompts and rows, each stepped by itself."""

    def __init__(self, engine: Any) -> None:
        """engine: sample.Generator."""
        self.engine, self.hparams = engine, engine.hparams
        self.prompts: list[Prompt] = []  # that are new
        self.rows: list[Row] = []

    def add_prompt(self, ids: Sequence[int], first: int | None = None, listen: Callable | None = None) -> Prompt:
        prompt = Prompt(ids, len(ids) - 1 if first is None else first, listen)
        self.prompts.append(prompt)
        return prompt

    def add_row(
        self, prompt: Prompt, stream: np.random.Generator, sampling: Sampling, adjustment: Adjustment,
        told: bool = True,
    ) -> Row:  # fmt: skip
        """Raises UsageError for an adjustment: this engine draws inside its graph."""
        if adjustment != Adjustment():
            raise UsageError('logit_bias, presence_penalty and frequency_penalty need --engine litert')
        self.rows.append(Row(prompt, self.engine.open_rows([prompt.ids], [stream], sampling), told))
        return self.rows[-1]

    def remove_prompt(self, prompt: Prompt) -> None:
        self.prompts = [each for each in self.prompts if each is not prompt]

    def remove_row(self, row: Row) -> None:
        self.rows.remove(row)
        row.rows.close()

    def step(self) -> list[tuple[Row, np.ndarray | None]]:
        for prompt in [*self.prompts]:
            self.prompts.remove(prompt)
            if prompt.listen:
                self.hear(prompt, prompt.listen)
        return [(row, self.advance(row)) for row in self.rows]

    def hear(self, prompt: Prompt, listen: Callable) -> None:
        hidden = self.engine.features(np.array([prompt.ids], np.int32))[0].numpy()[prompt.first :]
        prompt.taken = prompt.first
        for logits in self.engine.map_logits(lambda logits: logits, prompt.ids, prompt.first):
            start = prompt.taken - prompt.first
            prompt.taken += len(logits)
            listen(logits, hidden[start : start + len(logits)])

    def advance(self, row: Row) -> np.ndarray | None:
        """Draw a row's next token; returns the logits [n_vocab] before it where they are asked for: they are found
        anew from the whole text."""
        ids = [*row.prompt.ids, *row.drawn]
        row.drawn.append(int(row.rows.step()[0]))
        return self.engine.map_logits(lambda logits: logits[-1], ids, len(ids) - 1)[-1] if row.told else None
