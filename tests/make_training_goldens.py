"""Write tests/training_goldens.json: what PyTorch makes of adapters, with the peft package, in 20 updates.

    pip install torch transformers peft && python tests/make_training_goldens.py

The weights are random, from NumPy, so both sides have the same.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / 'src'), str(HERE)]

import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from example_models import TINY, random_values, training_batches  # noqa: E402

from gpt2.checkpoints.huggingface import their_name  # noqa: E402
from gpt2.training import lora  # noqa: E402

UPDATES, RATE, DECAY = 20, 0.01, 0.1
RANK, ALPHA = 2, 6.0


def their_model(hparams, values):
    config = transformers.GPT2Config(
        vocab_size=hparams.n_vocab, n_positions=hparams.n_ctx, n_embd=hparams.n_embd, n_head=hparams.n_head,
        n_layer=hparams.n_layer, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    made = transformers.GPT2LMHeadModel(config)
    found = {their_name(name): torch.tensor(value[0] if value.ndim == 3 else value) for name, value in values.items()}
    made.transformer.load_state_dict(found, strict=True)
    return made


def labels(batch):
    """The targets of a batch's tokens, as transformers takes them."""
    found = torch.tensor(batch.tokens, dtype=torch.long)
    found[:, 1:][torch.tensor(batch.weights) == 0] = -100
    return found


def train(parameters, hparams, loss):
    """The losses of 20 updates of AdamW, clipped, with decay on matrices. loss: of a batch."""
    parameters = [each for each in parameters if each.requires_grad]
    matrices = [each for each in parameters if each.dim() > 1]
    others = [each for each in parameters if each.dim() < 2]
    groups = [{'params': matrices, 'weight_decay': DECAY}, {'params': others, 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for batch in training_batches(hparams, UPDATES):
        found = loss(batch)
        optimizer.zero_grad()
        found.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(float(found.detach()))
    return losses


def adapters():
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=['c_attn', 'c_proj', 'c_fc'], fan_in_fan_out=True,
        task_type='CAUSAL_LM',
    )  # fmt: skip
    made = peft.get_peft_model(their_model(TINY, random_values(TINY)), config)
    fresh = lora.fresh_values(TINY, RANK, seed=0)
    peft.set_peft_model_state_dict(made, {lora.peft_name(name): torch.tensor(fresh[name].T) for name in fresh})

    def loss(batch):
        return made(torch.tensor(batch.tokens, dtype=torch.long), labels=labels(batch)).loss

    losses, state = train(made.parameters(), TINY, loss), peft.get_peft_model_state_dict(made)
    return {'losses': losses, 'values': {name: listed(state[lora.peft_name(name)].T) for name in fresh}}


def listed(tensor):
    return [float(f'{value:.6g}') for value in tensor.detach().flatten()]


def main():
    goldens = {'rate': RATE, 'weight_decay': DECAY, 'rank': RANK, 'alpha': ALPHA, 'lora': adapters()}
    (HERE / 'training_goldens.json').write_text(json.dumps(goldens), encoding='utf-8')


if __name__ == '__main__':
    main()
