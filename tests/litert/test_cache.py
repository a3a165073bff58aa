"""The slots of the LiteRT engine's cache."""

import numpy as np

from gpt2.litert.cache import NONE, Cache


def test_what_one_row_has_alone_can_become_what_all_share():
    """As when the rows of a search go on from the second of two."""
    prompt, first, second = range(3)
    memory = {0: np.zeros([1, 2, 4, 1], np.float32), 1: np.zeros([1, 1, 1], np.float32)}
    cache = Cache(memory.get, [0], [1])
    cache.wait(np.array([1, 2], np.float32).reshape(1, 1, 2, 1), np.array([prompt, prompt]))
    rows = np.array([first, second])
    groups = cache.arrange(rows, np.array([[first, prompt], [second, prompt]]), NONE)
    cache.clear(len(groups), 4, 1)
    cache.fill(groups, NONE)
    cache.add([np.array([3, 4], np.float32).reshape(1, 2, 1)], rows)
    cache.free([first])
    cache.give(second, prompt)
    cache.take_out()
    values = [kept.values.flatten()[kept.owners == prompt] for kept in cache.waiting]
    assert np.concatenate(values).tolist() == [1, 2, 4]
