"""What the two sampling scripts share: their flags, the model they open, how samples are printed."""

import dataclasses
import json
import secrets
import sys

from tqdm import tqdm

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, find_model
from gpt2.commands.flags import boolean, choice, integer, number, texts
from gpt2.completion import Completion, complete
from gpt2.encoder import get_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParamsError, load_hparams

SHARED_FLAGS = f"""\
--model_name NAME     folder of the model inside the models folder; 124M, 355M, 774M and 1558M can
                      be downloaded. Default: 124M if it is there, else the bundled model
--seed N              integer of at least 0; the same seed, prompt and settings give the same
                      samples, whatever the batch size. Default: other samples every time
--batch_size N        samples drawn at once, at least 1; faster together, each needs memory. Default: 1
--length N            tokens a sample, at least 1; prompt and length together are at most n_ctx + 1
                      (1025 for the released models)
--temperature X       at least 0; below 1 likelier tokens become likelier still, above 1 less so;
                      0 always takes the likeliest. Default: 1
--top_k N             draw from the N likeliest tokens only; at least 0, 0 means all. 40 is a good
                      value. Default: 0
--top_p X             draw from the nucleus that holds probability X only; above 0, at most 1, 1
                      means all. Default: 1
--engine E            tf, TensorFlow; or litert, LiteRT, which is faster on a CPU: the first use exports the
                      checkpoint once, later ones start without TensorFlow. Default: tf
--precision P         float32; or int8, several times as fast, with --engine litert only. Default: float32
--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: {DEFAULT_MODELS_DIR}, here or
                      else in the repository
--stop TEXT           end a sample before TEXT; may be given more than once
--stop_at_end         end a sample at the end-of-text token
--stream              print text as it is drawn; --nostream to wait for whole samples. Needs
                      --batch_size 1. Default: on when a terminal reads and batch_size is 1
--json                print one JSON object a sample and line: prompt, text, tokens, seed, sample,
                      finish_reason (length, stop or end_of_text)"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Checked flags of a sampling script."""

    seed: int | None
    nsamples: int
    batch_size: int
    length: int | None
    temperature: float
    top_k: int
    top_p: float
    engine: str
    precision: str
    stop: tuple
    stop_at_end: bool
    stream: bool
    json: bool


def check_settings(
    *, seed, nsamples, batch_size, length, temperature, top_k, top_p, engine, precision, stop, stop_at_end, stream,
    json,
):  # fmt: skip
    """Settings from flags, each text or a Python value. Raises UsageError."""
    settings = Settings(
        seed=integer('seed', seed, 0),
        nsamples=required('nsamples', integer('nsamples', nsamples, 0)),
        batch_size=integer('batch_size', batch_size, 1) or 1,
        length=integer('length', length, 1),
        temperature=number('temperature', temperature, lambda value: value >= 0, 'of at least 0'),
        top_k=required('top_k', integer('top_k', top_k, 0)),
        top_p=number('top_p', top_p, lambda value: 0 < value <= 1, 'above 0 and at most 1'),
        engine=choice('engine', engine, ('tf', 'litert')),
        precision=choice('precision', precision, ('float32', 'int8')),
        stop=texts(stop),
        stop_at_end=boolean('stop_at_end', stop_at_end),
        stream=boolean('stream', stream),
        json=boolean('json', json),
    )
    if '' in settings.stop:
        raise UsageError('--stop is empty, expected a text of at least one character')
    if settings.engine == 'tf' and settings.precision == 'int8':
        raise UsageError('--precision int8 needs --engine litert; --engine tf computes in float32')
    if settings.stream and settings.batch_size > 1:
        raise UsageError(f'--stream needs --batch_size 1, not {settings.batch_size}: one sample at a time')
    if settings.stream and settings.json:
        raise UsageError('--stream and --json exclude each other: an object is printed when its sample is whole')
    if settings.stream is None:
        stream = sys.stdout.isatty() and settings.batch_size == 1 and not settings.json
        settings = dataclasses.replace(settings, stream=stream)
    return settings


def required(name, value):
    if value is None:
        raise UsageError(f'--{name} needs a number')
    return value


def open_model(model_name, models_dir):
    """Find a model and read all but its weights: (folder, hparams, encoder, notice for the user or None)."""
    name, folder, notice = find_model(model_name, models_dir)
    path = f'{folder}/{name}'
    hparams = load_hparams(f'{path}/hparams.json')
    encoder = get_encoder(name, folder)
    if len(encoder.encoder) != hparams.n_vocab:
        raise HParamsError(
            f'{path}: encoder.json has {len(encoder.encoder)} tokens, hparams.json says n_vocab {hparams.n_vocab}; '
            'download the model again'
        )
    return path, hparams, encoder, notice


def load_generator(path, hparams, notice, settings):
    """The token generator of a model. TensorFlow or LiteRT is imported here, once all flags are checked."""
    if notice:
        print(notice, file=sys.stderr)
    if settings.engine == 'litert':
        return load_litert_generator(path, hparams, settings.precision)
    from gpt2 import sample
    from gpt2.checkpoints import release as checkpoint

    return sample.Generator(hparams, checkpoint.load_params(path, hparams))


def load_litert_generator(path, hparams, precision):
    try:
        from gpt2.litert import engine as sample_litert
    except ImportError as error:
        raise Error(f'--engine litert needs a package ({error}); pip install ai-edge-litert') from None
    from gpt2.litert import export as export_litert

    return sample_litert.Generator(export_litert.exported_file(path, hparams, precision), hparams)


def check_length(hparams, prompt_tokens, length, default):
    """Tokens to draw after a prompt: length, or when it is None the default, shrunk to fit.

    Raises UsageError when the window has no room.
    """
    room = hparams.n_ctx + 1 - prompt_tokens
    if room < 1:
        raise UsageError(f'the prompt has {prompt_tokens} tokens, the limit is {hparams.n_ctx}; shorten it')
    if length is None:
        return min(default, room)
    if length > room:
        raise UsageError(
            f'{prompt_tokens} prompt tokens and --length {length} are {prompt_tokens + length}, '
            f'the limit is {hparams.n_ctx + 1}; --length {room} fits'
        )
    return length


def write_samples(generator, encoder, context, length, settings, prompt, numbers):
    """Draw and print samples of one prompt.

    context: its token ids. numbers: a range of sample numbers, cut into batches here; the last
    may be smaller. prompt: its text, or None.
    """
    seed = secrets.randbits(32) if settings.seed is None else settings.seed
    for first in range(numbers.start, numbers.stop, settings.batch_size):
        batch = range(first, min(first + settings.batch_size, numbers.stop))
        completions = [Completion(encoder, number, settings.stop, settings.stop_at_end) for number in batch]
        steps = generator.generate(
            [context] * len(batch), length, numbers=batch, seed=seed,
            temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p,
        )  # fmt: skip
        if settings.stream:
            stream_sample(steps, completions)
            continue
        hidden = {'leave': False, 'delay': 2, 'disable': None}
        for _ in complete(tqdm(steps, 'sampling', length, unit='token', **hidden), completions):
            pass
        for completion in completions:
            write_sample(completion, settings, prompt, seed)


def header(number):
    return f'{"=" * 40} SAMPLE {number} {"=" * 40}'


def stream_sample(steps, completions):
    """Print the only one of completions while it grows."""
    print(header(completions[0].number))
    for _ in complete(steps, completions):
        print(completions[0].new_text(), end='', flush=True)
    print()


def write_sample(completion, settings, prompt, seed):
    if settings.json:
        print(json.dumps({
            'prompt': prompt,
            'text': completion.text,
            'tokens': completion.ids,
            'seed': seed,
            'sample': completion.number,
            'finish_reason': completion.finish_reason,
        }))  # fmt: skip
    else:
        print(header(completion.number))
        print(completion.text)
    sys.stdout.flush()
