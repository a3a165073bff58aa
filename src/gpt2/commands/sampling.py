"""What the two sampling commands share: their flags, and how samples are printed."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gpt2.api import Model, new_seed, open_model
from gpt2.commands.ablation import ABLATION_HELP, ablated
from gpt2.commands.flags import (
    ENGINE_HELP,
    MODEL_NAME_HELP,
    MODELS_DIR_HELP,
    boolean,
    integer,
    optional_boolean,
    optional_integer,
    print_utf8,
    show_notices,
    texts,
)
from gpt2.completion import Completion
from gpt2.errors import UsageError
from gpt2.sampling import CHECKS, check_bias, check_length_penalty
from gpt2.system import progress
from gpt2.system.text import CONVERT, json_line, lines, printable

SHARED_FLAGS = f"""\
{MODEL_NAME_HELP}
--seed N              integer of at least 0; the same seed, prompt and settings give the same
                      samples, whatever the batch size. Default: other samples every time
--batch_size N        samples drawn at once, at least 1; faster together, each needs memory. Default: 1, with
                      --prompts_file 8
--length N            tokens a sample, at least 1; prompt and length together are at most n_ctx + 1
                      (1025 for the released models)
--beyond_window       a text may outgrow the window of n_ctx tokens: then its oldest tokens leave, what stays
                      is processed again, and --length has no limit
--keep_prompt N       with --beyond_window, so many tokens at the start of the text stay, from 0 to n_ctx / 2,
                      and of the others the newest that fill half of the room. Default: 0
--temperature X       at least 0; below 1 likelier tokens become likelier still, above 1 less so;
                      0 always takes the likeliest. Default: 1
--top_k N             draw from the N likeliest tokens only; at least 0, 0 means all. 40 is a good
                      value. Default: 0
--top_p X             draw from the nucleus that holds probability X only; above 0, at most 1, 1
                      means all. Default: 1
--top_p_rule R        released leaves out the token that crosses top_p, as the release does; inclusive keeps
                      it, as the paper on nucleus sampling does. Default: released
--min_p X             draw from tokens that are at least X times as likely as the likeliest; from 0 to 1,
                      0 means all. Default: 0
--typical_p X         draw from the typical tokens that hold probability X, those whose surprise is
                      nearest to what is expected; above 0, at most 1, 1 means all. Default: 1
--repetition_penalty X
                      make tokens of prompt and sample less likely: their logits are divided by X, or
                      multiplied where they are below 0; from 0.01 to 100, 1 is off. 1.2 is a good
                      value. Default: 1
--presence_penalty X  taken from the logits of the tokens that the sample holds; from -2 to 2. Default: 0
--frequency_penalty X
                      the same, as often as the sample holds them; from -2 to 2. Default: 0
--no_repeat_ngram N   no N tokens come twice in the same order, in prompt and sample together; at least 0,
                      0 is off. Default: 0
--logit_bias TOKEN=B  add B, from -100 to 100, to the logit of a token, which is an id or a text that is
                      one token; may be given more than once
--ban TEXT            no sample will hold TEXT; may be given more than once
--choices FILE        draw one of the lines of a file as the whole continuation, by the probability that the
                      model gives to each; with --temperature 0 the likeliest. - is standard input
--regex PATTERN       samples that, whole, match a pattern (the syntax of Rust's regex, without look-around) and
                      end; --length cuts them all the same. Needs requirements-regex.txt
--beams N             do not draw: search with N beams for the likeliest continuations, of which the first
                      samples are printed; at least 1, 1 draws. It ends when nothing that is open can become
                      better. Default: 1
--length_penalty X    beams are compared by log-probability divided by the number of tokens to the power X;
                      from -10 to 10, 0 favours short ones. Default: 1
{ENGINE_HELP}
--draft MODEL         a smaller model with the same vocabulary guesses tokens, of which the model looks at several at
                      once: the same samples, sooner where it guesses well. For one sample at a time, on LiteRT in
                      float32. Default: none
{ABLATION_HELP}
{MODELS_DIR_HELP}
--stop TEXT           end a sample before TEXT; may be given more than once
--stop_at_end         end a sample at the end-of-text token
--start TOKEN         an added token that stands before every prompt, or in place of the end-of-text token,
                      for models that were trained so, such as <|startoftext|>
--stream              print text as it is drawn; --nostream to wait for whole samples. Needs
                      --batch_size 1. Default: on when a terminal reads and batch_size is 1
--json                print one JSON object a sample and line: prompt, text, tokens, seed, sample,
                      finish_reason (length, stop, end_of_text, choice or nothing_left), with
                      --choices choices, the log-probability of each, with --logprobs
                      logprobs, and with --beams log_probability (nats)
--logprobs K          in JSON, of each token of a sample how likely the model had it, whatever the settings:
                      id, bytes, log_probability (nats), rank, and likeliest, the K likeliest as pairs of id
                      and log-probability; at least 0. Needs --json"""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Checked flags of a sampling command. drawing: what Model.begin takes beside prompts and numbers."""

    seed: int | None
    nsamples: int
    batch_size: int
    drawing: dict[str, Any]
    stream: bool
    json: bool


def sampling_command(function: Callable) -> Callable:
    """A command with the flags of check_settings() beside its own; it is given them by their names."""
    own = [each for each in inspect.signature(function).parameters.values() if each.kind is not each.VAR_KEYWORD]
    shared = [each for each in inspect.signature(check_settings).parameters.values() if each.default is not each.empty]
    function.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    return function


def check_settings(
    *, nsamples: Any, seed: Any = None, batch_size: Any = None, length: Any = None, temperature: Any = 1,
    top_k: Any = 0, top_p: Any = 1, top_p_rule: Any = 'released', min_p: Any = 0, typical_p: Any = 1,
    repetition_penalty: Any = 1, presence_penalty: Any = 0, frequency_penalty: Any = 0, no_repeat_ngram: Any = 0,
    logit_bias: list | None = None, ban: list | None = None, choices: str | None = None, regex: str | None = None,
    beams: Any = 1, length_penalty: Any = 1, beyond_window: bool = False, keep_prompt: Any = 0,
    stop: list | None = None, stop_at_end: bool = False, start: str | None = None, stream: bool | None = None,
    json: bool = False, logprobs: Any = None,
) -> Settings:  # fmt: skip
    """Settings from flags, each text or a Python value. Raises UsageError."""
    drawing = dict(locals())
    taken: dict[str, Any] = {
        **{name: check(f'--{name}', drawing[name]) for name, check in CHECKS.items()},
        'length': optional_integer('length', length, 1),
        'logit_bias': bias_of_tokens(nonempty_texts('logit_bias', logit_bias)),
        'ban': nonempty_texts('ban', ban),
        'choices': () if choices is None else read_choices(choices),
        'stop': nonempty_texts('stop', stop),
        'stop_at_end': boolean('stop_at_end', stop_at_end),
        'start': start,
        'regex': regex,
        'logprobs': optional_integer('logprobs', logprobs, 0),
        'beams': integer('beams', beams, 1),
        'length_penalty': check_length_penalty('--length_penalty', length_penalty),
        'beyond_window': boolean('beyond_window', beyond_window),
        'keep_prompt': integer('keep_prompt', keep_prompt, 0),
    }
    json, batch_size = boolean('json', json), integer('batch_size', 1 if batch_size is None else batch_size, 1)
    batch_size = min(batch_size, sys.maxsize)  # as long as a list can be
    if taken['logprobs'] is not None and not json:
        raise UsageError('--logprobs needs --json, in which they are told')
    nsamples = integer('nsamples', nsamples, 0)
    if taken['beams'] > 1 and not 0 < nsamples <= taken['beams']:
        raise UsageError(f'--nsamples is {nsamples}, expected 1 to {taken["beams"]}, as many as there are --beams')
    stream = check_stream(stream, batch_size, json, taken['beams'])
    if taken['beams'] > 1 or taken['choices']:  # all samples of a prompt come from one computation
        batch_size = max(batch_size, nsamples)
    return Settings(optional_integer('seed', seed, 0), nsamples, batch_size, taken, stream, json)


def check_stream(stream: Any, batch_size: int, json: bool, beams: int) -> bool:
    """Whether text is printed as it is drawn; by default at a terminal, where that can be. Raises UsageError."""
    stream = optional_boolean('stream', stream)
    if stream and batch_size > 1:
        raise UsageError(f'--stream needs --batch_size 1, not {batch_size}: one sample at a time')
    if stream and json:
        raise UsageError('--stream and --json exclude each other: an object is printed when its sample is whole')
    if stream and beams > 1:
        raise UsageError('--stream and --beams exclude each other: which text is likeliest is known at the end alone')
    return sys.stdout.isatty() and batch_size == 1 and not json and beams == 1 if stream is None else stream


def nonempty_texts(name: str, value: Any) -> tuple[str, ...]:
    """The values of a repeatable flag, each a text of at least one character. Raises UsageError."""
    found = texts(value)
    for text in found:
        if text != printable(text):
            raise UsageError(f'--{name} is {text!r}, which is not UTF-8; {CONVERT}')
    if '' in found:
        raise UsageError(f'--{name} is empty, expected a text of at least one character')
    return found


def read_choices(path: str) -> tuple[str, ...]:
    """The lines of a file. Raises UsageError for one that is empty, and for none."""
    try:
        found = tuple(lines(path))
    except UsageError as error:
        raise UsageError(f'--choices {error}') from None
    if '' in (found or ('',)):
        number = found.index('') + 1 if found else 1
        raise UsageError(f'--choices {path}: line {number} is empty, expected a text a line')
    return found


def bias_of_tokens(pairs: Iterable[str]) -> dict[str, float]:
    """What is added to the logit of each token, of TOKEN=B as often as it is given. Raises UsageError."""
    found: dict[str, float] = {}
    for token, value in map(bias_of_token, pairs):
        if token in found:
            raise UsageError(f'--logit_bias has {token!r} twice; give each token once')
        found[token] = value
    return found


def bias_of_token(pair: str) -> tuple[str, float]:
    """(token, what is added to its logit) of TOKEN=B. The token may hold an equals sign itself."""
    token, _, value = pair.rpartition('=')
    if not token:
        raise UsageError(f'--logit_bias is {pair!r}, expected TOKEN=B, as in 50256=-100')
    return token, check_bias(f'--logit_bias of {token!r}', value)


def open_for_sampling(
    model_name: str | None, models_dir: str, engine: Any, precision: Any, settings: Settings,
    ablate: str | None = None, ablate_from: str | None = None, draft: str | None = None,
) -> Model:  # fmt: skip
    """The model that flags name, nothing heavy loaded. Raises UsageError, also for settings that mean nothing to it."""
    if draft is not None:
        check_alone(settings, ablate)
    model = open_model(model_name, models_dir, engine=engine, precision=precision, draft=draft, prefix='--')
    model = ablated(model, ablate, ablate_from)
    model.plan([], seed=0, **settings.drawing)
    return model


def check_alone(settings: Settings, ablate: str | None) -> None:
    """Raise UsageError where a draft would have nothing to guess."""
    others = {
        '--choices': settings.drawing['choices'], '--beams': settings.drawing['beams'] > 1,
        '--regex': settings.drawing['regex'], '--batch_size': settings.batch_size > 1,
        '--beyond_window': settings.drawing['beyond_window'], '--ablate': ablate is not None,
    }  # fmt: skip
    if found := [name for name, given in others.items() if given]:
        raise UsageError(f'--draft and {found[0]} exclude each other; leave one of them out')


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
        print(json_line(described(completion)))
    else:
        print(header(completion.number))
        print(completion.text)
    sys.stdout.flush()


def described(completion: Completion) -> dict[str, Any]:
    """What JSON says of a sample."""
    found: dict[str, Any] = {
        'prompt': completion.prompt,
        'text': completion.text,
        'tokens': completion.ids,
        'seed': completion.seed,
        'sample': completion.number,
        'finish_reason': completion.finish_reason,
    }
    if completion.choices is not None:
        found['choices'] = dict(completion.choices)
    if completion.log_probability is not None:
        found['log_probability'] = completion.log_probability
    if completion.logprobs is not None:
        found['logprobs'] = [vars(token) | {'bytes': list(token.bytes)} for token in completion.logprobs]
    return found
