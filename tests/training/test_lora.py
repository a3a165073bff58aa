"""Low-rank adapters: their arithmetic, what is saved of them, runs that train them."""

import json
import signal

import numpy as np
import pytest
from example_models import (
    HERE,
    TINY,
    as_params,
    full_logits,
    random_tokens,
    random_values,
    training_batches,
    training_settings,
)
from training_runs import SMALL, run, write_small

from gpt2 import model
from gpt2.checkpoints import bundle, release
from gpt2.checkpoints.source import open_source
from gpt2.checkpoints.tensor_files import safetensors
from gpt2.errors import Error, UsageError
from gpt2.hparams import parameter_count
from gpt2.training import loop, lora, plan
from gpt2.training.optimizer import make_optimizer, trained
from gpt2.training.update import make_train_step

GOLDENS = json.loads((HERE / 'training_goldens.json').read_text())
RANK, ALPHA = GOLDENS['rank'], GOLDENS['alpha']


def adapted(values):
    return lora.adapted(as_params(random_values(TINY)), values, ALPHA)


def other_values():
    random = np.random.default_rng(1)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in lora.shapes(TINY, RANK).items()}


def test_twenty_updates_are_those_of_peft():
    params = adapted(lora.fresh_values(TINY, RANK, seed=0))
    settings = training_settings(weight_decay=GOLDENS['weight_decay'])
    step = make_train_step(TINY, params, make_optimizer(trained(params, None), settings), settings)
    losses = [step(batch, GOLDENS['rate']).loss for batch in training_batches(TINY, 20)]
    np.testing.assert_allclose(losses, GOLDENS['lora']['losses'], rtol=2e-5)
    for name, value in lora.adapters(params).items():
        np.testing.assert_allclose(value.numpy().ravel(), GOLDENS['lora']['values'][name], atol=2e-4, err_msg=name)
    for name, value in random_values(TINY).items():
        np.testing.assert_array_equal(model.flatten(params)[name].numpy(), value)
    assert len(trained(params, '1')) == len(trained(params, None)) / 2


def test_fresh_adapters_change_nothing_and_trained_ones_as_much_as_when_they_are_added():
    tokens = random_tokens(TINY, 2, 9)
    before = full_logits(TINY, as_params(random_values(TINY)), tokens)
    np.testing.assert_array_equal(full_logits(TINY, adapted(lora.fresh_values(TINY, RANK, 0)), tokens), before)
    params = adapted(other_values())
    after = full_logits(TINY, params, tokens)
    assert np.abs(after - before).max() > 1
    np.testing.assert_allclose(full_logits(TINY, lora.merged(params), tokens), after, atol=2e-4, rtol=1e-4)
    assert list(model.flatten(lora.merged(params))) == list(random_values(TINY))


def test_an_adapter_is_written_as_peft_has_it(tmp_path):
    values = other_values()
    release.write_values(f'{tmp_path}/model-1.optimizer', values)
    lora.write_adapter(str(tmp_path), f'{tmp_path}/model-1', TINY, RANK, ALPHA, '355M')
    found = safetensors(str(tmp_path / 'adapter_model.safetensors'))
    assert len(found) == len(values) == 2 * 4 * TINY.n_layer
    tensor = found['base_model.model.transformer.h.1.mlp.c_fc.lora_B.weight']
    np.testing.assert_array_equal(tensor.read(), values['model/h1/mlp/c_fc/lora/b'].T)
    config = json.loads((tmp_path / 'adapter_config.json').read_text())
    assert (config['r'], config['lora_alpha'], config['base_model_name_or_path']) == (RANK, ALPHA, 'gpt2-medium')


def test_peft_takes_an_adapter(tmp_path):
    peft = pytest.importorskip('peft')
    pytest.importorskip('transformers')
    import torch
    from make_training_goldens import their_model

    release.write_values(f'{tmp_path}/model-1.optimizer', other_values())
    lora.write_adapter(str(tmp_path), f'{tmp_path}/model-1', TINY, RANK, ALPHA, 'base')
    theirs = peft.PeftModel.from_pretrained(their_model(TINY, random_values(TINY)), str(tmp_path))
    tokens = random_tokens(TINY, 2, 9)
    with torch.no_grad():
        logits = theirs(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
    np.testing.assert_allclose(full_logits(TINY, adapted(other_values()), tokens), logits, atol=2e-4, rtol=1e-4)


def test_the_plan_counts_what_is_trained():
    settings = training_settings(lora_rank=RANK)
    count = lora.size(TINY, RANK)
    assert count == 2 * RANK * (20 + 60 + 20 + 20 + 20 + 80 + 80 + 20)
    assert plan.saved_bytes(TINY, settings) == 4 * (parameter_count(TINY) + 3 * count)
    whole = plan.memory(TINY, training_settings())
    assert whole - plan.memory(TINY, settings) == pytest.approx(12 * (parameter_count(TINY) - count), rel=1e-6)


# Runs

def adapt(folder, name, **flags):
    return run(folder, name, **{'init_from': 'base', 'lora_rank': 2, 'steps': 8, 'learning_rate': 0.01} | flags)


def test_an_interrupted_run_goes_on_with_its_adapters(base, monkeypatch):
    whole = adapt(base, 'whole', every=3)
    original, batches = loop.Batches.batch, []

    def batch(self, step):
        batches.append(step)
        if len(batches) == 3:
            signal.raise_signal(signal.SIGTERM)
        return original(self, step)

    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop.Batches, 'batch', batch)
            broken = adapt(base, 'broken')
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert (broken / 'model-3.index').exists() and (broken / lora.WEIGHTS).exists()
    run(base, 'broken')
    assert open_source(str(broken)).digest() == open_source(str(whole)).digest()
    assert (broken / lora.WEIGHTS).read_bytes() == (whole / lora.WEIGHTS).read_bytes()


def test_a_run_that_was_killed_before_its_adapters_were_written_writes_them_as_it_goes_on(base, monkeypatch):
    folder = adapt(base, 'x', steps=2)
    adapters = folder / lora.WEIGHTS
    before = adapters.read_bytes()

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, 'write_adapter', kill)
        run(base, 'x', steps=3)
    assert adapters.read_bytes() == before
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, 'make_train_step', kill)
        run(base, 'x', steps=4)
    written = adapters.read_bytes()
    lora.write_adapter(str(folder), f'{folder}/model.ckpt', SMALL, 2, 32, 'base')
    assert adapters.read_bytes() == written != before


def test_a_run_saves_the_model_with_its_adapters_added_and_nothing_of_the_weights_in_the_optimizer(base):
    folder = adapt(base, 'x')
    entries, _ = bundle.read_index(f'{folder}/model.ckpt.optimizer')
    count = sum(np.prod(entry.shape) for entry in entries.values())
    assert count == 3 * lora.size(SMALL, 2) + 1
    values = lora.saved_values(f'{folder}/model.ckpt', SMALL, 2)
    name = 'model/h0/mlp/c_fc'
    added = 16 * values[f'{name}/lora/a'] @ values[f'{name}/lora/b']
    before, after = open_source(str(base / 'models' / 'base')), open_source(str(folder))
    np.testing.assert_allclose(after.value(f'{name}/w')[0] - before.value(f'{name}/w')[0], added, atol=1e-6)
    assert np.abs(added).max() > 1e-3
    np.testing.assert_array_equal(after.value('model/wte'), before.value('model/wte'))
    (folder / lora.WEIGHTS).unlink()
    run(base, 'x')  # is trained
    assert (folder / lora.WEIGHTS).exists()


def test_adapters_go_on_with_their_own_model_alone(base, encoder):
    folder = adapt(base, 'x')
    write_small(base / 'models' / 'base', encoder, seed=1)
    with pytest.raises(UsageError, match='was trained with init_from_sha256'):
        run(base, 'x', steps=9)
    (base / 'models' / 'base').rename(base / 'elsewhere')
    with pytest.raises(Error, match='no model base'):
        run(base, 'x', steps=9)
    assert open_source(str(folder)).digest()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'lora_rank': 2}, '--lora_rank needs --init_from'),
        ({'lora_alpha': 2, 'init_from': '7M'}, '--lora_alpha needs --lora_rank'),
        ({'lora_rank': 0, 'init_from': '7M'}, '--lora_rank is 0'),
        ({'lora_rank': 2, 'lora_alpha': 0, 'init_from': '7M'}, '--lora_alpha is 0'),
    ],
)
def test_wrong_flags_are_refused(tmp_path, flags, message):
    (tmp_path / 'text.txt').write_text('text ' * 100)
    with pytest.raises(UsageError, match=message):
        run(tmp_path, 'x', **flags)
    assert not (tmp_path / 'models').exists()


def test_a_run_of_whole_weights_does_not_go_on_with_adapters(base):
    run(base, 'x', init_from='base', steps=1)
    with pytest.raises(UsageError, match='was trained with lora_rank 0, now it is 2'):
        run(base, 'x', init_from='base', lora_rank=2)
