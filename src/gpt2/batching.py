"""What litert/batching.py is on LiteRT, on TensorFlow: a running batch, of samples that join and leave between two
steps. A prompt is taken by itself, so that none is padded to another's length, and then its rows join the others."""

from collections.abc import Callable, Sequence

import numpy as np

from gpt2.drawing import draw, exponential_noise
from gpt2.history import History
from gpt2.sample import Generator, TensorFlowRows
from gpt2.sampling import Sampling


class Prompt:
    """A prompt in a batch; see engine.Batch.add_prompt()."""

    def __init__(self, ids: Sequence[int], first: int, listen: Callable | None) -> None:
        self.ids, self.first, self.listen = list(ids), first, listen
        self.taken = 0  # tokens of which was heard


class Row:
    """A sample in a batch; see engine.Batch.add_row()."""

    def __init__(
        self, prompt: Prompt, stream: np.random.Generator, sampling: Sampling, n_vocab: int, history: History | None
    ) -> None:
        self.prompt, self.stream = prompt, stream
        self.greedy, self.drawing, self.n_vocab = sampling.greedy, sampling.drawing(n_vocab), n_vocab
        self.history = History(sampling, prompt.ids) if history is None else history
        self.drawn: list[int] = []
        self.fault: Exception | None = None

    def draw(self, logits: np.ndarray) -> None:
        """Draw the next token from logits, float32 [n_vocab]."""
        try:
            noise = None if self.greedy else exponential_noise(self.stream, self.n_vocab)
            self.drawn.append(draw(self.history.adjusted(logits), noise, *self.drawing))
            self.history.take(self.drawn[-1])
        except Exception as error:  # that of its settings, of which other rows know nothing
            self.fault = error

    @property
    def token(self) -> int:
        """The one that is fed next; any of a row that must be removed."""
        return max(self.drawn[-1], 0) if self.drawn else 0


class Batch:
    """Prompts and rows that share the steps of one engine; see engine.Batch."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.hparams = generator, generator.hparams
        self.prompts: list[Prompt] = []  # that are to be heard of
        self.new: list[Row] = []
        self.rows: list[Row] = []  # that share the cache of `shared`, in its order
        self.shared: TensorFlowRows | None = None

    def add_prompt(self, ids: Sequence[int], first: int | None = None, listen: Callable | None = None) -> Prompt:
        prompt = Prompt(ids, len(ids) - 1 if first is None else first, listen)
        self.prompts += [prompt] if listen else []
        return prompt

    def add_row(
        self, prompt: Prompt, stream: np.random.Generator, sampling: Sampling, told: bool = True,
        history: History | None = None,
    ) -> Row:  # fmt: skip
        self.new.append(Row(prompt, stream, sampling, self.hparams.n_vocab, history))
        return self.new[-1]

    def remove_prompt(self, prompt: Prompt) -> None:
        self.prompts = [each for each in self.prompts if each is not prompt]

    def remove_row(self, row: Row) -> None:
        if row in self.new:
            self.new.remove(row)
        elif self.shared is not None:
            self.shared.keep([place for place, each in enumerate(self.rows) if each is not row])
            self.rows.remove(row)
            self.shared = self.shared if self.rows else None

    def step(self) -> list[tuple[Row, np.ndarray]]:
        while self.prompts:
            self.hear(self.prompts.pop(0))
        given: list[tuple[Row, np.ndarray]] = []
        if self.shared is not None:
            given += self.advance(self.shared, self.rows)
        while self.new:
            given += self.enter([row for row in self.new if row.prompt is self.new[0].prompt])
        return given

    def advance(self, shared: TensorFlowRows, rows: list[Row]) -> list[tuple[Row, np.ndarray]]:
        """Draw the next token of rows, whose cache is `shared`."""
        given = list(zip(rows, shared.next_logits()))
        for row, logits in given:
            row.draw(logits)
        shared.take([row.token for row in rows])
        return given

    def enter(self, rows: list[Row]) -> list[tuple[Row, np.ndarray]]:
        """Take the prompt of new rows, and let them join the others."""
        opened = TensorFlowRows(
            self.generator, [row.prompt.ids for row in rows], [row.stream for row in rows], Sampling(), told=True
        )
        given = self.advance(opened, rows)
        if self.shared is None:
            self.shared = opened
        else:
            self.shared.join(opened)
        self.new, self.rows = [row for row in self.new if row not in rows], self.rows + rows
        return given

    def hear(self, prompt: Prompt) -> None:
        hidden = self.generator.features(np.array([prompt.ids], np.int32))[0].numpy()[prompt.first :]
        prompt.taken = prompt.first
        for logits in self.generator.map_logits(lambda logits: logits, prompt.ids, prompt.first):
            start = prompt.taken - prompt.first
            prompt.taken += len(logits)
            if prompt.listen:
                prompt.listen(logits, hidden[start : start + len(logits)])
