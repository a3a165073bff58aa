"""Write tests/training_goldens.json: what PyTorch makes in 20 updates of adapters, with the peft package, and of a
student, with its own losses.

    pip install torch transformers peft && python tests/make_training_goldens.py

The weights are random, from NumPy, so both sides have the same.
"""

import dataclasses
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
from gpt2.hparams import HParams, variable_shapes  # noqa: E402
from gpt2.training import lora  # noqa: E402

UPDATES, RATE, DECAY = 20, 0.01, 0.1
RANK, ALPHA = 2, 6.0
TEACHER = HParams(n_vocab=31, n_ctx=12, n_embd=8, n_head=2, n_layer=3)
LAYERS = [0, 2]  # of the teacher, that the student begins with
TEMPERATURE, ALPHA_CE, ALPHA_CLM, ALPHA_COS = 2.0, 5.0, 2.0, 1.0


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


def in_teacher(name):
    """The variable of the teacher that one of the student begins as."""
    _, place, *_ = name.split('/')
    return name.replace(f'/{place}/', f'/h{LAYERS[int(place[1:])]}/') if place[1:].isdigit() else name


def student():
    values = random_values(TEACHER)
    hparams = dataclasses.replace(TEACHER, n_layer=len(LAYERS))
    teacher = their_model(TEACHER, values).eval()
    made = their_model(hparams, {name: values[in_teacher(name)] for name in variable_shapes(hparams)})

    def outputs(model, batch):
        """(logits, final features, targets) of the targets that count."""
        tokens, counts = torch.tensor(batch.tokens, dtype=torch.long), torch.tensor(batch.weights) > 0
        features = model.transformer(tokens[:, :-1]).last_hidden_state[counts]
        return model.lm_head(features), features, tokens[:, 1:][counts]

    def loss(batch):
        with torch.no_grad():
            expected, theirs, _ = outputs(teacher, batch)
        logits, ours, targets = outputs(made, batch)
        softened = torch.log_softmax(logits / TEMPERATURE, -1), torch.softmax(expected / TEMPERATURE, -1)
        divergence = torch.nn.KLDivLoss(reduction='batchmean')(*softened) * TEMPERATURE**2
        cosine = torch.nn.CosineEmbeddingLoss()(ours, theirs, torch.ones(len(ours)))
        return ALPHA_CE * divergence + ALPHA_CLM * torch.nn.CrossEntropyLoss()(logits, targets) + ALPHA_COS * cosine

    losses, state = train(made.parameters(), TEACHER, loss), made.transformer.state_dict()
    return {
        'teacher': dataclasses.asdict(TEACHER), 'layers': LAYERS, 'temperature': TEMPERATURE, 'alpha_ce': ALPHA_CE,
        'alpha_clm': ALPHA_CLM, 'alpha_cos': ALPHA_COS, 'losses': losses,
        'values': {name: listed(state[their_name(name)]) for name in variable_shapes(hparams)},
    }  # fmt: skip


def listed(tensor):
    return [float(f'{value:.6g}') for value in tensor.detach().flatten()]


def main():
    how = {'rate': RATE, 'weight_decay': DECAY, 'rank': RANK, 'alpha': ALPHA}
    goldens = how | {'lora': adapters(), 'student': student()}
    (HERE / 'training_goldens.json').write_text(json.dumps(goldens), encoding='utf-8')


if __name__ == '__main__':
    main()
