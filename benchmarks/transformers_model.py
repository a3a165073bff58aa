"""The weights of one of our models in transformers' GPT-2, for comparison.

Needs what the project itself does not: pip install torch transformers
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel


def transformers_model(hparams, values):
    """A GPT2LMHeadModel of values, a dict from checkpoint name to array."""
    config = GPT2Config(
        vocab_size=hparams.n_vocab, n_positions=hparams.n_ctx, n_embd=hparams.n_embd, n_head=hparams.n_head,
        n_layer=hparams.n_layer, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    state = {their_name(name): torch.tensor(value.squeeze(0) if value.ndim == 3 else value)
             for name, value in values.items()}  # fmt: skip
    missing, unknown = theirs.load_state_dict(state, strict=False)
    if unknown or set(missing) != {'lm_head.weight'}:  # which is wte itself
        raise RuntimeError(f'weights do not fit: missing {missing}, unknown {unknown}')
    return theirs


def their_name(name):
    """`model/h0/ln_1/g` as `transformer.h.0.ln_1.weight`."""
    _, first, *rest = name.split('/')
    layer = ['h', first[1:]] if first[1:].isdigit() else [first]
    kinds = {'g': 'weight', 'b': 'bias', 'w': 'weight'}
    leaf = [kinds[rest.pop()]] if rest else ['weight']
    return '.'.join(['transformer', *layer, *rest, *leaf])
