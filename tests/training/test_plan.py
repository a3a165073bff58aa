"""The plan's figures."""

import dataclasses

import pytest
from example_models import TINY, training_settings

from gpt2.hparams import RELEASED_HPARAMS, parameter_count
from gpt2.training import plan

SHAPE = RELEASED_HPARAMS['355M']
SETTINGS = training_settings(batch_size=2, window=1024)


def memory(**changed):
    return plan.memory(SHAPE, dataclasses.replace(SETTINGS, **changed))


@pytest.mark.parametrize('less', [
    {'recompute': True}, {'optimizer': 'lion'}, {'optimizer': 'adafactor'}, {'optimizer': 'sgd'},
    {'precision': 'bfloat16'}, {'freeze': 'embeddings'}, {'freeze': '3'}, {'batch_size': 1, 'accumulate': 2},
], ids=str)  # fmt: skip
def test_what_saves_memory_is_planned_with_less(less):
    assert memory(**less) < memory()


def test_what_needs_more_memory_is_planned_with_more():
    assert memory(dropout=0.1) > memory() and memory(accumulate=2) > memory()


def test_a_teacher_takes_time_and_memory():
    student = dataclasses.replace(SHAPE, n_layer=12)
    more = plan.memory(student, SETTINGS, SHAPE) - plan.memory(student, SETTINGS)
    assert more > 4 * parameter_count(SHAPE)
    ratio = plan.step_operations(SHAPE, SETTINGS, SHAPE) / plan.step_operations(SHAPE, SETTINGS)
    assert ratio == pytest.approx(4 / 3)  # forward without backward, which takes twice as long


def test_updates_of_the_smallest_model_take_their_time(monkeypatch):
    monkeypatch.setattr(plan, 'measured_speed', lambda: 1e11)
    operations = plan.step_operations(TINY, SETTINGS)
    assert plan.step_seconds(TINY, SETTINGS) == pytest.approx(0.01 + operations / 5e10)


def test_layers_below_the_lowest_that_is_trained_keep_nothing():
    def kept(freeze):
        return plan.kept_numbers(SHAPE, dataclasses.replace(SETTINGS, freeze=freeze))

    assert kept('12') == kept(None) == 2 * kept('embeddings,12')


def test_a_checkpoint_holds_the_weights_and_what_the_optimizer_keeps_of_those_that_move():
    count, embeddings = parameter_count(TINY), (TINY.n_vocab + TINY.n_ctx) * TINY.n_embd
    assert plan.saved_bytes(TINY, SETTINGS) == 12 * count
    frozen = dataclasses.replace(SETTINGS, optimizer='lion', freeze='embeddings')
    assert plan.saved_bytes(TINY, frozen) == 4 * count + 4 * (count - embeddings)
