"""OpenAI's neuron map of 124M and 1558M (Bills et al. 2023): its records, and a model beside them. No TensorFlow."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS, HParams
from gpt2.inspection import records
from gpt2.inspection.records import Explanation, NeuronRecord, Passage
from gpt2.inspection.survey import Read
from gpt2.system.download import download
from gpt2.system.files import LARGEST_SMALL, make_folder

Made = TypeVar('Made')
URL = 'https://openaipublic.blob.core.windows.net/neuron-explainer'
FOLDER = 'neuron-map'  # in which what is fetched is kept, in the current one
MAPS = {RELEASED_HPARAMS['124M']: 'gpt2_small_data', RELEASED_HPARAMS['1558M']: 'data'}


def map_of(hparams: HParams) -> str:
    """The name of the published map of models of a shape. Raises UsageError where there is none."""
    if hparams not in MAPS:
        raise UsageError('the published map is of 124M and 1558M; name one of these, or a model of such a shape')
    return MAPS[hparams]


def fetch(url: str, name: str, layer: int, neuron: int, folder: str) -> tuple[NeuronRecord, list[Explanation]]:
    """The published record and explanations of a neuron, which are kept in a folder. Raises Error."""

    def fetched(kind: str, end: str, read: Callable[[str], Made]) -> Made:
        path = os.path.join(folder, name, kind, str(layer), f'{neuron}.{end}')
        if not os.path.exists(path):
            make_folder(os.path.dirname(path), 'name another --published_dir')
            address = f'{url}/{name}/{kind}/{layer}/{neuron}.{end}'
            download(address, path, check=functools.partial(problem, read), largest=LARGEST_SMALL)
        return read(path)

    def read_asked(path: str) -> NeuronRecord:
        found = records.read_record(path)
        if (found.layer, found.neuron) != (layer, neuron):
            names = f'h{found.layer}.mlp.{found.neuron}, not h{layer}.mlp.{neuron}'
            raise UsageError(f'{path} is of {names}; {records.REMEDY}')
        return found

    record = fetched('collated-activations', 'json', read_asked)
    return record, fetched('explanations', 'jsonl', records.read_explanations)


def problem(read: Callable[[str], Any], path: str) -> str | None:
    """What is wrong with a file, as the reader of such files says, or None."""
    try:
        read(path)
    except UsageError as error:
        return str(error).removeprefix(path).removesuffix(f'; {records.REMEDY}').strip()
    return None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A neuron here, on the passages of a record. ours: the passages with the activations here; passed_over: how many
    are left out, since they hold pieces of characters, whose tokens their texts do not tell. correlation: of all
    activations here with those of the record, nan where one of them never varies. largest_difference: between them."""

    ours: list[tuple[Passage, Passage]]
    passed_over: int

    @property
    def pairs(self) -> np.ndarray:
        """float64 [2, tokens]: all activations of the record, and here."""
        return np.concatenate([[theirs.activations, ours.activations] for theirs, ours in self.ours], axis=1)

    @property
    def correlation(self) -> float:
        return correlation(*self.pairs) if self.ours else math.nan

    @property
    def largest_difference(self) -> float:
        return float(np.abs(np.subtract(*self.pairs)).max()) if self.ours else math.nan


def correlation(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Pearson's, of two rows of numbers; nan where one never varies."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return float(np.corrcoef(x, y)[0, 1])


def compare(read: Read, encoder: Encoder, passages: Iterable[Passage], n_ctx: int) -> Comparison:
    """What a neuron does here on the passages of a record. read: reads that neuron alone. Raises UsageError for a
    passage of more than n_ctx tokens."""
    found, passed_over = [], 0
    for theirs in passages:
        if len(theirs.tokens) > n_ctx:
            raise UsageError(f'a published passage has {len(theirs.tokens)} tokens; this model reads up to {n_ctx}')
        ids = token_ids(encoder, theirs.tokens)
        if ids is None:
            passed_over += 1
            continue
        [reading] = read(np.array([ids], np.int32))
        found.append((theirs, Passage(theirs.tokens, tuple(reading.activations[0, :, 0].tolist()))))
    return Comparison(found, passed_over)


def token_ids(encoder: Encoder, tokens: Sequence[str]) -> list[int] | None:
    """The ids of tokens that are given as texts; None where a text is not that of one token."""
    found = [encoder.encode(token, special=True) for token in tokens]
    return [ids[0] for ids in found] if all(len(ids) == 1 for ids in found) else None
