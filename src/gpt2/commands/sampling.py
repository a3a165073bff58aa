"""What the two sampling commands share: their flags, and how samples are printed."""

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

from gpt2.api import Model, new_seed, open_model
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    integer,
    number,
    optional_boolean,
    optional_integer,
    print_utf8,
    show_notices,
    texts,
)
from gpt2.completion import Completion
from gpt2.errors import UsageError
from gpt2.system import progress
from gpt2.system.text import json_line

SHARED_FLAGS = f"""\
{MODEL_NAME_HELP}
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
{ENGINE_HELP}
{MODELS_DIR_HELP}
--stop TEXT           end a sample before TEXT; may be given more than once
--stop_at_end         end a sample at the end-of-text token
--start TOKEN         an added token that stands before every prompt, or in place of the end-of-text token,
                      for models that were trained so, such as <|startoftext|>
--stream              print text as it is drawn; --nostream to wait for whole samples. Needs
                      --batch_size 1. Default: on when a terminal reads and batch_size is 1
--json                print one JSON object a sample and line: prompt, text, tokens, seed, sample,
                      finish_reason (length, stop or end_of_text)"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Checked flags of a sampling command. drawing: what Model.begin takes beside prompts and numbers."""

    seed: int | None
    nsamples: int
    batch_size: int
    drawing: dict[str, Any]
    stream: bool
    json: bool


def check_settings(
    *, seed: Any, nsamples: Any, batch_size: Any, length: Any, temperature: Any, top_k: Any, top_p: Any, stop: Any,
    stop_at_end: Any, start: str | None, stream: Any, json: Any,
) -> Settings:  # fmt: skip
    """Settings from flags, each text or a Python value. Raises UsageError."""
    drawing: dict[str, Any] = {
        'length': optional_integer('length', length, 1),
        'temperature': number('temperature', temperature, lambda value: value >= 0, 'of at least 0'),
        'top_k': integer('top_k', top_k, 0),
        'top_p': number('top_p', top_p, lambda value: 0 < value <= 1, 'above 0 and at most 1'),
        'stop': texts(stop),
        'stop_at_end': boolean('stop_at_end', stop_at_end),
        'start': start,
    }
    if '' in drawing['stop']:
        raise UsageError('--stop is empty, expected a text of at least one character')
    json, batch_size = boolean('json', json), integer('batch_size', batch_size, 1)
    stream = optional_boolean('stream', stream)
    if stream and batch_size > 1:
        raise UsageError(f'--stream needs --batch_size 1, not {batch_size}: one sample at a time')
    if stream and json:
        raise UsageError('--stream and --json exclude each other: an object is printed when its sample is whole')
    if stream is None:
        stream = sys.stdout.isatty() and batch_size == 1 and not json
    nsamples = integer('nsamples', nsamples, 0)
    return Settings(optional_integer('seed', seed, 0), nsamples, batch_size, drawing, stream, json)


def open_for_sampling(model_name: str | None, models_dir: str, engine: Any, precision: Any) -> Model:
    """The model that flags name, nothing heavy loaded."""
    return open_model(model_name, models_dir, engine=engine, precision=precision, prefix='--')


def load(model: Model, settings: Settings) -> None:
    """Say what a user should know of a model, and load it, unless nothing will be drawn."""
    show_notices(model.notices)
    if settings.json:
        print_utf8()
    if settings.nsamples:
        model.engine  # noqa: B018 - loads it


def write_samples(model: Model, prompt: str | None, numbers: range, settings: Settings) -> None:
    """Draw and print samples of one prompt. numbers: of the samples, cut into batches here; the last may be smaller."""
    seed = new_seed() if settings.seed is None else settings.seed
    for first in range(numbers.start, numbers.stop, settings.batch_size):
        batch = range(first, min(first + settings.batch_size, numbers.stop))
        completions, steps = model.begin([prompt] * len(batch), batch, seed=seed, **settings.drawing)
        if settings.stream:
            stream_sample(completions[0], steps)
            continue
        for _ in progress.bar(steps, 'sampling', completions[0].length, unit='token', delay=2):
            pass
        for completion in completions:
            write_sample(completion, settings)


def header(number: int) -> str:
    return f'{"=" * 40} SAMPLE {number} {"=" * 40}'


def stream_sample(completion: Completion, steps: Iterable[Any]) -> None:
    """Print a sample while it grows."""
    print(header(completion.number))
    for _ in steps:
        print(completion.new_text(), end='', flush=True)
    print()


def write_sample(completion: Completion, settings: Settings) -> None:
    if settings.json:
        print(json_line({
            'prompt': completion.prompt,
            'text': completion.text,
            'tokens': completion.ids,
            'seed': completion.seed,
            'sample': completion.number,
            'finish_reason': completion.finish_reason,
        }))  # fmt: skip
    else:
        print(header(completion.number))
        print(completion.text)
    sys.stdout.flush()
