"""Passages read by a model, for a survey of its neurons."""

from collections.abc import Sequence

import numpy as np

from gpt2 import sample
from gpt2.inspection.activations import tapped
from gpt2.inspection.survey import Read, Reading
from gpt2.system.tensorflow import interrupts_held_back, tf, traced


def make_read(generator: sample.Generator, layers: Sequence[int], neurons: Sequence[int]) -> Read:
    """A function that reads passages: int32 [b, n] -> what neurons of each layer do there. Layers above the last of
    these are not computed. neurons: numbers that follow one another."""
    names = [f'h{layer}.mlp.act' for layer in layers]
    first, end = neurons[0], neurons[-1] + 1

    def watched(activations: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values = activations[:, :, first:end]
        mean = tf.reduce_mean(values, axis=[0, 1])
        differences = values - mean
        squares = tf.square(differences)
        powers = (squares, squares * differences, tf.square(squares))
        sums = [mean, *(tf.reduce_sum(power, axis=[0, 1]) for power in powers)]
        return values, tf.reduce_max(values, axis=1), tf.stack(sums)

    @traced(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def read_all(tokens: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        found = tapped(generator, tokens, set(names))
        return [watched(found[name]) for name in names]

    def read(batch: np.ndarray) -> list[Reading]:
        generator.check_usable()
        with interrupts_held_back():
            return [Reading(*(value.numpy() for value in values)) for values in read_all(batch)]

    return read
