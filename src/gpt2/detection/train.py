"""From texts of both sides to a detector that knows how well it does."""

from typing import Any, NamedTuple

import numpy as np

from gpt2.detection.detector import DETECTORS, Detector
from gpt2.detection.features import NAMES, read_features
from gpt2.detection.figures import by_length, figures
from gpt2.detection.fit import fit_calibration, fit_reader, fit_words
from gpt2.detection.texts import SPLITS, Split
from gpt2.encoder import Encoder
from gpt2.engine import Engine


class Examples(NamedTuple):
    """Texts of both sides. labels: int [texts], 1 for a machine. features: float64 [texts, 8], or None where no model
    reads; lengths: int [texts], in tokens."""

    texts: list[str]
    labels: np.ndarray
    features: np.ndarray | None
    lengths: np.ndarray


def make_examples(people: list[str], machines: list[str], engine: Engine | None, encoder: Encoder) -> Examples:
    """engine: None where no model reads."""
    texts, labels = people + machines, np.repeat([0, 1], [len(people), len(machines)])
    if engine is None:
        return Examples(texts, labels, None, np.array([len(encoder.encode(text)) for text in texts]))
    return Examples(texts, labels, *read_features(engine, encoder, texts))


def train(people: Split, machines: Split, engine: Engine | None, encoder: Encoder, kind: str) -> Detector:
    """A detector of a kind: 'words', 'model' or 'both', which is all three. engine: of the model that reads, or None
    for 'words'. Its `about` says how it does on the test. Raises UsageError."""
    taught, valid, test = (make_examples(*sides, engine, encoder) for sides in zip(people, machines))
    words = fit_words(taught.texts, taught.labels, valid.texts, valid.labels) if kind != 'model' else None
    reader = fit_reader(taught.features, taught.labels) if taught.features is not None else None
    detector = Detector(words, reader, {}, {})
    names = DETECTORS if kind == 'both' else [kind]
    calibration = fit_calibration(detector.decisions(valid.texts, valid.features), valid.labels, names)
    detector = Detector(words, reader, calibration, {})
    sizes = {split: [len(human), len(machine)] for split, human, machine in zip(SPLITS, people, machines)}
    detector.about.update(texts=sizes, **judged(detector, test), **nearness(taught))
    return detector


def judged(detector: Detector, test: Examples) -> dict[str, Any]:
    """How a detector does on texts it has not seen."""
    probabilities = detector.probabilities(detector.decisions(test.texts, test.features))
    return {
        'figures': {name: figures(found, test.labels) for name, found in probabilities.items()},
        'by_length': by_length(probabilities, test.labels, test.lengths),
    }


def nearness(examples: Examples) -> dict[str, Any]:
    """The mean curvature of both sides, and whether people's is the higher beyond chance: then what people wrote is
    more the model's own than what the machine did."""
    if examples.features is None:
        return {}
    values = examples.features[:, NAMES.index('curvature')]
    people, machines = values[examples.labels == 0], values[examples.labels == 1]
    error = np.hypot(people.std() / np.sqrt(len(people)), machines.std() / np.sqrt(len(machines)))
    return {
        'curvature': {'people': float(people.mean()), 'machines': float(machines.mean())},
        'looks_exchanged': bool(people.mean() - machines.mean() > 3 * error),
    }
