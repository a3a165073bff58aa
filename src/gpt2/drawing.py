"""Drawing a token from logits, in NumPy, one row at a time: the same rules as in sample.py, and those that the
release lacks. Knows nothing of text, and nothing of TensorFlow."""

import math

import numpy as np

SUM_BLOCK = 256  # numbers summed at once
COLUMN = 64  # logits of which only the largest is looked at first
LOWEST = np.finfo(np.float32).min
HALVINGS = 10  # of the distances among which the last typical token is sought
CERTAINLY = 0.9999  # of a sum, so that it is less in whatever order its numbers are added
NO_TOKEN = -1  # what is drawn where every token is excluded


def top_k_edge(logits: np.ndarray, k: int) -> np.floating:
    """The smallest of logits, float32 [n], that top_k keeps, the k-th largest; k from 1 to n."""
    return np.partition(logits, -k)[-k]


def surely_in_top_k(logits: np.ndarray, k: int, best: np.floating) -> np.ndarray | None:
    """Places of all of logits, float32 [n], whose quotients by any temperature top_k may keep, and some more, in
    order; None where they are too many to save anything. best: the largest of them."""
    columns = len(logits) // COLUMN
    if columns < 4 * k:
        return None
    largest = logits[: columns * COLUMN].reshape(COLUMN, columns).max(axis=0)
    edge = np.partition(largest, -k)[-k]  # k columns hold one that is as large
    if edge == -math.inf:
        return None
    places = np.flatnonzero(logits >= edge - np.float32(1e-5) * (best - edge))  # by as much as quotients are rounded
    return places if 2 * len(places) < len(logits) else None


def top_p_edge(ascending: np.ndarray, p: float, inclusive: bool = False) -> np.floating:
    """The smallest of logits, float32 [n], sorted, that the release's nucleus keeps (see sample.top_p_logits);
    inclusive: that the paper's keeps, the smallest one that holds p."""
    weights = np.exp(ascending)
    limit = p * weights.sum()
    below = np.less if inclusive else np.less_equal
    # Sums of blocks from the largest down, then those inside the block where they cross the limit:
    # a running sum over the whole vocabulary would take as long as sorting it.
    end = len(weights)
    blocks = np.cumsum(weights[end % SUM_BLOCK :].reshape(-1, SUM_BLOCK).sum(axis=1)[::-1])
    whole = int(np.count_nonzero(below(blocks, limit)))
    end -= whole * SUM_BLOCK
    before = blocks[whole - 1] if whole else 0
    inside = before + np.cumsum(weights[max(end - SUM_BLOCK, 0) : end][::-1])
    count = whole * SUM_BLOCK + int(np.count_nonzero(below(inside, limit))) + inclusive
    return ascending[-min(max(count, 1), len(ascending))]


def surely_in_nucleus(logits: np.ndarray, p: float, logit: np.floating, inclusive: bool = False) -> bool:
    """Whether what is at least as likely as one of logits holds no more than p: true of all in the nucleus but
    ties at its edge and a first one that holds more by itself. Takes a fifth of the time of the edge. inclusive:
    whether what is likelier holds less than p, which is true of all in the paper's nucleus."""
    weights = np.exp(logits)
    limit = p * weights.sum()
    return held(weights, logits > logit) < limit if inclusive else held(weights, logits >= logit) <= limit


def held(weights: np.ndarray, which: np.ndarray) -> np.floating:
    """The sum of those of weights, float32 [n], that are chosen, bool [n]: ten times as fast as indexing by it, and in
    this thread alone, which a product by BLAS is not."""
    return np.einsum('i,i->', weights, which)


def typical_winner(logits: np.ndarray, race: np.ndarray, p: float) -> np.intp:
    """The place of the largest of race, float32 [n], that typical_p keeps, of logits, float32 [n], finite, the largest
    being 0. race is changed.

    A token's surprise less the entropy is the mean of all logits, weighed by probability, less its own: those are kept
    that are nearest to that mean, until they hold p.
    """
    weights, distances = distances_to_mean(logits)
    winner = race.argmax()
    if held(weights, distances <= distances[winner]) > p * CERTAINLY:  # else it is kept, and that is known sooner
        race[~nearest(weights, distances, p)] = -math.inf
        winner = race.argmax()
    return winner


def distances_to_mean(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities, how far each of logits, float32 [n], the largest being 0, is from their mean), float32 [n]."""
    weights = np.exp(logits)
    weights /= weights.sum()  # in place: a new array of this size takes as long as what is done to it
    distances = logits - np.einsum('i,i->', weights, logits)
    return weights, np.abs(distances, out=distances)


def nearest(weights: np.ndarray, distances: np.ndarray, p: float) -> np.ndarray:
    """Which of the least distances, float32 [n], together hold p, bool [n]; weights, float32 [n], are what each
    holds."""
    # Sorting all takes three times as long as halving the room in which the sum crosses p, and sorting what is there.
    low, high, before = -1.0, float(distances.max()), 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        mass = float(held(weights, distances <= middle))
        low, high, before = (middle, high, mass) if mass < p else (low, middle, before)
    inside = np.flatnonzero((distances > low) & (distances <= high))
    inside = inside[np.argsort(distances[inside])]
    sums = np.cumsum(weights[inside], dtype=np.float64) + before
    return distances <= distances[inside[min(int(np.searchsorted(sums, p)), len(inside) - 1)]]


def exponential_noise(stream: np.random.Generator, n_vocab: int) -> np.ndarray:
    """The next exponential variates of a stream, float32 [n_vocab]."""
    return stream.standard_exponential(n_vocab).astype(np.float32)


def draw(
    logits: np.ndarray, noise: np.ndarray | None, temperature: float, top_k: int = 0, top_p: float = 1,
    inclusive: bool = False, min_p_edge: float = -math.inf, typical_p: float = 1,
) -> int:  # fmt: skip
    """Draw one token: temperature, then top_k, top_p, min_p and typical_p, then the race.

    logits: float32 [n_vocab]; -inf is never drawn. noise: what exponential_noise returns; a temperature of 0 needs
    none. inclusive: which rule top_p follows. min_p_edge: the logarithm of min_p. Returns an int; NO_TOKEN where no
    logit is above -inf, and where a damaged model gives numbers that are none.
    """
    best = logits.argmax()
    if not -math.inf < logits[best] < math.inf:
        return NO_TOKEN
    if temperature == 0:
        return int(best)
    assert noise is not None
    shortlist = surely_in_top_k(logits, top_k, logits[best]) if 0 < top_k < len(logits) else None
    if shortlist is not None:
        some = draw(logits[shortlist], noise[shortlist], temperature, top_k, top_p, inclusive, min_p_edge, typical_p)
        return int(shortlist[some])
    # Softmax is blind to a shift; without it a temperature near 0 would overflow.
    with np.errstate(over='ignore'):
        logits = (logits - logits[best]) / np.float32(temperature)
    edge: np.floating | float = -math.inf
    kept = logits
    if 0 < top_k < len(logits):
        edge = top_k_edge(logits, top_k)
        kept = logits[logits >= edge]
    race = logits - np.log(noise)  # of a shortlist alone, where there is one: it takes as long as the rest
    winner = race.argmax()
    # The edge of a nucleus takes longer to find than that the winner is in it.
    if top_p < 1 and (typical_p < 1 or not surely_in_nucleus(kept, top_p, logits[winner], inclusive)):
        edge = top_p_edge(np.sort(kept), top_p, inclusive)
    edge = max(edge, min_p_edge)
    if typical_p < 1:
        kept = logits >= max(edge, LOWEST)
        if kept.all():
            return int(typical_winner(logits, race, typical_p))
        places = np.flatnonzero(kept)
        return int(places[typical_winner(logits[places], race[places], typical_p)])
    if logits[winner] < edge:
        race[logits < edge] = -math.inf
        winner = race.argmax()
    return int(winner)
