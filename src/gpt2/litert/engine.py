"""Sampling on LiteRT: the fast lane on a CPU. Knows nothing of text, and nothing of TensorFlow.

Tokens are drawn by drawing.py, by the same rules as in sample.py: the same seed gives the same sample where
the logits agree.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import functools
import itertools
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from gpt2.engine import Engine, Rows, check_prompt, check_window, distinct_prompts
from gpt2.hparams import HParams
from gpt2.litert.cache import NOBODY, NONE, Cache
from gpt2.litert.export import stored_array
from gpt2.sampling import Sampling
from gpt2.system.cores import usable_cores
from gpt2.system.signals import interrupts_held_back, standard_error_held_back

# Prompt tokens processed at once: more of them share the reading of a matrix, fewer stay in the processor's caches.
# Samples that run beside wait for so many. A prompt is always divided in the same way: what is rounded otherwise
# may, in int8, become another token.
BLOCK = 256
# By how many slots the key/value cache grows: a slot more costs every token of a 124M model 4
# microseconds, growing it 7 milliseconds.
CACHE_STEP = 64
TOKENS_PER_STEP = 24  # of each row, at least: growing a cache of many rows takes as long as several steps


class Generator(Engine):
    """The engine on LiteRT. Holds LiteRT's interpreter, among whose inputs is the key/value cache of all rows there
    are. One step runs at a time; others wait."""

    package = 'ai-edge-litert'

    def __init__(self, path: str, hparams: HParams) -> None:
        """path: a file that export.exported_file returned."""
        super().__init__(hparams)
        self.wte, self.wpe = stored_array(path, 'model/wte'), stored_array(path, 'model/wpe')
        self.scales = stored_array(path, 'model/wte/scales') if self.wte.dtype == np.int8 else None
        self.path = path
        self.load()
        self.threads = concurrent.futures.ThreadPoolExecutor(usable_cores())
        self.lock = threading.Lock()
        self.new_owner = itertools.count(NOBODY + 1).__next__
        self.ended = collections.deque()  # owners that are gone, whose slots are to be freed

    def open_rows(
        self, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling, told: bool = False
    ) -> 'LiteRTRows':
        return LiteRTRows(self, prompts, streams, sampling)

    def close(self) -> None:
        if os.getpid() != self.process:  # a copy, without the threads that could be waited for
            super().close()
            return
        with self.alone():
            super().close()
            self.threads.shutdown()
            del self.memory, self.interpreter

    def load(self) -> None:
        """Make the interpreter, with an empty cache."""
        with standard_error_held_back(), plainly_named(self.path) as name:  # LiteRT says what it computes with
            self.interpreter = Interpreter(name, num_threads=usable_cores())
            details = self.interpreter.get_input_details(), self.interpreter.get_output_details()
            inputs, outputs = ([tensor['index'] for tensor in tensors] for tensors in details)
            self.x, self.mask, self.new_mask, self.pick, self.ones, self.new_ones, *tensors = inputs
            self.logits, self.hidden, *self.additions = outputs
            pairs = np.reshape(tensors, [-1, 2, 2])  # of keys and values: earlier ones and the cache's, a layer
            self.cache = Cache(self.view, pairs[:, 1].ravel().tolist(), pairs[:, 0].ravel().tolist())
            self.resize(1, [0], 1, 1, 1)  # packs the weights
        release_pages(self.path)

    def allocate(self) -> None:
        try:
            self.interpreter.allocate_tensors()
        except RuntimeError as error:
            if str(error) and 'failed to reshape' not in str(error):
                raise
            raise MemoryError('LiteRT finds no memory for its tensors') from None  # of which it says little or nothing

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other step runs, and Ctrl-C waits: it must not come between two states of the cache."""
        self.check_usable()  # first: in a forked process another thread's lock would stay closed for ever
        with self.lock, interrupts_held_back():
            self.check_usable()
            self.free_slots()
            yield

    def free_slots(self) -> None:
        if gone := [self.ended.popleft() for _ in range(len(self.ended))]:
            self.cache.free(gone)

    def process_prompt(self, prompt: Sequence[int], owner: int, first: int) -> Iterator[np.ndarray]:
        """Yield logits [rows, n_vocab] of the positions of a prompt, token ids, from number first on, block by block;
        see invoke().

        What the prompt leaves in the cache is owner's.
        """
        tokens = np.array(prompt, np.int32)
        for start in range(0, len(prompt), BLOCK):
            block = tokens[start : start + BLOCK]
            chosen = range(max(first - start, 0), len(block)) or [len(block) - 1]
            positions = np.arange(start, start + len(block))
            logits = self.process_block(block, positions, np.full(len(block), owner), chosen)
            if start + len(block) > first:
                yield logits

    def process_prompts(self, prompts: list[list[int]], owners: list[int]) -> np.ndarray:
        """Logits [prompts, n_vocab] after each of prompts, lists of token ids, which are left in the cache as their
        owners'. Short ones share a step."""
        logits = np.empty([len(prompts), self.hparams.n_vocab], np.float32)
        for group in grouped([len(prompt) for prompt in prompts]):
            if len(group) == 1:
                *_, last = self.process_prompt(prompts[group[0]], owners[group[0]], len(prompts[group[0]]) - 1)
            else:
                last = self.process_together([prompts[place] for place in group], [owners[place] for place in group])
            logits[group] = last
        return logits

    def process_together(self, prompts: list[list[int]], owners: Sequence[int]) -> np.ndarray:
        """process_prompts() of prompts that together are no longer than a block."""
        sizes = [len(prompt) for prompt in prompts]
        tokens, theirs = np.concatenate(prompts), np.repeat(owners, sizes)
        positions = np.concatenate([np.arange(size) for size in sizes])
        return self.process_block(tokens, positions, theirs, np.cumsum(sizes) - 1)

    def process_block(
        self, tokens: np.ndarray, positions: np.ndarray, owners: np.ndarray, chosen: Sequence[int] | np.ndarray
    ) -> np.ndarray:
        """Logits [chosen, n_vocab] of tokens [rows] of prompts, by their owners [rows], that see all that their owners
        have; see invoke(). What is found waits."""
        self.cache.take_out()
        self.cache.rows = None
        # No more slots than are filled: attention takes its time for all.
        self.resize_or_reload(len(tokens), chosen, 1, 1, self.cache.count(owners))
        self.cache.fill([NONE], owners)
        logits = self.invoke(tokens, positions, [owners])
        self.cache.wait(np.stack([self.view(index) for index in self.additions]), owners)
        return logits

    def map_logits(self, function: Callable[[np.ndarray], Any], ids: Sequence[int], first: int = 0) -> list[Any]:
        check_prompt(self.hparams, ids)
        owner = self.new_owner()
        try:
            with self.alone():
                return [function(logits) for logits in self.process_prompt(ids, owner, first)]
        finally:
            self.ended.append(owner)

    def process_tokens(
        self, tokens: np.ndarray, positions: np.ndarray, owners: np.ndarray, *others: np.ndarray
    ) -> np.ndarray:
        """Logits [rows, n_vocab] of the next token of each row, int32 [rows].

        positions: int [rows]. owners: int [rows], whose slots a row sees and adds to; others: whose it only sees.
        Several tokens of one owner follow one another.
        """
        looks, count = [owners, *others], len(tokens)
        kept = self.cache.rows is None or np.array_equal(self.cache.rows, owners)
        room = self.cache.room() >= (count if self.cache.rows is None else 1)
        if not (kept and room and (self.rows, self.chosen) == (count, count)) or self.cache.waits_for(looks):
            self.make_room(owners, np.stack(looks, axis=1), self.hparams.n_ctx - positions)
        logits = self.invoke(tokens, positions, looks).copy()
        self.cache.add((self.view(index) for index in self.additions), owners)
        return logits

    def make_room(self, owners: np.ndarray, looks: np.ndarray, left: np.ndarray) -> None:
        """Arrange the cache for tokens of rows, by their last owners [rows] and all of their owners [rows, n]; left:
        how many more each may take."""
        groups = self.cache.arrange(owners, looks, self.cache.take_out())
        count, free = len(owners), max(CACHE_STEP, TOKENS_PER_STEP * len(owners))
        free = min(free, int(left.sum())) if self.cache.rows is None else min(-(-free // count), int(left.max()))
        slots = max(self.cache.count(group) for group in groups) + free
        self.resize_or_reload(count, range(count), len(groups), slots, 0)
        self.cache.fill(groups, NONE)

    def resize_or_reload(self, *sizes: Any) -> None:
        """resize(), after which the engine can be used also where there was no memory: of that LiteRT's interpreter
        does not recover. What is in the cache waits outside of the graph then. Raises MemoryError."""
        try:
            self.resize(*sizes)
        except MemoryError:
            waiting = self.cache.waiting
            self.load()
            self.cache.waiting = waiting
            raise

    def resize(self, rows: int, chosen: Sequence[int] | np.ndarray, groups: int, slots: int, earlier: int) -> None:
        """Make the graph take so many rows and give the logits of those chosen, with an empty cache of so many groups
        of slots and with room for so many earlier ones. LiteRT keeps its packed weights."""
        n_head, features = self.hparams.n_head, self.hparams.n_embd // self.hparams.n_head
        earlier = max(earlier, 1)
        if groups * slots > self.cache.owners.size:  # LiteRT is about to copy its memory, of which this need not be
            for index in self.cache.tensors:
                give_back(self.view(index).ctypes.data, self.view(index).nbytes)
        shapes = {self.x: [rows, self.hparams.n_embd], self.pick: [len(chosen), rows]}
        shapes |= {self.mask: [rows, 1, slots], self.ones: [1, 1, slots, 1]}
        shapes |= {self.new_mask: [rows, earlier + rows], self.new_ones: [1, earlier + rows, 1]}
        shapes |= {index: [n_head, earlier, features] for index in self.cache.earlier_tensors}
        shapes |= {index: [n_head, groups, slots, features] for index in self.cache.tensors}
        for index, shape in shapes.items():
            self.interpreter.resize_tensor_input(index, shape)
        self.allocate()
        self.memory = {index: self.memory_of(index) for index in (*shapes, self.logits, *self.additions)}
        self.view(self.ones)[:] = self.view(self.new_ones)[:] = 1
        self.view(self.pick)[:] = np.arange(rows) == np.reshape(chosen, [-1, 1])
        self.rows, self.chosen = rows, len(chosen)  # tokens taken, and rows of logits given
        self.cache.clear(groups, slots, earlier)

    def invoke(self, tokens: np.ndarray, positions: np.ndarray, looks: list[np.ndarray]) -> np.ndarray:
        """Logits [chosen, n_vocab] of new tokens [rows], in LiteRT's own memory: those of a block are 50 MB, which
        would take a twentieth of its time to copy. They are others after the next call or resize.

        looks: arrays int [rows] of owners whose slots a token sees. The first are its own: of the new tokens it sees
        theirs, up to itself.
        """
        sees = (looks[0][:, np.newaxis] == looks[0]) & np.tri(len(tokens), dtype=bool)
        visible, earlier = (
            functools.reduce(np.logical_or, (owners == look[:, np.newaxis] for look in looks))
            for owners in (self.cache.owners, self.cache.earlier)
        )
        self.view(self.x)[:] = self.embed(tokens) + self.wpe[positions]
        for mask, allowed in ((self.mask, visible[:, np.newaxis]), (self.new_mask, np.hstack([earlier, sees]))):
            self.view(mask)[:] = np.where(allowed, np.float32(0), np.float32(-1e10))
        self.interpreter.invoke()
        return self.view(self.logits)

    def embed(self, tokens: np.ndarray) -> np.ndarray:
        """float32 [rows, n_embd]"""
        rows = self.wte[tokens]
        return rows if self.scales is None else rows * self.scales[tokens, np.newaxis]

    def view(self, index: int) -> np.ndarray:
        """LiteRT's own memory of an input or output, which is that of another after the next resize."""
        return self.memory[index]

    def memory_of(self, index: int) -> np.ndarray:
        """The array that LiteRT would give anew for each use, which takes longer than what it is used for."""
        given = self.interpreter.tensor(index)()
        address, shape = given.ctypes.data, given.shape
        return np.ctypeslib.as_array((ctypes.c_float * given.size).from_address(address)).reshape(shape)


class LiteRTRows(Rows):
    """Rows whose keys and values lie in the engine's cache, under owners of their own.

    lines: the owners whose slots each row sees beside those of its prompt, oldest first. It adds to the last; the
    others it shares with the rows that went on from the same one.
    """

    def __init__(
        self, generator: Generator, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling
    ) -> None:
        super().__init__(generator.hparams, prompts, streams, sampling)
        self.generator = generator
        self.positions = np.array([len(prompt) for prompt in prompts])  # that each row has taken
        self.lines = [[generator.new_owner()] for _ in prompts]
        self.prompt_owners: np.ndarray | None = None  # of each row, the owner of its prompt

    def step(self) -> np.ndarray:
        self.generator.check_usable()
        # Beside the graph only for one row: products of many need all cores.
        noise = self.generator.threads.submit(self.noise, self.streams[0]) if len(self.lines) == 1 else None
        self.logits = self.next_logits()
        if noise:
            drawn = [self.draw_row(0, noise.result())]
        else:
            drawn = list(self.generator.threads.map(self.draw_with_noise, range(len(self.streams))))
        self.take(drawn)
        return self.tokens

    def draw_with_noise(self, row: int) -> int:
        return self.draw_row(row, self.noise(self.streams[row]))

    def next_logits(self) -> np.ndarray:
        with self.generator.alone():
            return self.process_prompts() if self.prompt_owners is None else self.process_tokens(self.prompt_owners)

    def process_prompts(self) -> np.ndarray:
        prompts, rows = distinct_prompts(self.prompts)
        owners = np.array([self.generator.new_owner() for _ in prompts])
        self.prompt_owners = owners[rows]
        return self.generator.process_prompts(prompts, owners.tolist())[rows]

    def process_tokens(self, prompt_owners: np.ndarray) -> np.ndarray:
        check_window(self.hparams, int(self.positions.max()) + 1, 1)
        self.join_lines(prompt_owners)
        owners = np.array([line[-1] for line in self.lines])
        older = [  # a column for each generation; where a row has fewer, its own once more
            np.array([line[place] if place < len(line) else line[-1] for line in self.lines])
            for place in range(max(map(len, self.lines)) - 1)
        ]
        logits = self.generator.process_tokens(self.tokens, self.positions, owners, prompt_owners, *older)
        self.positions = self.positions + 1
        return logits

    def join_lines(self, prompt_owners: np.ndarray) -> None:
        """Let what all rows of one prompt have in common be the prompt's: there is less to look through."""
        if len(set(prompt_owners.tolist())) > 1:
            return
        while all(len(line) > 1 and line[0] == self.lines[0][0] for line in self.lines):
            self.generator.cache.give(self.lines[0][0], prompt_owners[0])
            self.lines = [line[1:] for line in self.lines]

    def keep(self, rows: Sequence[int]) -> None:
        places, times = np.array(rows, int), collections.Counter(rows)
        before = {owner for line in self.lines for owner in line}
        lines = [[*self.lines[row], self.generator.new_owner()] if times[row] > 1 else self.lines[row] for row in rows]
        gone = list(before.difference(*lines))
        if self.prompt_owners is not None:
            gone += {*self.prompt_owners.tolist()}.difference(self.prompt_owners[places].tolist())
        # Without the lock: an abandoned sample may be collected while this thread is in a step. And before all else:
        # an interrupt loses no slots.
        self.generator.ended.extend(gone)
        self.lines, self.positions = lines, self.positions[places]
        self.prompt_owners = None if self.prompt_owners is None else self.prompt_owners[places]
        super().keep(rows)


def grouped(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of sizes, int, in groups that follow one another: each together at most BLOCK, or one alone."""
    group, total = [], 0
    for place, size in enumerate(sizes):
        if group and total + size > BLOCK:
            yield group
            group, total = [], 0
        group.append(place)
        total += size
    if group:
        yield group


@contextlib.contextmanager
def plainly_named(path: str) -> Iterator[str]:
    """A name of the file at path that LiteRT can take, which is UTF-8, while the context lasts."""
    try:
        path.encode()
        yield path
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = os.path.join(folder, 'link')
            os.symlink(os.path.abspath(path), link)
            yield link


def release_pages(path: str) -> None:
    """Give back the memory in which this process has mapped a file: LiteRT computes with a copy of the
    weights that it has packed."""
    if not os.path.exists('/proc/self/maps'):
        return
    with open('/proc/self/maps', errors='surrogateescape') as maps:
        fields = [line.split(maxsplit=5) for line in maps]
    path = os.path.realpath(path)
    for start, end in (field[0].split('-') for field in fields if field[5:] == [f'{path}\n']):
        give_back(int(start, 16), int(end, 16) - int(start, 16))


def give_back(address: int, size: int) -> None:
    """Tell Linux that the whole pages in some memory are not needed: what they hold is lost, unless it is
    that of a file. Elsewhere nothing is done, and more memory is in use."""
    if sys.platform == 'linux':
        start, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
