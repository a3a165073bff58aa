"""Which of several texts a model finds likeliest."""

from collections.abc import Iterable, Sequence

from gpt2.scoring.windows import Row, conditional


def choice_rows(texts: Sequence[list[int]], n_ctx: int) -> list[Row]:
    """Rows that score each of texts, lists of ids with at least one in common at their start, after what all of
    them have in common: the sums differ as the log-probabilities of the whole texts do.

    A context too long for the window loses its start. Raises UsageError if what differs is too long for it.
    """
    common = 0
    shortest = min(map(len, texts)) - 1
    while common < shortest and len({ids[common] for ids in texts}) == 1:
        common += 1
    surplus = max(0, max(map(len, texts)) - n_ctx - 1)  # dropped from all, so that their contexts stay the same
    return [conditional(ids[min(surplus, common - 1) : common], ids[common:], n_ctx) for ids in texts]


def likeliest(scores: Iterable[tuple]) -> int:
    """Index of the greatest log-probability; of equals the first."""
    totals = [log_probabilities.sum(dtype='float64').item() for log_probabilities, _, _ in scores]
    return totals.index(max(totals))
