"""A running batch on LiteRT: samples of any prompts that join and leave between two steps, each with settings of its
own. Knows nothing of text.

A step runs the graph for the last token of every sample, and once more for a block of what prompts are still to be
taken, so samples go on while a long prompt is taken. The start of a prompt that an earlier one began with is not
computed again, while its keys and values are remembered.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from gpt2.drawing import draw, exponential_noise
from gpt2.history import History
from gpt2.litert.engine import BLOCK, Generator
from gpt2.sampling import Sampling


class Prompt:
    """A prompt in a batch, whose keys and values its rows share.

    listen: called with logits [n, n_vocab] and hidden features [n, n_embd] of its positions from number `first` on,
    in order, as they are found; the arrays are its own.
    """

    def __init__(self, ids: Sequence[int], owner: int, first: int, listen: Callable | None) -> None:
        self.ids, self.owner, self.first, self.listen = np.array(ids, np.int32), owner, first, listen
        self.taken = 0  # tokens whose keys and values are known
        self.logits: np.ndarray | None = None  # [n_vocab], after the last token, once it is taken


class Row:
    """A sample in a batch; drawn: the ids of its tokens so far. fault: why no token came in the last step, of which
    other rows know nothing; then it must be removed."""

    def __init__(
        self, prompt: Prompt, owner: int, stream: np.random.Generator, sampling: Sampling, n_vocab: int,
        history: History | None = None,
    ) -> None:  # fmt: skip
        self.prompt, self.owner, self.stream = prompt, owner, stream
        self.greedy, self.drawing = sampling.greedy, sampling.drawing(n_vocab)
        self.history = History(sampling, prompt.ids.tolist()) if history is None else history
        self.drawn: list[int] = []
        self.fault: Exception | None = None

    def draw(self, logits: np.ndarray, noise: np.ndarray | None) -> None:
        """Draw the next token from logits, float32 [n_vocab]."""
        self.drawn.append(draw(self.history.adjusted(logits), noise, *self.drawing))
        self.history.take(self.drawn[-1])

    @property
    def position(self) -> int:
        """Of the token that was drawn last."""
        return len(self.prompt.ids) + len(self.drawn) - 1


class Batch:
    """Prompts and rows that share the steps of one engine."""

    def __init__(self, generator: Generator, remembered_bytes: int = 0) -> None:
        """remembered_bytes: of keys and values of prompts, at most, that are kept for later ones."""
        self.generator, self.hparams = generator, generator.hparams
        self.prompts: list[Prompt] = []  # not taken to their end yet
        self.rows: list[Row] = []
        self.memory = Memory(remembered_bytes)

    def add_prompt(self, ids: Sequence[int], first: int | None = None, listen: Callable | None = None) -> Prompt:
        """Take a prompt, token ids, in the next steps. first: from which position on listen hears; None is the
        last."""
        prompt = Prompt(ids, self.generator.new_owner(), len(ids) - 1 if first is None else first, listen)
        self.prompts.append(prompt)
        return prompt

    def add_row(
        self, prompt: Prompt, stream: np.random.Generator, sampling: Sampling, told: bool = True,
        history: History | None = None,
    ) -> Row:  # fmt: skip
        """Draw a sample of a prompt in the next steps, until it is removed. stream: its noise. told: whether the
        logits of its tokens are asked for, which are here in any case. history: that of the sample, where it began
        before this prompt."""
        self.rows.append(Row(prompt, self.generator.new_owner(), stream, sampling, self.hparams.n_vocab, history))
        return self.rows[-1]

    def remove_prompt(self, prompt: Prompt) -> None:
        """Forget a prompt, whose rows are removed already or never came."""
        self.prompts = [each for each in self.prompts if each is not prompt]
        self.generator.ended.append(prompt.owner)

    def remove_row(self, row: Row) -> None:
        self.rows.remove(row)
        self.generator.ended.append(row.owner)

    def step(self) -> list[tuple[Row, np.ndarray]]:
        """Draw a token of every row that can. Returns the rows that have a new token, the last of row.drawn, each with
        the logits [n_vocab] that the model gave, before any setting was applied to them."""
        fed = [row for row in self.rows if row.drawn]
        with self.generator.alone():
            self.recall()
            logits = self.feed_rows(fed) if fed else []
            if blocks := self.next_blocks():
                self.feed_blocks(blocks)
        given = list(zip(fed, logits))
        given += [(row, row.prompt.logits) for row in self.rows if not row.drawn and row.prompt.logits is not None]
        self.draw(given)
        return given

    def recall(self) -> None:
        """Give prompts that are new what is remembered of their starts."""
        for prompt in self.prompts:
            if not prompt.taken and (known := self.memory.find(prompt.ids, prompt.first)):
                for values in known:
                    self.generator.cache.wait(values, np.full(BLOCK, prompt.owner))
                prompt.taken = len(known) * BLOCK

    def next_blocks(self) -> list[tuple[Prompt, int]]:
        """The prompts of which tokens are taken in the next step, each with how many: a block, or all that is left,
        and of several prompts no more than a block in all."""
        blocks: list[tuple[Prompt, int]] = []
        room = BLOCK
        for prompt in self.prompts:
            count = min(len(prompt.ids) - prompt.taken, BLOCK)
            if count <= room:
                blocks.append((prompt, count))
                room -= count
        return blocks

    def feed_rows(self, fed: list[Row]) -> np.ndarray:
        """Take the tokens that rows have drawn last; returns logits [rows, n_vocab]."""
        tokens = np.array([row.drawn[-1] for row in fed], np.int32)
        positions, owners, prompts = np.array([(row.position, row.owner, row.prompt.owner) for row in fed]).T
        return self.generator.process_tokens(tokens, positions, owners, prompts)

    def feed_blocks(self, blocks: list[tuple[Prompt, int]]) -> None:
        """Take blocks of prompts."""
        positions = [np.arange(prompt.taken, prompt.taken + count) for prompt, count in blocks]
        tokens = np.concatenate([prompt.ids[block] for (prompt, _), block in zip(blocks, positions)])
        owners = np.repeat([prompt.owner for prompt, _ in blocks], [count for _, count in blocks])
        heard = [block >= prompt.first for (prompt, _), block in zip(blocks, positions)]
        chosen = np.flatnonzero(np.concatenate(heard))
        logits = self.generator.process_block(
            tokens, np.concatenate(positions), owners, chosen if len(chosen) else [len(tokens) - 1]
        )
        hidden = self.generator.interpreter.get_tensor(self.generator.hidden)
        self.finish_blocks(blocks, [int(which.sum()) for which in heard], logits, hidden)

    def finish_blocks(
        self, blocks: list[tuple[Prompt, int]], counts: list[int], logits: np.ndarray, hidden: np.ndarray
    ) -> None:
        """Note what a step found of blocks: counts says of how many positions of each there are logits and hidden
        features, which follow one another."""
        values = self.generator.cache.waiting[-1].values
        found = start = 0
        for (prompt, size), count in zip(blocks, counts):
            self.memory.keep(prompt, size, values[:, :, start : start + size])
            prompt.taken += size
            mine = slice(found, found + count)
            if prompt.taken == len(prompt.ids):
                prompt.logits = logits[mine][-1].copy()
                self.prompts.remove(prompt)
            if prompt.listen and count:
                prompt.listen(logits[mine].copy(), hidden[mine])  # it may keep them
            found, start = found + count, start + size

    def draw(self, given: list[tuple[Row, np.ndarray]]) -> None:
        """Draw the next token of rows, each with its logits."""
        noises = self.generator.threads.map(
            lambda row: None if row.greedy else exponential_noise(row.stream, self.hparams.n_vocab),
            [row for row, _ in given],
        )
        for (row, logits), noise in zip(given, noises):
            try:
                row.draw(logits, noise)
            except Exception as error:  # that of its settings
                row.fault = error


class Memory:
    """Keys and values of the starts of prompts, in blocks; those used least recently go first."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self.blocks: collections.OrderedDict[bytes, np.ndarray] = collections.OrderedDict()

    def find(self, ids: np.ndarray, first: int) -> list[np.ndarray]:
        """What is known of the start of ids, block by block, up to the position `first` at most."""
        found = []
        for end in range(BLOCK, first + 1, BLOCK):
            if (key := ids[:end].tobytes()) not in self.blocks:
                break
            found.append(key)
        for key in reversed(found):  # the first blocks are what the others need, so they go last
            self.blocks.move_to_end(key)
        return [self.blocks[key] for key in found]

    def keep(self, prompt: Prompt, size: int, values: np.ndarray) -> None:
        """Remember what was just taken of a prompt, if it is a whole block: values [2 n_layer, n_head, size,
        features]."""
        key = prompt.ids[: prompt.taken + size].tobytes()
        if size < BLOCK or not self.most or key in self.blocks:
            return
        self.blocks[key] = values.copy()
        self.bytes += values.nbytes
        while self.bytes > self.most:
            self.bytes -= self.blocks.popitem(last=False)[1].nbytes
