"""A model with a draft against the model by itself: the same samples, in fewer steps."""

import contextlib
import math
import signal
import threading

import numpy as np
import pytest
from example_models import TINY, random_values, save
from samples import EVERYTHING, draw_samples

from gpt2.checkpoints.source import open_source
from gpt2.drawing import NO_TOKEN
from gpt2.engine import Rows
from gpt2.hparams import HParams
from gpt2.litert.drafting import GUESSES, DraftedGenerator
from gpt2.litert.engine import Generator
from gpt2.litert.export import exported_file
from gpt2.patterns import Pattern
from gpt2.sampling import Sampling

STRANGER = HParams(n_vocab=61, n_ctx=24, n_embd=12, n_head=2, n_layer=1)  # it agrees by chance, and its window is small
SETTINGS = [{}, {'temperature': 0}, {'top_k': 5, 'temperature': 0.5}, EVERYTHING]


def exported(folder, hparams, precision='float32', **how):
    return exported_file(open_source(save(folder, hparams, random_values(hparams, **how))), precision)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    return Generator(exported(tmp_path_factory.mktemp('tiny'), TINY), TINY)


@pytest.fixture(scope='module', params=['itself', 'stranger'])
def drafted(request, tmp_path_factory, plain):
    """The model with a draft that is nearly always right, and with one that is nearly always wrong."""
    hparams = TINY if request.param == 'itself' else STRANGER
    path = plain.path if request.param == 'itself' else exported(tmp_path_factory.mktemp('other'), hparams, seed=7)
    return DraftedGenerator(plain.path, TINY, Generator(path, hparams))


@pytest.fixture
def counted(monkeypatch):
    """Calls of the products, by engine."""
    calls, invoke = {}, Generator.invoke

    def count(engine, *args):
        calls[engine] = calls.get(engine, 0) + 1
        return invoke(engine, *args)

    monkeypatch.setattr(Generator, 'invoke', count)
    return calls


@pytest.mark.parametrize('how', SETTINGS)
def test_samples_are_those_without_a_draft(plain, drafted, how):
    for number in range(1, 9):
        for prompt in ([3], [3, 1, 4, 1, 5, 9, 2, 6]):
            room = TINY.n_ctx + 1 - len(prompt)  # to the end of the window, beyond that of the stranger
            expected = draw_samples(plain, prompt, room, [number], 1, **how)
            assert draw_samples(drafted, prompt, room, [number], 1, **how) == expected
    for engine in (drafted, drafted.draft):
        with engine.alone():  # before which what is gone is freed
            assert not engine.cache.in_use()


@pytest.mark.parametrize('size', [TINY.n_ctx, TINY.n_ctx - 1, TINY.n_ctx - GUESSES, STRANGER.n_ctx, STRANGER.n_ctx + 1])
def test_a_prompt_may_leave_no_room_to_guess(plain, drafted, size):
    prompt = [place % TINY.n_vocab for place in range(size)]
    room = TINY.n_ctx + 1 - size
    assert draw_samples(drafted, prompt, room, [1], 1) == draw_samples(plain, prompt, room, [1], 1)


def test_a_good_draft_saves_steps_and_a_bad_one_does_not(drafted, counted):
    draw_samples(drafted, [3], 31, [1], 1, temperature=0)
    steps = counted[drafted] - 1  # but for that of the prompt
    good = drafted.draft.hparams == TINY
    assert steps == 30 / (GUESSES + 1) if good else 30 / (GUESSES + 1) < steps <= 30


def test_a_draft_guesses_what_it_would_say_after_the_sample(plain, tmp_path, counted):
    """Also after wrong guesses: with one that is right now and then there are as many steps as there should be."""
    values, changes = random_values(TINY), random_values(TINY, seed=3, scale=0.03)
    near = {name: value + changes[name] - name.endswith('/g') for name, value in values.items()}
    draft = Generator(exported_file(open_source(save(tmp_path, TINY, near)), 'float32'), TINY)
    drafted = DraftedGenerator(plain.path, TINY, draft)
    for prompt in ([3], [4, 5], [20, 1, 9]):
        [ids] = draw_samples(drafted, prompt, 30, [1], 1, temperature=0)
        steps = counted.pop(drafted) - 1
        says = np.concatenate(draft.map_logits(lambda logits: logits.argmax(axis=1), prompt + ids))[len(prompt) - 1 :]
        right, place, expected = [said == token for said, token in zip(says, ids)], 1, 0
        while place < len(ids):
            guesses = [*right[place : place + GUESSES], False]
            place += 1 + guesses.index(False)
            expected += 1
        assert (steps, 30 / (GUESSES + 1) < expected < 29) == (expected, True)


def test_logits_are_those_without_a_draft(plain, drafted):
    rows = [engine.start([[3, 1]], numbers=[2], seed=1, sampling=Sampling(), told=True) for engine in (plain, drafted)]
    for _ in range(TINY.n_ctx - 1):
        assert len({int(row.step()[0]) for row in rows}) == 1
        np.testing.assert_allclose(rows[1].logits, rows[0].logits, rtol=1e-4, atol=1e-4)
    for row in rows:
        row.close()


def test_samples_of_several_threads_share_a_draft(plain, drafted):
    found = {}

    def work(number):
        found[number] = draw_samples(drafted, [number, 2], 30, [number], 1)

    threads = [threading.Thread(target=work, args=[number]) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: draw_samples(plain, [number, 2], 30, [number], 1) for number in range(1, 7)}


def test_several_samples_and_other_rows_come_in_between(plain, drafted):
    """What they need of the cache moves what the sample has there."""
    with contextlib.closing(drafted.start([[3, 1]], numbers=[2], seed=5, sampling=Sampling())) as rows:
        drawn = []
        for step in range(30):
            drawn.append(int(rows.step()[0]))
            if step % 3 == 1:
                beside = [draw_samples(engine, [5, 6, 7], 5, [1, 2, 3], 3) for engine in (drafted, plain)]
                assert beside[0] == beside[1]
                draw_samples(drafted.draft, [5, 6], 3, [1, 2], 2)
    assert [drawn] == draw_samples(plain, [3, 1], 30, [2], 1)


class Forbids:
    """A rule that excludes all tokens after so many."""

    def __init__(self, count):
        self.count = count

    def begin(self, prompt):
        return self.fork()

    def fork(self):
        return type(self)(self.count)

    def exclude(self, logits):
        if self.count <= 0:
            logits[:] = -np.inf

    def take(self, token):
        self.count -= 1


@pytest.mark.parametrize('count', range(8))
def test_a_sample_ends_where_no_token_is_left(plain, drafted, count):
    found = []
    for engine in (plain, drafted):
        sampling = Sampling(rules=(Forbids(count),))
        with contextlib.closing(engine.start([[3]], numbers=[1], seed=1, sampling=sampling)) as rows:
            found.append([int(rows.step()[0]) for _ in range(count + 1)])
    assert found[0] == found[1] and found[1][-1] == NO_TOKEN


@pytest.mark.parametrize('end', [-3e38, np.nan])
def test_a_draft_that_gives_no_numbers_guesses_nothing(plain, tmp_path, end):
    values = random_values(TINY)
    values['model/ln_f/g'] *= np.float32(0)
    values['model/ln_f/b'] = np.full(TINY.n_embd, end, np.float32)
    draft = Generator(exported_file(open_source(save(tmp_path, TINY, values)), 'float32'), TINY)
    assert not np.isfinite(draft.map_logits(np.copy, [3])[0]).all()
    drafted = DraftedGenerator(plain.path, TINY, draft)
    for how in ({}, {'typical_p': 0.5}):
        assert draw_samples(drafted, [3], 30, [1], 1, **how) == draw_samples(plain, [3], 30, [1], 1, **how)


def test_a_pattern_is_matched_without_a_draft(drafted, counted):
    class Any(Pattern):
        def __init__(self):
            pass

        def begin(self, prompt):
            return Forbids(math.inf)

    draw_samples(drafted, [3], 9, [1], 1, rules=(Any(),))
    assert counted == {drafted: 9}


def test_no_prompt_is_no_sample(drafted):
    with contextlib.closing(drafted.start([], numbers=[], seed=1, sampling=Sampling())) as rows:
        assert len(rows.lines) == 0


def test_an_interrupt_loses_no_slots(drafted, monkeypatch):
    rows = drafted.start([[3, 1]], numbers=[1], seed=1, sampling=Sampling())
    for _ in range(9):
        rows.step()
    keep = Rows.keep

    def interrupted(self, kept):
        signal.raise_signal(signal.SIGINT)
        keep(self, kept)

    monkeypatch.setattr(Rows, 'keep', interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.close()
    for engine in (drafted, drafted.draft):
        with engine.alone():
            assert not engine.cache.in_use()
