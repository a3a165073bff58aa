"""Samples that come and go: as many as there are places are drawn together, the next as soon as one has ended, and a
text may outgrow the window. Knows of text only that a Completion ends."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpt2.completion import Completion
from gpt2.drawing import NO_TOKEN
from gpt2.engine import Batch
from gpt2.history import History
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling

Hear = Callable[[Completion, int, np.ndarray], None]


@dataclasses.dataclass(eq=False)
class Task:
    """A sample to be drawn. ids: of its prompt. seed: of its noise. hear: called with each token and the logits that
    the model gave before it, or None. keep: how many of ids stay when the text outgrows the window; None for one that
    has room in it. A task whose completion has ended is passed on as it is."""

    ids: list[int]
    seed: int
    sampling: Sampling
    completion: Completion
    hear: Hear | None = None
    keep: int | None = None

    def take(self, token: int, logits: np.ndarray) -> None:
        self.completion.add(token)
        if self.hear and token != NO_TOKEN:
            self.hear(self.completion, token, logits)


def flow(batch: Batch, tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Draw tasks, at most `size` at once. Yields after every step those that have ended. Raises what a sample's
    settings raise."""
    waiting, places = iter(tasks), Places(batch)
    try:
        while True:
            ended: list[Task] = []
            while len(places.growing) < size and not ended and (task := next(waiting, None)):
                if task.completion.finish_reason:
                    ended.append(task)
                else:
                    places.begin(task)
            if places.growing:
                ended += places.step()
            elif not ended:
                return
            yield ended
    finally:
        places.clear()


class Places:
    """The rows of a batch that are tasks. Those of one prompt share it."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.n_ctx = batch, batch.hparams.n_ctx
        self.growing: dict[Any, Task] = {}  # by row
        self.prompts: dict[tuple[int, ...], Any] = {}  # by their ids
        self.users: collections.Counter[Any] = collections.Counter()  # rows of each prompt

    def begin(self, task: Task) -> None:
        stream, history = noise_stream(task.seed, task.ids, task.completion.number), History(task.sampling, task.ids)
        self.add(task, task.ids if task.keep is None else fitting(task.ids, task.keep, self.n_ctx), stream, history)

    def step(self) -> list[Task]:
        """Step the batch once; the tasks that have ended."""
        ended = []
        for row, logits in self.batch.step():
            if row.fault:
                raise row.fault
            task = self.growing[row]
            task.take(row.drawn[-1], logits)
            if task.completion.finish_reason:
                self.leave(row)
                ended.append(task)
            elif task.keep is not None and len(row.prompt.ids) + len(row.drawn) > self.n_ctx:
                self.leave(row)
                ids = [*map(int, row.prompt.ids), *row.drawn]
                self.add(task, fitting(ids, min(task.keep, len(task.ids)), self.n_ctx), row.stream, row.history)
        return ended

    def add(self, task: Task, ids: Sequence[int], stream: np.random.Generator, history: History) -> None:
        """Let a task go on after some ids."""
        key = tuple(ids)
        if key not in self.prompts:
            self.prompts[key] = self.batch.add_prompt(ids)
        prompt = self.prompts[key]
        self.users[prompt] += 1
        self.growing[self.batch.add_row(prompt, stream, task.sampling, task.hear is not None, history)] = task

    def leave(self, row: Any) -> None:
        del self.growing[row]
        self.batch.remove_row(row)
        self.users[row.prompt] -= 1
        if not self.users[row.prompt]:
            del self.users[row.prompt], self.prompts[tuple(map(int, row.prompt.ids))]
            self.batch.remove_prompt(row.prompt)

    def clear(self) -> None:
        for row in [*self.growing]:
            self.leave(row)


def fitting(ids: Sequence[int], keep: int, n_ctx: int) -> Sequence[int]:
    """What of a text stays: all while it fits the window; else the first `keep`, at most half of n_ctx, and the newest
    half of the places that are left, so that as many tokens are drawn before the next leave."""
    return ids if len(ids) <= n_ctx else [*ids[:keep], *ids[len(ids) - (n_ctx - keep) // 2 :]]
