"""What a page shows of what goes on inside a model as it reads a short text: in one pass, whose graph is traced once.

The text as the model reads it, and as it reads it with changes, are two rows of one batch. Changes come as arrays, so
that others need no other graph.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gpt2 import model, sample
from gpt2.hparams import HParams
from gpt2.inspection.changes import TAPPED, Change, Table, make_tables
from gpt2.system.tensorflow import interrupts_held_back, tf, traced


class Likeliest(NamedTuple):
    """Tokens and their probabilities: arrays of the same shape, ids int32 and probabilities float32."""

    ids: np.ndarray
    probabilities: np.ndarray


class Glance(NamedTuple):
    """What a model with changes does with a text. lens: what each layer would say next after each token, [n_layer, n].
    pattern: of a head, float32 [query, key]. activations: of a neuron, float32 [n]. next, before: what comes after the
    text with changes and without, likeliest first."""

    lens: Likeliest
    pattern: np.ndarray
    activations: np.ndarray
    next: Likeliest
    before: Likeliest


Look = Callable[[Sequence[int], int, int, int, Sequence[Change]], Glance]


def make_glance(generator: sample.Generator, likeliest: int) -> Look:
    """A function (ids, layer, head, neuron, changes) -> Glance. ids: one to n_ctx. changes: none that ask for a
    reference. likeliest: tokens that are told of what comes next, at most n_vocab."""
    hparams, params = generator.hparams, generator.params

    def best(features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model.logits(params, features)
        largest = tf.reduce_max(logits, axis=-1, keepdims=True)
        return tf.argmax(logits, axis=-1, output_type=tf.int32), 1 / tf.reduce_sum(tf.exp(logits - largest), axis=-1)

    @traced(input_signature=[tf.TensorSpec([None], tf.int32), *[tf.TensorSpec([], tf.int32)] * 2, specs(hparams)])
    def look(tokens: tf.Tensor, head: tf.Tensor, neuron: tf.Tensor, tables: dict[str, Table]) -> tuple:
        lens, patterns, activations = [], [], []

        def tap(name: str, value: tf.Tensor) -> tf.Tensor:
            value = generator.tap(name, value)
            layer, _, part = name.partition('.')
            if part in tables:
                scale, offset = (table[:, int(layer[1:])] for table in tables[part])
                value = value * scale + offset
            if part == 'attn.pattern':
                patterns.append(tf.gather(value[-1], head))
            elif part == 'mlp.act':
                activations.append(tf.gather(value[-1], neuron, axis=-1))
            elif part == 'post':
                lens.append(best(model.norm(value[-1], params['model']['ln_f'])))
            return value

        rows = tf.repeat(tokens[tf.newaxis], tf.shape(tables['mlp.act'].scale)[0], axis=0)
        last = model.forward(hparams, params, rows, tap=tap)[:, -1]
        probabilities, ids = tf.math.top_k(tf.nn.softmax(model.logits(params, last)), likeliest)
        return *(tf.stack(part) for part in zip(*lens)), tf.stack(patterns), tf.stack(activations), ids, probabilities

    def glance(ids: Sequence[int], layer: int, head: int, neuron: int, changes: Sequence[Change]) -> Glance:
        generator.check_usable()
        with interrupts_held_back():
            found = look(np.array(ids, np.int32), np.int32(head), np.int32(neuron), dense_tables(hparams, changes))
            lens_ids, lens_probabilities, patterns, activations, *after = (value.numpy() for value in found)
        before, now = (Likeliest(*(value[row] for value in after)) for row in (0, -1))
        return Glance(Likeliest(lens_ids, lens_probabilities), patterns[layer], activations[layer], now, before)

    return glance


def shapes(hparams: HParams) -> dict[str, list[int]]:
    """Of what can be changed in all layers, by its name within one, with an axis for tokens."""
    heads, features = hparams.n_head, hparams.n_embd // hparams.n_head
    return {TAPPED['mlp']: [hparams.n_layer, 1, 4 * hparams.n_embd],
            TAPPED['head']: [hparams.n_layer, heads, 1, features]}  # fmt: skip


def specs(hparams: HParams) -> dict[str, Table]:
    return {name: Table(*[tf.TensorSpec([None, *shape])] * 2) for name, shape in shapes(hparams).items()}


def dense_tables(hparams: HParams, changes: Sequence[Change]) -> dict[str, Table]:
    """Tables of all layers, [rows, ...]: a row that changes nothing and, where there are changes, one with them."""
    rows = 2 if changes else 1
    found = {name: Table(np.ones([rows, *shape], np.float32), np.zeros([rows, *shape], np.float32))
             for name, shape in shapes(hparams).items()}  # fmt: skip
    for name, table in make_tables(hparams, changes, {}).items():
        layer, _, part = name.partition('.')
        for whole, one in zip(found[part], table):
            whole[-1, int(layer[1:])] = one[0, ..., np.newaxis, :]
    return found
