"""The folder of a model in training: what it holds, what a run starts from, what a run leaves in it.

Beside the release's files: `training.json`, what the run depends on; `training.jsonl`, a line of figures every so
many updates; `tokens-...`, its text as token ids; `<checkpoint>.optimizer...`, the optimizer's state.
"""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.checkpoints.files import (
    INDEX_SUFFIX,
    OPTIMIZER_SUFFIX,
    STATE_FILE,
    CheckpointError,
    find_prefix,
    prefixes_in,
    write_state_file,
)
from gpt2.checkpoints.folders import find_model, find_vocabulary
from gpt2.checkpoints.source import Source, load_params, open_source
from gpt2.encoder import GENERATION_CONFIG, Encoder, listed_ids, read_encoder, write_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, HParamsError, save_hparams
from gpt2.system.files import new_folder, whole_file
from gpt2.system.locks import LOCK_SUFFIX, locked
from gpt2.token_files import ABOUT, ENDS, IDS, TRAINED
from gpt2.training import lora, tokens
from gpt2.training.distillation import student
from gpt2.training.distribution import ALONE, Team, summed_once
from gpt2.training.optimizer import make_optimizer, restore, saved_values, trained
from gpt2.training.settings import SHAPE, Settings, check_kinds

if TYPE_CHECKING:
    import keras

RECORD = 'training.json'
LOG = 'training.jsonl'
LOCK = 'training'
AS_IT_WAS = 'put it back as it was, or train again under another --model_name'  # a file of a run
CURVES = 'training.png'
CHECKPOINT = re.compile(r'(model-(\d+)|model\.ckpt)(?=\.)')
TOKENS = re.compile(rf'{tokens.FOLDER}[0-9a-f]{{16}}(\.part)?')
PART = re.compile(r'(\.\d+)?\.part$')  # of a file that was being written, see whole_file()
IN_TOKENS = {ABOUT, f'{ABOUT}.part', IDS, ENDS, TRAINED}
ENTRY = '{"step": '  # with which a line of a log begins
OF_A_RECORD = {'steps', 'seed', 'tokens_crc32'}  # among others
# What the first save writes before its checkpoint.
FIRST_FILES = {RECORD, 'encoder.json', 'vocab.bpe', GENERATION_CONFIG, 'hparams.json'}


def run_in(folder: str) -> dict[str, Any] | None:
    """The record of the run that a folder holds, to go on with; None where there is nothing of a model.

    Raises Error for a folder that holds anything else: it is never written over.
    """
    if not os.path.isdir(folder):
        return None
    names = sorted(name for name in os.listdir(folder) if not is_scratch(folder, name))
    record = read_record(folder) if RECORD in names else {}
    begun = any(CHECKPOINT.match(name) for name in names) or STATE_FILE in names
    foreign = [name for name in names if PART.sub('', name) not in FIRST_FILES]
    if set(record) >= OF_A_RECORD and LOG not in names and (begun or not foreign):
        if not begun:
            return None  # broken off as it first saved
        current_prefix(folder)
        return record
    if names:
        strange = [LOG] if LOG in names else foreign or names
        raise Error(
            f'{folder} holds {listed(strange)}, and not of a run that could go on; choose another --model_name, '
            'or move them away'
        )
    return None


def is_scratch(folder: str, name: str) -> bool:
    """Whether a file or folder is what a run leaves before it has saved anything: its log, its texts as token files,
    its lock. What only has such a name is somebody's own."""
    path = os.path.join(folder, name)
    if name == LOG:
        return is_log(path)
    if name == LOCK + LOCK_SUFFIX:
        return os.path.isfile(path) and not os.path.getsize(path)
    return is_token_file(path)


def is_token_file(path: str) -> bool:
    """Whether a folder is a token file of a run's own, perhaps cut."""
    named = TOKENS.fullmatch(os.path.basename(path)) and os.path.isdir(path) and not os.path.islink(path)
    return bool(named) and set(os.listdir(path)) <= IN_TOKENS


def is_log(path: str) -> bool:
    """Whether a file is a run's log: all its lines are entries, but perhaps the last, which may be cut."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return all(entry_of(line) or (line.startswith(ENTRY) and not line.endswith('\n')) for line in file)
    except OSError:
        return False


def entry_of(line: str) -> dict[str, Any] | None:
    """The entry that a line of a log is; None for what is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not {'step', 'loss', 'learning_rate'} <= set(entry):
        return None
    if not all(isinstance(value, int | float | None) for value in entry.values()):
        return None
    return {name: math.nan if value is None else value for name, value in entry.items()}


def listed(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def read_record(folder: str) -> dict[str, Any]:
    path = os.path.join(folder, RECORD)
    try:
        with open(path, encoding='utf-8') as file:
            record = json.load(file)
        if not isinstance(record, dict):
            raise ValueError('it is no object')
        check_kinds(record)
    except (OSError, ValueError, RecursionError) as error:
        raise Error(f'{path} cannot be read ({error}); {start_anew(folder)}') from None
    return record


@contextlib.contextmanager
def own_files(remedy: str) -> Iterator[None]:
    """Context in which files of a run are read: nobody can download those again. Raises Error with the remedy."""
    try:
        yield
    except Error as error:
        what, found, _ = str(error).rpartition('; ')
        if not found or 'download the model again' not in str(error):
            raise
        raise Error(f'{what}; {remedy}') from None


def start_anew(folder: str) -> str:
    """The remedy where a run cannot go on."""
    return f'start another run from what it has learnt, with --init_from {folder} and another --model_name'


def current_prefix(folder: str) -> str:
    """The checkpoint that a run goes on from: that of the state file or, should that be lost, the latest; with the
    optimizer beside it. Raises Error."""
    if os.path.exists(os.path.join(folder, STATE_FILE)):
        try:
            prefix = find_prefix(folder)
        except CheckpointError:
            others = ' or '.join(map(os.path.basename, prefixes_in(folder)))
            remedy = f'remove {STATE_FILE} to go on from the latest' if others else AS_IT_WAS
            raise Error(
                f'{os.path.join(folder, STATE_FILE)} names a checkpoint that is not there, and there is '
                f'{others or "no other"}; {remedy}'
            ) from None
    elif prefixes := prefixes_in(folder):
        prefix = max(prefixes, key=age)
    else:
        raise Error(f'{folder} has no whole checkpoint, only parts of one; remove the folder, and train again')
    if not os.path.isfile(prefix + OPTIMIZER_SUFFIX + INDEX_SUFFIX):
        raise Error(f'{prefix}{OPTIMIZER_SUFFIX}{INDEX_SUFFIX} is lost, so the run cannot go on; {start_anew(folder)}')
    return prefix


def age(prefix: str) -> float:
    """Updates after which a checkpoint was saved; that of a finished run is the latest."""
    match = CHECKPOINT.match(os.path.basename(prefix) + '.')
    return (float(match[2]) if match[2] else float('inf')) if match else -1


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Context of a run in its folder, which is made unless it is there. A second run is refused while the first lives;
    a run that ends before it has saved anything leaves nothing. Raises Error."""
    with new_folder(folder, 'choose another --models_dir'), locked_folder(folder):
        try:
            yield
        finally:
            if all(is_scratch(folder, name) for name in os.listdir(folder)):
                remove_scratch(folder)


@contextlib.contextmanager
def locked_folder(folder: str) -> Iterator[None]:
    def refuse() -> None:
        raise Error(f'another run is training in {folder}; wait for its end, or choose another --model_name')

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(os.path.join(folder, LOCK), refuse))
        except OSError as error:
            raise Error(f'{folder} cannot be written ({error.strerror}); choose another --models_dir') from None
        yield


@contextlib.contextmanager
def tokens_tidied(folder: str) -> Iterator[set[str]]:
    """Context in which a run makes its token files, the paths of which are to come into the set that it gives. At its
    end others are removed, which are of texts as they were before; after an Error those that the run has made."""
    before, used = token_files_in(folder), set[str]()
    try:
        yield used
    except Error:
        remove_token_files(token_files_in(folder) - before)
        raise
    remove_token_files(token_files_in(folder) - used)


def token_files_in(folder: str) -> set[str]:
    return set(filter(is_token_file, (os.path.join(folder, name) for name in os.listdir(folder))))


def remove_token_files(paths: set[str]) -> None:
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def remove_scratch(folder: str) -> None:
    """Remove what a run leaves before it has saved anything."""
    remove_token_files(token_files_in(folder))
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(folder, LOG))


def opened(name: str | None, flag: str, models_dir: str) -> Source | None:
    """The model of any format that is given to a flag, if any."""
    return None if name is None else open_source(find_model(name, models_dir, flag).path)


def starting_model(
    init_from: str | None, vocabulary: str, shape: dict[str, int], models_dir: str, teacher: Source | None = None
) -> tuple[Source | None, HParams, Encoder]:
    """What a new run starts from: the model init_from, of any format, or layers of the teacher, or none, and a shape
    and a vocabulary."""
    source = opened(init_from, '--init_from', models_dir)
    if source is None and teacher is not None:
        source = student(teacher, shape['n_layer'])
    if source is not None:
        listed_ids(source.vocabulary)  # which the run's folder must hold
        return source, source.hparams, source.vocabulary
    encoder = read_encoder(find_vocabulary(vocabulary, models_dir))
    try:
        return None, HParams(n_vocab=len(encoder), **{name: shape[name] for name in SHAPE}), encoder
    except HParamsError as error:
        raise UsageError(f'{error}; give others of {", ".join(f"--{name}" for name in SHAPE)}') from None


def starting_point(
    prefix: str | None, source: Source | None, hparams: HParams, settings: Settings, team: Team = ALONE
) -> tuple[dict, 'keras.optimizers.Optimizer']:
    """(params, optimizer): those saved at prefix, if there is one, or fresh ones with the weights of source, if any.
    Where adapters are trained, source is what they adapt, also of those saved at prefix."""
    from gpt2 import model

    with team.scope():
        if source:
            params = load_params(source)
        else:
            params = own_params(prefix, hparams) if prefix else model.initial_params(hparams, settings.seed)
        if settings.lora_rank:
            params = lora.adapted(params, adapter_values(prefix, hparams, settings), settings.lora_alpha)
        optimizer = make_optimizer(trained(params, settings.freeze), settings)
    if team.strategy:
        summed_once(optimizer)
    if prefix:
        with own_files(start_anew(os.path.dirname(prefix))):
            restore(optimizer, prefix + OPTIMIZER_SUFFIX)
    return params, optimizer


def own_params(prefix: str, hparams: HParams) -> dict:
    from gpt2.checkpoints import release

    with own_files(AS_IT_WAS):
        return release.load_params(prefix, hparams)


def adapter_values(prefix: str | None, hparams: HParams, settings: Settings) -> dict[str, np.ndarray]:
    """Of the adapters saved at prefix, if there is one, or of fresh ones."""
    if prefix:
        return lora.saved_values(prefix, hparams, settings.lora_rank)
    return lora.fresh_values(hparams, settings.lora_rank, settings.seed)


def write_record(folder: str, record: dict[str, Any]) -> None:
    with whole_file(os.path.join(folder, RECORD)) as file:
        json.dump(record, file, indent=1)


def save(
    folder: str, hparams: HParams, encoder: Encoder, params: dict, optimizer: 'keras.optimizers.Optimizer',
    name: str, keep: Sequence[str] = (),
) -> str:  # fmt: skip
    """Save a checkpoint as the folder's current one, and remove all others but those to keep; returns its prefix.

    Adapters are saved beside the optimizer, and in the model added to their matrices. The first time, the model's
    other files are written before it. Whenever this is killed, the folder holds a whole checkpoint, unless it is the
    first.
    """
    from gpt2.checkpoints import release

    current = name_of_current(folder)
    if current is None:
        write_encoder(folder, encoder)
        save_hparams(os.path.join(folder, 'hparams.json'), hparams)
    values, state = lora.merged(params), saved_values(optimizer) | lora.adapters(params)
    if current == name:  # a finished run has gone on: the new files need another name until they are whole
        beside = f'model-{int(optimizer.iterations.numpy())}'
        release.save(folder, beside, hparams, values, state, keep)
    release.save(folder, name, hparams, values, state, keep)
    remove_others(folder, {name, *keep})
    return os.path.join(folder, name)


def name_of_current(folder: str) -> str | None:
    try:
        return os.path.basename(find_prefix(folder)) if os.path.exists(os.path.join(folder, STATE_FILE)) else None
    except CheckpointError:
        return None


def make_current(folder: str, name: str) -> None:
    """Let a checkpoint that is there be the folder's current one."""
    write_state_file(os.path.join(folder, STATE_FILE), name)


def remove_others(folder: str, names: set[str]) -> None:
    """Remove all checkpoints, whole or cut short, but these."""
    from gpt2.checkpoints import release

    found = {match[1] for name in os.listdir(folder) if (match := CHECKPOINT.match(name))}
    for name in found - names:
        release.remove(os.path.join(folder, name))


def read_log(folder: str) -> list[dict[str, Any]]:
    """The entries of training.jsonl; a line that was cut is left out."""
    with contextlib.suppress(OSError), open(os.path.join(folder, LOG), encoding='utf-8', errors='replace') as file:
        return list(filter(None, map(entry_of, file)))
    return []


def write_log(folder: str, entries: Sequence[dict[str, Any]]) -> None:
    with whole_file(os.path.join(folder, LOG)) as file:
        file.writelines(map(line_of, entries))


def append_log(folder: str, entry: dict[str, Any]) -> None:
    with open(os.path.join(folder, LOG), 'a', encoding='utf-8') as file:
        file.write(line_of(entry))


def line_of(entry: dict[str, Any]) -> str:
    """An entry as a line of a log. JSON has no number that is not finite: it becomes null."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in entry.items()}) + '\n'
