"""The key/value cache of the LiteRT engine: slots that have owners, in the graph or waiting outside. Knows nothing of
what computes them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

NOBODY = -1  # owner of a free slot
NONE = np.empty([0], int)  # no owners


class Kept(NamedTuple):
    """Keys and values outside of the graph, float32 [2 n_layer, n_head, n, features], and whose each of the n is."""

    values: np.ndarray
    owners: np.ndarray


class Cache:
    """Keys and values of tokens, each in a slot with an owner.

    In the graph lie those of `owners`, [groups, slots], where every row looks, or each in a group of its own, and those
    of `earlier`, [slots], which prompts are taken after. Slots of an owner are in the order of its tokens wherever they
    lie, and behind those of owners that its rows went on from: so what a row sees is summed up in one order, to the
    bit, and masked slots in between add nothing.
    """

    def __init__(
        self, view: Callable[[int], np.ndarray], tensors: Sequence[int], earlier_tensors: Sequence[int]
    ) -> None:
        """view: the memory of a tensor of the graph; tensors: of keys and values, a layer after the other."""
        self.view, self.tensors, self.earlier_tensors = view, tensors, earlier_tensors
        self.waiting: list[Kept] = []
        self.rows: np.ndarray | None = None  # the rows, by their last owners, that have groups of their own
        self.clear(1, 1, 1)

    def clear(self, groups: int, slots: int, earlier: int) -> None:
        """Be what the graph holds after a change of sizes: nothing."""
        self.owners, self.earlier = np.full([groups, slots], NOBODY), np.full([earlier], NOBODY)

    def free(self, gone: Sequence[int]) -> None:
        for owners in (self.owners, self.earlier):
            owners[np.isin(owners, gone)] = NOBODY
        self.forget_waiting(gone)

    def free_newest(self, owner: int, count: int) -> None:
        """Free the last `count` slots of an owner."""
        for owners in (*self.owners, self.earlier, *(kept.owners for kept in self.waiting)):  # it is in one place alone
            theirs = np.flatnonzero(owners == owner)
            owners[theirs[len(theirs) - count :]] = NOBODY
        self.forget_waiting([NOBODY])

    def forget_waiting(self, gone: Sequence[int] | np.ndarray) -> None:
        stay = [~np.isin(kept.owners, gone) for kept in self.waiting]
        self.waiting = [
            kept if which.all() else Kept(kept.values[:, :, which], kept.owners[which])
            for kept, which in zip(self.waiting, stay)
            if which.any()
        ]

    def give(self, old: int, new: int) -> None:
        """Make the slots of one owner another's."""
        if self.rows is not None:  # what some groups have of the old, and all of the new, would not be the same
            self.take_out()
        for owners in (self.owners, self.earlier, *(kept.owners for kept in self.waiting)):
            owners[owners == old] = new

    def in_use(self) -> int:
        """How many slots have owners, in the graph and outside."""
        inside = np.count_nonzero(self.owners != NOBODY) + np.count_nonzero(self.earlier != NOBODY)
        return int(inside) + sum(len(kept.owners) for kept in self.waiting)

    def wait(self, values: np.ndarray, owners: np.ndarray) -> None:
        """Keep what was found until the graph is made for it."""
        self.waiting.append(Kept(values, owners))

    def waits_for(self, looks: Iterable[np.ndarray]) -> bool:
        """Whether something of these owners lies outside of the graph."""
        seen = np.concatenate(list(looks))
        return any(np.isin(kept.owners, seen).any() for kept in self.waiting)

    def count(self, seen: np.ndarray) -> int:
        """How many slots of these owners wait."""
        return sum(int(np.isin(kept.owners, seen).sum()) for kept in self.waiting)

    def take_out(self) -> np.ndarray:
        """Let all that is in the graph wait, before what waits already; returns their owners."""
        came = self.owners[self.owners != NOBODY]
        front = [self.kept(None, np.flatnonzero(self.earlier != NOBODY))]
        seen = np.array([NOBODY])
        for group, owners in enumerate(self.owners):  # what several groups have is the same
            front.append(self.kept(group, np.flatnonzero(~np.isin(owners, seen))))
            seen = np.concatenate([seen, owners])
        self.waiting = [kept for kept in front if kept] + self.waiting
        self.owners[:] = NOBODY
        self.earlier[:] = NOBODY
        return came

    def kept(self, group: int | None, slots: np.ndarray) -> Kept | None:
        """A copy of what lies in some slots, of a group or of those that prompts are taken after."""
        if not len(slots):
            return None
        tensors, owners = (self.earlier_tensors, self.earlier) if group is None else (self.tensors, self.owners[group])
        return Kept(np.stack([self.part(index, group)[:, as_slice(slots)] for index in tensors]), owners[slots])

    def fill(self, groups: Sequence[np.ndarray] | np.ndarray, earlier: np.ndarray) -> None:
        """Put what waits in the graph, which is as clear() said: the owners of each group, and what prompts are taken
        after."""
        for group, seen in enumerate(groups):
            self.put(seen, group)
        self.put(earlier, None)
        self.forget_waiting(np.concatenate([*groups, earlier]))

    def put(self, seen: np.ndarray, group: int | None) -> None:
        tensors, owners = (self.earlier_tensors, self.earlier) if group is None else (self.tensors, self.owners[group])
        start = 0
        for kept in self.waiting:
            slots = np.flatnonzero(np.isin(kept.owners, seen))
            if len(slots):
                end = start + len(slots)
                for index, values in zip(tensors, kept.values):
                    self.part(index, group)[:, start:end] = values[:, as_slice(slots)]
                owners[start:end] = kept.owners[slots]
                start = end
        for index in tensors:
            self.part(index, group)[:, start:] = 0  # what is masked must still be finite

    def part(self, index: int, group: int | None) -> np.ndarray:
        """[n_head, slots, features] of a tensor."""
        return self.view(index) if group is None else self.view(index)[:, group]

    def filled(self) -> int:
        """Behind how many slots of each group none is in use."""
        used = np.flatnonzero((self.owners != NOBODY).any(axis=0))
        return int(used[-1]) + 1 if len(used) else 0

    def room(self) -> int:
        """For how many new tokens of each group there are slots."""
        return self.owners.shape[1] - self.filled()

    def add(self, additions: Iterable[np.ndarray], owners: np.ndarray) -> None:
        """Write what a step found of rows, [n_head, rows, features] a tensor, in slots behind all that are in use."""
        start = self.filled()
        place = np.s_[:, 0, start : start + len(owners)] if self.rows is None else np.s_[:, :, start]
        for index, values in zip(self.tensors, additions):
            self.view(index)[place] = values
        self.owners[place[1:]] = owners

    def arrange(self, rows: np.ndarray, looks: np.ndarray, came: np.ndarray) -> np.ndarray:
        """Decide where rows shall look: returns the owners [groups, n] that are to lie in each group.

        rows: their last owners; looks: all of each row's [rows, n]; came: who was in the graph. A list of all slots,
        where each row masks those of others, takes as long as rows times slots; a group for each row takes a copy of
        what rows share. So there are groups where they take no more than twice the slots, but not while other callers
        have rows in the cache, which would come and go at every step.
        """
        together = np.concatenate([looks.ravel(), came])
        sizes = [self.count(row) for row in looks]
        several = 1 < len(rows) == len(set(rows.tolist()))  # and not tokens that follow one another
        apart = several and len(rows) * max(sizes) <= 2 * self.count(together) and np.isin(came, looks).all()
        self.rows = rows if apart else None
        return looks if apart else together[np.newaxis]


def as_slice(places: np.ndarray) -> slice | np.ndarray:
    """Ascending places, int [n], n at least 1, as a slice if they follow one another: copying is then faster."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places
