"""A neuron's connections, by weights alone, as OpenAI's neuron map defines them (Bills et al. 2023). No TensorFlow.

From neuron (l1, n1) to (l2, n2) of a later layer: c_proj.w[n1] · diag(ln_2.g of l2) · c_fc.w[:, n2]. From a token:
wte[t] · diag(ln_2.g) · c_fc.w[:, n]. To a token: c_proj.w[n] · diag(ln_f.g) · wte[t].
"""

import dataclasses

import numpy as np

from gpt2.checkpoints.source import Source


@dataclasses.dataclass(frozen=True)
class Connections:
    """Strengths, float32. tokens_in, tokens_out: [n_vocab]. neurons_in: [layer, 4 n_embd], from each neuron of the
    layers before. neurons_out: [n_layer - layer - 1, 4 n_embd], to each of those after, the next layer first."""

    tokens_in: np.ndarray
    tokens_out: np.ndarray
    neurons_in: np.ndarray
    neurons_out: np.ndarray


def connections(source: Source, layer: int, neuron: int) -> Connections:
    """The connections of a neuron that is there."""
    wte, width = source.value('model/wte'), 4 * source.hparams.n_embd
    reads = source.value(f'model/h{layer}/mlp/c_fc/w')[0, :, neuron] * source.value(f'model/h{layer}/ln_2/g')
    writes = source.value(f'model/h{layer}/mlp/c_proj/w')[0, neuron]
    before = [source.value(f'model/h{other}/mlp/c_proj/w')[0] @ reads for other in range(layer)]
    after = [
        (writes * source.value(f'model/h{other}/ln_2/g')) @ source.value(f'model/h{other}/mlp/c_fc/w')[0]
        for other in range(layer + 1, source.hparams.n_layer)
    ]
    return Connections(
        wte @ reads, wte @ (writes * source.value('model/ln_f/g')),
        np.array(before, np.float32).reshape(-1, width), np.array(after, np.float32).reshape(-1, width),
    )  # fmt: skip


def strongest(strengths: np.ndarray, count: int, sign: int = 1) -> list[tuple[tuple[int, ...], float]]:
    """The `count` most positive of an array of strengths, or with sign -1 most negative: (place, strength), strongest
    first."""
    order = np.argsort(-sign * strengths, axis=None, kind='stable')[:count]
    places = zip(*(axis.tolist() for axis in np.unravel_index(order, strengths.shape)))
    return list(zip(places, strengths.ravel()[order].tolist()))
