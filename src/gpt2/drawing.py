"""Drawing a token from logits, in NumPy, one row at a time: the same rules as in sample.py, and those that the
release lacks. Knows nothing of text, and nothing of TensorFlow."""

import math

import numpy as np

SUM_BLOCK = 256  # numbers summed at once
LOWEST = np.finfo(np.float32).min
BINS_A_NAT, BINS = 64, 1024  # by which typical tokens are sought
NO_TOKEN = -1  # what is drawn where every token is excluded


def top_k_edge(logits: np.ndarray, k: int) -> np.floating:
    """The smallest of logits, float32 [n], that top_k keeps, the k-th largest; k from 1 to n."""
    return np.partition(logits, -k)[-k]


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
    return weights[logits > logit].sum() < limit if inclusive else weights[logits >= logit].sum() <= limit


def typical(logits: np.ndarray, p: float) -> np.ndarray:
    """Which of logits, float32 [n], finite, typical_p keeps, bool [n].

    A token's surprise less the entropy is the mean of all logits, weighed by probability, less its own: those are kept
    that are nearest to that mean, until they hold p.
    """
    weights = logits - logits.max()  # then in place: a new array of this size takes as long as what is done to it
    np.exp(weights, out=weights)
    weights /= weights.sum()
    distances = logits - np.einsum('i,i->', weights, logits)
    np.abs(distances, out=distances)
    # Sorting all takes twice as long as finding where the sum crosses p, and sorting those that are there.
    bins = distances * BINS_A_NAT
    bins = np.minimum(bins, BINS, out=bins).astype(np.int32).astype(np.intp)  # quicker than in one step
    held = np.cumsum(np.bincount(bins, weights))
    crossing = min(int(np.searchsorted(held, p)), len(held) - 1)
    inside = np.flatnonzero(bins == crossing)
    inside = inside[np.argsort(distances[inside])]
    sums = np.cumsum(weights[inside], dtype=np.float64) + (held[crossing - 1] if crossing else 0)
    return distances <= distances[inside[min(int(np.searchsorted(sums, p)), len(inside) - 1)]]


def log_noise(stream: np.random.Generator, n_vocab: int) -> np.ndarray:
    """Logarithms of the next exponential variates of a stream, float32 [n_vocab]."""
    return np.log(stream.standard_exponential(n_vocab).astype(np.float32))


def draw(
    logits: np.ndarray, noise: np.ndarray | None, temperature: float, top_k: int = 0, top_p: float = 1,
    inclusive: bool = False, min_p_edge: float = -math.inf, typical_p: float = 1,
) -> int:  # fmt: skip
    """Draw one token: temperature, then top_k, top_p, min_p and typical_p, then the race.

    logits: float32 [n_vocab]; -inf is never drawn. noise: what log_noise returns; a temperature of 0 needs none.
    inclusive: which rule top_p follows. min_p_edge: the logarithm of min_p. Returns an int; NO_TOKEN where no logit is
    above -inf.
    """
    best = logits.argmax()
    if logits[best] == -math.inf:
        return NO_TOKEN
    if temperature == 0:
        return int(best)
    # Softmax is blind to a shift; without it a temperature near 0 would overflow.
    with np.errstate(over='ignore'):
        logits = (logits - logits[best]) / np.float32(temperature)
    edge: np.floating | float = -math.inf
    kept = logits
    if 0 < top_k < len(logits):
        edge = top_k_edge(logits, top_k)
        kept = logits[logits >= edge]
    race = logits - noise
    winner = race.argmax()
    # The edge of a nucleus takes longer to find than that the winner is in it.
    if top_p < 1 and (typical_p < 1 or not surely_in_nucleus(kept, top_p, logits[winner], inclusive)):
        edge = top_p_edge(np.sort(kept), top_p, inclusive)
    edge = max(edge, min_p_edge)
    if typical_p < 1:
        places = np.flatnonzero(logits >= max(edge, LOWEST))
        if len(places) < len(logits):
            logits, race = logits[places], race[places]
        race[~typical(logits, typical_p)] = -math.inf
        return int(places[race.argmax()])
    if logits[winner] < edge:
        race[logits < edge] = -math.inf
        winner = race.argmax()
    return int(winner)
