"""The folder of a model in training: what it starts from, and what an interrupted run left in it."""

import json
import os
from typing import TYPE_CHECKING, Any

from gpt2.checkpoints.files import OPTIMIZER_SUFFIX, STATE_FILE, find_prefix
from gpt2.checkpoints.folders import find_model, find_vocabulary
from gpt2.checkpoints.source import Source, load_params, open_source
from gpt2.encoder import Encoder, read_encoder, write_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, save_hparams
from gpt2.system.files import make_folder, whole_file
from gpt2.training.optimizer import make_optimizer, restore

if TYPE_CHECKING:
    import keras

RECORD = 'training.json'


def holds_run(folder: str) -> bool:
    """Whether folder holds a run to go on with. Raises Error if it holds another model."""
    if not os.path.exists(os.path.join(folder, 'checkpoint')):
        return False
    if not os.path.exists(os.path.join(folder, RECORD)):
        raise Error(f'{folder} holds a model that was not trained here; choose another --model_name')
    return True


def starting_model(
    init_from: str | None, vocabulary: str, shape: dict[str, int], models_dir: str
) -> tuple[Source | None, HParams, Encoder]:
    """What a new run starts from: the model init_from, of any format, or none, and a shape and a vocabulary."""
    if init_from is not None:
        source = open_source(find_model(init_from, models_dir, '--init_from').path)
        return source, source.hparams, source.vocabulary
    encoder = read_encoder(find_vocabulary(vocabulary, models_dir))
    return None, HParams(n_vocab=len(encoder), **shape), encoder


def write_description(folder: str, hparams: HParams, encoder: Encoder) -> None:
    """Make a new model's folder: all files of the release's layout but the checkpoint."""
    make_folder(folder, 'choose another --models_dir')
    write_encoder(folder, encoder)
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)


def check_record(folder: str, record: dict[str, Any], resumed: bool) -> None:
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


def starting_point(
    folder: str, source: Source | None, hparams: HParams, seed: int, weight_decay: float
) -> tuple[dict, 'keras.optimizers.Optimizer']:
    """(params, optimizer): those saved in folder, or fresh ones with the weights of source, if any."""
    from gpt2 import model
    from gpt2.checkpoints import release

    prefix = find_prefix(folder) if os.path.exists(os.path.join(folder, STATE_FILE)) else None
    if prefix:
        params = release.load_params(folder, hparams)
    else:
        params = load_params(source) if source else model.initial_params(hparams, seed)
    optimizer = make_optimizer(list(model.flatten(params).values()), weight_decay)
    if prefix:
        restore(optimizer, prefix + OPTIMIZER_SUFFIX)
    return params, optimizer
