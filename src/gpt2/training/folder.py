"""The folder of a model in training: what it starts from, and what an interrupted run left in it."""

import json
import os

from gpt2.checkpoints.files import OPTIMIZER_SUFFIX, STATE_FILE, find_prefix
from gpt2.checkpoints.folders import find_model, find_vocabulary
from gpt2.checkpoints.source import load_params, open_source
from gpt2.encoder import read_encoder, write_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, save_hparams, variable_shapes
from gpt2.system.files import make_folder, whole_file
from gpt2.training.optimizer import optimizer_shapes

RECORD = 'training.json'


def holds_run(folder):
    """Whether folder holds a run to go on with. Raises Error if it holds another model."""
    if not os.path.exists(os.path.join(folder, 'checkpoint')):
        return False
    if not os.path.exists(os.path.join(folder, RECORD)):
        raise Error(f'{folder} holds a model that was not trained here; choose another --model_name')
    return True




def prepare_folder(folder, init_from, vocabulary, shape, models_dir):
    """Make a new model's folder: hparams.json, encoder.json, vocab.bpe. Returns the Source it starts from, or None."""
    source = open_source(find_model(init_from, models_dir, '--init_from').path) if init_from else None
    encoder = source.vocabulary if source else read_encoder(find_vocabulary(vocabulary, models_dir))
    make_folder(folder, 'choose another --models_dir')
    write_encoder(folder, encoder)
    hparams = source.hparams if source else HParams(n_vocab=len(encoder), **shape)
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    return source


def check_record(folder, record, resumed):
    """Write what a run depends on; for a resumed run raise UsageError if it depended on something else."""
    path = os.path.join(folder, RECORD)
    if not resumed:
        with whole_file(path) as file:
            json.dump(record, file, indent=1)
        return
    with open(path, encoding='utf-8') as file:
        before = json.load(file)
    for name, value in record.items():
        if before.get(name) != value:
            raise UsageError(
                f'{folder} was trained with {name} {before.get(name)}, now it is {value}; '
                'give the same again, or another --model_name'
            )


def starting_point(folder, source, hparams, seed):
    """(params, optimizer): those saved in folder, or fresh ones with the weights of source, if any."""
    from gpt2 import model
    from gpt2.checkpoints import release as checkpoint
    from gpt2.system.tensorflow import tf

    shapes = optimizer_shapes(variable_shapes(hparams))
    if os.path.exists(os.path.join(folder, STATE_FILE)):
        prefix = find_prefix(folder) + OPTIMIZER_SUFFIX
        optimizer = {name: tf.Variable(value) for name, value in checkpoint.read_values(prefix, shapes)}
        return checkpoint.load_params(folder, hparams), optimizer
    params = load_params(source) if source else model.initial_params(hparams, seed)
    return params, {name: tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}
