"""Training against PyTorch and transformers: the same weights, batches and rates. Skipped where they are missing."""

import dataclasses

import numpy as np
import pytest
from example_models import TINY, as_params, random_values

from gpt2 import model
from gpt2.training.batches import Batch
from gpt2.training.optimizer import learning_rate, make_optimizer
from gpt2.training.settings import Settings
from gpt2.training.update import make_train_step

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')
SETTINGS = Settings(20, 3, 12, 0.003, 4, 0.1, 0.0, 0)


def batches():
    """Random tokens; from the second on about a third of the targets does not count."""
    random = np.random.default_rng(0)
    for step in range(SETTINGS.steps):
        tokens = random.integers(TINY.n_vocab, size=(3, 13)).astype(np.int32)
        weights = (random.random([3, 12]) < (0.7 if step else 1)).astype(np.float32)
        yield Batch(tokens, weights)


def theirs(name):
    """The name that transformers gives to a variable of a checkpoint."""
    name = name.replace('model/', 'transformer.').replace('/', '.').replace('transformer.h', 'transformer.h.')
    for ours, their in (('.g', '.weight'), ('.b', '.bias'), ('.w', '.weight')):
        name = name.removesuffix(ours) + their if name.endswith(ours) else name
    return name + '.weight' if name.endswith(('wte', 'wpe')) else name


def their_model(values):
    config = transformers.GPT2Config(
        vocab_size=TINY.n_vocab, n_positions=TINY.n_ctx, n_embd=TINY.n_embd, n_head=TINY.n_head, n_layer=TINY.n_layer,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    made = transformers.GPT2LMHeadModel(config)
    parameters = dict(made.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[theirs(name)].copy_(torch.tensor(value).reshape(parameters[theirs(name)].shape))
    return made, parameters


def their_optimizer(made, kind):
    if kind == 'adamw':
        groups = [
            {'params': [each for each in made.parameters() if (each.dim() > 1) == matrices], 'weight_decay': decay}
            for matrices, decay in ((True, SETTINGS.weight_decay), (False, 0.0))
        ]
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    if kind == 'sgd':
        return torch.optim.SGD(made.parameters(), momentum=0.9)
    return transformers.optimization.Adafactor(
        made.parameters(), lr=0.0, scale_parameter=True, relative_step=False, warmup_init=False
    )


def train_theirs(values, settings):
    made, parameters = their_model(values)
    optimizer = their_optimizer(made, settings.optimizer)
    losses = []
    for step, batch in enumerate(batches()):
        tokens = torch.tensor(batch.tokens, dtype=torch.long)
        labels = tokens.clone()
        labels[:, 1:][torch.tensor(batch.weights) == 0] = -100
        loss = made(tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        for group in optimizer.param_groups:
            group['lr'] = rate(settings, step)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, {name: parameters[theirs(name)].detach().numpy() for name in values}


def rate(settings, step):
    """With a rate that changes, Keras' momentum is of the steps that were taken, PyTorch's of the gradients."""
    return settings.learning_rate if settings.optimizer == 'sgd' else learning_rate(settings, step)


def train_ours(values, settings):
    params = as_params(values)
    optimizer = make_optimizer(list(model.flatten(params).values()), settings)
    step = make_train_step(TINY, params, optimizer, settings)
    losses = [step(batch, rate(settings, index)).loss for index, batch in enumerate(batches())]
    return losses, {name: variable.numpy() for name, variable in model.flatten(params).items()}


def without_key_bias(name, value):
    """Softmax is blind to the keys' bias, whose gradient is nothing but rounding."""
    return np.delete(value.ravel(), range(TINY.n_embd, 2 * TINY.n_embd)) if name.endswith('c_attn/b') else value.ravel()


@pytest.mark.parametrize(
    'changed',
    [
        {}, {'optimizer': 'sgd', 'learning_rate': 0.02, 'weight_decay': 0.0},
        {'optimizer': 'adafactor', 'learning_rate': 0.02, 'weight_decay': 0.0}, {'batch_size': 1, 'accumulate': 3},
    ],
)  # fmt: skip
def test_twenty_updates_are_those_of_pytorch(changed):
    values, settings = random_values(TINY), dataclasses.replace(SETTINGS, **changed)
    (ours, our_values), (their, their_values) = train_ours(values, settings), train_theirs(values, settings)
    np.testing.assert_allclose(ours, their, rtol=5e-5)
    # Adafactor moves a vector by its size and that of its steps: the others' part of c_attn/b with the keys'.
    atol = 1e-3 if settings.optimizer == 'adafactor' else 2e-4
    for name, value in our_values.items():
        moved = np.abs(value - values[name]).max()
        found, expected = without_key_bias(name, value), without_key_bias(name, their_values[name])
        assert moved > 0.01
        np.testing.assert_allclose(found, expected, atol=atol, err_msg=name)
