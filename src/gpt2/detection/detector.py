"""Detectors: what a text's words say, what a model says of it, and both together, as probabilities; and their file.

The file is one .npz of plain arrays, read without pickle, with what describes them as JSON.
"""

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpt2.detection.features import NAMES
from gpt2.errors import UsageError
from gpt2.system.files import LARGEST_SMALL, check_file, whole_file

FORMAT = 1
LARGEST = 1e100  # in size, of a number in the file
DETECTORS = 'words', 'model', 'both'
# Which of (words, model) each of them weighs.
PARTS = {'words': (0,), 'model': (1,), 'both': (0, 1)}
LONGEST_NGRAM = 2  # words; the release's baseline has single ones and pairs
SHORTEST = 50  # tokens: of less even what is right on average says little
CAVEAT = (
    'No such figure proves who wrote a text. It says whether the text is more like the machine texts or the human '
    'texts that this detector was trained on, if it was as likely one as the other beforehand. Other models, other '
    'settings of sampling, editing, other subjects and short texts mislead it; plain prose, formulas, quotations and '
    'the English of those who learnt it late are taken for a machine. Never act against anybody because of it.'
)


@dataclasses.dataclass(frozen=True)
class Linear:
    """weights [n] and offset, by which n numbers become one: above 0 is for a machine."""

    weights: np.ndarray
    offset: float

    def __call__(self, values: Any) -> np.ndarray:
        """values [texts, n], an array or a sparse one, to [texts]."""
        return np.asarray(values @ self.weights).ravel() + self.offset


@dataclasses.dataclass(frozen=True)
class Words:
    """Logistic regression on TF-IDF of words and pairs of them. terms: in the order of idf and of the weights."""

    terms: list[str]
    idf: np.ndarray
    linear: Linear

    def decisions(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds [texts] that a machine wrote each text, not calibrated."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, LONGEST_NGRAM), vocabulary=self.terms)
        vectorizer.idf_ = self.idf
        return self.linear(vectorizer.transform(texts))


@dataclasses.dataclass(frozen=True)
class Reader:
    """Logistic regression on features.features of what a model says of a text, less their mean and over their scale."""

    mean: np.ndarray
    scale: np.ndarray
    linear: Linear

    def decisions(self, features: np.ndarray) -> np.ndarray:
        """Log-odds [texts] that a machine wrote the texts of features [texts, 8], not calibrated."""
        return self.linear((features - self.mean) / self.scale)


@dataclasses.dataclass(frozen=True)
class Detector:
    """words, reader: what it consists of; one may be None. calibration: by each of DETECTORS that it has, what makes
    the log-odds of its parts those of a probability. about: what it was trained on, with which model, and how well it
    does."""

    words: Words | None
    reader: Reader | None
    calibration: dict[str, Linear]
    about: dict[str, Any]

    def decisions(self, texts: Sequence[str], features: np.ndarray | None) -> np.ndarray:
        """Log-odds [texts, 2] of words and reader; those of a part it lacks are 0."""
        found = np.zeros([len(texts), 2])
        if self.words:
            found[:, 0] = self.words.decisions(texts)
        if self.reader and features is not None:
            found[:, 1] = self.reader.decisions(features)
        return found

    def probabilities(self, decisions: np.ndarray) -> dict[str, np.ndarray]:
        """Of each of DETECTORS that it has, the probability [texts] that a machine wrote each text; decisions: of
        decisions()."""
        return {name: logistic(linear(decisions[:, PARTS[name]])) for name, linear in self.calibration.items()}


def logistic(odds: np.ndarray) -> np.ndarray:
    """Probabilities of log-odds, however far from 0."""
    return np.exp(-np.logaddexp(0, -odds))


def save(path: str, detector: Detector) -> None:
    """Write a detector, whole. Raises WriteError."""
    about = {'format': FORMAT, 'features': NAMES, **detector.about}
    arrays = {'about': as_bytes(json.dumps(about, ensure_ascii=True))}
    for name, linear in detector.calibration.items():
        arrays |= linear_arrays(f'calibration/{name}', linear)
    if detector.words:
        arrays |= {'words/terms': as_bytes('\n'.join(detector.words.terms)), 'words/idf': detector.words.idf}
        arrays |= linear_arrays('words', detector.words.linear)
    if detector.reader:
        arrays |= {'model/mean': detector.reader.mean, 'model/scale': detector.reader.scale}
        arrays |= linear_arrays('model', detector.reader.linear)
    with whole_file(path, 'wb') as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: str) -> Detector:
    """The detector in a file. Raises UsageError for what is none."""
    try:
        check_file(path)
        if not zipfile.is_zipfile(path):  # which NumPy would take for a pickle, and advise to load it as one
            raise ValueError('it is no .npz file')
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST_SMALL:
                raise ValueError(f'it is longer than {LARGEST_SMALL} bytes when it is unpacked')
        with np.load(path, allow_pickle=False) as arrays:
            return from_arrays(arrays)
    except Exception as error:  # zipfile, NumPy and json raise a dozen kinds for what is damaged or made up
        reason = getattr(error, 'strerror', None) or error
        raise UsageError(
            f'{path} holds no detector ({reason}); name a file that detect.py train --save has written'
        ) from None


def from_arrays(arrays: Any) -> Detector:
    """A detector from the arrays of save(), by name. Raises ValueError or KeyError for what they lack."""
    about = json.loads(as_text(arrays['about']))
    if not isinstance(about, dict) or about.get('format') != FORMAT or tuple(about.get('features', ())) != NAMES:
        raise ValueError('it is of another version')
    words = reader = None
    if 'words/idf' in arrays:
        terms, idf = as_text(arrays['words/terms']).split('\n'), arrays['words/idf']
        if len(set(terms)) < len(terms):
            raise ValueError('a term comes twice')
        words = Words(terms, checked(idf, len(terms)), linear_of(arrays, 'words', len(terms)))
    if 'model/mean' in arrays:
        mean, scale = (checked(arrays[f'model/{name}'], len(NAMES)) for name in ('mean', 'scale'))
        if not (scale > 0).all():
            raise ValueError('a scale in it is not above 0')
        reader = Reader(mean, scale, linear_of(arrays, 'model', len(NAMES)))
    there = [name for name in DETECTORS if all((words, reader)[part] for part in PARTS[name])]
    calibration = {name: linear_of(arrays, f'calibration/{name}', len(PARTS[name])) for name in there}
    if not calibration:
        raise ValueError('it is not whole')
    check_about(about, calibration)
    return Detector(words, reader, calibration, about)


def check_about(about: dict[str, Any], names: Iterable[str]) -> None:
    """Raise ValueError, KeyError or TypeError unless what is asked for later is there and of its kind: the model's
    name, precision and identity, and how each of the detectors called names does, by length."""
    if not {'name', 'identity', 'precision'} <= set(about['model']) or 'by_length' not in about:
        raise ValueError('it is not whole')
    if not all(isinstance(about['model'][key], str) for key in ('name', 'precision')):
        raise ValueError('it names no model')
    for row in about['by_length']:
        rights = [row['right'][name] for name in names]
        edges = [*row['tokens'], *(edge for right in rights for edge in (right['texts'], *right['interval']))]
        shares = [right['share'] for right in rights]
        numbers = [number for number in (*edges, *shares) if number is not None]
        if not all(isinstance(number, int | float) for number in numbers) or len(row['tokens']) != 2:
            raise ValueError('how well it does is not told in numbers')


def as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode('utf-8', 'surrogatepass'), np.uint8)


def as_text(array: np.ndarray) -> str:
    return array.astype(np.uint8).tobytes().decode('utf-8', 'surrogatepass')


def linear_arrays(name: str, linear: Linear) -> dict[str, np.ndarray]:
    return {f'{name}/weights': linear.weights, f'{name}/offset': np.array(linear.offset)}


def linear_of(arrays: Any, name: str, count: int) -> Linear:
    return Linear(checked(arrays[f'{name}/weights'], count), float(checked(arrays[f'{name}/offset'])))


def checked(array: np.ndarray, *shape: int) -> np.ndarray:
    """array, if it has the shape and is of numbers whose products are finite. Raises ValueError."""
    if array.shape != shape or array.dtype.kind != 'f' or not (np.abs(array) <= LARGEST).all():
        raise ValueError('an array in it is not what it should be')
    return array
