"""Sampling: from logits to token ids, in TensorFlow. Knows nothing of text.

Tokens are drawn as an exponential race (see noise.py). What the release has is drawn inside the graph; settings that
it lacks are applied outside, by drawing.py.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt2 import model
from gpt2.engine import Engine, Rows, check_prompt, check_window, distinct_prompts
from gpt2.hparams import HParams
from gpt2.sampling import Sampling
from gpt2.system.tensorflow import interrupts_held_back, tf, traced

CAPACITY_STEP = 128  # positions by which the key/value cache grows
LOGIT_ROWS = 128  # positions whose logits exist at once: 26 MB with the released vocabulary
NUCLEUS_HEAD = 1024  # likeliest tokens in which a nucleus is looked for first


def top_k_logits(logits: tf.Tensor, k: int | tf.Tensor) -> tf.Tensor:
    """Keep the k largest logits of each row, and ties with the k-th; the others become -inf.

    logits: float32 [batch, n_vocab]. k: int or scalar int32 tensor; 0 keeps all.
    """
    k = tf.convert_to_tensor(k)

    def keep() -> tf.Tensor:
        smallest = tf.nn.top_k(logits, tf.minimum(k, tf.shape(logits)[-1])).values[:, -1:]
        return tf.where(logits < smallest, -math.inf, logits)

    return tf.cond(k > 0, keep, lambda: logits)


def top_p_logits(logits: tf.Tensor, p: float | tf.Tensor) -> tf.Tensor:
    """Keep the nucleus of each row as the release does; the others become -inf.

    logits: float32 [batch, n_vocab]. p: scalar in (0, 1]; 1 keeps all. With the probabilities in
    descending order and c their running sum, the last kept rank is max(count(c <= p) - 1, 0): the
    token that crosses p is left out, where Holtzman et al. (2020, section 3.1) keep it.
    """
    p = tf.convert_to_tensor(p, tf.float32)

    def running_sum(descending: tf.Tensor) -> tf.Tensor:
        return tf.cumsum(tf.exp(descending - tf.reduce_logsumexp(logits, axis=-1, keepdims=True)), axis=-1)

    def keep() -> tf.Tensor:
        # Sorting the whole vocabulary takes a fifth of the time of a token; most nuclei are small.
        head = tf.nn.top_k(logits, tf.minimum(NUCLEUS_HEAD, tf.shape(logits)[-1])).values
        enough = tf.reduce_all(running_sum(head)[:, -1] > p)
        descending = tf.cond(enough, lambda: head, lambda: tf.sort(logits, direction='DESCENDING'))
        running = running_sum(descending)
        last = tf.maximum(tf.math.count_nonzero(running <= p, axis=-1, keepdims=True) - 1, 0)
        return tf.where(logits < tf.gather(descending, last, batch_dims=1), -math.inf, logits)

    return tf.cond(p < 1, keep, lambda: logits)


def draw(
    logits: tf.Tensor, noise: tf.Tensor, temperature: float | tf.Tensor, top_k: int | tf.Tensor,
    top_p: float | tf.Tensor,
) -> tf.Tensor:  # fmt: skip
    """Draw one token a row: temperature, then top_k, then top_p, then the race.

    logits: float32 [batch, n_vocab] or [1, n_vocab]. noise: exponential variates, float32
    [batch, n_vocab]. Returns int32 [batch].
    """
    # Softmax is blind to a shift; without it a temperature near 0 would overflow.
    logits = (logits - tf.reduce_max(logits, axis=-1, keepdims=True)) / temperature
    logits = top_p_logits(top_k_logits(logits, top_k), top_p)
    return tf.argmax(logits - tf.math.log(noise), axis=-1, output_type=tf.int32)


class Generator(Engine):
    """The engine on TensorFlow. Holds two traces of the model: one for prompts, one for a single token;
    neither is traced again for another batch, length, cache capacity or setting of the release's. Where
    logits are asked for there are two more, which end with them. The parameters are used as they are now.

    tap: what is to be seen or changed inside the model, as model.forward takes it.
    """

    package = 'tensorflow'

    def __init__(self, hparams: HParams, params: model.Params, tap: model.Tap = model.untapped) -> None:
        super().__init__(hparams)
        self.tap = tap
        # The values themselves, not copies: a step need not read 148 variables first.
        with interrupts_held_back():
            values = {name: tf.convert_to_tensor(variable) for name, variable in model.flatten(params).items()}
        self.params = params = model.nest(values)

        def prompt_logits(tokens: tf.Tensor, last: tf.Tensor, rows: tf.Tensor, cache: model.Cache) -> tf.Tensor:
            features = tf.gather(model.forward(hparams, params, tokens, cache, tap=tap), last, batch_dims=1)
            return tf.gather(model.logits(params, features), rows)

        def token_logits(tokens: tf.Tensor, positions: tf.Tensor, cache: model.Cache) -> tf.Tensor:
            return model.logits(params, model.forward(hparams, params, tokens, cache, positions, tap=tap)[:, 0])

        def prompt_step(
            tokens: tf.Tensor, last: tf.Tensor, rows: tf.Tensor, noise: tf.Tensor, temperature: tf.Tensor,
            top_k: tf.Tensor, top_p: tf.Tensor, cache: model.Cache,
        ) -> tf.Tensor:  # fmt: skip
            return draw(prompt_logits(tokens, last, rows, cache), noise, temperature, top_k, top_p)

        def token_step(
            tokens: tf.Tensor, positions: tf.Tensor, noise: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor,
            top_p: tf.Tensor, cache: model.Cache,
        ) -> tf.Tensor:  # fmt: skip
            return draw(token_logits(tokens, positions, cache), noise, temperature, top_k, top_p)

        integers = tf.TensorSpec([None], tf.int32)
        settings = [tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)]
        cached = tf.TensorSpec([None, hparams.n_embd // hparams.n_head])
        cache = [{'k': cached, 'v': cached}] * hparams.n_layer
        others = [tf.TensorSpec([None, hparams.n_vocab]), *settings, cache]
        prompt, token = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, 1], tf.int32)
        self.prompt_step = traced(prompt_step, input_signature=[prompt, integers, integers, *others])
        self.token_step = traced(token_step, input_signature=[token, integers, *others])
        self.prompt_logits = traced(prompt_logits, input_signature=[prompt, integers, integers, cache])
        self.token_logits = traced(token_logits, input_signature=[token, integers, cache])
        self.features = traced(
            lambda tokens: model.forward(hparams, params, tokens, tap=tap), input_signature=[prompt]
        )
        self.logits = lambda features: model.logits(params, features)

    def open_rows(
        self, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling, told: bool = False
    ) -> Rows:
        return TensorFlowRows(self, prompts, streams, sampling, told)

    def map_logits(self, function: Callable[[np.ndarray], Any], ids: Sequence[int], first: int = 0) -> list[Any]:
        self.check_usable()
        check_prompt(self.hparams, ids)
        with interrupts_held_back():
            features = self.features(np.array([ids], np.int32))[0, first:]
            parts = [features[start : start + LOGIT_ROWS] for start in range(0, len(features), LOGIT_ROWS)]
            return [function(self.logits(part).numpy()) for part in parts]

    def capacity(self, positions: int) -> int:
        """The cache capacity to hold so many positions: a multiple of a step, at most n_ctx."""
        return min(-(-positions // CAPACITY_STEP) * CAPACITY_STEP, self.hparams.n_ctx)

    def close(self) -> None:
        super().close()
        del self.prompt_step, self.token_step, self.prompt_logits, self.token_logits
        del self.features, self.logits, self.params


class TensorFlowRows(Rows):
    """Rows with a key/value cache of their own."""

    def __init__(
        self, generator: Generator, prompts: list[list[int]], streams: list[np.random.Generator], sampling: Sampling,
        told: bool,
    ) -> None:  # fmt: skip
        super().__init__(generator.hparams, prompts, streams, sampling)
        self.generator = generator
        self.inside = sampling.released and not told  # whether tokens are drawn inside the graph
        types = tf.float32, tf.int32, tf.float32
        with interrupts_held_back():
            self.settings = [tf.constant(*pair) for pair in zip(sampling.bounded(self.hparams.n_vocab), types)]
        self.positions = np.array([len(prompt) for prompt in prompts], np.int32)  # that each row has taken
        self.cache: Any = None  # a model.Cache, once the prompts are processed
        self.capacity = 0
        # Which of the cache's rows are these, unless each is its own.
        self.cached: Sequence[int] | np.ndarray | None = None

    def step(self) -> np.ndarray:
        if not self.inside:
            return super().step()
        self.take(self.advance('prompt_step', 'token_step', self.noises(), *self.settings))
        return self.tokens

    def next_logits(self) -> np.ndarray:
        return self.advance('prompt_logits', 'token_logits')

    def advance(self, prompt_step: str, token_step: str, *how: Any) -> np.ndarray:
        """What a step of the generator's returns, given how to draw: the first for prompts, later the second."""
        self.generator.check_usable()
        with interrupts_held_back():
            if self.cache is None:
                return self.process_prompts(getattr(self.generator, prompt_step), *how).numpy()
            return self.process_tokens(getattr(self.generator, token_step), *how).numpy()

    def process_prompts(self, step: Callable[..., tf.Tensor], *how: Any) -> tf.Tensor:
        prompts, rows = distinct_prompts(self.prompts)
        last = np.array([len(prompt) - 1 for prompt in prompts], np.int32)
        tokens = np.zeros([len(prompts), max(last) + 1], np.int32)  # what follows a prompt no position of it sees
        for row, prompt in zip(tokens, prompts):
            row[: len(prompt)] = prompt
        self.capacity = self.generator.capacity(tokens.shape[1])
        self.cache = model.new_cache(self.hparams, len(prompts), self.capacity)
        self.cached = None if len(rows) == len(prompts) else rows
        return step(tokens, last, np.array(rows, np.int32), *how, self.cache)

    def process_tokens(self, step: Callable[..., tf.Tensor], *how: Any) -> tf.Tensor:
        longest = int(self.positions.max())
        check_window(self.hparams, longest + 1, 1)
        if self.cached is not None or longest == self.capacity:
            capacity = self.generator.capacity(longest + 1)
            self.cache = self.resized(capacity)
            self.capacity, self.cached = capacity, None
        found = step(self.tokens[:, np.newaxis], self.positions, *how, self.cache)
        self.positions = self.positions + 1
        return found

    def join(self, other: 'TensorFlowRows') -> None:
        """Go on with the rows of another one too, which come after these and are then these alone. Both have been
        stepped."""
        capacity = max(self.capacity, other.capacity)
        with interrupts_held_back():
            caches = zip(self.resized(capacity), other.resized(capacity))
            self.cache = [{kind: tf.concat([a[kind], b[kind]], axis=0) for kind in a} for a, b in caches]
        self.capacity, self.cached = capacity, None
        self.positions = np.concatenate([self.positions, other.positions])
        self.tokens = np.concatenate([self.tokens, other.tokens])
        self.prompts, self.streams = self.prompts + other.prompts, self.streams + other.streams
        self.histories = self.histories + other.histories

    def resized(self, capacity: int) -> model.Cache:
        """The cache, a row of it for each of these, of that capacity."""
        if self.cached is None and capacity == self.capacity:
            return self.cache
        rows = np.arange(len(self.positions)) if self.cached is None else self.cached
        return model.resized_cache(self.hparams, self.cache, self.capacity, rows, capacity)

    def noises(self) -> np.ndarray:
        """float32 [rows, n_vocab]"""
        shape = [len(self.streams), self.hparams.n_vocab]
        if self.greedy:  # no race: the largest logit wins
            return np.ones(shape, np.float32)
        return np.stack([stream.standard_exponential(shape[1]) for stream in self.streams]).astype(np.float32)

    def keep(self, rows: Sequence[int]) -> None:
        kept = np.array(rows, int)
        if self.cache is not None:
            cached = np.arange(len(self.positions)) if self.cached is None else self.cached
            self.cached = np.array(cached)[kept]
            self.cache = self.cache if len(rows) else None
        self.positions = self.positions[kept]
        super().keep(rows)


def sample_sequence(
    *, hparams: HParams, params: model.Params, length: int, start_token: int | None = None,
    batch_size: int | None = None, context: Any = None, temperature: float = 1, top_k: int = 0, top_p: float = 1,
    seed: int | None = None,
) -> tf.Tensor:  # fmt: skip
    """Tokens int32 [batch, n + length]: the context, then length sampled tokens.

    Give either context, int [batch, n], or start_token and batch_size. Row k is sample k + 1 of
    its context; without a seed it is another one every time. Raises ValueError for both or
    neither, and as Generator.generate does.
    """
    if (start_token is None) == (context is None):
        raise ValueError('give exactly one of start_token and context')
    if context is None:
        context = np.full([batch_size or 1, 1], start_token)
    context = np.asarray(context, np.int32)
    numbers = range(1, len(context) + 1)
    seed = int.from_bytes(os.urandom(4), 'big') if seed is None else seed
    drawn = Generator(hparams, params).generate(
        context, length, numbers=numbers, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p
    )
    return tf.concat([context, np.stack(list(drawn), axis=1)], axis=1)
