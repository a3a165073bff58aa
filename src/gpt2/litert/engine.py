"""Sampling on LiteRT: the fast lane on a CPU. Knows nothing of text, and nothing of TensorFlow.

The same rules as in sample.py, on NumPy arrays, one row at a time; the same seed gives the same
sample where the logits agree.
"""

import concurrent.futures
import ctypes
import math
import mmap
import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from gpt2.litert.export import stored_array
from gpt2.noise import check_window, distinct_prompts, is_greedy, noise_streams
from gpt2.system.signals import standard_error_held_back

# Prompt tokens processed at once: more of them share the reading of a matrix, fewer stay in the processor's caches.
BLOCK = {'float32': 512, 'int8': 256}
# By how many slots the key/value cache grows: a slot more costs every token of a 124M model 4
# microseconds, growing it 7 milliseconds.
CACHE_STEP = 64
TOKENS_PER_STEP = 4  # of each row, at least
SUM_BLOCK = 256  # numbers summed at once
NOBODY, EVERYBODY = -2, -1  # who sees a slot of the cache, other than one row of the batch
NOTHING = np.empty([1, 1, 0, 1], np.float32)  # no keys and values, of any layer, head or feature


def top_k_edge(logits, k):
    """The smallest of logits, float32 [n], that top_k keeps, the k-th largest; k from 1 to n."""
    return np.partition(logits, -k)[-k]


def top_p_edge(logits, p):
    """The smallest of logits, float32 [n], that the release's nucleus keeps (see sample.top_p_logits)."""
    ascending = np.sort(logits)
    weights = np.exp(ascending)
    limit = p * weights.sum()
    # Sums of blocks from the largest down, then those inside the block where they cross the limit:
    # a running sum over the whole vocabulary would take as long as sorting it.
    end = len(weights)
    blocks = np.cumsum(weights[end % SUM_BLOCK :].reshape(-1, SUM_BLOCK).sum(axis=1)[::-1])
    whole = np.count_nonzero(blocks <= limit)
    end -= whole * SUM_BLOCK
    before = blocks[whole - 1] if whole else 0
    inside = before + np.cumsum(weights[max(end - SUM_BLOCK, 0) : end][::-1])
    count = whole * SUM_BLOCK + np.count_nonzero(inside <= limit)
    return ascending[-max(count, 1)]


def surely_in_nucleus(logits, p, logit):
    """Whether what is at least as likely as one of logits holds no more than p: true of all in the nucleus but
    ties at its edge and a first one that holds more by itself. Takes a fifth of the time of the edge."""
    weights = np.exp(logits)
    return weights[logits >= logit].sum() <= p * weights.sum()


def log_noise(stream, n_vocab):
    """Logarithms of the next exponential variates of a stream, float32 [n_vocab]."""
    return np.log(stream.standard_exponential(n_vocab).astype(np.float32))


def draw(logits, noise, temperature, top_k, top_p):
    """Draw one token: temperature, then top_k, then top_p, then the race.

    logits: float32 [n_vocab]. noise: what log_noise returns; greedy needs none. Returns an int.
    """
    if is_greedy(temperature):
        return int(logits.argmax())
    # Softmax is blind to a shift; without it a temperature near 0 would overflow.
    with np.errstate(over='ignore'):
        logits = (logits - logits.max()) / np.float32(temperature)
    edge, kept = -math.inf, logits
    if 0 < top_k < len(logits):
        edge = top_k_edge(logits, top_k)
        kept = logits[logits >= edge]
    race = logits - noise
    winner = race.argmax()
    if top_p < 1 and not surely_in_nucleus(kept, top_p, logits[winner]):
        edge = top_p_edge(kept, top_p)
    if logits[winner] < edge:
        race[logits < edge] = -math.inf
        winner = race.argmax()
    return int(winner)


def draw_batch(logits, noise, *settings):
    """The next token of each row, int32 [batch]: noise of each; logits [batch, n_vocab] or [1, n_vocab]."""
    noise = list(noise)
    rows = np.broadcast_to(logits, [len(noise), logits.shape[1]])
    return np.array([draw(row, e, *settings) for row, e in zip(rows, noise)], np.int32)


class Generator:
    """Takes token ids, yields token ids, as sample.Generator does. Holds LiteRT's interpreter, among
    whose inputs is the key/value cache: slots, of which `owners` says what row of the batch sees them."""

    def __init__(self, path, hparams):
        """path: a file that export_litert.exported_file returned."""
        self.hparams = hparams
        self.wte, self.wpe = stored_array(path, 'model/wte'), stored_array(path, 'model/wpe')
        self.scales = stored_array(path, 'model/wte/scales') if self.wte.dtype == np.int8 else None
        with standard_error_held_back():  # LiteRT says what it computes with
            self.interpreter = Interpreter(path, num_threads=usable_cores())
            self.interpreter.allocate_tensors()  # packs the weights
        release_pages(path)
        details = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        inputs, outputs = ([tensor['index'] for tensor in tensors] for tensors in details)
        self.x, self.mask, self.new_mask, self.pick, *self.cache = inputs
        self.logits, *self.additions = outputs
        self.threads = concurrent.futures.ThreadPoolExecutor(usable_cores())
        self.rows = self.slots = 0
        self.clear()

    def generate(self, context, length, *, numbers, seed, temperature=1, top_k=0, top_p=1):
        """Yield int32 [batch], the next token of each row, `length` times; see sample.Generator.generate."""
        context = np.asarray(context, np.int32)
        batch, n = context.shape
        check_window(self.hparams, n, length)
        streams = noise_streams(seed, context, numbers)

        def next_noise():
            """Noise for the next tokens; it is being made when this returns."""
            if is_greedy(temperature):
                return [None] * batch
            return self.threads.map(log_noise, streams, [self.hparams.n_vocab] * batch)

        noise = next_noise()
        logits = self.process_prompts(distinct_prompts(context))
        tokens = draw_batch(logits, noise, temperature, top_k, top_p)
        yield tokens
        rows, alone = np.arange(batch), np.eye(batch, dtype=bool)
        for position in range(n, n + length - 1):
            if self.rows != batch or self.used + batch > self.slots:
                left = n + length - 1 - position
                self.resize(batch, self.used + min(max(CACHE_STEP, TOKENS_PER_STEP * batch), left * batch), rows)
            # Beside the graph only for one row of int8: many rows, or four times the bytes, need both
            # cores for themselves.
            noise = next_noise() if batch == 1 and self.scales is not None else None
            logits = self.step(tokens, np.full(batch, position), rows, alone)
            noise = noise or next_noise()
            tokens = draw_batch(logits, noise, temperature, top_k, top_p)
            yield tokens

    def process_prompts(self, prompts):
        """Logits [rows, n_vocab] after prompts int32 [rows, n], which are all that the cache then holds."""
        rows, n = prompts.shape
        self.clear()
        logits, size = [], BLOCK[self.wte.dtype.name]
        for row, prompt in enumerate(prompts):
            for start in range(0, n, size):
                block = prompt[start : start + size]
                # No more slots than are filled: attention takes its time for all.
                self.resize(len(block), max(self.used, 1), [len(block) - 1])
                owners = np.full(len(block), EVERYBODY if rows == 1 else row)
                positions = start + np.arange(len(block))
                last = self.step(block, positions, owners, np.tri(len(block), dtype=bool))
            logits.append(last)
        return np.concatenate(logits)

    def clear(self):
        """Empty the cache."""
        self.used, self.waiting = 0, NOTHING
        self.owners = np.full(self.slots, NOBODY)

    def resize(self, rows, slots, chosen):
        """Make the graph take so many rows and give the logits of those chosen, with a cache of so many
        slots, which keeps what it holds and takes what waits for room. LiteRT keeps its packed weights."""
        n_head, features = self.hparams.n_head, self.hparams.n_embd // self.hparams.n_head
        # One array: memory of that size goes back to the system, that of many small ones may not.
        kept = np.empty([len(self.cache), n_head, self.used, features], np.float32)
        held = self.used - self.waiting.shape[2]
        for index, values in zip(self.cache, kept):
            values[:, :held] = self.view(index)[:, :held]
        kept[:, :, held:] = self.waiting
        if slots > self.slots:  # LiteRT is about to copy its memory, of which the cache need not be
            for index in self.cache:
                view = self.view(index)
                give_back(view.ctypes.data, view.nbytes)
                del view
        shapes = {self.x: [rows, self.hparams.n_embd], self.mask: [rows, slots], self.new_mask: [rows, rows]}
        shapes |= {self.pick: [len(chosen), rows]} | {index: [n_head, slots, features] for index in self.cache}
        for index, shape in shapes.items():
            self.interpreter.resize_tensor_input(index, shape)
        self.interpreter.allocate_tensors()
        for index in self.cache:
            self.view(index)[:, self.used :] = 0  # what is masked must still be finite
        for index, values in zip(self.cache, kept):
            self.view(index)[:, : self.used] = values
        self.view(self.pick)[:] = np.arange(rows) == np.reshape(chosen, [-1, 1])
        self.rows, self.slots, self.waiting = rows, slots, NOTHING
        self.owners = np.append(self.owners[: self.used], np.full(slots - self.used, NOBODY))

    def step(self, tokens, positions, owners, sees):
        """Logits [chosen, n_vocab] of new tokens [rows], whose keys and values are added to the cache, or, where
        it has no room for them, wait for the next resize.

        owners: whose each new token is. sees: bool [rows, rows], which of the new ones see which.
        """
        visible = (self.owners == owners[:, np.newaxis]) | (self.owners == EVERYBODY)
        self.view(self.x)[:] = self.embed(tokens) + self.wpe[positions]
        for mask, allowed in ((self.mask, visible), (self.new_mask, sees)):
            self.view(mask)[:] = np.where(allowed, np.float32(0), np.float32(-1e10))
        self.interpreter.invoke()
        end = self.used + len(tokens)
        if end > self.slots:
            self.waiting = np.stack([self.view(index) for index in self.additions])
        else:
            for index, addition in zip(self.cache, self.additions):
                self.view(index)[:, self.used : end] = self.view(addition)
        self.owners = np.concatenate([self.owners[: self.used], owners, self.owners[end:]])
        self.used = end
        return self.interpreter.get_tensor(self.logits)

    def embed(self, tokens):
        """float32 [rows, n_embd]"""
        rows = self.wte[tokens]
        return rows if self.scales is None else rows * self.scales[tokens, np.newaxis]

    def view(self, index):
        """LiteRT's own memory of a tensor. To be dropped at once: LiteRT runs only when nobody holds one."""
        return self.interpreter.tensor(index)()


def usable_cores():
    """Processor cores this process may run on; macOS does not tell, there it is all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def release_pages(path):
    """Give back the memory in which this process has mapped a file: LiteRT computes with a copy of the
    weights that it has packed."""
    if not os.path.exists('/proc/self/maps'):
        return
    with open('/proc/self/maps') as maps:
        fields = [line.split(maxsplit=5) for line in maps]
    path = os.path.realpath(path)
    for start, end in (field[0].split('-') for field in fields if field[5:] == [f'{path}\n']):
        give_back(int(start, 16), int(end, 16) - int(start, 16))


def give_back(address, size):
    """Tell Linux that the whole pages in some memory are not needed: what they hold is lost, unless it is
    that of a file. Elsewhere nothing is done, and more memory is in use."""
    if sys.platform == 'linux':
        start, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            madvise = ctypes.CDLL(None).madvise
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
