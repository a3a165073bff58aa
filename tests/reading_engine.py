"""A model whose every word depends on the last alone: quick, and with probabilities that are known."""

import json
import types

import numpy as np

from gpt2.hparams import HParams


class ReadingEngine:
    """What an engine is to a reader. Its logits after id n are row n of a table."""

    package = 'numpy'

    def __init__(self, encoder, n_ctx=32):
        count = len(encoder)
        self.hparams = HParams(n_vocab=count, n_ctx=n_ctx, n_embd=8, n_head=1, n_layer=1)
        self.factors = np.random.default_rng(0).standard_normal([2, count, 4]).astype(np.float32)

    def logits(self, ids):
        # Small, and quicker in one thread than as the product of matrices that many would share.
        return np.einsum('nk,vk->nv', self.factors[0, ids], self.factors[1])

    def map_logits(self, function, ids, first=0):
        rows = list(ids)[first:]
        assert len(ids) <= self.hparams.n_ctx
        return [function(self.logits(rows[start : start + 20])) for start in range(0, len(rows), 20)]


def reading_model(encoder, name='7M'):
    """What a command has of a model, with that engine."""
    return types.SimpleNamespace(
        name=name, notices=[], engine=ReadingEngine(encoder), encoder=encoder,
        source=types.SimpleNamespace(identity='0' * 64),
    )  # fmt: skip


def both_sides(encoder, count=60, seed=0):
    """(texts of people, texts of a machine), count of each, of 30 to 90 tokens: people take any of 300 words, the
    machine those that ReadingEngine finds likely after the word before."""
    engine, random = ReadingEngine(encoder), np.random.default_rng(seed)
    letters = [index for index in range(len(encoder)) if encoder.decode([index]).strip().isalpha()]
    words = np.array([index for index in letters if encoder.decode([index]).startswith(' ')][:300])

    def text(machine):
        ids = [int(random.choice(words))]
        for _ in range(random.integers(30, 90)):
            logits = engine.logits([ids[-1]])[0, words].astype(float) * machine
            ids.append(int(random.choice(words, p=np.exp(logits) / np.exp(logits).sum())))
        return encoder.decode(ids)

    return [text(0) for _ in range(count)], [text(1) for _ in range(count)]


def write_records(path, texts, **fields):
    """A file of JSON lines as the release has them."""
    records = [{'id': number, 'ended': True, 'length': 1, 'text': text, **fields} for number, text in enumerate(texts)]
    path.write_text(''.join(f'{json.dumps(record)}\n' for record in records))
    return path
