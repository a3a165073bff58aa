"""Train a GPT-2, from scratch or from any checkpoint, on text."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2.checkpoints.folders import BUNDLED_MODEL, DEFAULT_MODELS_DIR, canonical_name, models_folders
from gpt2.commands.flags import boolean, choice, integer, number, optional_integer, reject_unknown, texts
from gpt2.errors import UsageError
from gpt2.system import progress
from gpt2.training.distribution import CONFIG, check_shareable, end_anyway
from gpt2.training.launcher import end_with_launcher, launch
from gpt2.training.loop import BEST, LAST
from gpt2.training.run import prepared, train_in
from gpt2.training.settings import EMBEDDINGS, PRECISIONS, RATES, SHAPE, frozen

LARGEST_SEED = 2**31 - 1
SCRIPT = 'train.py'  # which the repository calls this command
LISTS = ('suffix', 'held_out_data')  # flags that may be repeated
HELP = f"""\
Train a GPT-2 on text, from scratch or from any checkpoint.

    python src/train.py letters.txt --model_name mine --init_from 124M --batch_size 1 --window 256
    python src/train.py stories/ --model_name mine --steps 7000
    python src/train.py "general/:1->0" medicine.jsonl:3 --model_name doctor --init_from 124M

Each word is a file, a folder or a glob. The model is saved in the released layout in
<models_dir>/<model_name>. The same command goes on where an interrupted one stopped, and with more
--steps a finished one; flags that are left out are then as they were. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1
save first. A folder that holds anything else of a model is never written over.

Data, by the end of a file's name, each also compressed as .gz or .zst (needs the zstandard package):
plain text   a file is a document; <|endoftext|> in it divides documents. From a folder: .txt, and the below
.jsonl       an object a line, each a document: `text`; or `prompt` and `completion`; or `messages`, objects
             with `role` and `content`, which become `User: ...`, an empty line, `Assistant: ...`
.csv         a row a document, the columns named as the fields above
.parquet     likewise; needs the pyarrow package
a folder of prepare_data.py (tokens/training): text that is encoded already, by the same vocabulary
Of `prompt` and `completion` the loss is that of the completion, of `messages` that of the assistant's words.
NAME:3 gives a file, folder or glob a weight against the others in every batch; NAME:1->0 changes it
evenly from the first to the last update (put quotes around it).

Text is encoded once, by as many processes as there are cores if there is much of it, into <model>/tokens-*.
training.jsonl in the model's folder has a line for each log line: step, loss (mean since the last
line, nats a token), learning_rate, gradient_norm (before clipping), tokens_per_second, held_out_loss.
training.png draws them at the end, where the matplotlib package is there.

--data PATTERN        as a word without a flag; may be repeated
--suffix .X           from folders, files whose name ends so, as plain text (.py, say); may be repeated
--text_field NAME     the field or column that is the text
--train_on_prompt     the loss is that of prompts too
--pack                fill windows with whole documents, each of which sees itself alone, its positions from 0.
                      Default: windows are cut out of the documents one after another, and see all before
--model_name NAME     folder to save in; needed
--init_from NAME      start from this model's weights, vocabulary and shape: a name, or a path to a model in any
                      format that can be read. Default: from scratch
--vocabulary NAME     from scratch: the model whose vocabulary is used. Default: {BUNDLED_MODEL}
--n_ctx N             from scratch: window of the model, at least 2. Default: 512
--n_embd N            from scratch: features, a multiple of n_head. Default: 256
--n_head N            from scratch: attention heads, at least 1. Default: 8
--n_layer N           from scratch: layers, at least 1. Default: 6. With --teacher: how many of its layers
--steps N             updates in all, at least 1. Default: 3 epochs, but 30 updates or more, from a model; 20 epochs,
                      but 7000 updates at most, from scratch
--epochs X            times that the text is gone through, above 0, in place of --steps
--batch_size N        windows computed at once, at least 1. Default: 4
--accumulate N        times --batch_size windows an update, which takes no more memory, at least 1. Default: 1
--window N            tokens a window, from 2 to n_ctx. Default: n_ctx
--optimizer NAME      adamw, adafactor, lion or sgd (with a momentum of 0.9). Default: adamw
--learning_rate X     peak, above 0. Default, from scratch and from a model: adamw 0.0015 and 0.00005; adafactor
                      0.01 and 0.0005, times the size of what it moves; lion 0.0003 and 0.00001; sgd 0.3 and 0.03; four
                      times that of a model with --lora_rank, ten times for a student
--warmup N            updates until the peak, at least 0; then a cosine to a tenth of it at the last. Default: 200, or
                      a tenth of the updates if that is less
--weight_decay X      of matrices, the embeddings among them, at least 0; what goes at an update is this times the
                      rate. Default: 0.1 with adamw, 1 with lion, 0 with adafactor and sgd
--dropout X           probability that a feature is dropped while training, of embeddings, attention and what each
                      layer adds, from 0 up to 1. Default: 0
--precision NAME      of the products of matrices: float32; bfloat16, faster where the processor or the card has it;
                      float16, with a loss scale. Weights, and all that adds up numbers, stay float32. Default: float32
--recompute           layers are computed again for the gradients, not kept: less memory with large batches, a third
                      more time
--jit_compile         compile updates with XLA; --jit_compile=false does not. Default: a run of more than some minutes
                      tries which is faster, and keeps to it
--freeze WHAT         what is not trained: {EMBEDDINGS}, the first N blocks, or both as {EMBEDDINGS},N. Default: nothing
--held_out X          fraction of the tokens kept for evaluation, as whole documents, from 0 up to 1; where each
                      document has more, the end of the longest. Default: 0.05
--held_out_data FILE  evaluate on this, and keep nothing of the text; may be repeated
--lora_rank N         train adapters of this rank (Hu et al. 2021) on the matrices of attention and MLP of the model
                      --init_from, which itself stays as it is, in less memory; at least 1. The model that is saved
                      has them added; by themselves they are adapter_model.safetensors and adapter_config.json beside
                      it, as the peft package has them. Default: all weights are trained
--lora_alpha X        what the adapters add counts X / --lora_rank times, above 0. Default: 32
--teacher NAME        distil this model, in any format (Sanh et al. 2019): learn what it expects. The model that is
                      trained begins as --n_layer of its layers, by default every second one, as DistilGPT2 did, or
                      is --init_from, which must have the same vocabulary. Default: the text alone is learnt
--temperature X       by which both models' logits are divided in the loss of --alpha_ce, above 0. Default: 2
--alpha_ce X          weight of the KL divergence from the teacher, at least 0. Default: 5
--alpha_clm X         weight of the next-token loss, at least 0. Default: 2
--alpha_cos X         weight of 1 less the cosine between the final features of both, at least 0. Default: 1
--seed N              of initial weights, order and held-out choice, from 0 to {LARGEST_SEED}. Default: 0
--every N             updates between evaluations, each with a save, at least 1. Default: a tenth of the updates,
                      250 at most
--log_every N         updates between log lines, at least 1. Default: a fifth of --every
--sample_every N      updates between samples, at least 1. Default: no samples
--sample_prompt TEXT  what the samples continue. Default: nothing
--keep HOW            checkpoints that stay: last; best, that with the lowest held-out loss, which is the model at
                      the end; or a number, the last so many. Default: last
--patience N          end after so many evaluations without a better held-out loss, at least 1. Default: never
--tensorboard DIR     write losses, rate, gradient norm, speed and samples into DIR/<model_name>, where
                      `tensorboard --logdir DIR` finds them. Default: nothing is written
--workers N           train in so many processes of this computer, which share every batch evenly, at least 1. Several
                      computers are named in TF_CONFIG; several cards are used by themselves. Default: 1
--models_dir DIR      folder of the model folders. Default: {DEFAULT_MODELS_DIR}
"""


def train_model(
    *words: str, data: list | None = None, suffix: list | None = None, text_field: Any = None,
    train_on_prompt: bool | None = None, pack: bool | None = None, model_name: Any = None, init_from: Any = None,
    vocabulary: Any = None, n_ctx: Any = None, n_embd: Any = None, n_head: Any = None, n_layer: Any = None,
    steps: Any = None, epochs: Any = None, batch_size: Any = None, accumulate: Any = None, window: Any = None,
    optimizer: Any = None, learning_rate: Any = None, warmup: Any = None, weight_decay: Any = None,
    dropout: Any = None, precision: Any = None, recompute: bool | None = None, jit_compile: bool | None = None,
    freeze: Any = None, lora_rank: Any = None, lora_alpha: Any = None, teacher: Any = None, temperature: Any = None,
    alpha_ce: Any = None, alpha_clm: Any = None, alpha_cos: Any = None, held_out: Any = None,
    held_out_data: list | None = None, seed: Any = None, every: Any = None, log_every: Any = None,
    sample_every: Any = None, sample_prompt: Any = None, keep: Any = LAST, patience: Any = None,
    tensorboard: Any = None,
    workers: Any = 1, models_dir: str = DEFAULT_MODELS_DIR, **unknown: Any,
) -> None:  # fmt: skip
    flags = dict(locals())
    reject_unknown((), unknown)
    progress.show()
    patterns = [*map(str, texts(data)), *map(str, words)]
    if not patterns or model_name is None:
        raise UsageError('give text files and --model_name; --help shows how')
    folder = os.path.join(models_folders(models_dir)[0], canonical_name(str(model_name)))
    habits = check_habits(flags)
    if tensorboard is not None:
        habits['tensorboard'] = os.path.join(str(tensorboard), os.path.basename(folder))
    what = folder, patterns, check_flags(flags), habits, models_dir
    if (count := integer('workers', workers, 1)) > 1:
        check_shareable(prepared(*what).flags, count)
        if status := launch(command_line(patterns, flags), count):
            sys.exit(status)
        return
    end_with_launcher()
    try:
        stopped = train_in(*what)
    except BaseException:
        if CONFIG in os.environ:
            end_anyway()
        raise
    if stopped is not None:
        signal.raise_signal(stopped)  # which ends the program as if it had not saved first


train_model.__doc__ = HELP


def command_line(patterns: Sequence[str], flags: Mapping[str, Any]) -> list[str]:
    """This command, for one of several workers."""
    script = [sys.argv[0]] if os.path.basename(sys.argv[0]) == SCRIPT else ['-m', 'gpt2', 'train']
    left_out = ('words', 'data', 'unknown', 'workers')
    given = {name: value for name, value in flags.items() if value is not None and name not in left_out}
    repeated = {name: texts(value) if name in LISTS else [value] for name, value in given.items()} | {'data': patterns}
    return [sys.executable, *script, *(f'--{name}={value}' for name, values in repeated.items() for value in values)]


def check_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that a run depends on, those given alone, checked. Raises UsageError."""
    checks: dict[str, Callable[[str, Any], Any]] = {
        'warmup': lambda name, value: integer(name, value, 0),
        'seed': check_seed,
        'epochs': lambda name, value: number(name, value, lambda value: value > 0, 'above 0'),
        'learning_rate': lambda name, value: number(name, value, lambda value: value > 0, 'above 0'),
        'weight_decay': lambda name, value: number(name, value, lambda value: value >= 0, 'of at least 0'),
        'dropout': lambda name, value: number(name, value, lambda value: 0 <= value < 1, 'of at least 0 and below 1'),
        'temperature': lambda name, value: number(name, value, lambda value: value > 0, 'above 0'),
        'lora_alpha': lambda name, value: number(name, value, lambda value: value > 0, 'above 0'),
        'held_out': lambda name, value: number(name, value, lambda value: 0 <= value < 1, 'of at least 0 and below 1'),
        'pack': boolean, 'train_on_prompt': boolean, 'freeze': check_freeze, 'recompute': boolean,
        'jit_compile': boolean,
        'precision': functools.partial(choice, choices=PRECISIONS),
        'optimizer': functools.partial(choice, choices=list(RATES)),
    }  # fmt: skip
    for name in (*SHAPE, 'steps', 'batch_size', 'accumulate', 'window', 'lora_rank'):
        minimum = 2 if name in ('n_ctx', 'window') else 1
        checks[name] = functools.partial(integer, minimum=minimum)
    for name in ('alpha_ce', 'alpha_clm', 'alpha_cos'):
        checks[name] = lambda name, value: number(name, value, lambda value: value >= 0, 'of at least 0')
    checks |= {name: lambda name, value: str(value) for name in ('init_from', 'vocabulary', 'text_field', 'teacher')}
    checks |= {name: lambda name, value: list(map(str, texts(value))) for name in LISTS}
    return {name: check(name, flags[name]) for name, check in checks.items() if flags[name] is not None}


def check_seed(name: str, value: Any) -> int:
    seed = integer(name, value, 0)
    if seed > LARGEST_SEED:
        raise UsageError(f'--{name} is {seed}, expected at most {LARGEST_SEED}')
    return seed


def check_freeze(name: str, value: Any) -> str:
    words = ','.join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    try:
        frozen(words)
    except ValueError:
        raise UsageError(f'--{name} is {words}, expected {EMBEDDINGS}, a number of blocks, or {EMBEDDINGS},N') from None
    return words


def check_habits(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Habits, those that were given. Raises UsageError."""
    names = ('every', 'log_every', 'sample_every', 'patience')
    found: dict[str, Any] = {name: optional_integer(name, flags[name], 1) for name in names}
    prompt, keep = flags['sample_prompt'], flags['keep']
    if prompt is not None and found['sample_every'] is None:
        raise UsageError('--sample_prompt needs --sample_every, the updates between samples')
    found['sample_prompt'] = prompt if prompt is None else str(prompt)
    found['keep'] = check_keep(keep)
    return {name: value for name, value in found.items() if value is not None}


def check_keep(value: Any) -> str | int:
    if value in (BEST, LAST):
        return value
    try:
        return integer('keep', value, 1)
    except UsageError:
        raise UsageError(f'--keep is {value!r}, expected {BEST}, {LAST} or an integer of at least 1') from None
