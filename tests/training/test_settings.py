import pytest

from gpt2.errors import UsageError
from gpt2.training.settings import DEFAULTS, check_freeze, frozen, merged, run_settings, updates


@pytest.mark.parametrize(
    ('flags', 'an_epoch', 'expected'),
    [
        ({'steps': 7}, 100, 7),
        ({'epochs': 2.5}, 100, 250),
        ({'epochs': 0.001}, 100, 1),
        ({'epochs': 2, 'steps': 7}, 100, 200),  # those of a run that goes on, and what is given now
        ({'init_from': '7M'}, 3.75, 30),  # 60 kB of letters
        ({'init_from': '7M'}, 1000, 3000),
        ({}, 3.75, 75),
        ({}, 10_000, 7000),
    ],
)
def test_updates_fit_the_text(flags, an_epoch, expected):
    assert updates(flags, an_epoch, 'init_from' not in flags) == expected


@pytest.mark.parametrize(('steps', 'warmup'), [(1, 0), (30, 3), (7000, 200)])
def test_the_warm_up_fits_the_run(steps, warmup):
    assert run_settings(DEFAULTS | {'steps': steps}, 512, 100).warmup == warmup


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(UsageError, match='--warmup is 200, the run has 12 updates'):
        run_settings(DEFAULTS | {'steps': 12, 'warmup': 200}, 512, 100)


def test_what_is_not_given_is_as_the_run_had_it():
    record = {'seed': 5, 'batch_size': 2, 'steps': 10, 'learning_rate': 0.1}
    flags = merged('x', {'steps': 20}, record)
    assert (flags['seed'], flags['batch_size'], flags['steps'], flags['learning_rate']) == (5, 2, 20, 0.1)
    assert flags['held_out'] == 0.05


@pytest.mark.parametrize(
    ('given', 'record', 'message'),
    [
        ({'steps': 1, 'epochs': 1}, None, '--steps and --epochs'),
        ({'held_out': 0.1, 'held_out_data': ['a']}, None, '--held_out and --held_out_data'),
        (
            {'init_from': '7M', 'n_embd': 64, 'n_layer': 1, 'vocabulary': 'x'}, None,
            '--init_from 7M .* leave out --vocabulary, --n_embd, --n_layer',
        ),
        ({'seed': 2}, {'seed': 1}, 'was trained with seed 1, now it is 2'),
        ({'init_from': '124M'}, {'init_from': '7M'}, 'was trained with init_from 7M, now it is 124M'),
        ({'init_from': '124M'}, {'init_from': None}, 'was trained with init_from None, now it is 124M'),
        ({'n_embd': 8}, {'n_embd': 4}, 'was trained with n_embd 4, now it is 8'),
        ({'optimizer': 'lion'}, {'seed': 1}, 'was trained with optimizer adamw, now it is lion'),
        ({'vocabulary': 'x'}, {'vocabulary': '7M'}, 'was trained with vocabulary 7M, now it is x'),
    ],
)  # fmt: skip
def test_flags_that_contradict_each_other_or_the_run_are_refused_by_name(given, record, message):
    with pytest.raises(UsageError, match=message):
        merged('models/x', given, record)


@pytest.mark.parametrize(
    ('flags', 'rate', 'decay'),
    [
        ({}, 1.5e-3, 0.1), ({'init_from': '7M'}, 5e-5, 0.1), ({'optimizer': 'lion'}, 3e-4, 1.0),
        ({'optimizer': 'sgd', 'weight_decay': 0.01}, 0.3, 0.01),
    ],
)  # fmt: skip
def test_rate_and_decay_suit_the_optimizer(flags, rate, decay):
    settings = run_settings(DEFAULTS | flags, 512, 100)
    assert (settings.learning_rate, settings.weight_decay) == (rate, decay)


def test_an_accumulated_update_counts_as_so_many_windows():
    settings = run_settings(DEFAULTS | {'epochs': 1, 'batch_size': 2, 'accumulate': 5}, 512, 100)
    assert (settings.steps, settings.rows) == (10, 10)


@pytest.mark.parametrize(
    ('freeze', 'expected'),
    [(None, (False, 0)), ('embeddings', (True, 0)), ('3', (False, 3)), ('embeddings,3', (True, 3))],
)
def test_what_is_frozen(freeze, expected):
    assert frozen(freeze) == expected


@pytest.mark.parametrize('freeze', ['0', '-1', 'heads', '1,2', 'embeddings,embeddings', 'embeddings,', '1.5'])
def test_what_cannot_be_frozen(freeze):
    with pytest.raises(ValueError):
        frozen(freeze)


def test_more_blocks_than_there_are_cannot_be_frozen():
    check_freeze('embeddings,6', 6)
    with pytest.raises(UsageError, match='--freeze is 7, the model has 6 blocks'):
        check_freeze('7', 6)
