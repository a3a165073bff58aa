"""What holds of both engines: rows of any prompts, several callers at once, threads, forks, limits."""

import contextlib
import multiprocessing
import os
import threading

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, save
from samples import EVERYTHING, draw_samples

from gpt2 import sample
from gpt2.checkpoints.source import open_source
from gpt2.engine import distinct_prompts
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.litert import engine as litert
from gpt2.litert.export import exported_file
from gpt2.sampling import Sampling

WIDE = HParams(n_vocab=61, n_ctx=450, n_embd=20, n_head=4, n_layer=2)
LENGTHS = (1, 400, 7, 64, 1, 129, 250)
SETTINGS = [{'temperature': 0}, {}, {'top_k': 7, 'temperature': 0.8}, {'top_p': 0.8}, EVERYTHING]


@pytest.fixture(scope='module', params=['tf', 'litert', 'litert int8'])
def wide(request, tmp_path_factory):
    """An engine of each kind, of a model with room for long prompts."""
    params = as_params(random_values(WIDE))
    if request.param == 'tf':
        return sample.Generator(WIDE, params)
    folder = save(tmp_path_factory.mktemp('wide'), WIDE, params)
    precision = 'int8' if 'int8' in request.param else 'float32'
    return litert.Generator(exported_file(open_source(folder), precision), WIDE)


def prompts_of_all_lengths():
    random = np.random.default_rng(3)
    return [random.integers(61, size=n).tolist() for n in LENGTHS]


def alone(engine, prompts, length, **how):
    return [draw_samples(engine, prompt, length, [1], 1, **how)[0] for prompt in prompts]


def together(engine, prompts, length, **how):
    steps = engine.generate(prompts, length, numbers=[1] * len(prompts), seed=5, **how)
    return np.stack(list(steps), axis=1).tolist()


@pytest.mark.parametrize('how', SETTINGS)
def test_prompts_of_all_lengths_in_a_batch_are_continued_as_they_would_be_alone(wide, how):
    prompts = prompts_of_all_lengths()
    assert together(wide, prompts, 50, **how) == alone(wide, prompts, 50, **how)


def test_rows_that_are_dropped_leave_the_others_as_they_were(wide):
    prompts = prompts_of_all_lengths()
    expected = alone(wide, prompts, 30)
    found = [[] for _ in prompts]
    left = list(range(len(prompts)))
    with contextlib.closing(wide.start(prompts, numbers=[1] * len(prompts), seed=5, sampling=Sampling())) as rows:
        for step in range(30):
            for row, token in zip(left, rows.step()):
                found[row].append(int(token))
            if step in (0, 3, 20):
                rows.keep([place for place in range(len(left)) if place != 1])
                del left[1]
    for row, ids in enumerate(found):
        assert ids == expected[row][: len(ids)]
    assert sorted(map(len, found)) == [1, 4, 21, 30, 30, 30, 30]


def test_rows_may_be_dropped_before_the_first_step(wide):
    prompts = prompts_of_all_lengths()
    rows = wide.start(prompts, numbers=[1] * len(prompts), seed=5, sampling=Sampling())
    rows.keep([2, 5])
    found = [rows.step().tolist() for _ in range(4)]
    rows.close()
    assert np.transpose(found).tolist() == alone(wide, [prompts[2], prompts[5]], 4)


def test_samples_of_one_prompt_beside_samples_of_another(wide):
    prompts = [[1, 2, 3]] * 3 + [[9, 8]] * 2
    steps = wide.generate(prompts, 20, numbers=[1, 2, 3, 1, 2], seed=5)
    found = np.stack(list(steps), axis=1).tolist()
    assert found == draw_samples(wide, [1, 2, 3], 20, [1, 2, 3], 3) + draw_samples(wide, [9, 8], 20, [1, 2], 2)


def test_interleaved_streams_are_what_they_would_be_alone(wide):
    first, second, third = (prompts_of_all_lengths()[index] for index in (1, 2, 5))
    expected = alone(wide, [first, second, third], 40)
    streams = [wide.generate([prompt], 40, numbers=[1], seed=5) for prompt in (first, second)]
    found = [[], [], []]
    for step in range(40):
        for ids, stream in zip(found, streams):
            ids.append(int(next(stream)[0]))
        if step == 10:  # a batch in between, and a stream that is abandoned
            assert together(wide, [third, first], 12) == [expected[2][:12], expected[0][:12]]
            next(wide.generate([third], 40, numbers=[1], seed=5))
    assert found[:2] == expected[:2]


def test_threads_share_an_engine(wide):
    prompts = [prompt[:60] for prompt in prompts_of_all_lengths()] + [[5]]
    expected = [draw_samples(wide, prompt, 10, list(range(20)), 5) for prompt in prompts]
    found, failures = [None] * len(prompts), []

    def draw(index):
        try:
            found[index] = draw_samples(wide, prompts[index], 10, list(range(20)), 5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=draw, args=[index]) for index in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert found == expected


def forked(engine, connection):
    """What the engine says to a process that was forked from its own; closing it there is no error."""
    try:
        for call in (lambda: next(engine.generate([[1]], 2, numbers=[1], seed=0)), lambda: engine.map_logits(len, [1])):
            try:
                call()
            except Error as error:
                connection.send(str(error))
        engine.close()
        connection.send('closed')
    finally:
        connection.close()
        os._exit(0)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here')
@pytest.mark.filterwarnings('ignore:.*fork')
def test_a_forked_process_is_told_to_load_for_itself(wide):
    list(wide.generate([[1]], 2, numbers=[1], seed=0))
    ours, theirs = multiprocessing.Pipe()
    lock = getattr(wide, 'lock', threading.Lock())  # as if another thread were in the midst of a step
    child = multiprocessing.get_context('fork').Process(target=forked, args=[wide, theirs])
    with lock:
        child.start()
    theirs.close()
    for expected in ('load it after the fork', 'load it after the fork', 'closed'):
        assert ours.poll(60), 'the child hangs'
        assert expected in ours.recv()
    child.join()


def test_the_last_token_of_the_window_is_drawn_and_none_after_it(wide):
    rows = wide.start([[1] * (WIDE.n_ctx - 1), [2]], numbers=[1, 1], seed=5, sampling=Sampling())
    rows.step(), rows.step()
    with pytest.raises(UsageError, match=r'450 prompt tokens and length .*451|exceed the limit of 451'):
        rows.step()
    rows.keep([1])
    assert rows.step().shape == (1,)
    rows.close()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'temperature': -1}, 'temperature is -1, expected a number of at least 0'),
        ({'temperature': float('nan')}, 'temperature is nan'),
        ({'top_k': -1}, 'top_k is -1, expected at least 0'),
        ({'top_k': 1.5}, 'top_k is 1.5'),
        ({'top_p': 0}, 'top_p is 0, expected a number above 0'),
        ({'top_p': 1.01}, 'top_p is 1.01'),
        ({'top_p_rule': 'mine'}, "top_p_rule is 'mine', expected released or inclusive"),
        ({'min_p': 1.5}, 'min_p is 1.5, expected a number from 0 to 1'),
        ({'min_p': -0.1}, 'min_p is -0.1'),
        ({'typical_p': 0}, 'typical_p is 0, expected a number above 0 and at most 1'),
        ({'repetition_penalty': 0}, 'repetition_penalty is 0, expected a number from 0.01 to 100'),
        ({'presence_penalty': 2.1}, 'presence_penalty is 2.1, expected a number from -2 to 2'),
        ({'frequency_penalty': 'much'}, "frequency_penalty is 'much', expected a number from -2 to 2"),
        ({'no_repeat_ngram': -1}, 'no_repeat_ngram is -1, expected at least 0'),
        ({'logit_bias': ((3, 101),)}, 'logit_bias is 101, expected a number from -100 to 100'),
    ],
)
def test_settings_out_of_range_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Sampling(**wrong)


def test_lengths_and_prompts_out_of_range_are_refused(wide):
    def refused(prompt, length=1):
        with pytest.raises(UsageError) as caught:
            list(wide.generate([prompt], length, numbers=[1], seed=0))
        return str(caught.value)

    assert 'length is 0, expected at least 1' in refused([1], 0)
    assert 'the prompt is empty' in refused([])
    assert 'the limit is 450' in refused([1] * 451, 1) or 'exceed the limit of 451' in refused([1] * 451, 1)
    assert 'token id 61, expected 0 to 60' in refused([61])
    assert 'token id -1' in refused([-1])


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('temperature', [1e30, 1e39, 1e300])
def test_a_huge_temperature_makes_all_tokens_alike_without_a_warning(wide, temperature):
    drawn = np.array(draw_samples(wide, [1], 40, list(range(30)), 30, temperature=temperature))
    assert len(np.unique(drawn)) > 50


def test_a_closed_engine_says_so(tmp_path):
    source = open_source(save(tmp_path, TINY, as_params(random_values(TINY))))
    engine = litert.Generator(exported_file(source, 'int8'), TINY)
    engine.close()
    with pytest.raises(Error, match='closed; load it again'):
        list(engine.generate([[1]], 1, numbers=[1], seed=0))


def test_no_prompt_is_processed_twice():
    assert distinct_prompts([[1, 2], [3], [1, 2], [3], [4]]) == ([[1, 2], [3], [4]], [0, 1, 0, 1, 2])
