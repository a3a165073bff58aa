"""Runs of training in this process, on a model so small that they take a second."""

from example_models import as_params, random_values, save

from gpt2.commands import train
from gpt2.encoder import write_encoder
from gpt2.hparams import HParams

SMALL = HParams(n_vocab=8192, n_ctx=16, n_embd=4, n_head=1, n_layer=3)
TEXT = 'The cat sat on the mat. A dog ran after the cat up a tall tree. ' * 60


def write_small(folder, encoder, seed=0, hparams=SMALL):
    """A model of random weights with a vocabulary, in place of one that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob('*ckpt*'), *folder.glob('checkpoint')]:
        path.unlink()
    write_encoder(str(folder), encoder)
    save(folder, hparams, as_params(random_values(hparams, seed)))


def run(folder, name, **flags):
    """Train on text.txt in a folder; the model's folder."""
    where = {'model_name': name, 'models_dir': str(folder / 'models')}
    train.train_model(str(folder / 'text.txt'), **where, batch_size=2, window=16, **flags)
    return folder / 'models' / name
