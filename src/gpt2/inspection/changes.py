"""Changes to neurons and heads while a model scores or draws: ablated, set, scaled, or patched from another text.

A change is a part and what becomes of it:

    h5.mlp.131          nothing: 0, as are `h5.mlp.131=zero` and `=0`
    h9.head.6=mean      its mean over the tokens of a reference text
    h5.mlp.131=2.5      a value; of a head, every feature
    h5.mlp.131*0.5      itself times a factor
    h9.head.6=patch     what it is at the same position of the reference text; itself beyond that text's end
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.inspection.names import layer_of

if TYPE_CHECKING:
    from gpt2 import model

LARGEST = 1e12  # that a value is set to or scaled by: the norms square what the stream holds, in float32
TAPPED = {'mlp': 'mlp.act', 'head': 'attn.z'}


class Change(NamedTuple):
    """name: of a neuron or a head; where it is. kind: zero, mean, patch, set or scale, the latter two with a number."""

    name: str
    layer: int
    part: str
    unit: int
    kind: str
    number: float = 0

    @property
    def tapped(self) -> str:
        """The name of the activation that it is within."""
        return f'h{self.layer}.{TAPPED[self.part]}'

    @property
    def asks_for_reference(self) -> bool:
        return self.kind in ('mean', 'patch')


def parse(hparams: HParams, text: str) -> list[Change]:
    """The changes in a text, with commas between them. Raises UsageError."""
    if not isinstance(text, str):
        raise UsageError(f'the changes are {text!r}, expected a text such as h5.mlp.131,h9.head.6')
    changes = [parse_one(hparams, item.strip()) for item in text.split(',')]
    names = [change.name for change in changes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f'{twice[0]} is changed twice; give each part once')
    return changes


def parse_one(hparams: HParams, item: str) -> Change:
    name, sign, how = re.fullmatch(r'([^=*]*)([=*]?)(.*)', item, re.DOTALL).groups()  # type: ignore[union-attr]
    place = layer_of(hparams, name)
    if not sign or (sign == '=' and how in ('zero', 'mean', 'patch')):
        return Change(name, *place, kind=how or 'zero')
    try:
        number = float(how)
        if not abs(number) <= LARGEST:
            raise ValueError
    except ValueError:
        raise UsageError(
            f'{item!r} is no change; expected {name}, {name}=zero, =mean, =patch or =NUMBER, or {name}*NUMBER, '
            f'a NUMBER from -{LARGEST:g} to {LARGEST:g}'
        ) from None
    return Change(name, *place, kind='set' if sign == '=' else 'scale', number=number)


class Table(NamedTuple):
    """A change of one activation by position: it is multiplied by scale and offset is added; position p has row p,
    those beyond the last row have the last. [rows, features] or [rows, heads, features / heads]."""

    scale: np.ndarray
    offset: np.ndarray


def make_tables(
    hparams: HParams, changes: Sequence[Change], reference: Mapping[str, np.ndarray]
) -> dict[str, Table]:
    """Tables by the name of the activation. reference: what those are in the reference text, token first, for the
    changes that ask for it."""
    tables: dict[str, Table] = {}
    for name in dict.fromkeys(change.tapped for change in changes):
        here = [change for change in changes if change.tapped == name]
        patched = any(change.kind == 'patch' for change in here)
        rows = min(len(reference[name]), hparams.n_ctx) + 1 if patched else 1
        shape = [rows, 4 * hparams.n_embd]
        if here[0].part == 'head':
            shape = [rows, hparams.n_head, hparams.n_embd // hparams.n_head]
        tables[name] = Table(np.ones(shape, np.float32), np.zeros(shape, np.float32))
        for change in here:
            enter(tables[name], change, reference.get(name))
    return tables


def enter(table: Table, change: Change, reference: np.ndarray | None) -> None:
    """Write one change into the table of its activation."""
    scale, offset = table.scale[:, change.unit], table.offset[:, change.unit]
    if change.kind == 'scale':
        scale[:] = change.number
    elif not change.asks_for_reference:
        scale[:], offset[:] = 0, change.number
    elif reference is not None:
        theirs = reference[:, change.unit]
        if change.kind == 'mean':
            scale[:], offset[:] = 0, theirs.mean(axis=0)
        else:
            scale[:-1], offset[:-1] = 0, theirs[: len(offset) - 1]


def make_tap(tables: Mapping[str, Table], before: 'model.Tap') -> 'model.Tap':
    """A tap that makes changes, after those of another tap."""
    from gpt2.system.tensorflow import tf

    here = threading.local()  # positions: of the tokens that this thread is tracing or computing

    def at_positions(rows: np.ndarray, value: tf.Tensor) -> tf.Tensor:
        found = tf.gather(tf.constant(rows, value.dtype), tf.minimum(here.positions, len(rows) - 1))
        return tf.transpose(found, [0, 2, 1, 3]) if rows.ndim == 3 else found  # heads before tokens

    def tap(name: str, value: tf.Tensor) -> tf.Tensor:
        value = before(name, value)
        if name == 'positions':
            here.positions = value
        if name in tables:
            scale, offset = (at_positions(rows, value) for rows in tables[name])
            value = value * scale + offset
        return value

    return tap


def reference_names(changes: Sequence[Change]) -> list[str]:
    """The activations of a reference text that changes ask for."""
    return list(dict.fromkeys(change.tapped for change in changes if change.asks_for_reference))


Look = Callable[[Sequence[str]], dict[str, np.ndarray]]


def tap_of_changes(hparams: HParams, changes: Sequence[Change], look: Look, before: 'model.Tap') -> 'model.Tap':
    """The tap that makes changes. look: gives activations of the reference text by their names."""
    names = reference_names(changes)
    found = look(names) if names else {}
    by_token = {name: np.moveaxis(value, 1, 0) if value.ndim == 3 else value for name, value in found.items()}
    return make_tap(make_tables(hparams, changes, by_token), before)
