"""Documents that share n-grams of words with evaluation sets: listed or left out."""

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from gpt2.preparation.blocks import REMEDY
from gpt2.preparation.ngrams import ngram_hashes
from gpt2.system.files import make_folder, whole_file

N = 13  # words (Brown et al. 2020, appendix C)
INDEX = 'against.npy'


def write_index(folder: str, texts: Iterable[str]) -> None:
    """Keep the n-grams of evaluation sets, for the filter."""
    found = [np.unique(ngram_hashes(text, N)) for text in texts]
    make_folder(folder, REMEDY)
    with whole_file(os.path.join(folder, INDEX), 'wb', REMEDY) as file:
        np.save(file, np.unique(np.concatenate([np.empty(0, np.uint64), *found])))


def count_in(index: np.ndarray, numbers: np.ndarray) -> int:
    """How many of some numbers are in an index, which is sorted."""
    places = np.searchsorted(index, numbers)
    inside = places < len(index)
    return int((index[places[inside]] == numbers[inside]).sum())


class Contaminated(BaseFilter):
    """Lists documents that share an n-gram with the index in a folder, a JSON line each, in a file a task; and leaves
    them out, if drop says so."""

    name = 'contamination'

    def __init__(self, folder: str, drop: bool) -> None:
        super().__init__()
        self.folder, self.drop = folder, drop

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        self.index = np.load(os.path.join(self.folder, INDEX))
        listed = os.path.join(self.folder, 'listed')
        make_folder(listed, REMEDY)
        with whole_file(os.path.join(listed, f'{rank:05d}.jsonl'), remedy=REMEDY) as self.file:
            yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        numbers = ngram_hashes(doc.text, N)
        if not (shared := count_in(self.index, numbers)):
            return True
        self.stat_update('listed')
        self.file.write(json.dumps({'id': doc.id, 'shared': shared, 'n_grams': len(numbers)}) + '\n')
        return not self.drop or (False, 'shares 13-grams with an evaluation set')
