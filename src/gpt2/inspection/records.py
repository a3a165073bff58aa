"""Records of neurons as OpenAI's neuron map publishes them (Bills et al. 2023): read and written. No TensorFlow.

A file is one object; each object in it names its kind in `dataclass_name`. A kurtosis is the fourth standardised
moment: 3 for a normal distribution.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gpt2.errors import UsageError
from gpt2.system.files import make_folder, read_small, whole_file

LARGEST = 3.4028235e38  # that float32 holds
REMEDY = 'remove it, and get it again'
Made = TypeVar('Made')


@dataclasses.dataclass(frozen=True)
class Passage:
    """tokens, as texts, and what a neuron's activation is at each."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class NeuronRecord:
    """What a neuron does over a corpus, under the published names. top: most_positive_activation_records. by_quantile:
    random passages within quantiles of the passages' largest activations, at whose ends quantile_boundaries lie."""

    layer: int
    neuron: int
    top: tuple[Passage, ...]
    random_sample: tuple[Passage, ...] = ()
    by_quantile: tuple[tuple[Passage, ...], ...] = ()
    quantile_boundaries: tuple[float, ...] = ()
    mean: float = math.nan
    variance: float = math.nan
    skewness: float = math.nan
    kurtosis: float = math.nan

    @property
    def passages(self) -> list[Passage]:
        """All that it holds."""
        return [*self.top, *self.random_sample, *(each for part in self.by_quantile for each in part)]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What somebody says that a neuron does. score: the correlation of what is simulated from it with what the neuron
    did (ev_correlation_score), nan where there is none."""

    text: str
    score: float


def as_json(record: NeuronRecord) -> dict[str, Any]:
    """The published form of a record."""

    def shown(passages: Sequence[Passage]) -> list[dict[str, Any]]:
        return [
            {'dataclass_name': 'ActivationRecord', 'tokens': list(each.tokens),
             'activations': [float(f'{value:.6g}') for value in each.activations]}
            for each in passages
        ]  # fmt: skip

    moments = {name: getattr(record, name) for name in ('mean', 'variance', 'skewness', 'kurtosis')}
    return {
        'dataclass_name': 'NeuronRecord',
        'neuron_id': {'dataclass_name': 'NeuronId', 'layer_index': record.layer, 'neuron_index': record.neuron},
        'random_sample': shown(record.random_sample),
        'random_sample_by_quantile': [shown(part) for part in record.by_quantile],
        'quantile_boundaries': list(record.quantile_boundaries),
        **{name: value if math.isfinite(value) else None for name, value in moments.items()},
        'most_positive_activation_records': shown(record.top),
    }


def from_json(value: Any) -> NeuronRecord:
    """A record of its published form. Raises KeyError, TypeError or ValueError for what is none."""

    def passages(found: Any) -> tuple[Passage, ...]:
        return tuple(passage(each) for each in found or ())

    return NeuronRecord(
        layer=int(value['neuron_id']['layer_index']),
        neuron=int(value['neuron_id']['neuron_index']),
        top=passages(value['most_positive_activation_records']),
        random_sample=passages(value.get('random_sample')),
        by_quantile=tuple(passages(part) for part in value.get('random_sample_by_quantile') or ()),
        quantile_boundaries=tuple(map(float, value.get('quantile_boundaries') or ())),
        **{name: number(value.get(name)) for name in ('mean', 'variance', 'skewness', 'kurtosis')},
    )


def passage(value: Any) -> Passage:
    if not isinstance(value['tokens'], list) or not isinstance(value['activations'], list):
        raise ValueError('tokens and activations are no lists')
    tokens, activations = tuple(value['tokens']), tuple(map(float, value['activations']))
    if len(tokens) != len(activations) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f'{len(tokens)} tokens and {len(activations)} activations')
    if not all(abs(value) <= LARGEST for value in activations):
        raise ValueError('an activation is no finite number of float32')
    return Passage(tokens, activations)


def number(value: Any) -> float:
    return math.nan if value is None else float(value)


def explanations_from_json(value: Any) -> list[Explanation]:
    """Explanations of their published form; errors as from_json."""
    return [
        Explanation(str(each['explanation']).strip(), number(each['scored_simulation']['ev_correlation_score']))
        for each in value['scored_explanations']
    ]


def read(path: str, make: Callable[[str], Made]) -> Made:
    """What make makes of the text of a file. Raises UsageError for a file that is no record."""
    try:
        return make(read_small(path).decode())
    except OSError as error:
        raise UsageError(f'{path} cannot be read: {error.strerror or error}') from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        why = f'it lacks {error}' if isinstance(error, KeyError) else str(error) or 'it has another form'
        raise UsageError(f'{path} is no record of a neuron ({why}); {REMEDY}') from None


def read_record(path: str) -> NeuronRecord:
    return read(path, lambda text: from_json(json.loads(text)))


def read_explanations(path: str) -> list[Explanation]:
    """Those of the first line of a file, which is all that a published one has."""
    return read(path, lambda text: explanations_from_json(json.loads(text.split('\n')[0])))


def write_record(folder: str, record: NeuronRecord) -> str:
    """Write a record as the published ones lie, folder/layer/neuron.json; returns the path. Raises WriteError."""
    where = os.path.join(folder, str(record.layer))
    make_folder(where, 'name another folder')
    path = os.path.join(where, f'{record.neuron}.json')
    with whole_file(path) as file:
        json.dump(as_json(record), file)
    return path
