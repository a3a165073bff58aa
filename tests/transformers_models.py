"""Tiny random models in folders that transformers itself writes. Needs torch, transformers and tokenizers."""

import json
import random

import torch
from example_models import BUNDLED
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from gpt2.encoder import END_OF_TEXT, bytes_to_unicode

MERGES = 40
ADDED = ['<|startoftext|>', '<|pad|>', ' spaced']
PLAIN = 256 + MERGES + 1  # tokens before those that are added
SHAPE = {'n_positions': 24, 'n_embd': 16, 'n_head': 2, 'n_layer': 2}


def write_plain_vocabulary(folder):
    """vocab.json and merges.txt of the first merges of the bundled vocabulary."""
    lines = (BUNDLED / 'vocab.bpe').read_text(encoding='utf-8').split('\n')[: MERGES + 1]
    tokens = [*bytes_to_unicode().values(), *(line.replace(' ', '') for line in lines[1:]), END_OF_TEXT]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.json').write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / 'merges.txt').write_text('\n'.join([*lines, '']), encoding='utf-8')


def make_tokenizer(folder, added=()):
    """A tokenizer of PLAIN tokens and those that are added, without its files."""
    write_plain_vocabulary(folder)
    tokenizer = GPT2TokenizerFast.from_pretrained(str(folder))
    for path in folder.iterdir():
        path.unlink()
    tokenizer.add_tokens(list(added))
    return tokenizer


def make_model(vocab_size=PLAIN, **settings):
    """A model in float32 whose every term shows in its logits."""
    end = {'bos_token_id': PLAIN - 1, 'eos_token_id': PLAIN - 1}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **SHAPE, **end, **settings)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape)
            parameter.copy_(noise + 1 if 'ln_' in name and name.endswith('weight') else noise)
    return model


def logits(model, tokens):
    """float32 [n, rows of wte] of token ids, in the model's own arithmetic but in float32."""
    with torch.no_grad():
        return model.float()(torch.tensor([tokens])).logits[0].numpy()


def random_texts(count, added=(), seed=0):
    """Texts of letters, white space, marks and bits of added tokens."""
    generator = random.Random(seed)
    pieces = [*'aethnr .,!\n\t7éß漢😀<|>', ' the', 'th', '  ', "'s", 'in', END_OF_TEXT, '<|', '|>', *added, *added]
    return [''.join(generator.choices(pieces, k=generator.randrange(30))) for _ in range(count)]
