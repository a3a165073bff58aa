"""A text as a few numbers: what GLTR (Gehrmann et al. 2019), DetectGPT's successors and the release's own study look
at. Imports no TensorFlow."""

from collections.abc import Sequence

import numpy as np

from gpt2.detection.reading import Reading, read_texts
from gpt2.encoder import Encoder
from gpt2.engine import Engine
from gpt2.system import progress

RANK_BOUNDS = 10, 100, 1000  # GLTR, section 3: tokens among the first 10, 100 and 1,000 that the model would say
NAMES = (
    'surprise', 'log rank', 'ranks 1-10', 'ranks 11-100', 'ranks 101-1000', 'entropy', 'spread of surprise', 'curvature'
)  # fmt: skip


def rank_bands(ranks: np.ndarray) -> np.ndarray:
    """Of each rank in which band it is, int [n]: 0 up to the first of RANK_BOUNDS, and so on; 3 beyond the last."""
    return np.searchsorted(RANK_BOUNDS, ranks)


def band_counts(ranks: np.ndarray) -> np.ndarray:
    """How many ranks are in each band, int [4]."""
    return np.bincount(rank_bands(ranks), minlength=len(RANK_BOUNDS) + 1)


def curvature(reading: Reading) -> float:
    """By how many standard deviations a text is likelier than what the model would have said in the same places: 0 is
    what its own samples at temperature 1 have on average, more is less surprising than they.

    Fast-DetectGPT (Bao et al. 2024, equation 5 in its analytic form), with one model for sampling and scoring.
    """
    excess = (reading.log_probabilities + reading.entropies).sum(dtype=float)
    return float(excess / np.sqrt(max(reading.variances.sum(dtype=float), 1e-12)))


def features(reading: Reading) -> np.ndarray:
    """The numbers that a detector judges a text by, float64 [8], called NAMES; of a text without tokens all 0."""
    if not len(reading.ids):
        return np.zeros(len(NAMES))
    surprises = -reading.log_probabilities.astype(float)
    shares = band_counts(reading.ranks) / len(reading.ranks)
    return np.array([
        surprises.mean(), np.log(reading.ranks).mean(), *shares[:-1], reading.entropies.mean(dtype=float),
        surprises.std(), curvature(reading),
    ])  # fmt: skip


def read_features(engine: Engine, encoder: Encoder, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(features [texts, 8], lengths in tokens [texts]) of texts, as a model reads them."""
    readings = progress.bar(read_texts(engine, encoder, texts), 'reading', total=len(texts), unit=' texts')
    found = [(features(reading), len(reading.ids)) for reading in readings]
    return np.array([numbers for numbers, _ in found]), np.array([length for _, length in found])
