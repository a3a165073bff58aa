"""A student learns from a teacher."""

import dataclasses
import json

import numpy as np
import pytest
from example_models import HERE, as_params, random_values, training_batches, training_settings
from training_runs import SMALL, run, write_small

from gpt2 import model
from gpt2.checkpoints.source import open_source
from gpt2.encoder import Encoder
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.training import distillation
from gpt2.training import run as runs
from gpt2.training.optimizer import make_optimizer, trained
from gpt2.training.update import make_train_step

GOLDENS = json.loads((HERE / 'training_goldens.json').read_text())


def test_the_layers_are_distilgpt2_s():
    assert distillation.layers(6, 12) == [0, 2, 4, 7, 9, 11]
    assert distillation.layers(3, 3) == [0, 1, 2] and distillation.layers(1, 12) == [0]


def test_twenty_updates_are_those_of_pytorch_s_losses():
    golden = GOLDENS['student']
    teacher = HParams(**golden['teacher'])
    values, layers = random_values(teacher), distillation.layers(2, 3)
    assert layers == golden['layers']
    ours = {
        distillation.LAYER.sub(lambda layer: str(layers.index(int(layer[0]))), name): value
        for name, value in values.items() if '/h1/' not in name
    }  # fmt: skip
    how = {name: golden[name] for name in ('temperature', 'alpha_ce', 'alpha_clm', 'alpha_cos')}
    settings = training_settings(weight_decay=GOLDENS['weight_decay'], **how)
    params, hparams = as_params(ours), dataclasses.replace(teacher, n_layer=2)
    optimizer = make_optimizer(trained(params, None), settings)
    loss = distillation.make_loss(teacher, as_params(values), settings)
    step = make_train_step(hparams, params, optimizer, settings, loss)
    losses = [step(batch, GOLDENS['rate']).loss for batch in training_batches(teacher, 20)]
    np.testing.assert_allclose(losses, golden['losses'], rtol=2e-5)
    for name, value in model.flatten(params).items():
        found, expected = value.numpy().ravel(), np.array(golden['values'][name])
        if name.endswith('c_attn/b'):  # softmax is blind to the keys' bias, whose gradient is nothing but rounding
            keys = range(teacher.n_embd, 2 * teacher.n_embd)
            found, expected = np.delete(found, keys), np.delete(expected, keys)
        np.testing.assert_allclose(found, expected, atol=3e-4, err_msg=name)


def test_the_loss_of_a_student_is_what_the_compiler_is_tried_with(base, monkeypatch):
    tried = []
    monkeypatch.setattr(runs, 'WORTH_A_TRIAL', 0)
    monkeypatch.setattr(runs, 'faster_compiled', lambda *arguments: tried.append(arguments[-1]) or False)
    run(base, 'x', teacher='base', steps=1)
    assert [loss.__module__ for loss in tried] == [distillation.__name__]


def test_a_student_begins_as_every_second_layer_of_its_teacher(base):
    folder = run(base, 'x', teacher='base', steps=1, learning_rate=1e-9)
    student, teacher = open_source(str(folder)), open_source(str(base / 'models' / 'base'))
    assert student.hparams == dataclasses.replace(SMALL, n_layer=2)
    for ours, theirs in (('model/wte', 'model/wte'), ('model/h0/attn/c_attn/w', 'model/h0/attn/c_attn/w'),
                         ('model/h1/mlp/c_fc/w', 'model/h2/mlp/c_fc/w')):  # fmt: skip
        np.testing.assert_allclose(student.value(ours), teacher.value(theirs), atol=1e-7)


def test_a_run_goes_on_with_its_teacher_as_one_that_was_not_broken_off(base, encoder):
    how = {'teacher': 'base', 'n_layer': 1, 'alpha_cos': 0.5, 'warmup': 1}  # so the first update's rate is that of both
    whole = run(base, 'whole', **how, steps=2)
    run(base, 'broken', **how, steps=1)
    broken = run(base, 'broken', steps=2)
    record = json.loads((broken / 'training.json').read_text())
    assert (record['n_layer'], record['alpha_cos'], record['temperature']) == (1, 0.5, 2.0)
    assert open_source(str(broken)).digest() == open_source(str(whole)).digest()
    write_small(base / 'models' / 'base', encoder, seed=1)
    with pytest.raises(UsageError, match='was trained with teacher_sha256'):
        run(base, 'broken', steps=3)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'temperature': 3}, '--temperature needs --teacher'),
        ({'teacher': 'base', 'n_embd': 8}, '--teacher base has a shape .*leave out --n_embd'),
        ({'teacher': 'base', 'n_layer': 4}, '--n_layer is 4, and --teacher .* has 3 layers'),
        ({'teacher': 'base', 'temperature': 0}, '--temperature is 0'),
        ({'teacher': 'base', 'alpha_ce': 0, 'alpha_clm': 0, 'alpha_cos': 0}, 'leave nothing to learn'),
        ({'teacher': 'nobody'}, 'no model nobody'),
        ({'teacher': 'wide', 'init_from': 'base'}, 'has 8 features.*--alpha_cos 0'),
        ({'teacher': 'other', 'init_from': 'base'}, 'another vocabulary'),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(base, encoder, flags, message):
    if flags.get('teacher') == 'wide':
        write_small(base / 'models' / 'wide', encoder, hparams=dataclasses.replace(SMALL, n_embd=8))
    if flags.get('teacher') == 'other':
        tokens = list(encoder.encoder)
        tokens[300], tokens[301] = tokens[301], tokens[300]
        other = Encoder({token: index for index, token in enumerate(tokens)}, list(encoder.bpe_ranks))
        write_small(base / 'models' / 'other', other)
    with pytest.raises(UsageError, match=message) as caught:
        run(base, 'x', **flags)
    assert '\n' not in str(caught.value) and not (base / 'models' / 'x').exists()
