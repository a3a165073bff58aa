"""What hooks see inside transformers' GPT-2, under our names. Needs torch and transformers."""

import torch


@torch.no_grad()
def hooked(theirs, hparams, ids):
    """{name: array} of everything inside a GPT2LMHeadModel as it reads ids, each as of one text."""
    theirs.config._attn_implementation = 'eager'  # which alone gives attention patterns
    found, handles = {}, []

    def keep(module, name, give=lambda inputs, output: output):
        def hook(_, inputs, output):
            value = give(inputs, output)
            found[name] = value[0] if isinstance(value, tuple) else value

        handles.append(module.register_forward_hook(hook))

    body = theirs.transformer
    keep(body.wte, 'wte')
    keep(body.wpe, 'wpe')
    keep(body.ln_f, 'ln_f')
    for index, block in enumerate(body.h):
        name = f'h{index}'
        keep(block.ln_1, f'{name}.pre', lambda inputs, _: inputs[0])
        keep(block.ln_1, f'{name}.ln_1')
        keep(block.attn.c_attn, f'{name}.attn.qkv')
        keep(block.attn.c_proj, f'{name}.attn.z', lambda inputs, _: inputs[0])
        keep(block.attn.c_proj, f'{name}.attn.out')
        keep(block.ln_2, f'{name}.mid', lambda inputs, _: inputs[0])
        keep(block.ln_2, f'{name}.ln_2')
        keep(block.mlp.c_fc, f'{name}.mlp.pre')
        keep(block.mlp.act, f'{name}.mlp.act')
        keep(block.mlp.c_proj, f'{name}.mlp.out')
        keep(block, f'{name}.post')
    output = theirs(torch.tensor([ids]), output_attentions=True)
    for handle in handles:
        handle.remove()
    for index, (block, pattern) in enumerate(zip(body.h, output.attentions)):
        name = f'h{index}'
        found[f'{name}.attn.pattern'] = pattern
        for letter, part in zip('qkv', found.pop(f'{name}.attn.qkv').chunk(3, dim=-1)):
            found[f'{name}.attn.{letter}'] = by_head(part, hparams.n_head)
        found[f'{name}.attn.z'] = z = by_head(found[f'{name}.attn.z'], hparams.n_head)
        matrix = block.attn.c_proj.weight.reshape(hparams.n_head, -1, hparams.n_embd)
        found[f'{name}.attn.heads'] = z @ matrix
        found[f'{name}.lens'] = theirs.lm_head(body.ln_f(found[f'{name}.post']))
    found['logits'] = output.logits
    return {name: (value[0] if value.shape[0] == 1 else value).numpy()
            for name, value in found.items()}  # fmt: skip


def by_head(value, n_head):
    """[batch, n, features] -> [batch, heads, n, features / heads]"""
    return value.unflatten(-1, (n_head, -1)).transpose(1, 2)
