"""Training detectors: the release's baseline on words, one on what a model says, and their calibration. Needs
scikit-learn."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from gpt2.detection.detector import DETECTORS, LONGEST_NGRAM, PARTS, Linear, Reader, Words
from gpt2.errors import UsageError
from gpt2.system import progress

# As in the release's baseline.py: the terms that five texts have, at most two million of them, and the strength of
# regularisation that does best on the validation.
FEWEST_TEXTS = 5
MOST_TERMS = 2**21
STRENGTHS = tuple(2.0**power for power in range(-6, 7))


def fit_words(texts: Sequence[str], labels: np.ndarray, valid_texts: Sequence[str], valid_labels: np.ndarray) -> Words:
    """The release's baseline. labels: int [texts], 1 for a machine. Raises UsageError where no word is in enough
    texts."""
    vectorizer = TfidfVectorizer(ngram_range=(1, LONGEST_NGRAM), min_df=FEWEST_TEXTS, max_features=MOST_TERMS)
    try:
        features = vectorizer.fit_transform(progress.bar(texts, 'counting words', unit=' texts'))
    except ValueError:
        raise UsageError(f'no word is in {FEWEST_TEXTS} of the {len(texts)} texts; give more texts') from None
    valid = vectorizer.transform(valid_texts)
    strengths = progress.bar(STRENGTHS, 'weighing words', unit=' fits')
    found = [regression(features, labels, C=strength, solver='liblinear') for strength in strengths]
    best = max(found, key=lambda linear: share_right(linear(valid), valid_labels))
    return Words(list(vectorizer.get_feature_names_out()), vectorizer.idf_, best)


def fit_reader(features: np.ndarray, labels: np.ndarray) -> Reader:
    """A detector from features [texts, 8] as features.features has them."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale == 0] = 1  # what never varies tells nothing
    return Reader(mean, scale, regression((features - mean) / scale, labels))


def fit_calibration(decisions: np.ndarray, labels: np.ndarray, names: Iterable[str]) -> dict[str, Linear]:
    """What makes decisions [texts, 2] of words and reader, on texts that neither was trained on, log-odds of
    probabilities (Platt 1999): of each of names."""
    found = {}
    for name in (name for name in DETECTORS if name in set(names)):
        chosen = decisions[:, PARTS[name]]
        scale = np.maximum(chosen.std(axis=0), 1e-12)
        linear = regression(chosen / scale, labels)
        found[name] = Linear(linear.weights / scale, linear.offset)
    return found


def regression(values: Any, labels: np.ndarray, **settings: Any) -> Linear:
    """Logistic regression in which both sides weigh alike, however many their texts. settings: scikit-learn's."""
    model = LogisticRegression(class_weight='balanced', random_state=0, **settings).fit(values, labels)
    return Linear(model.coef_[0], float(model.intercept_[0]))


def share_right(decisions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean((decisions > 0) == labels))
