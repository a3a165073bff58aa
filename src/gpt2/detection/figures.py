"""How well detectors do on texts they have not seen, with 95 % intervals."""

import math
from typing import Any

import numpy as np

Z = 1.959964  # standard deviations, of which 95 % of a normal distribution lie within
LENGTHS = 0, 50, 100, 200, 400, 800  # tokens: where the rows of a table by length begin
BINS = 10  # of probability, in which calibration is looked at


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, right of count, from 0 to 1 (Wilson 1927); of nothing it is all."""
    if not count:
        return 0.0, 1.0
    share, spread = right / count, Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(chosen: np.ndarray) -> dict[str, Any]:
    """Of booleans [n]: how many there are, which share of them is true and its interval."""
    right, count = int(chosen.sum()), len(chosen)
    return {'texts': count, 'share': right / count if count else None, 'interval': wilson(right, count)}


def figures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Of probabilities [texts] that a machine wrote each text, and labels, 1 where one did: what is right at 0.5,
    which people are taken for machines, which machines for people, and by how much the probabilities err."""
    called = probabilities > 0.5
    return {
        'right': share(called == labels),
        'people_taken_for_machines': share(called[labels == 0]),
        'machines_taken_for_people': share(~called[labels == 1]),
        'calibration_error': calibration_error(probabilities, labels),
    }


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """By how much the share of machines differs from what the probabilities say, in BINS of equal width, on average
    over the texts (Naeini et al. 2015)."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, labels - probabilities, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def by_length(probabilities: dict[str, np.ndarray], labels: np.ndarray, lengths: np.ndarray) -> list[dict[str, Any]]:
    """What is right of texts by their lengths in tokens, a row for each of LENGTHS where there are texts.
    probabilities: [texts] by detector."""
    rows, bands = [], np.searchsorted(LENGTHS, lengths, side='right') - 1
    for band, (least, beyond) in enumerate(zip(LENGTHS, [*LENGTHS[1:], None])):
        if (chosen := bands == band).any():
            right = {name: share((found > 0.5)[chosen] == labels[chosen]) for name, found in probabilities.items()}
            rows.append({'tokens': [least, beyond], 'right': right})
    return rows
