"""Sampling: from logits to token ids, in TensorFlow. Knows nothing of text.

Tokens are drawn as an exponential race (see race.py).
"""

import math
import secrets

import numpy as np

from gpt2 import model
from gpt2.noise import check_window, distinct_prompts, is_greedy, noise_streams
from gpt2.system.tensorflow import interrupts_held_back, tf

CAPACITY_STEP = 128  # positions by which the key/value cache grows
NUCLEUS_HEAD = 1024  # likeliest tokens in which a nucleus is looked for first


def top_k_logits(logits, k):
    """Keep the k largest logits of each row, and ties with the k-th; the others become -inf.

    logits: float32 [batch, n_vocab]. k: int or scalar int32 tensor; 0 keeps all.
    """
    k = tf.convert_to_tensor(k)

    def keep():
        smallest = tf.nn.top_k(logits, tf.minimum(k, tf.shape(logits)[-1])).values[:, -1:]
        return tf.where(logits < smallest, -math.inf, logits)

    return tf.cond(k > 0, keep, lambda: logits)


def top_p_logits(logits, p):
    """Keep the nucleus of each row as the release does; the others become -inf.

    logits: float32 [batch, n_vocab]. p: scalar in (0, 1]; 1 keeps all. With the probabilities in
    descending order and c their running sum, the last kept rank is max(count(c <= p) - 1, 0): the
    token that crosses p is left out, where Holtzman et al. (2020, section 3.1) keep it.
    """
    p = tf.convert_to_tensor(p, tf.float32)

    def running_sum(descending):
        return tf.cumsum(tf.exp(descending - tf.reduce_logsumexp(logits, axis=-1, keepdims=True)), axis=-1)

    def keep():
        # Sorting the whole vocabulary takes a fifth of the time of a token; most nuclei are small.
        head = tf.nn.top_k(logits, tf.minimum(NUCLEUS_HEAD, tf.shape(logits)[-1])).values
        enough = tf.reduce_all(running_sum(head)[:, -1] > p)
        descending = tf.cond(enough, lambda: head, lambda: tf.sort(logits, direction='DESCENDING'))
        running = running_sum(descending)
        last = tf.maximum(tf.math.count_nonzero(running <= p, axis=-1, keepdims=True) - 1, 0)
        return tf.where(logits < tf.gather(descending, last, batch_dims=1), -math.inf, logits)

    return tf.cond(p < 1, keep, lambda: logits)


def draw(logits, noise, temperature, top_k, top_p):
    """Draw one token a row: temperature, then top_k, then top_p, then the race.

    logits: float32 [batch, n_vocab] or [1, n_vocab]. noise: exponential variates, float32
    [batch, n_vocab]. Returns int32 [batch].
    """
    # Softmax is blind to a shift; without it a temperature near 0 would overflow.
    logits = (logits - tf.reduce_max(logits, axis=-1, keepdims=True)) / temperature
    logits = top_p_logits(top_k_logits(logits, top_k), top_p)
    return tf.argmax(logits - tf.math.log(noise), axis=-1, output_type=tf.int32)


class Generator:
    """Takes token ids, yields token ids. Holds the key/value cache and two traces of the model:
    one for prompts, one for a single token; neither is traced again for another batch, length,
    cache capacity or sampling setting. The parameters are used as they are now."""

    def __init__(self, hparams, params):
        self.hparams = hparams
        self.cache = model.new_cache(hparams)
        # The values themselves, not copies: a step need not read 148 variables first.
        with interrupts_held_back():
            values = {name: variable.read_value() for name, variable in model.flatten(params).items()}
        params = model.nest(values)

        def step(tokens, position, noise, temperature, top_k, top_p):
            features = model.forward(hparams, params, tokens, self.cache, position)
            return draw(model.logits(params, features[:, -1]), noise, temperature, top_k, top_p)

        scalars = [tf.TensorSpec([], tf.float32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)]
        inputs = [tf.TensorSpec([], tf.int32), tf.TensorSpec([None, hparams.n_vocab]), *scalars]
        self.prompt_step = tf.function(step, input_signature=[tf.TensorSpec([None, None], tf.int32), *inputs])
        self.token_step = tf.function(step, input_signature=[tf.TensorSpec([None, 1], tf.int32), *inputs])

    def generate(self, context, length, *, numbers, seed, temperature=1, top_k=0, top_p=1):
        """Yield int32 [batch], the next token of each row, `length` times.

        context: token ids, int [batch, n], n at least 1. numbers: the sample number of each row.
        temperature: at least 0; 0 takes the likeliest token. top_k: at least 0; 0 is off.
        top_p: in (0, 1]; 1 is off. Raises ValueError when n + length exceeds n_ctx + 1: the last
        token drawn is never fed back.
        """
        context = np.asarray(context, np.int32)
        batch, n = context.shape
        n_vocab = self.hparams.n_vocab
        check_window(self.hparams, n, length)
        greedy = is_greedy(temperature)
        settings = (1.0, 0, 1.0) if greedy else (temperature, min(top_k, n_vocab), top_p)
        streams = noise_streams(seed, context, numbers)

        def noise():
            if greedy:  # no race: the largest logit wins
                return np.ones([batch, n_vocab], np.float32)
            return np.stack([stream.standard_exponential(n_vocab) for stream in streams]).astype(np.float32)

        prompt = distinct_prompts(context)
        rows, capacity = len(prompt), self.capacity(n)
        with interrupts_held_back():
            settings = [tf.constant(value, dtype) for value, dtype in zip(settings, (tf.float32, tf.int32, tf.float32))]
            model.clear_cache(self.hparams, self.cache, rows, capacity)
            tokens = self.prompt_step(prompt, 0, noise(), *settings).numpy()
        yield tokens
        for position in range(n, n + length - 1):
            with interrupts_held_back():
                if rows < batch or position == capacity:
                    new_capacity = self.capacity(position + 1)
                    model.resize_cache(self.hparams, self.cache, rows, capacity, batch, new_capacity)
                    rows, capacity = batch, new_capacity
                tokens = self.token_step(tokens[:, np.newaxis], position, noise(), *settings).numpy()
            yield tokens

    def capacity(self, positions):
        """The cache capacity to hold so many positions: a multiple of a step, at most n_ctx."""
        return min(-(-positions // CAPACITY_STEP) * CAPACITY_STEP, self.hparams.n_ctx)


def sample_sequence(*, hparams, params, length, start_token=None, batch_size=None, context=None,
                    temperature=1, top_k=0, top_p=1, seed=None):
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
    seed = secrets.randbits(32) if seed is None else seed
    drawn = Generator(hparams, params).generate(
        context, length, numbers=numbers, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p
    )
    return tf.concat([context, np.stack(list(drawn), axis=1)], axis=1)
