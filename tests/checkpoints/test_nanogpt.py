"""nanoGPT's ckpt.pt."""

import numpy as np
import pytest
import reference_numpy
from example_models import TINY, random_values

from gpt2.checkpoints import nanogpt
from gpt2.checkpoints.huggingface import their_name
from gpt2.checkpoints.source import open_source
from gpt2.encoder import END_OF_TEXT, Encoder, bytes_to_unicode, write_encoder
from gpt2.errors import Error

torch = pytest.importorskip('torch')
VALUES = random_values(TINY)
ARGUMENTS = {
    'n_layer': TINY.n_layer, 'n_head': TINY.n_head, 'n_embd': TINY.n_embd, 'block_size': TINY.n_ctx, 'bias': True,
    'vocab_size': TINY.n_vocab, 'dropout': 0.0,
}  # fmt: skip


def state(values=VALUES, prefix='', dtype=torch.float32):
    """The tensors as nanoGPT's modules name and turn them: a Linear's weight is [outputs, inputs]."""
    tensors = {}
    for name, value in values.items():
        value = value[0].T if value.ndim == 3 else value
        tensors[f'{prefix}transformer.{their_name(name)}'] = torch.tensor(np.ascontiguousarray(value)).to(dtype)
    return tensors | {f'{prefix}lm_head.weight': tensors[f'{prefix}transformer.wte.weight']}


def save(folder, tensors, **arguments):
    content = {
        'model': tensors, 'model_args': ARGUMENTS | arguments, 'iter_num': 100, 'best_val_loss': torch.tensor(3.2),
        'optimizer': {'state': {0: {'step': torch.tensor(100.0), 'exp_avg': torch.zeros(3)}}, 'param_groups': []},
        'config': {'dataset': 'openwebtext', 'compile': True},
    }  # fmt: skip
    torch.save(content, folder / 'ckpt.pt')
    return str(folder / 'ckpt.pt')


def refusal(path):
    with pytest.raises(Error) as caught:
        open_source(path)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('content', [{}, {'model': [1]}, {'model': {1: torch.zeros(1)}}, {'model': None}])
def test_a_file_without_the_model(tmp_path, content):
    torch.save({'model_args': ARGUMENTS} | content, tmp_path / 'ckpt.pt')
    assert 'holds no tensors by name' in refusal(str(tmp_path / 'ckpt.pt'))


@pytest.mark.parametrize('prefix', ['', '_orig_mod.'])
def test_values(tmp_path, prefix):
    path = save(tmp_path, state(prefix=prefix))
    for source in (open_source(path), open_source(str(tmp_path))):
        assert (source.format, source.hparams, source.encoder) == ('nanogpt', TINY, None)
        found = dict(source.values())
        assert all((found[name] == VALUES[name]).all() for name in VALUES)
        assert source.notices == (nanogpt.GELU,)


def test_logits_are_those_of_its_linear_layers(tmp_path):
    """The orientation, against PyTorch's own Linear."""
    tensors = state()
    source = open_source(save(tmp_path, tensors))
    weight, x = tensors['transformer.h.0.mlp.c_fc.weight'], np.ones(TINY.n_embd, np.float32)
    linear = torch.nn.Linear(TINY.n_embd, 4 * TINY.n_embd)
    linear.weight.data = weight
    linear.bias.data = tensors['transformer.h.0.mlp.c_fc.bias']
    ours = x @ source.value('model/h0/mlp/c_fc/w')[0] + source.value('model/h0/mlp/c_fc/b')
    np.testing.assert_allclose(ours, linear(torch.tensor(x)).detach().numpy(), atol=1e-5)


def test_without_biases(tmp_path):
    tensors = {name: tensor for name, tensor in state().items() if not name.endswith('.bias')}
    source = open_source(save(tmp_path, tensors, bias=False))
    assert not source.value('model/h1/attn/c_attn/b').any()
    values = VALUES | {name: 0 * value for name, value in VALUES.items() if name.endswith('/b')}
    ours, expected = (
        reference_numpy.logits(each, TINY.n_head, TINY.n_layer, [1, 2, 3]) for each in (dict(source.values()), values)
    )
    np.testing.assert_array_equal(ours, expected)


def test_bfloat16(tmp_path):
    source = open_source(save(tmp_path, state(dtype=torch.bfloat16)))
    assert source.dtype == 'bfloat16'
    np.testing.assert_allclose(source.value('model/wte'), VALUES['model/wte'], rtol=2**-8)


def test_a_padded_vocabulary_beside_it(tmp_path):
    tokens = [*bytes_to_unicode().values(), END_OF_TEXT]
    write_encoder(str(tmp_path), Encoder({token: index for index, token in enumerate(tokens)}, []))
    values = VALUES | {'model/wte': np.arange(264 * 20, dtype=np.float32).reshape(264, 20)}
    source = open_source(save(tmp_path, state(values), vocab_size=264))
    assert source.hparams.n_vocab == len(source.encoder) == 257
    assert (source.value('model/wte') == values['model/wte'][:257]).all()
    assert '7 rows of wte belong to no token' in source.notices[0]


def test_what_is_refused(tmp_path):
    tensors = state()
    assert 'model_args' in refusal(save(tmp_path, tensors, n_head=3))
    assert 'n_layer is 1000000000' in refusal(save(tmp_path, tensors, n_layer=10**9))
    assert 'wpe.weight is float32 [40, 20], expected [41, 20]' in refusal(save(tmp_path, tensors, block_size=41))
    assert 'is no tensor of' in refusal(save(tmp_path, tensors | {'transformer.h.0.attn.rotary': torch.zeros(1)}))
    head = {'lm_head.weight': torch.zeros(61, 20)}
    assert 'lm_head.weight is another matrix' in refusal(save(tmp_path, tensors | head))
    del tensors['transformer.h.0.ln_1.weight']
    assert 'has no tensor h.0.ln_1.weight, expected [20]' in refusal(save(tmp_path, tensors))
    torch.save({'step': 1}, tmp_path / 'ckpt.pt')
    assert "no ckpt.pt of nanoGPT's" in refusal(str(tmp_path / 'ckpt.pt'))
    torch.save([1], tmp_path / 'ckpt.pt')
    assert 'holds no tensors by name' in refusal(str(tmp_path))
