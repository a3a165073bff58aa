"""What batching.Batch is on LiteRT, on TensorFlow: prompts and samples that take turns, a token each. Slower,
for nothing is shared, but right."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt2.engine import Rows
from gpt2.sampling import Sampling


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
        self.fault: Exception | None = None


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
        self, prompt: Prompt, stream: np.random.Generator, sampling: Sampling, told: bool = True
    ) -> Row:
        rows = self.engine.open_rows([prompt.ids], [stream], sampling, told)
        self.rows.append(Row(prompt, rows, told))
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
        """Draw a row's next token; returns the logits [n_vocab] before it where they are asked for."""
        try:
            row.drawn.append(int(row.rows.step()[0]))
            return row.rows.logits[0] if row.told else None
        except Exception as error:  # see batching.Row
            row.fault = error
            return None
