"""GPT-2 as a pure function of its parameters (Radford et al. 2019, sections 2.2 and 2.3).

Parameters are a nested dict of tf.Variable; the path to each is its name in the checkpoint, so
`params['model']['h0']['attn']['c_attn']['w']` is the variable `model/h0/attn/c_attn/w`.

Shapes are written [batch, sequence, features]; n is the number of new positions, m the number of
positions attended to.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt2.hparams import HParams, variable_shapes
from gpt2.system.tensorflow import tf

Params = dict[str, Any]  # from the parts of names to such a dict or to a tensor
Cache = list[dict[str, tf.Tensor]]  # see new_cache
Tap = Callable[[str, tf.Tensor], tf.Tensor]  # see forward


def untapped(name: str, value: tf.Tensor) -> tf.Tensor:
    """The tap that leaves everything as it is."""
    return value


class Dropout(NamedTuple):
    """rate: the probability that a feature becomes 0, the others then being larger by as much. seed: int32 [2], to
    which the place of the features in the model is added, so the same are dropped whenever they are computed."""

    rate: float
    seed: tf.Tensor


def dropped(x: tf.Tensor, dropout: Dropout | None, place: int) -> tf.Tensor:
    if dropout is None:
        return x
    seed = tf.random.experimental.stateless_fold_in(dropout.seed, place)
    return tf.nn.experimental.stateless_dropout(x, dropout.rate, seed)


def nest(values: Mapping[str, Any]) -> Params:
    """Turn {'model/h0/ln_1/g': value} into {'model': {'h0': {'ln_1': {'g': value}}}}."""
    tree: Params = {}
    for name, value in values.items():
        *path, leaf = name.split('/')
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = value
    return tree


def flatten(tree: Params, prefix: str = '') -> dict[str, Any]:
    """The inverse of nest: a dict from checkpoint name to value."""
    values = {}
    for key, value in tree.items():
        name = prefix + key
        values.update(flatten(value, name + '/') if isinstance(value, dict) else {name: value})
    return values


def initial_params(hparams: HParams, seed: int) -> Params:
    """Fresh parameters: wte and every w N(0, 0.02), wpe N(0, 0.01), g = 1, b = 0."""

    def initial_value(index: int, name: str, shape: list[int]) -> tf.Tensor:
        kind = name.rsplit('/', 1)[-1]
        if kind in ('g', 'b'):
            return tf.fill(shape, 1.0 if kind == 'g' else 0.0)
        stddev = 0.01 if kind == 'wpe' else 0.02
        return tf.random.stateless_normal(shape, seed=[seed, index], stddev=stddev)

    shapes = variable_shapes(hparams)
    return nest({
        name: tf.Variable(initial_value(index, name, shape), name=name)
        for index, (name, shape) in enumerate(shapes.items())
    })


def norm(x: tf.Tensor, p: Params) -> tf.Tensor:
    """Layer normalisation over features, in float32: epsilon 1e-5, biased variance."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + 1e-5) * p['g'] + p['b']


def length(x: tf.Tensor) -> int | tf.Tensor:
    """Of axis 1: an int where the trace knows it, which saves a token some hundred operations."""
    return tf.shape(x)[1] if x.shape[1] is None else x.shape[1]


def linear(x: tf.Tensor, p: Params) -> tf.Tensor:
    """Affine map [batch, n, inputs] -> [batch, n, outputs], in x's dtype; w is stored as [1, inputs, outputs]."""
    inputs, outputs = p['w'].shape[1:]
    flat = tf.reshape(x, [-1, inputs])  # one matrix product for the batch, not one a row
    product = tf.matmul(flat, tf.cast(tf.reshape(p['w'], [inputs, outputs]), x.dtype))
    if adapter := p.get('lora'):  # see training/lora.py
        a, b = (tf.cast(adapter[part], x.dtype) for part in 'ab')
        product += adapter['scale'] * tf.matmul(tf.matmul(flat, a), b)
    # The reshape between product and bias keeps oneDNN from fusing the two, which is slower for one token.
    return tf.reshape(product, [-1, length(x), outputs]) + tf.cast(p['b'], x.dtype)


def split_heads(x: tf.Tensor, n_head: int) -> tf.Tensor:
    """[batch, n, features] -> [batch, heads, n, features / heads]"""
    return tf.transpose(tf.reshape(x, [-1, length(x), n_head, x.shape[-1] // n_head]), [0, 2, 1, 3])


def merge_heads(x: tf.Tensor) -> tf.Tensor:
    """[batch, heads, n, features / heads] -> [batch, n, features]"""
    x = tf.transpose(x, [0, 2, 1, 3])
    return tf.reshape(x, [-1, length(x), x.shape[2] * x.shape[3]])


def small_products(x: tf.Tensor, y: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """tf.matmul of stacks of small matrices, by the operation that oneDNN does not replace: its own
    takes 40 microseconds longer a call, which is much for a token and nothing for a batch of text."""
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=transpose_b)


def small_softmax(x: tf.Tensor) -> tf.Tensor:
    """tf.nn.softmax for few numbers: by hand, for the same reason."""
    e = tf.exp(x - tf.reduce_max(x, axis=-1, keepdims=True))
    return e / tf.reduce_sum(e, axis=-1, keepdims=True)


def new_cache(hparams: HParams, batch: int, capacity: int) -> Cache:
    """An empty key/value cache with room for [batch, capacity]: one {'k': tensor, 'v': tensor} a layer.

    Each tensor is float32 [batch * heads * capacity, features / heads]: the positions of one head
    of one sample lie together, so attention reads them without a copy, and a new position is a few
    whole rows, which forward() overwrites where they are. So a cache belongs to one caller.
    """
    shape = [batch * hparams.n_head * capacity, hparams.n_embd // hparams.n_head]
    # Zeros of its own for each: a shared buffer would be written by all.
    return [{'k': tf.zeros(shape), 'v': tf.zeros(shape)} for _ in range(hparams.n_layer)]


def cache_capacity(hparams: HParams, cache: Cache, batch: int | tf.Tensor) -> tf.Tensor:
    return tf.shape(cache[0]['k'])[0] // (batch * hparams.n_head)


def resized_cache(
    hparams: HParams, cache: Cache, capacity: int, rows: Sequence[int] | np.ndarray, new_capacity: int
) -> Cache:
    """A cache of [len(rows), new_capacity] that holds what those rows of one of any batch and of capacity hold.

    rows: int32 [new batch], each a row of the old cache; one may come several times. What lies beyond
    new_capacity is lost.
    """
    features = hparams.n_embd // hparams.n_head

    def resized(x: tf.Tensor) -> tf.Tensor:
        kept = tf.gather(tf.reshape(x, [-1, hparams.n_head, capacity, features])[:, :, :new_capacity], rows)
        kept = tf.pad(kept, [[0, 0], [0, 0], [0, max(new_capacity - capacity, 0)], [0, 0]])
        return tf.reshape(kept, [-1, features])

    return [{kind: resized(x) for kind, x in layer.items()} for layer in cache]


def cache_places(
    hparams: HParams, positions: tf.Tensor, capacity: tf.Tensor, batch: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where new positions, int32 [batch or 1, n], go in every tensor of a cache: (rows, shape).

    rows: int32 [batch * heads * n], those that the positions take; shape: of the whole tensor as
    [batch, heads, capacity, features / heads].
    """
    heads = tf.reshape(tf.range(batch * hparams.n_head), [batch, hparams.n_head, 1])
    rows = heads * capacity + positions[:, tf.newaxis]  # -> [batch, heads, n]
    shape = tf.stack([batch, hparams.n_head, capacity, hparams.n_embd // hparams.n_head])
    return tf.reshape(rows, [-1]), shape


def write_cache(cached: tf.Tensor, x: tf.Tensor, places: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Overwrite rows of a cache's tensor in place with x, [batch, heads, n, features]; returns all of it.

    A tf.Variable's own sliced assignment would make every later read of it copy the whole cache.
    """
    rows, shape = places
    values = tf.reshape(x, [-1, x.shape[3]])
    return tf.reshape(tf.raw_ops.InplaceUpdate(x=cached, i=rows, v=values), shape)


def attention_mask(positions: tf.Tensor, m: int | tf.Tensor) -> tf.Tensor:
    """[batch or 1, 1, n, m]: 0 where the query at one of positions, int32 [batch or 1, n], may see the key at
    column, -1e10 elsewhere."""
    return tf.where(tf.range(m) <= positions[:, tf.newaxis, :, tf.newaxis], 0.0, -1e10)


def attend(
    q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, mask: tf.Tensor, dropout: Dropout | None = None, place: int = 0,
    tap: Tap = untapped, matmul: Callable = tf.matmul, softmax: Callable = tf.nn.softmax,
) -> tf.Tensor:  # fmt: skip
    """What queries [batch, heads, n, features], which are scaled, take from keys and values [batch, heads, m,
    features]."""
    scores = tf.cast(matmul(q, k, transpose_b=True), tf.float32)  # -> [batch, heads, n, m]
    weights = dropped(tap('attn.pattern', tf.cast(softmax(scores + mask), v.dtype)), dropout, place)
    return matmul(weights, v)


def gelu(x: tf.Tensor) -> tf.Tensor:
    """In its tanh form (Hendrycks & Gimpel 2016, section 2)."""
    return tf.nn.gelu(x, approximate=True)


class Parts(NamedTuple):
    """What layers are made of; training has others, with gradients of their own (training/gradients.py). around: what
    is made of a layer's function, [batch, n, n_embd] -> the same."""

    norm: Callable[[tf.Tensor, Params], tf.Tensor] = norm
    gelu: Callable[[tf.Tensor], tf.Tensor] = gelu
    attend: Callable[..., tf.Tensor] = attend
    around: Callable[[Callable], Callable] = lambda layer: layer


PLAIN = Parts()


def attention(
    x: tf.Tensor, p: Params, n_head: int, mask: tf.Tensor, cache: dict[str, tf.Tensor] | None,
    places: tuple[tf.Tensor, tf.Tensor] | None, dropout: Dropout | None, place: int, parts: Parts, tap: Tap,
) -> tf.Tensor:  # fmt: skip
    thirds = zip('qkv', tf.split(linear(x, p['c_attn']), 3, axis=-1))
    q, k, v = (tap(f'attn.{name}', split_heads(third, n_head)) for name, third in thirds)
    q /= math.sqrt(q.shape[-1])
    if cache is not None and places is not None:
        k, v = write_cache(cache['k'], k, places), write_cache(cache['v'], v, places)
        attended = attend(q, k, v, mask, tap=tap, matmul=small_products, softmax=small_softmax)
    else:
        attended = parts.attend(q, k, v, mask, dropout, place, tap)
    return tap('attn.out', linear(merge_heads(tap('attn.z', attended)), p['c_proj']))


def mlp(x: tf.Tensor, p: Params, parts: Parts = PLAIN, tap: Tap = untapped) -> tf.Tensor:
    act = tap('mlp.act', parts.gelu(tap('mlp.pre', linear(x, p['c_fc']))))
    return tap('mlp.out', linear(act, p['c_proj']))


def within(tap: Tap, prefix: str) -> Tap:
    """A tap that puts a prefix before every name."""
    return lambda name, value: tap(prefix + name, value)


def layer(
    x: tf.Tensor, p: Params, n_head: int, mask: tf.Tensor, cache: dict[str, tf.Tensor] | None,
    places: tuple[tf.Tensor, tf.Tensor] | None, dropout: Dropout | None, place: int, dtype: tf.DType,
    parts: Parts = PLAIN, tap: Tap = untapped,
) -> tf.Tensor:  # fmt: skip
    """One layer: features float32 [batch, n, n_embd] -> the same, its products computed in dtype. place: the first of
    its three for dropout. tap: as forward() has it, by names within the layer."""
    x = tap('pre', x)
    normed = tf.cast(tap('ln_1', parts.norm(x, p['ln_1'])), dtype)
    attended = attention(normed, p['attn'], n_head, mask, cache, places, dropout, place, parts, tap)
    x = tap('mid', x + tf.cast(dropped(attended, dropout, place + 1), tf.float32))
    added = mlp(tf.cast(tap('ln_2', parts.norm(x, p['ln_2'])), dtype), p['mlp'], parts, tap)
    return tap('post', x + tf.cast(dropped(added, dropout, place + 2), tf.float32))


def forward(
    hparams: HParams, params: Params, tokens: tf.Tensor, cache: Cache | None = None, position: int | tf.Tensor = 0,
    starts: tf.Tensor | None = None, dropout: Dropout | None = None, dtype: tf.DType = tf.float32,
    parts: Parts = PLAIN, tap: Tap = untapped,
) -> tf.Tensor:  # fmt: skip
    """Final features float32 [batch, n, n_embd] of tokens int32 [batch, n].

    With a cache, the tokens stand at `position` and after, an int32 scalar or [batch]; earlier
    positions are read from the cache, in which these are written. It must have room for position + n.
    starts: int32 [batch, n], where in its row the document of each token begins: the token sees nothing before
    and its position counts from there. None is one document a row; with a cache it must be.
    dropout: of embeddings, attention and what each layer adds, or None. dtype: of the products of matrices; all else
    that adds up numbers is in float32. parts: what layers are made of.
    tap: called with the name and the value of everything on the way, and what it returns goes on in its place; so it
    sees all and may change all, and one that changes nothing adds nothing to a graph. In this order, shapes being
    [batch, n, n_embd] unless given: positions (int32 [batch or 1, n]), wte, wpe; of each layer h0.pre (the stream as it
    enters), h0.ln_1, h0.attn.q, .k, .v ([batch, heads, n, features / heads]), .pattern ([batch, heads, n, m]), .z (as
    q: what each head gathers), .out, h0.mid (the stream between the two parts), h0.ln_2, h0.mlp.pre and .act (before
    and after gelu, [batch, n, 4 n_embd]), h0.mlp.out, h0.post (the stream as it leaves); then ln_f.
    """
    p = params['model']
    batch, n = tf.shape(tokens)[0], tf.shape(tokens)[1]
    positions = tf.reshape(position, [-1, 1]) + tf.range(n)  # -> [batch or 1, n]
    m = n if cache is None else cache_capacity(hparams, cache, batch)
    mask = attention_mask(positions, m)
    if starts is not None:
        mask = tf.where(tf.range(m) >= starts[:, tf.newaxis, :, tf.newaxis], mask, -1e10)
        positions -= starts
    positions = tap('positions', positions)
    x = tap('wte', tf.gather(p['wte'], tokens)) + tap('wpe', tf.gather(p['wpe'], positions))
    x = dropped(x, dropout, 0)
    # Once for all layers: so many small operations would cost a token a millisecond in each.
    places = None if cache is None else cache_places(hparams, positions, m, batch)
    for index in range(hparams.n_layer):
        block = functools.partial(
            layer, p=p[f'h{index}'], n_head=hparams.n_head, mask=mask, cache=None if cache is None else cache[index],
            places=places, dropout=dropout, place=1 + 3 * index, dtype=dtype, parts=parts,
            tap=within(tap, f'h{index}.'),
        )  # fmt: skip
        x = parts.around(block)(x)
    return tap('ln_f', parts.norm(x, p['ln_f']))


def logits(params: Params, features: tf.Tensor) -> tf.Tensor:
    """Logits float32 [..., n_vocab] of final features [..., n_embd], in whose dtype they are computed."""
    wte = params['model']['wte']
    flat = tf.matmul(tf.reshape(features, [-1, wte.shape[1]]), tf.cast(wte, features.dtype), transpose_b=True)
    flat = tf.cast(flat, tf.float32)
    return tf.reshape(flat, tf.concat([tf.shape(features)[:-1], [wte.shape[0]]], axis=0))


def loss(hparams: HParams, params: Params, tokens: tf.Tensor) -> tf.Tensor:
    """Mean next-token loss in nats, a scalar, of tokens int32 [batch, n]; n is at least 2."""
    predicted = logits(params, forward(hparams, params, tokens[:, :-1]))
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, 1:], logits=predicted))
