"""Activations of a text of any length, by the model's own forward function."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gpt2 import model, sample
from gpt2.inspection.names import Seen, find
from gpt2.system.tensorflow import interrupts_held_back, tf

LENS = '.lens'
HEADS = '.attn.heads'
NewArray = Callable[[str, Sequence[int], str], np.ndarray]  # (name, shape, dtype): where values go


@dataclasses.dataclass(frozen=True)
class Activations:
    """What was seen of a text. tokens: int32 [n]. starts: int32 [n], the first token that each token sees. values:
    float32 arrays by name, shaped as names.Seen says. In an attention pattern the key at place j of a query is the
    token starts[query] + j."""

    tokens: np.ndarray
    starts: np.ndarray
    values: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]


def in_memory(name: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    return np.zeros(shape, dtype)


def look(
    generator: sample.Generator, ids: Sequence[int], seen: Sequence[Seen], stride: int,
    new_array: NewArray = in_memory,
) -> Activations:  # fmt: skip
    """What is seen of ids, one or more, in windows that move by stride; a token is that of the first window it is in.

    new_array makes the arrays that are filled, window by window; no more than a window's values are in memory beside.
    """
    hparams, n = generator.hparams, len(ids)
    found = Activations(
        new_array('tokens', [n], 'int32'), new_array('starts', [n], 'int32'),
        {each.name: new_array(each.name, each.shape(hparams, n), 'float32') for each in seen},
    )  # fmt: skip
    found.tokens[:] = ids
    wanted = {part for each in seen for part in each.parts}
    for start, new, end in windows(n, hparams.n_ctx, stride):
        found.starts[new:end] = start
        values = look_at_window(generator, ids[start:end], wanted)
        for each in seen:
            for place, part in enumerate(each.parts):
                put(found.values[each.name][place] if each.stacked else found.values[each.name],
                    each.axes, values[part], slice(new, end), new - start)  # fmt: skip
    return found


class Lens(NamedTuple):
    """What each layer would say next after each token: ids int32 and probabilities float32, [layer, n, likeliest],
    likeliest first."""

    ids: np.ndarray
    probabilities: np.ndarray


def lens(generator: sample.Generator, ids: Sequence[int], likeliest: int, stride: int) -> Lens:
    """The logit lens of ids, one or more; logits of one layer's part of a window are in memory at a time."""
    hparams = generator.hparams
    shape = [hparams.n_layer, len(ids), likeliest]
    found = Lens(np.zeros(shape, np.int32), np.zeros(shape, np.float32))
    post = look(generator, ids, find(hparams, 'post'), stride)['post']
    for layer in range(hparams.n_layer):
        for first in range(0, len(ids), sample.LOGIT_ROWS):
            part = slice(first, first + sample.LOGIT_ROWS)
            features = model.norm(tf.constant(post[layer, part]), generator.params['model']['ln_f'])
            values, places = tf.math.top_k(tf.nn.softmax(model.logits(generator.params, features)), likeliest)
            found.ids[layer, part], found.probabilities[layer, part] = places.numpy(), values.numpy()
    return found


def windows(n: int, n_ctx: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first new token, end) of windows over n tokens, of n_ctx each, that move by stride."""
    start, new = 0, 0
    while new < n:
        end = min(start + n_ctx, n)
        yield start, new, end
        start, new = start + stride, end


def put(array: np.ndarray, axes: str, values: np.ndarray, tokens: slice, skipped: int) -> None:
    """Write what a window says of its new tokens into an array of the whole text. skipped: tokens that are not new."""
    at = tuple({'n': tokens, 'm': slice(values.shape[-1])}.get(axis, slice(None)) for axis in axes)
    array[at] = values[tuple(slice(skipped, None) if axis == 'n' else slice(None) for axis in axes)]


def look_at_window(generator: sample.Generator, ids: Sequence[int], wanted: set[str]) -> dict[str, np.ndarray]:
    """The values of names for ids, one to n_ctx, each [...] without an axis of a batch."""
    generator.check_usable()
    with interrupts_held_back():
        return {name: value[0].numpy() for name, value in tapped(generator, tf.constant([ids]), wanted).items()}


def tapped(generator: sample.Generator, tokens: tf.Tensor, wanted: set[str]) -> dict[str, tf.Tensor]:
    """The values of names, [batch, ...], for tokens int32 [batch, n]."""
    needed = wanted | {source_of(name) for name in wanted}
    seen: dict[str, tf.Tensor] = {}

    def tap(name: str, value: tf.Tensor) -> tf.Tensor:
        value = generator.tap(name, value)
        if name in needed:
            seen[name] = value
        return value

    model.forward(generator.hparams, generator.params, tokens, tap=tap)
    return {name: seen[name] if name in seen else derived(generator, name, seen) for name in wanted}


def source_of(name: str) -> str:
    """From what the forward function has a name is made, where it does not have the name itself."""
    if name == 'logits':
        return 'ln_f'
    return name.replace(LENS, '.post').replace(HEADS, '.attn.z')


def derived(generator: sample.Generator, name: str, seen: dict[str, tf.Tensor]) -> tf.Tensor:
    """What the forward function does not have by itself: logits, the logit lens (nostalgebraist 2020), which takes what
    leaves a layer for the final features, and what each head adds to the stream."""
    params, value = generator.params, seen[source_of(name)]
    if name == 'logits':
        return model.logits(params, value)
    if name.endswith(LENS):
        return model.logits(params, model.norm(value, params['model']['ln_f']))
    w = params['model'][name.split('.')[0]]['attn']['c_proj']['w']  # [1, e, e]; a head's rows are its own
    w = tf.reshape(w, [generator.hparams.n_head, -1, w.shape[-1]])
    return tf.einsum('bhnd,hde->bhne', value, w)
