"""How much each part of a model adds, directly, to a logit or to the difference of two."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from gpt2 import model, sample
from gpt2.inspection.activations import look_at_window

EPSILON = 1e-5  # of model.norm


@dataclasses.dataclass(frozen=True)
class Contributions:
    """logit: what the model gives, or its difference. parts: by name, what each adds to it; their sum is the logit.

    The stream that the final norm takes is a sum: of the token's and the position's embedding, of what each head, each
    MLP (or each of its neurons) and their biases add. The norm divides by a deviation that is taken as it was, and is
    linear otherwise, so the logit is a sum too (Elhage et al. 2021).
    """

    logit: float
    parts: dict[str, float]


def contributions(
    generator: sample.Generator, ids: Sequence[int], token: int, other: int | None, neurons: bool
) -> Contributions:
    """What makes up the logit of a token, or how much more it has than another one, after ids, one to n_ctx.

    neurons: whether each neuron of an MLP is a part, not the MLP.
    """
    layers = [f'h{layer}' for layer in range(generator.hparams.n_layer)]
    wanted = {'wte', 'wpe', 'ln_f'} | {
        f'{layer}.{name}' for layer in layers for name in ('attn.z', 'mlp.act', 'mlp.out', 'post')
    }
    seen = {name: value[..., -1, :].astype(np.float64)  # of the last token
            for name, value in look_at_window(generator, ids, wanted).items()}  # fmt: skip
    params = model.flatten(generator.params['model'])
    wte, g, b = (params[name].numpy().astype(np.float64) for name in ('wte', 'ln_f/g', 'ln_f/b'))
    towards = wte[token] - (0 if other is None else wte[other])
    reader = (g * towards - (g * towards).mean()) / np.sqrt(seen[f'{layers[-1]}.post'].var() + EPSILON)
    parts = {'wte': seen['wte'] @ reader, 'wpe': seen['wpe'] @ reader}
    for layer in layers:
        block = {name: params[f'{layer}/{name}'].numpy().astype(np.float64) for name in
                 ('attn/c_proj/w', 'attn/c_proj/b', 'mlp/c_proj/w', 'mlp/c_proj/b')}  # fmt: skip
        parts |= dict(of_layer(layer, seen, block, reader, neurons))
    parts['ln_f.b'] = b @ towards
    return Contributions(float(seen['ln_f'] @ towards), {name: float(value) for name, value in parts.items()})


def of_layer(
    layer: str, seen: dict[str, np.ndarray], block: dict[str, np.ndarray], reader: np.ndarray, neurons: bool
) -> Iterator[tuple[str, float]]:
    """The parts of one layer, and how much of each the reader, a direction of the stream, reads."""
    z = seen[f'{layer}.attn.z']  # [heads, features / heads]
    heads = (z * (block['attn/c_proj/w'][0] @ reader).reshape(z.shape)).sum(axis=-1)
    yield from ((f'{layer}.head.{head}', value) for head, value in enumerate(heads))
    yield f'{layer}.attn.b', block['attn/c_proj/b'] @ reader
    if not neurons:
        yield f'{layer}.mlp', seen[f'{layer}.mlp.out'] @ reader
        return
    each = seen[f'{layer}.mlp.act'] * (block['mlp/c_proj/w'][0] @ reader)
    yield from ((f'{layer}.mlp.{neuron}', value) for neuron, value in enumerate(each))
    yield f'{layer}.mlp.b', block['mlp/c_proj/b'] @ reader
