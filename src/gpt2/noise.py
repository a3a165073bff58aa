"""What every engine's sampling shares: the noise of the exponential race, and what settings mean.

A token is drawn from softmax(logits) as an exponential race: with E_i independent and
exponentially distributed, argmax(logits_i - log E_i) is i with exactly its softmax probability.
The E are drawn by NumPy, one stream a sample, so that a sample depends on its own seed, prompt
and number alone, whatever batch or engine it is drawn in. Unlike one uniform number a token against
the cumulative probabilities, the race hardly feels rounding: logits that differ in the last bit
give another token only where two tokens all but tie.
"""

import numpy as np


def noise_stream(seed, prompt, number):
    """The random stream of one sample.

    seed: int, at least 0. prompt: token ids. number: which sample of the prompt.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, *prompt])))


def noise_streams(seed, context, numbers):
    """The stream of each row of context, int [batch, n]."""
    return [noise_stream(seed, row.tolist(), number) for row, number in zip(context, numbers)]


def is_greedy(temperature):
    """Whether a temperature means the likeliest token; TensorFlow takes numbers this small for 0."""
    return temperature < np.finfo(np.float32).tiny


def check_window(hparams, n, length):
    """Raise ValueError when n prompt tokens and length drawn ones exceed n_ctx + 1.

    One more than n_ctx, since the last token drawn is never fed back.
    """
    if n + length > hparams.n_ctx + 1:
        raise ValueError(f'{n} prompt tokens and length {length} exceed the limit of {hparams.n_ctx + 1}')


def distinct_prompts(context):
    """Rows of context, int [batch, n], that need processing: one where all share their prompt."""
    return context[:1] if (context == context[0]).all() else context
