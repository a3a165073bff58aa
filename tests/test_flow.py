"""Samples that come and go on both engines, and texts that outgrow the window, against a reference that recomputes
every step."""

import numpy as np
import pytest
import reference_numpy
from example_models import TINY, random_tokens, random_values
from litert.test_engine import both_engines
from samples import EVERYTHING

from gpt2.completion import Completion
from gpt2.drawing import draw, exponential_noise
from gpt2.engines import open_batch
from gpt2.flow import Task, fitting, flow
from gpt2.history import History
from gpt2.noise import noise_stream
from gpt2.sampling import Sampling


@pytest.fixture(scope='module')
def engines(tmp_path_factory, tiny_params):
    return both_engines(tmp_path_factory.mktemp('flow'), TINY, tiny_params)


class Letters:
    """A vocabulary of TINY.n_vocab letters."""

    errors, end_of_text, end_ids = 'replace', 0, frozenset()

    def decode_bytes(self, ids):
        return bytes(ord('A') + token for token in ids)


def task(ids, number=1, length=5, keep=None, hear=None, seed=3, stop=(), **how):
    completion = Completion(Letters(), number, stop, length=length)
    return Task(list(ids), seed, Sampling(**how), completion, hear, keep)


def drawn(engine, tasks, size):
    """The ids of each of tasks, which are drawn `size` at once, and how many were at most growing together."""
    for _ in flow(open_batch(engine), tasks, size):
        pass
    return [each.completion.ids for each in tasks]


def one_by_one(engine, each):
    completion = each.completion
    steps = engine.generate([each.ids], completion.length, numbers=[completion.number], seed=each.seed,
                            **vars(each.sampling))  # fmt: skip
    return [int(tokens[0]) for tokens in steps]


def mixed_tasks():
    tokens, random = random_tokens(TINY, 1, 400)[0].tolist(), np.random.default_rng(7)
    hows = [{}, {'temperature': 0}, {'top_k': 3}, {'top_p': 0.7, 'temperature': 1.4}, EVERYTHING]
    for place in range(10):
        size = int(random.integers(1, TINY.n_ctx))
        length = int(random.integers(1, min(TINY.n_ctx + 2 - size, 14)))
        yield task(tokens[place : place + size], 1 + place % 3, length, **hows[place % 5])
    yield task(tokens[:3], 4, 9)  # the prompt of another one that is growing
    yield task(tokens[:3], 5, 2)


def test_samples_that_come_and_go_are_what_they_are_alone(engines):
    for engine in engines:
        tasks = [*mixed_tasks()]
        found = drawn(engine, tasks, 4)
        assert found == [one_by_one(engine, each) for each in tasks]
        assert {each.completion.finish_reason for each in tasks} == {'length'}
    with engines[1].alone():
        assert not np.count_nonzero(engines[1].cache.owners >= 0)


def test_the_next_begins_when_one_has_ended(engines):
    for engine in engines:
        tasks = [task([place + 1], length=length) for place, length in enumerate([9, 2, 3, 4, 1, 6])]
        ended = [sorted(map(tasks.index, each)) for each in flow(open_batch(engine), tasks, 2)]
        assert ended == [[], [1], [], [], [2], [], [], [], [0, 3], [4], [], [], [], [], [5]]


def test_one_that_has_ended_is_passed_on(engines):
    first, second, third = (task([1], number) for number in (1, 2, 3))
    second.completion.finish('choice')
    found = [ended for ended in flow(open_batch(engines[1]), [second, first, third], 8) if ended]
    assert found == [[second], [first, third]]


def test_what_is_left_off_is_forgotten(engines):
    for engine in engines:
        steps = flow(open_batch(engine), [task([1, 2]), task([3])], 2)
        next(steps)
        steps.close()
    with engines[1].alone():
        assert not np.count_nonzero(engines[1].cache.owners >= 0)


def test_what_a_rules_fault_ends(engines):
    class Faulty:
        def begin(self, prompt):
            return self

        def exclude(self, logits):
            raise ValueError('no')

    for engine in engines:
        with pytest.raises(ValueError, match='no'):
            drawn(engine, [task([1]), task([2], rules=(Faulty(),))], 2)


# Beyond the window


def reference(prompt, number, length, keep, seed, how):
    """The ids of a sample, every one of which is computed from all of its context anew."""
    sampling, values = Sampling(**how), random_values(TINY)
    stream, history = noise_stream(seed, prompt, number), History(sampling, prompt)
    context, found = list(prompt), []
    for _ in range(length):
        if len(context) > TINY.n_ctx:
            context = context[:keep] + context[-((TINY.n_ctx - keep) // 2) :]
        logits = reference_numpy.logits(values, TINY.n_head, TINY.n_layer, context)[-1].astype(np.float32)
        noise = None if sampling.greedy else exponential_noise(stream, TINY.n_vocab)
        found.append(draw(history.adjusted(logits), noise, *sampling.drawing(TINY.n_vocab)))
        history.take(found[-1])
        context.append(found[-1])
    return found


# The settings that look back see all of the text, also what has left the window.
BEYOND = [(3, 0, EVERYTHING), (10, 10, {}), (39, 0, {'top_k': 5}), (40, 20, {}), (41, 0, {}), (90, 7, EVERYTHING)]


@pytest.mark.parametrize(('size', 'keep', 'how'), BEYOND)
def test_text_beyond_the_window_is_that_of_a_reference_which_recomputes_every_step(engines, size, keep, how):
    prompt = random_tokens(TINY, 1, 90)[0, :size].tolist()
    numbers, length = (1, 2) if size == 3 else (1,), 75
    expected = [reference(prompt, number, length, keep, 3, how) for number in numbers]
    for engine in engines:
        assert drawn(engine, [task(prompt, number, length, keep, **how) for number in numbers], 2) == expected


def test_what_is_told_beyond_the_window_is_the_models(engines):
    prompt, values = [5, 6, 7], random_values(TINY)
    for engine in engines:
        heard = []
        one = task(prompt, length=60, keep=1, hear=lambda *each: heard.append(each))  # noqa: B023
        drawn(engine, [one], 1)
        context = list(prompt)
        for place, (_, token, logits) in enumerate(heard):
            context = fitting(context, 1, TINY.n_ctx)
            if place in (0, 37, 38, 39, 59):  # in the window, on its edge, beyond
                expected = reference_numpy.logits(values, TINY.n_head, TINY.n_layer, context)[-1]
                np.testing.assert_allclose(logits, expected, atol=1e-3)
            context.append(token)
        assert [token for _, token, _ in heard] == one.completion.ids


def test_a_stop_text_ends_a_text_beyond_the_window(engines):
    whole = task([1, 2], length=150, keep=0, seed=8)
    drawn(engines[1], [whole], 1)
    stop = whole.completion.text[100:104]
    for engine in engines:
        one = task([1, 2], length=150, keep=0, seed=8, stop=[stop])
        drawn(engine, [one], 1)
        assert one.completion.text == whole.completion.text[: whole.completion.text.index(stop)]
        assert one.completion.finish_reason == 'stop'


def test_memory_beyond_the_window_is_that_of_the_window(engines):
    tensorflow, litert = engines
    batch, slots = open_batch(litert), []
    for _ in flow(batch, [task([1], length=300, keep=3)], 1):
        slots.append(litert.cache.owners.size)
    assert max(slots[150:]) == max(slots[:150]) <= TINY.n_ctx + 1
    batch, capacities = open_batch(tensorflow), []
    for _ in flow(batch, [task([1], length=200, keep=3)], 1):
        capacities += [batch.shared.capacity] if batch.shared else []
    assert max(capacities) <= TINY.n_ctx
