"""The slots of the LiteRT engine's cache."""

import numpy as np

from gpt2.litert.cache import NOBODY, NONE, Cache


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


def test_tokens_of_one_row_look_in_one_group():
    """Otherwise each would be added to a group of its own, where the next does not see it."""
    prompt, row = range(2)
    memory = {0: np.zeros([1, 1, 4, 1], np.float32), 1: np.zeros([1, 1, 1], np.float32)}
    cache = Cache(memory.get, [0], [1])
    cache.wait(np.ones([1, 1, 1, 1], np.float32), np.array([prompt]))
    cache.clear(1, 4, 1)
    cache.fill(cache.arrange(np.array([row, row]), np.array([[row, prompt], [row, prompt]]), NONE), NONE)
    cache.add([np.array([3, 4], np.float32).reshape(1, 2, 1)], np.array([row, row]))
    assert cache.owners.tolist() == [[prompt, row, row, NOBODY]]
    cache.free_newest(row, 1)
    cache.take_out()
    assert [(*kept.owners.tolist(), *kept.values.flatten()) for kept in cache.waiting] == [(prompt, row, 1, 3)]
    cache.free_newest(row, 1)
    assert cache.waiting[0].owners.tolist() == [prompt] and cache.in_use() == 1
