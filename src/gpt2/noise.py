"""The noise of the exponential race, by which every engine draws.

A token is drawn from softmax(logits) as an exponential race: with E_i independent and
exponentially distributed, argmax(logits_i - log E_i) is i with exactly its softmax probability.
The E are drawn by NumPy, one stream a sample, so that a sample depends on its own seed, prompt
and number alone, whatever batch or engine it is drawn in. Unlike one uniform number a token against
the cumulative probabilities, the race hardly feels rounding: logits that differ in the last bit
give another token only where two tokens all but tie.
"""

from collections.abc import Sequence

import numpy as np


def noise_stream(seed: int, prompt: Sequence[int], number: int) -> np.random.Generator:
    """The random stream of one sample.

    seed: int, at least 0. prompt: token ids. number: which sample of the prompt.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, *prompt])))
