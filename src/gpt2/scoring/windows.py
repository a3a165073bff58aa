"""Which token ids a model sees together, and which of them are scored. Imports no TensorFlow.

A row is (ids, count): ids that the model sees together, at most n_ctx + 1 because the last is only
predicted, of which the last `count` are scored; at least the first is context.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpt2.checks import optional_integer
from gpt2.errors import UsageError

Row = tuple[list[int], int]


def check_stride(name: str, stride: Any, n_ctx: int) -> int:
    """Tokens by which the window moves: stride, or when it is None half the window. Raises UsageError, which calls
    it by name."""
    stride = optional_integer(name, stride, 1)
    if stride is None:
        return max(1, n_ctx // 2)
    if stride > n_ctx:
        raise UsageError(f'{name} is {stride}, expected at most n_ctx {n_ctx}')
    return stride


def windows(ids: Iterable[int], n_ctx: int, stride: int) -> Iterator[Row]:
    """Yield rows that score each of ids, an iterable, but the first exactly once.

    The first row holds up to n_ctx + 1 ids. Each later one starts `stride` ids further and scores
    those that are new, each of which is predicted from n_ctx - stride + 1 ids or more.
    stride: from 1 to n_ctx.
    """
    row: list[int] = []
    count = -1
    for token in ids:
        if len(row) == n_ctx + 1:
            yield row, count
            row, count = row[stride:], 0
        row.append(token)
        count += 1
    if count > 0:
        yield row, count


def conditional(context: Sequence[int], ids: Sequence[int], n_ctx: int) -> Row:
    """The row that scores ids after context; of a context too long for the window the end is kept.

    There must be a context. Raises UsageError for more ids than the window holds.
    """
    if len(ids) > n_ctx:
        raise UsageError(f'{len(ids)} tokens are to be scored in one window, the limit is n_ctx {n_ctx}')
    return [*context, *ids][-n_ctx - 1 :], len(ids)


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Group consecutive rows such that a batch, padded to its longest row, has at most size inputs;
    a row that is longer by itself is a batch of its own."""
    batch: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row[0]) - 1)
        if batch and longest * (len(batch) + 1) > size:
            yield batch
            batch, longest = [], len(row[0]) - 1
        batch.append(row)
    if batch:
        yield batch
