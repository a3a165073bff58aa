import signal
import threading

import numpy as np
import pytest
import reference_numpy
from example_models import TINY, as_params, full_logits, random_tokens, random_values
from samples import CASES, PLAIN, TEXTBOOK, assert_follow, draw_samples

from gpt2 import sample
from gpt2.hparams import HParams
from gpt2.noise import noise_stream
from gpt2.system.tensorflow import interrupts_held_back, tf

DRAWS = 200_000
@pytest.fixture(scope='module')
def noise():
    """Noise of as many samples as draws, each from its own stream, as the generator draws it."""
    streams = (noise_stream(11, [1, 2, 3], number) for number in range(DRAWS))
    return np.stack([stream.standard_exponential(8) for stream in streams]).astype(np.float32)


@pytest.mark.parametrize(('logits', 'how'), CASES)
def test_draws_follow_the_exact_probabilities(logits, how, noise):
    size = len(logits)
    rows = tf.constant(np.tile(np.float32(logits), (DRAWS, 1)))
    drawn = sample.draw(rows, noise[:, :size], tf.constant(how['temperature']), how['top_k'], how['top_p']).numpy()
    assert_follow(drawn, reference_numpy.probabilities(logits, **how))


def test_the_nucleus_leaves_out_the_token_that_crosses_p():
    kept = np.isfinite(sample.top_p_logits(tf.constant([TEXTBOOK], tf.float32), 0.9).numpy())
    assert kept.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize('p', [0.05, 0.3, 0.5, 0.77, 0.95, 0.999])
def test_top_p_keeps_what_the_reference_keeps_for_a_batch_of_large_rows(p):
    scales = np.float32([[1], [2], [3], [5], [9]])
    rows = np.random.default_rng(0).standard_normal([5, 50257]).astype(np.float32) * scales
    kept = np.isfinite(sample.top_p_logits(tf.constant(rows), p).numpy())
    # A row alone may need only the head of its tokens sorted, where the batch needs all.
    alone = [np.isfinite(sample.top_p_logits(tf.constant(row[None]), p).numpy()[0]) for row in rows]
    expected = [(reference_numpy.probabilities(row, top_p=p) > 0).sum() for row in rows]
    for found in (kept, alone):  # float32 sums move the edge of a large nucleus by a few tokens
        np.testing.assert_allclose(np.sum(found, axis=-1), expected, rtol=2e-3, atol=1)


@pytest.mark.parametrize('k', [1, 2, 40, 50256, 50257, 60000])
def test_top_k_keeps_the_k_largest_of_each_row(k):
    rows = np.stack([np.random.default_rng(seed).permutation(50257) for seed in range(3)]).astype(np.float32)
    found = sample.top_k_logits(tf.constant(rows), k).numpy()
    np.testing.assert_array_equal(found, np.where(rows >= 50257 - k, rows, -np.inf))


def test_filters_that_are_off_change_nothing():
    rows = tf.constant([PLAIN], tf.float32)
    np.testing.assert_array_equal(sample.top_k_logits(rows, 0), rows)
    np.testing.assert_array_equal(sample.top_p_logits(rows, 1), rows)


@pytest.fixture(scope='module')
def generator(tiny_params):
    return sample.Generator(TINY, tiny_params)


@pytest.mark.parametrize('how', [{}, {'temperature': 0}, {'top_k': 7}, {'top_p': 0.8, 'temperature': 1.3, 'top_k': 20}])
def test_samples_do_not_depend_on_the_batch(generator, how):
    numbers = list(range(1, 10))
    alone = draw_samples(generator, [3, 1, 4], 37, numbers, 1, **how)
    for batch_size in (4, 8, 9):
        assert draw_samples(generator, [3, 1, 4], 37, numbers, batch_size, **how) == alone
    assert draw_samples(generator, [3, 1, 4], 37, numbers[::-1], 2, **how) == alone[::-1]


def test_samples_differ_by_seed_number_and_prompt(generator):
    base = draw_samples(generator, [3, 1, 4], 20, [1], 1, seed=5)
    assert draw_samples(generator, [3, 1, 4], 20, [1], 1, seed=6) != base
    assert draw_samples(generator, [3, 1, 4], 20, [2], 1, seed=5) != base
    noise = [noise_stream(5, prompt, 1).random() for prompt in ([3, 1, 4], [3, 1, 5], [3, 1])]
    assert len(set(noise)) == 3


def test_greedy_takes_the_largest_logit(generator, tiny_params):
    [ids] = draw_samples(generator, [3, 1, 4], 38, [1], 1, temperature=0)
    logits = full_logits(TINY, tiny_params, np.int32([[3, 1, 4, *ids]])[:, : TINY.n_ctx])[0]
    assert ids == logits[2:].argmax(axis=-1).tolist()


@pytest.mark.parametrize('temperature', [0, 1e-300, 1e-38])
def test_a_temperature_near_zero_is_greedy(generator, temperature):
    greedy = draw_samples(generator, [9], 10, [1], 1, temperature=0)
    assert draw_samples(generator, [9], 10, [2], 1, temperature=temperature) == greedy


@pytest.mark.parametrize('top_k', [100, 3_000_000_000, 2**32 + 1])
def test_top_k_beyond_the_vocabulary_keeps_all(generator, top_k):
    assert draw_samples(generator, [9], 10, [1], 1, top_k=top_k) == draw_samples(generator, [9], 10, [1], 1)


def test_drawn_tokens_follow_the_model(generator, tiny_params):
    """The whole way: second tokens, given the first, are drawn from the model's probabilities."""

    def next_probabilities(*tokens):
        return reference_numpy.probabilities(full_logits(TINY, tiny_params, np.int32([tokens]))[0, -1], top_k=2)

    pairs = [tuple(row) for row in draw_samples(generator, [7, 7], 2, list(range(4000)), 500, top_k=2)]
    first = next_probabilities(7, 7)
    for token in np.flatnonzero(first):
        second = next_probabilities(7, 7, token)
        for following in np.flatnonzero(second):
            expected = first[token] * second[following]
            assert pairs.count((token, following)) / 4000 == pytest.approx(expected, abs=4.5 * np.sqrt(expected / 4000))


def test_two_traces_serve_every_length_batch_capacity_and_setting(tiny_params):
    hparams = HParams(n_vocab=61, n_ctx=700, n_embd=8, n_head=2, n_layer=1)
    generator = sample.Generator(hparams, as_params(random_values(hparams)))
    for batch in (1, 3):
        for prompt, length in ((1, 700), (5, 2), (300, 300), (127, 3), (128, 2)):
            draw_samples(generator, list(range(prompt % 61)) or [1], length, list(range(batch)), batch, top_k=5)
            draw_samples(generator, [1] * prompt, length, list(range(batch)), batch, temperature=0.5, top_p=0.9)
    assert generator.prompt_step.experimental_get_tracing_count() == 1
    assert generator.token_step.experimental_get_tracing_count() == 1


def test_growing_the_cache_does_not_change_what_is_drawn(tiny_params):
    hparams = HParams(n_vocab=61, n_ctx=400, n_embd=20, n_head=4, n_layer=2)
    params = as_params(random_values(hparams))
    [ids] = draw_samples(sample.Generator(hparams, params), [5, 6], 399, [1], 1, temperature=0)
    logits = full_logits(hparams, params, np.int32([[5, 6, *ids]])[:, :400])[0, 1:]
    margin = np.diff(np.sort(logits, axis=-1)[:, -2:], axis=-1)[:, 0]
    agree = logits.argmax(axis=-1) == ids
    assert agree[margin > 1e-3].all() and (margin > 1e-3).mean() > 0.9


def test_rows_with_prompts_of_their_own(generator):
    contexts = random_tokens(TINY, 3, 6).tolist()
    together = np.stack(list(generator.generate(contexts, 20, numbers=[1, 1, 1], seed=5)), axis=1).tolist()
    assert together == [draw_samples(generator, context, 20, [1], 1)[0] for context in contexts]


def test_the_window_holds_prompt_and_length_up_to_one_more_than_n_ctx(generator):
    assert len(draw_samples(generator, [1, 2], TINY.n_ctx - 1, [1], 1)[0]) == TINY.n_ctx - 1
    with pytest.raises(ValueError, match='2 prompt tokens and length 40 exceed the limit of 41'):
        draw_samples(generator, [1, 2], TINY.n_ctx, [1], 1)


def test_abandoned_samples_leave_no_trace(generator):
    expected = draw_samples(generator, [3, 1, 4], 12, [1, 2], 2)
    steps = generator.generate([[9, 9]], 30, numbers=[1], seed=0)
    next(steps), next(steps)
    assert draw_samples(generator, [3, 1, 4], 12, [1, 2], 2) == expected


def test_sample_sequence_as_in_the_release(tiny_params):
    tokens = sample.sample_sequence(
        hparams=TINY, params=tiny_params, length=6, context=[[3, 1, 4], [1, 5, 9]], temperature=0.9, top_k=5, seed=2
    )
    assert tokens.shape == (2, 9) and tokens.dtype == tf.int32
    assert tokens[:, :3].numpy().tolist() == [[3, 1, 4], [1, 5, 9]]
    unconditional = sample.sample_sequence(hparams=TINY, params=tiny_params, length=4, start_token=60, batch_size=3)
    assert unconditional.shape == (3, 5) and (unconditional[:, 0].numpy() == 60).all()


def test_sample_sequence_repeats_with_a_seed_and_differs_without(tiny_params):
    def drawn(**seed):
        how = {'hparams': TINY, 'params': tiny_params, 'length': 30, 'context': [[3, 1, 4]]}
        return sample.sample_sequence(**how, **seed).numpy().tolist()

    assert drawn(seed=2) == drawn(seed=2)
    assert drawn() != drawn()


@pytest.mark.parametrize('both', [{}, {'context': [[1]], 'start_token': 1}])
def test_sample_sequence_takes_exactly_one_beginning(tiny_params, both):
    with pytest.raises(ValueError, match='exactly one'):
        sample.sample_sequence(hparams=TINY, params=tiny_params, length=2, **both)


def test_an_interrupt_waits_until_tensorflow_is_done(tiny_params, monkeypatch):
    generator = sample.Generator(TINY, tiny_params)
    expected = list(generator.generate([[1, 2, 3]], 8, numbers=[1], seed=5))
    steps, token_step = [], generator.token_step

    def interrupted_step(*arguments):
        signal.raise_signal(signal.SIGINT)
        steps.append(token_step(*arguments))
        return steps[-1]

    monkeypatch.setattr(generator, 'token_step', interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        list(generator.generate([[1, 2, 3]], 8, numbers=[1], seed=5))
    assert len(steps) == 1
    monkeypatch.undo()
    assert list(generator.generate([[1, 2, 3]], 8, numbers=[1], seed=5)) == expected


def test_an_ignored_interrupt_stays_ignored():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_held_back():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_samples_can_be_drawn_in_any_thread(tiny_params):
    drawn = []
    thread = threading.Thread(
        target=lambda: drawn.append(
            sample.sample_sequence(hparams=TINY, params=tiny_params, length=4, context=[[1, 2]], seed=0)
        )
    )
    thread.start()
    thread.join()
    assert drawn[0].shape == [1, 6]
