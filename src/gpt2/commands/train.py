"""Train a GPT-2, from scratch or from any checkpoint, on text files."""

import dataclasses
import os
import zlib

from gpt2.checkpoints.folders import BUNDLED_MODEL, DEFAULT_MODELS_DIR, canonical_name, models_folders
from gpt2.commands.flags import integer, number, reject_unknown
from gpt2.encoder import read_encoder
from gpt2.errors import UsageError
from gpt2.hparams import load_hparams
from gpt2.system import progress
from gpt2.training.data import encode_documents, find_files, hold_out, training_batch, windows
from gpt2.training.folder import check_record, holds_run, starting_model, starting_point, write_description
from gpt2.training.loop import train
from gpt2.training.report import held_out_report
from gpt2.training.settings import Settings
from gpt2.training.update import make_evaluate

HELP = f"""\
Train a GPT-2 on text, from scratch or from any checkpoint.

    python src/train.py stories/ --model_name mine --steps 7000
    python src/train.py letters.txt --model_name mine --init_from 124M --batch_size 1 --window 256

Each word is a file, a folder (every .txt file in it) or a glob; each file is one document. The
model is saved in the released layout in <models_dir>/<model_name>. The same command goes on where
an interrupted one stopped; Ctrl-C saves first.

--model_name NAME     folder to save in; needed
--init_from NAME      start from this model's weights, vocabulary and shape. Default: from scratch
--vocabulary NAME     from scratch: the model whose vocabulary is used. Default: {BUNDLED_MODEL}
--n_ctx N             from scratch: window of the model, at least 2. Default: 512
--n_embd N            from scratch: features, a multiple of n_head. Default: 256
--n_head N            from scratch: attention heads, at least 1. Default: 8
--n_layer N           from scratch: layers, at least 1. Default: 6
--steps N             updates in all, at least 1. Default: 7000
--batch_size N        windows an update, at least 1. Default: 4
--window N            tokens a window, from 2 to n_ctx. Default: n_ctx
--learning_rate X     peak, above 0. Default: 0.0015 from scratch, 0.00005 from a checkpoint
--warmup N            updates until the peak, at least 0; then a cosine to a tenth of it. Default: 200
--weight_decay X      of matrices, at least 0. Default: 0.1
--held_out X          fraction of the documents kept for evaluation, from 0 up to 1. Default: 0.05
--seed N              of initial weights, order and held-out choice, at least 0. Default: 0
--every N             updates between evaluations, each with a save, at least 1. Default: 250
--models_dir DIR      folder of the model folders. Default: {DEFAULT_MODELS_DIR}
"""


def train_model(
    *data: str, model_name=None, init_from=None, vocabulary=BUNDLED_MODEL, n_ctx=512, n_embd=256, n_head=8, n_layer=6,
    steps=7000, batch_size=4, window=None, learning_rate=None, warmup=200, weight_decay=0.1, held_out=0.05,
    seed=0, every=250, models_dir=DEFAULT_MODELS_DIR, **unknown,
) -> None:  # fmt: skip
    reject_unknown((), unknown)
    progress.show()
    if not data or model_name is None:
        raise UsageError('give text files and --model_name; --help shows how')
    shape = {'n_ctx': n_ctx, 'n_embd': n_embd, 'n_head': n_head, 'n_layer': n_layer}
    shape = {name: integer(name, value, 2 if name == 'n_ctx' else 1) for name, value in shape.items()}
    rate = (5e-5 if init_from else 1.5e-3) if learning_rate is None else learning_rate
    settings = Settings(
        steps=integer('steps', steps, 1) or 7000,
        batch_size=integer('batch_size', batch_size, 1) or 4,
        window=integer('window', window, 2) or 0,
        learning_rate=number('learning_rate', rate, lambda value: value > 0, 'above 0'),
        warmup=integer('warmup', warmup, 0) or 0,
        weight_decay=number('weight_decay', weight_decay, lambda value: value >= 0, 'of at least 0'),
        held_out=number('held_out', held_out, lambda value: 0 <= value < 1, 'of at least 0 and below 1'),
        seed=integer('seed', seed, 0) or 0,
    )
    every = integer('every', every, 1)
    paths = find_files(map(str, data))
    folder = os.path.join(models_folders(models_dir)[0], canonical_name(model_name))
    resumed = holds_run(folder)
    if resumed:
        source, hparams, encoder = None, load_hparams(os.path.join(folder, 'hparams.json')), read_encoder(folder)
    else:
        source, hparams, encoder = starting_model(init_from, vocabulary, shape, models_dir)
    settings = dataclasses.replace(settings, window=settings.window or hparams.n_ctx)
    if settings.window > hparams.n_ctx:
        raise UsageError(f'--window is {settings.window}, the model allows at most n_ctx {hparams.n_ctx}')
    if not resumed:
        write_description(folder, hparams, encoder)
    train_paths, held_paths = hold_out(paths, settings.held_out, settings.seed)
    tokens = encode_documents(train_paths, encoder, folder)
    held_out_tokens = encode_documents(held_paths, encoder, folder)
    held_out_windows = windows(held_out_tokens, settings.window)
    training_batch(tokens, 0, settings.batch_size, settings.window, settings.seed)  # too little text is refused now
    record = {
        **dataclasses.asdict(settings),
        'held_out_files': [os.path.basename(path) for path in held_paths],
        'tokens': len(tokens),
        'tokens_crc32': zlib.crc32(tokens.tobytes()),
    }
    check_record(folder, record, resumed)
    params, optimizer = starting_point(folder, source, hparams, settings.seed, settings.weight_decay)
    for _ in train(folder, hparams, settings, params, optimizer, tokens, held_out_windows, every):
        pass
    if len(held_out_windows):
        loss = make_evaluate(hparams, params, settings.batch_size)(held_out_windows)
        progress.note(held_out_report(hparams, encoder, loss, tokens, held_out_windows))


train_model.__doc__ = HELP
