#!/usr/bin/env python3
"""Train a GPT-2, from scratch or from any checkpoint, on text files."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import sys
import zlib

import numpy as np
from tqdm import tqdm

from checkpoint_files import OPTIMIZER_SUFFIX, RELEASED_PREFIX, STATE_FILE, find_prefix
from command_line import integer, number, reject_unknown, run
from encoder import END_OF_TEXT, get_encoder
from errors import UsageError, UserError
from hparams import HParams, load_hparams, save_hparams
from load_dataset import encode_documents, find_files, hold_out, training_batch, windows
from model_folder import BUNDLED_MODEL, DEFAULT_MODELS_DIR, canonical_name, find_model, models_folders
from writing import make_folder, whole_file

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
RECORD = 'training.json'
LOG = 'training.jsonl'
INTERVAL_WINDOWS = 64  # held-out windows evaluated while training; at the end it is all of them


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the losses of a run depend on, beside its text and initial weights."""

    steps: int
    batch_size: int
    window: int
    learning_rate: float
    warmup: int
    weight_decay: float
    held_out: float
    seed: int


def learning_rate(settings, step):
    """Linear warm-up, then a cosine down to a tenth of the peak at the last step."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def optimizer_shapes(shapes):
    """Shapes of AdamW's two moments for each of the model's variables, and of its step count."""
    moments = {f'{name}/{moment}': shape for name, shape in shapes.items() for moment in ('adam_m', 'adam_v')}
    return moments | {'step': []}


def adamw(variable, gradient, m, v, rate, step, decay, beta_1=0.9, beta_2=0.95, epsilon=1e-8):
    """One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), the decay on matrices only."""
    from quiet_tensorflow import tf

    m.assign(beta_1 * m + (1 - beta_1) * gradient)
    v.assign(beta_2 * v + (1 - beta_2) * tf.square(gradient))
    update = m / (1 - beta_1**step) / (tf.sqrt(v / (1 - beta_2**step)) + epsilon)
    if variable.shape.rank > 1:
        update += decay * variable
    variable.assign_sub(rate * update)


def make_train_step(hparams, params, optimizer, settings):
    """A graph function: one update from a batch int32 [batch, n] at a rate; returns the loss before it."""
    import model
    from quiet_tensorflow import tf

    variables = model.flatten(params)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([], tf.float32)])
    def train_step(batch, rate):
        with tf.GradientTape() as tape:
            loss = model.loss(hparams, params, batch)
        gradients = tape.gradient(loss, list(variables.values()))
        gradients, _ = tf.clip_by_global_norm([tf.convert_to_tensor(gradient) for gradient in gradients], 1.0)
        step = optimizer['step'].assign_add(1.0)
        for (name, variable), gradient in zip(variables.items(), gradients):
            moments = optimizer[f'{name}/adam_m'], optimizer[f'{name}/adam_v']
            adamw(variable, gradient, *moments, rate, step, settings.weight_decay)
        return loss

    return train_step


def make_evaluate(hparams, params, batch_size):
    """A function: mean loss in nats a token over windows int32 [count, n]."""
    import model
    from quiet_tensorflow import tf

    loss = tf.function(
        lambda batch: model.loss(hparams, params, batch), input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )

    def evaluate(rows):
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        progress = tqdm(parts, 'evaluating', unit='batch', leave=False, delay=2, disable=None)
        return sum(float(loss(part)) * len(part) for part in progress) / len(rows)

    return evaluate


def unigram_loss(train_tokens, rows, n_vocab):
    """Loss in nats a token of the best model blind to context: frequencies, plus one for each token."""
    counts = np.bincount(train_tokens, minlength=n_vocab) + 1
    return float(-np.log(counts / counts.sum())[rows[:, 1:]].mean())


def text_bytes(encoder, rows):
    """Bytes of text that the targets of windows stand for; end-of-text tokens stand for none."""
    lengths = np.array([len(encoder.decode_bytes([token])) for token in range(len(encoder.encoder))])
    lengths[encoder.encoder[END_OF_TEXT]] = 0
    return int(lengths[rows[:, 1:]].sum())


def prepare_folder(folder, init_from, vocabulary, shape, models_dir):
    """Make a new model's folder: hparams.json, encoder.json, vocab.bpe. Returns where it starts from."""
    source_name, source_dir, _ = find_model(init_from or vocabulary, models_dir)
    source = os.path.join(source_dir, source_name)
    if init_from:
        hparams = load_hparams(os.path.join(source, 'hparams.json'))
    else:
        hparams = HParams(n_vocab=len(get_encoder(source_name, source_dir).encoder), **shape)
    make_folder(folder, 'choose another --models_dir')
    for name in ('encoder.json', 'vocab.bpe'):
        with open(os.path.join(source, name), 'rb') as file, whole_file(os.path.join(folder, name), 'wb') as copy:
            shutil.copyfileobj(file, copy)
    save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    return source if init_from else None


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
    import checkpoint
    import model
    from hparams import variable_shapes
    from quiet_tensorflow import tf

    shapes = optimizer_shapes(variable_shapes(hparams))
    if os.path.exists(os.path.join(folder, STATE_FILE)):
        prefix = find_prefix(folder) + OPTIMIZER_SUFFIX
        optimizer = {name: tf.Variable(value) for name, value in checkpoint.read_values(prefix, shapes)}
        return checkpoint.load_params(folder, hparams), optimizer
    params = checkpoint.load_params(source, hparams) if source else model.initial_params(hparams, seed)
    return params, {name: tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}


def train(folder, hparams, settings, params, optimizer, tokens, held_out, every):
    """Train until settings.steps or Ctrl-C, evaluating and saving every so many steps.

    tokens: int32 [count]; held_out: windows int32 [count, n + 1]. Yields (step, loss), the step
    just made and the mean training loss of its batch.
    """
    import checkpoint

    train_step = make_train_step(hparams, params, optimizer, settings)
    evaluate = make_evaluate(hparams, params, settings.batch_size)
    some = held_out[np.linspace(0, len(held_out) - 1, min(INTERVAL_WINDOWS, len(held_out))).astype(int)]
    first = int(optimizer['step'])
    progress = tqdm(total=settings.steps, initial=first, desc='training', unit='token', disable=None)
    progress.unit_scale = settings.batch_size * settings.window
    losses, latest = [], {}
    with interruption() as interrupted, progress:
        for step in range(first, settings.steps):
            rate = learning_rate(settings, step)
            batch = training_batch(tokens, step, settings.batch_size, settings.window, settings.seed)
            losses.append(float(train_step(batch, np.float32(rate))))
            done = step + 1
            progress.update()
            progress.set_postfix(loss=f'{np.mean(losses[-50:]):.3f}', **latest)
            yield done, losses[-1]
            if done % every == 0 or done == settings.steps or interrupted:
                entry = {'step': done, 'loss': float(np.mean(losses)), 'learning_rate': rate}
                if len(some) and not interrupted:
                    entry['held_out_loss'] = evaluate(some)
                    latest = {'held_out': f'{entry["held_out_loss"]:.3f}'}
                name = RELEASED_PREFIX if done == settings.steps else f'model-{done}'
                checkpoint.save(folder, name, hparams, params, optimizer)
                append_line(os.path.join(folder, LOG), entry)
                losses.clear()
            if interrupted:
                raise KeyboardInterrupt


@contextlib.contextmanager
def interruption():
    """Context in which the first Ctrl-C only makes the list it gives non-empty."""
    came = []

    def remember(*_):
        came.append(True)
        signal.signal(signal.SIGINT, previous)  # the second one interrupts

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, previous)


def append_line(path, entry):
    with open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(entry) + '\n')


def report(hparams, params, encoder, tokens, held_out, batch_size):
    """One line on the whole held-out text."""
    loss = make_evaluate(hparams, params, batch_size)(held_out)
    count, bytes_ = held_out[:, 1:].size, text_bytes(encoder, held_out)
    unigram = unigram_loss(tokens, held_out, hparams.n_vocab)
    return (
        f'held out: {count} tokens, {bytes_} bytes; loss {loss:.4f} nats a token, perplexity {math.exp(loss):.2f}; '
        f'{loss * count / bytes_ / math.log(2):.4f} bits a byte; {1 - loss / unigram:.1%} below a unigram model '
        f'({unigram:.4f})'
    )


def train_model(
    *data, model_name=None, init_from=None, vocabulary=BUNDLED_MODEL, n_ctx=512, n_embd=256, n_head=8, n_layer=6,
    steps=7000, batch_size=4, window=None, learning_rate=None, warmup=200, weight_decay=0.1, held_out=0.05,
    seed=0, every=250, models_dir=DEFAULT_MODELS_DIR, **unknown,
):  # fmt: skip
    reject_unknown((), unknown)
    if not data or model_name is None:
        raise UsageError('give text files and --model_name; --help shows how')
    shape = {'n_ctx': n_ctx, 'n_embd': n_embd, 'n_head': n_head, 'n_layer': n_layer}
    shape = {name: integer(name, value, 2 if name == 'n_ctx' else 1) for name, value in shape.items()}
    rate = learning_rate or (5e-5 if init_from else 1.5e-3)
    settings = Settings(
        steps=integer('steps', steps, 1),
        batch_size=integer('batch_size', batch_size, 1),
        window=integer('window', window, 2),
        learning_rate=number('learning_rate', rate, lambda value: value > 0, 'above 0'),
        warmup=integer('warmup', warmup, 0),
        weight_decay=number('weight_decay', weight_decay, lambda value: value >= 0, 'of at least 0'),
        held_out=number('held_out', held_out, lambda value: 0 <= value < 1, 'of at least 0 and below 1'),
        seed=integer('seed', seed, 0),
    )
    every = integer('every', every, 1)
    paths = find_files(map(str, data))
    folder = os.path.join(models_folders(models_dir)[0], canonical_name(model_name))
    resumed = holds_run(folder)
    source = None if resumed else prepare_folder(folder, init_from, vocabulary, shape, models_dir)
    hparams = load_hparams(os.path.join(folder, 'hparams.json'))
    settings = dataclasses.replace(settings, window=settings.window or hparams.n_ctx)
    if settings.window > hparams.n_ctx:
        raise UsageError(f'--window is {settings.window}, the model allows at most n_ctx {hparams.n_ctx}')
    encoder = get_encoder(os.path.basename(folder), os.path.dirname(folder))
    train_paths, held_paths = hold_out(paths, settings.held_out, settings.seed)
    tokens = encode_documents(train_paths, encoder, folder)
    held_out_tokens = encode_documents(held_paths, encoder, folder)
    held_out_windows = windows(held_out_tokens, settings.window)
    training_batch(tokens, 0, settings.batch_size, settings.window, settings.seed)  # too little text is refused now
    record = {
        **dataclasses.asdict(settings),
        'held_out_files': [os.path.basename(path) for path in held_paths],
        'tokens': len(tokens),
        'tokens_crc32': zlib.crc32(tokens),
    }
    check_record(folder, record, resumed)
    params, optimizer = starting_point(folder, source, hparams, settings.seed)
    for _ in train(folder, hparams, settings, params, optimizer, tokens, held_out_windows, every):
        pass
    if len(held_out_windows):
        print(report(hparams, params, encoder, tokens, held_out_windows, settings.batch_size), file=sys.stderr)


def holds_run(folder):
    """Whether folder holds a run to go on with. Raises UserError if it holds another model."""
    if not os.path.exists(os.path.join(folder, 'checkpoint')):
        return False
    if not os.path.exists(os.path.join(folder, RECORD)):
        raise UserError(f'{folder} holds a model that was not trained here; choose another --model_name')
    return True


train_model.__doc__ = HELP

if __name__ == '__main__':
    run(train_model)
