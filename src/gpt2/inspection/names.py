"""What can be seen inside a model, by name, and the parts of it that can be changed. Imports no TensorFlow.

Names are the checkpoint's: `h5.mlp.act` is what leaves the gelu of layer 5. Without its layer, `mlp.act`, it is that of
every layer, along a first axis.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from gpt2.errors import UsageError
from gpt2.hparams import HParams

# Axes: n tokens, m tokens that are attended to, e n_embd, f 4 n_embd, h heads, d n_embd / heads, v n_vocab.
OF_A_LAYER = {
    'pre': 'ne', 'ln_1': 'ne', 'attn.q': 'hnd', 'attn.k': 'hnd', 'attn.v': 'hnd', 'attn.pattern': 'hnm',
    'attn.z': 'hnd', 'attn.heads': 'hne', 'attn.out': 'ne', 'mid': 'ne', 'ln_2': 'ne', 'mlp.pre': 'nf',
    'mlp.act': 'nf', 'mlp.out': 'ne', 'post': 'ne', 'lens': 'nv',
}  # fmt: skip
OF_ALL = {'wte': 'ne', 'wpe': 'ne', 'ln_f': 'ne', 'logits': 'nv'}
NUMBER = '0|[1-9][0-9]{0,8}'  # of a layer or a neuron, in the one way that the checkpoint writes it


@dataclasses.dataclass(frozen=True)
class Seen:
    """Something that is to be seen. name: as it was asked for. parts: the names that make it up, one a layer where it
    is of all layers (stacked). axes: of one part, a letter each."""

    name: str
    parts: tuple[str, ...]
    axes: str
    stacked: bool

    @property
    def token_axis(self) -> int:
        """Which of its axes is that of the tokens."""
        return self.axes.index('n') + self.stacked

    def shape(self, hparams: HParams, n: int) -> list[int]:
        """Its shape for n tokens."""
        sizes = {
            'n': n, 'm': min(n, hparams.n_ctx), 'e': hparams.n_embd, 'f': 4 * hparams.n_embd, 'h': hparams.n_head,
            'd': hparams.n_embd // hparams.n_head, 'v': hparams.n_vocab,
        }  # fmt: skip
        return [len(self.parts)] * self.stacked + [sizes[axis] for axis in self.axes]


def find(hparams: HParams, names: str | Sequence[str]) -> list[Seen]:
    """What names mean: a list, or a text with commas between them. Raises UsageError for what is not there."""
    given = names.split(',') if isinstance(names, str) else names
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise UsageError(f'the names are {names!r}, expected a text or a list of texts')
    # A name that is given twice is seen once.
    found = [find_one(hparams, name) for name in dict.fromkeys(name.strip() for name in given) if name]
    if not found:
        raise UsageError('nothing is named; give names such as h0.mlp.act or attn.pattern')
    return found


def find_one(hparams: HParams, name: str) -> Seen:
    if name in OF_ALL:
        return Seen(name, (name,), OF_ALL[name], False)
    if name in OF_A_LAYER:
        return Seen(name, tuple(f'h{layer}.{name}' for layer in range(hparams.n_layer)), OF_A_LAYER[name], True)
    layer = re.fullmatch(rf'h({NUMBER})\.(.+)', name)
    if not layer or layer[2] not in OF_A_LAYER:
        raise UsageError(f'{name!r} names nothing inside; there are {", ".join([*OF_ALL, *OF_A_LAYER])}')
    check_index('layer', name, int(layer[1]), hparams.n_layer)
    return Seen(name, (name,), OF_A_LAYER[layer[2]], False)


def check_index(what: str, name: str, index: Any, count: int) -> None:
    """Raise UsageError for an index, a whole number, of which there are fewer. name: where it was given."""
    if not 0 <= index < count:
        raise UsageError(f'{name} names {what} {index}; this model has {what}s 0 to {count - 1}')


def layer_of(hparams: HParams, name: str) -> tuple[int, str, int]:
    """(layer, 'mlp' or 'head', index) of a neuron or a head such as h5.mlp.131 or h9.head.6. Raises UsageError."""
    found = re.fullmatch(rf'h({NUMBER})\.(mlp|head)\.({NUMBER})', str(name))
    if not found:
        raise UsageError(f'{name!r} is neither a neuron, as h5.mlp.131 is, nor a head, as h9.head.6')
    layer, kind, index = int(found[1]), found[2], int(found[3])
    check_index('layer', name, layer, hparams.n_layer)
    what, count = ('neuron', 4 * hparams.n_embd) if kind == 'mlp' else ('head', hparams.n_head)
    check_index(what, name, index, count)
    return layer, kind, index
