import tracemalloc

import numpy as np
import pytest
from example_models import TINY, as_params, random_values, training_settings

from gpt2.errors import UsageError
from gpt2.training.batches import (
    Batches,
    HeldOut,
    Packed,
    Stream,
    Text,
    Weight,
    check_enough,
    check_weights,
    hold_out,
    in_parts,
    joined,
    pack,
    split,
    weighted,
)
from gpt2.training.data import DatasetError
from gpt2.training.tokens import Tokens
from gpt2.training.update import total_loss


def tokens_of(sizes, trained=None):
    """A token file whose documents have these sizes, each token its place."""
    ends = np.cumsum(sizes).astype(np.int64)
    count = int(ends[-1]) if len(ends) else 0
    return Tokens(np.arange(count, dtype=np.uint32), ends, trained, [0, 0])


def text_of(*sizes):
    return split(tokens_of(sizes), 0, 0)[0]


HOLD_OUT = [(73, 0.05, 4), (10, 0.1, 1), (10, 0.05, 0), (10, 0, 0), (1, 0.5, 0), (4, 0.99, 3), (0, 0.5, 0)]


@pytest.mark.parametrize(('count', 'fraction', 'held'), HOLD_OUT)
def test_hold_out(count, fraction, held):
    sizes = np.full(count, 7)
    chosen = hold_out(sizes, fraction, seed=0)
    assert chosen.sum() == held and len(chosen) == count
    assert (hold_out(sizes, fraction, seed=0) == chosen).all()


def test_split_by_document():
    tokens = tokens_of([3, 4, 5, 6, 2])
    kept, held = split(tokens, 0.4, seed=1)
    everything = [text.ids(np.arange(len(text))).tolist() for text in (kept, held)]
    assert len(held.documents) == 2 and len(kept.documents) == 3
    assert sorted(everything[0] + everything[1]) == list(range(20))
    ends = set(tokens.ends.tolist())
    for text, ids in zip((kept, held), everything):
        assert all(ids[last - 1] + 1 in ends for _, last in text.documents)


def test_no_more_than_was_asked_for_is_held_out():
    """A book and its preface: of the book its end, whichever of them the draw names."""
    for seed in range(4):
        kept, held = split(tokens_of([6201, 698]), 0.05, seed)
        assert (len(kept), len(held)) == (6899 - 344, 344)
        assert held.ids(np.arange(344)).tolist() == list(range(6201 - 344, 6201))
    kept, held = split(tokens_of([5] * 10 + [500] + [5] * 89), 0.05, seed=0)
    assert len(held) in (20, 25) and len(kept) == 995 - len(held)


def test_of_a_single_document_the_end_is_held_out():
    kept, held = split(tokens_of([100]), 0.05, seed=1)
    assert (len(kept), len(held)) == (95, 5) and held.ids(np.arange(5)).tolist() == list(range(95, 100))
    kept, held = split(tokens_of([100]), 0, seed=1)
    assert (len(kept), len(held)) == (100, 0)


def test_a_text_of_stretches_reads_as_one():
    text = Text(tokens_of([10, 10, 10]), np.array([[2, 5], [5, 8], [8, 8], [20, 24]]))
    assert len(text) == 10 and text.ids(np.arange(10)).tolist() == [2, 3, 4, 5, 6, 7, 20, 21, 22, 23]
    assert text.documents.tolist() == [[0, 6], [6, 10]]
    assert text.counts(30).tolist() == [int(token in (2, 3, 4, 5, 6, 7, 20, 21, 22, 23)) for token in range(30)]


def held_out(texts, window=10, packed=False):
    return HeldOut(texts, window, packed, n_vocab=2**16)


def all_of(windows):
    return windows.rows(np.arange(windows.size))


def test_windows_cover_every_target_once():
    batch = all_of(held_out([text_of(101)]))
    assert batch.tokens.shape == (10, 11) and batch.starts is None
    assert batch.tokens[:, 1:].ravel().tolist() == list(range(1, 101)) and batch.weights.all()


@pytest.mark.parametrize('packed', [False, True])
def test_windows_of_several_texts_are_one_after_another(packed, monkeypatch):
    trained = np.arange(63) % 3 > 0
    texts = [text_of(7, 30), text_of(), split(tokens_of([21, 42], trained), 0, 0)[0]]
    windows = held_out(texts, packed=packed)
    whole, alone = all_of(windows), [all_of(held_out([text], packed=packed)) for text in texts]
    for part, expected in zip(whole, joined(alone)):
        np.testing.assert_array_equal(part, expected)
    chosen = np.array([0, 2, windows.size - 1])
    np.testing.assert_array_equal(windows.rows(chosen).tokens, whole.tokens[chosen])
    monkeypatch.setattr('gpt2.training.batches.CHUNK', 30)
    assert (windows.targets == np.bincount(whole.tokens[:, 1:][whole.weights > 0], minlength=2**16)).all()


def test_held_out_text_is_not_in_memory(monkeypatch):
    """It is read from its token file as its windows are asked for."""
    monkeypatch.setattr('gpt2.training.batches.CHUNK', 2**12)
    count = 2**20
    text = split(Tokens(np.zeros(count, np.uint16), np.array([count]), None, [0]), 0, 0)[0]
    tracemalloc.start()
    windows = HeldOut([text], 64, packed=False, n_vocab=8)
    assert windows.targets.sum() == count - 1
    assert sum(batch.weights.sum() for batch in in_parts(windows, 16)) == count - 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < count


@pytest.mark.parametrize('size', [0, 1, 2, 5, 10, 11, 12, 25])
@pytest.mark.parametrize('packed', [False, True])
def test_the_last_window_is_filled_with_what_does_not_count(size, packed):
    batch = all_of(held_out([text_of(*[size] * (size > 0))], packed=packed))
    assert sorted(batch.tokens[:, 1:][batch.weights > 0].tolist()) == list(range(1, size))


@pytest.mark.parametrize('packed', [False, True])
def test_of_a_part_that_holds_nothing_there_is_no_window(packed):
    nothing = split(tokens_of([3, 4]), 0, 0)[1]
    assert all_of(held_out([nothing], packed=packed)).tokens.shape == (0, 11)


def stream_batch(text, step, batch_size=4, seed=3):
    settings = training_settings(batch_size=batch_size, window=10, seed=seed)
    return Batches([Stream(text, 10, seed)], [Weight()], settings).batch(step)


def test_an_epoch_visits_each_window_at_most_once_and_misses_few():
    text, batches = text_of(1003), 99 // 4
    rows = np.concatenate([stream_batch(text, step).tokens for step in range(batches)])
    assert (np.diff(rows, axis=1) == 1).all()
    starts = rows[:, 0]
    assert len(set(starts)) == len(starts) == 96 and len(set(starts % 10)) == 1


def test_epochs_differ_and_batches_depend_on_the_step_alone():
    text = text_of(1003)
    first, second = stream_batch(text, 0).tokens, stream_batch(text, 25).tokens
    assert (first != second).any()
    np.testing.assert_array_equal(stream_batch(text, 25).tokens, second)
    assert (stream_batch(text, 0, seed=4).tokens != first).any()


def test_too_little_text_is_refused():
    text = text_of(25)
    with pytest.raises(DatasetError, match='25 training tokens do not fill a batch of 4 windows of 10'):
        check_enough([Stream(text, 10, 0)], [text], 4, 10)


def test_what_is_no_target_has_no_weight():
    trained = np.arange(200) % 3 > 0
    text = split(tokens_of([50, 150], trained), 0, 0)[0]
    for windows in (Stream(text, 10, 0), Packed(text, 10, 0)):
        batch = windows.batch(np.arange(windows.count))
        targets = batch.tokens[:, 1:]
        inside = batch.weights.any(axis=1) & (targets.max(axis=1) > 0)
        assert inside.any() and (batch.weights[targets % 3 == 0] == 0).all()
        assert (batch.weights[(targets % 3 > 0) & (targets > 0)] == 1).all()


def test_packing_fills_windows_and_cuts_only_what_is_too_long():
    sizes = [3, 9, 11, 5, 25, 2, 1, 8]
    ends = np.cumsum(sizes)
    documents = np.stack([ends - sizes, ends], axis=1)
    bins = pack(documents, 10)
    assert max(sum(last - first for first, last in row) for row in bins) <= 11
    parts = sorted(part for row in bins for part in row)
    targets = [place for first, last in parts for place in range(first + 1, last)]
    assert targets == [place for first, last in documents for place in range(first + 1, last)]
    assert len(bins) == 6  # 63 tokens of 7 documents do not fit into fewer: 11, 11 11 5, 9 2, 8 3, 5


def test_a_packed_epoch_has_every_window_once():
    packed = Packed(text_of(*[4, 7, 3, 12, 30] * 10), 10, seed=0)
    first, second = (packed.batch(np.arange(packed.count) + epoch * packed.count) for epoch in (0, 1))
    assert sorted(map(tuple, first.tokens)) == sorted(map(tuple, second.tokens))
    assert (first.tokens != second.tokens).any()


def test_packed_documents_have_the_losses_that_they_have_alone():
    """Attention stays inside each document, and positions begin anew."""
    params = as_params(random_values(TINY))
    random = np.random.default_rng(0)
    sizes = [5, 9, 12, 3, 14]
    tokens = Tokens(random.integers(61, size=sum(sizes)).astype(np.uint16), np.cumsum(sizes), None, [0, 0])
    text = split(tokens, 0, 0)[0]
    packed = Packed(text, 20, seed=0)
    together = packed.rows(range(packed.count))
    assert packed.count < len(sizes)
    alone = 0.0
    for first, last in text.documents:
        ids = text.ids(np.arange(first, last))[np.newaxis]
        alone += float(total_loss(TINY, params, ids, np.ones([1, last - first - 1], np.float32)))
    assert float(total_loss(TINY, params, *together)) == pytest.approx(alone, rel=1e-5)


# Mixtures


class Counted:
    """Windows that are only their numbers, and say which text they are of."""

    count = 1000

    def __init__(self, name):
        self.name = name

    def batch(self, numbers):
        rows = np.stack([np.full(len(numbers), self.name), numbers], axis=1)
        return Stream(text_of(100), 10, 0).batch(np.zeros(len(numbers), int))._replace(tokens=rows)


def mixture(weights, steps=2000, seed=3):
    windows = [Counted(index) for index in range(len(weights))]
    return Batches(windows, weights, training_settings(steps=steps, batch_size=4, seed=seed))


def test_a_mixture_draws_by_weight_and_each_text_in_its_order():
    batches = mixture([Weight(1, 1), Weight(3, 3), Weight(0, 0)])
    rows = np.concatenate([batches.batch(step).tokens for step in range(2000)])
    assert len(rows) == 8000 and (rows[:, 0] == 1).mean() == pytest.approx(0.75, abs=0.02)
    assert not (rows[:, 0] == 2).any()
    for text in (0, 1):
        numbers = rows[rows[:, 0] == text, 1]
        assert (numbers == np.arange(len(numbers))).all()


def test_a_schedule_changes_the_weights_evenly():
    batches = mixture([Weight(1, 0), Weight(0, 1)])
    parts = [range(first, first + 200) for first in (0, 900, 1800)]
    shares = [np.mean([batches.batch(step).tokens[:, 0] for step in steps]) for steps in parts]
    assert shares == pytest.approx([0.05, 0.5, 0.95], abs=0.06)


def test_a_batch_of_a_mixture_depends_on_the_step_alone():
    batches = mixture([Weight(1, 0), Weight(1, 1)])
    for step in (0, 1500, 3, 1023, 1024):
        fresh = mixture([Weight(1, 0), Weight(1, 1)])
        np.testing.assert_array_equal(batches.batch(step).tokens, fresh.batch(step).tokens)


@pytest.mark.parametrize(
    ('word', 'expected'),
    [
        ('a.txt', ('a.txt', None)),
        ('general/:1', ('general/', Weight(1, 1))),
        ('a.jsonl:0.5', ('a.jsonl', Weight(0.5, 0.5))),
        ('general/:1->0', ('general/', Weight(1, 0))),
        ('a:b', ('a:b', None)),
        ('a:٣', ('a:٣', None)),
        ('a\nb:3', ('a\nb', Weight(3, 3))),
    ],
)
def test_weights_of_patterns(word, expected):
    assert weighted(word) == expected


def test_a_file_with_a_colon_in_its_name_has_no_weight(tmp_path, monkeypatch):
    (tmp_path / 'a:1').write_text('x')
    assert weighted(str(tmp_path / 'a:1')) == (str(tmp_path / 'a:1'), None)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert weighted('~/a:1') == ('~/a:1', None)


@pytest.mark.parametrize('weights', [[Weight(0, 1)], [Weight(1, 0), Weight(0, 0)]])
def test_a_mixture_of_nothing_is_refused(weights):
    with pytest.raises(UsageError, match='all weights of the data are 0'):
        check_weights(weights)


@pytest.mark.parametrize('word', ['a:1000000001', 'a:1->' + '9' * 400])
def test_a_weight_that_is_too_large_is_refused(word):
    with pytest.raises(UsageError, match=r'a weight of the data is (1,000,000,001|inf), the limit is 1,000,000,000'):
        check_weights([weighted(word)[1], Weight(1, 1)])
