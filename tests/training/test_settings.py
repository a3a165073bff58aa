import pytest

from gpt2.errors import UsageError
from gpt2.training.settings import DEFAULTS, merged, run_settings, updates


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
    assert flags['weight_decay'] == 0.1


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
        ({'vocabulary': 'x'}, {'vocabulary': '7M'}, 'was trained with vocabulary 7M, now it is x'),
    ],
)  # fmt: skip
def test_flags_that_contradict_each_other_or_the_run_are_refused_by_name(given, record, message):
    with pytest.raises(UsageError, match=message):
        merged('models/x', given, record)
