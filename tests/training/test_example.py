"""The example of docs/training.md in miniature: the bundled model reads on in a book that it has never read."""

import json

import pytest
from example_models import BUNDLED, MODELS, REPOSITORY

from gpt2.checkpoints.source import load_params, open_source
from gpt2.commands import train
from gpt2.training.batches import HeldOut, split
from gpt2.training.data import Reading
from gpt2.training.tokens import token_file
from gpt2.training.update import make_evaluate

FALL = 0.1  # nats a token, at least


@pytest.mark.slow
def test_the_loss_of_a_held_out_part_falls(tmp_path, encoder, capsys):
    lines = (REPOSITORY / 'examples' / 'heidi.txt').read_text(encoding='utf-8').splitlines(keepends=True)
    for name, part in (('most.txt', lines[:66]), ('rest.txt', lines[66:])):
        (tmp_path / name).write_text(''.join(part), encoding='utf-8')
    (tmp_path / '7M').symlink_to(MODELS / '7M')
    bundled = open_source(str(BUNDLED))
    tokens = token_file([str(tmp_path / 'rest.txt')], Reading(), encoder, str(tmp_path), 1)
    rest = HeldOut([split(tokens, 0, 0)[0]], 64, False, bundled.hparams.n_vocab)
    before = make_evaluate(bundled.hparams, load_params(bundled), 4)(rest)
    train.train_model(
        str(tmp_path / 'most.txt'), held_out_data=[str(tmp_path / 'rest.txt')], model_name='heidi', init_from='7M',
        models_dir=str(tmp_path), steps=20, window=64, learning_rate=0.0005, every=20, log_every=10, sample_every=20,
        sample_prompt='Heidi',
    )  # fmt: skip
    entries = [json.loads(line) for line in (tmp_path / 'heidi' / 'training.jsonl').read_text().splitlines()]
    assert [entry['step'] for entry in entries] == [10, 20]
    assert entries[-1]['held_out_loss'] < before - FALL
    assert entries[-1]['loss'] < entries[0]['loss'] - FALL
    assert '\nHeidi' in capsys.readouterr().err
