"""Ask for prompts and continue each."""

import contextlib
import sys
from collections.abc import Iterator
from typing import IO, Any

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import choice, reject_unknown, show_notices
from gpt2.commands.sampling import SHARED_FLAGS, check_settings, load, open_for_sampling, write_samples
from gpt2.encoder import utf8
from gpt2.errors import UsageError
from gpt2.system.text import BYTE_ORDER_MARK, CONVERT_OR_REPLACE, read_text

HELP = f"""\
Continue prompts with a GPT-2: asks for one after another, or takes one from a flag and ends.

    python src/interactive_conditional_samples.py --top_k 40
    python src/interactive_conditional_samples.py --prompt "Once upon a time" --nsamples 3

A typed line that ends with a backslash goes on in the next one. End of input ends the program;
Ctrl-C ends the sample, and at the prompt the program.

--prompt TEXT         continue TEXT and end
--prompt_file PATH    continue the text of a file and end; - reads standard input. The end of its
                      last line is not part of the prompt
--errors HOW          what to do with bytes that are not UTF-8: strict refuses the prompt, replace
                      puts U+FFFD in their place. Default: strict
--nsamples N          samples a prompt, at least 0. Default: 1
{SHARED_FLAGS}
                      Default length: half of n_ctx, or less where the prompt needs the room
"""


def interact_model(
    *extra: str, model_name: str | None = None, seed: Any = None, nsamples: Any = 1, batch_size: Any = 1,
    length: Any = None, temperature: Any = 1, top_k: Any = 0, top_p: Any = 1, top_p_rule: Any = 'released',
    min_p: Any = 0, typical_p: Any = 1, repetition_penalty: Any = 1, presence_penalty: Any = 0,
    frequency_penalty: Any = 0, no_repeat_ngram: Any = 0, logit_bias: list | None = None, ban: list | None = None,
    choices: str | None = None, ablate: str | None = None, ablate_from: str | None = None,
    engine: Any = 'auto', precision: Any = 'float32', models_dir: str = DEFAULT_MODELS_DIR, prompt: str | None = None,
    prompt_file: str | None = None, errors: Any = 'strict', stop: list | None = None, stop_at_end: bool = False,
    start: str | None = None, stream: bool | None = None, json: bool = False, logprobs: Any = None,
    beams: Any = 1, length_penalty: Any = 1, regex: str | None = None, **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    settings = check_settings(
        seed=seed, nsamples=nsamples, batch_size=batch_size, length=length, temperature=temperature, top_k=top_k,
        top_p=top_p, top_p_rule=top_p_rule, min_p=min_p, typical_p=typical_p, repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, no_repeat_ngram=no_repeat_ngram,
        logit_bias=logit_bias, ban=ban, choices=choices, stop=stop, stop_at_end=stop_at_end, start=start,
        stream=stream, json=json, logprobs=logprobs, beams=beams, length_penalty=length_penalty, regex=regex,
    )  # fmt: skip
    errors = choice('errors', errors, ('strict', 'replace'))
    if prompt is not None and prompt_file is not None:
        raise UsageError('--prompt and --prompt_file exclude each other; give one')
    text = read_prompt_file(prompt_file, errors) if prompt_file is not None else prompt
    model = open_for_sampling(model_name, models_dir, engine, precision, settings, ablate, ablate_from)

    def checked(text: str, name: str) -> str:
        text = valid(text, errors, name)
        if not text and start is None:
            raise UsageError('Prompt should not be empty!')
        model.plan([text], seed=0, **settings.drawing)
        return text

    def write_continuations(text: str) -> None:
        write_samples(model, text, range(1, settings.nsamples + 1), settings)
        if not settings.json:
            print('=' * 80, flush=True)

    if text is not None:
        text = checked(text, '--prompt')
        load(model, settings)
        write_continuations(text)
        return
    model.length(1, settings.drawing['length'], 1)  # one that no prompt has room for is refused now
    load(model, settings)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing, history and lines of any length
    for text in typed_prompts(sys.stderr if settings.json else sys.stdout):
        try:
            text = checked(text, 'the prompt')
        except UsageError as error:
            show_notices([str(error)])
            continue
        with sample_interruptible():
            write_continuations(text)


interact_model.__doc__ = HELP


def read_prompt_file(path: str, errors: str = 'strict') -> str:
    """Text of a prompt file. Raises UsageError."""
    try:
        text = read_text(path, errors, CONVERT_OR_REPLACE)
    except UsageError as error:
        raise UsageError(f'--prompt_file {error}') from None
    return text.removesuffix('\n')


def valid(text: str, errors: str, name: str) -> str:
    """A text that a terminal or a pipe gave, whatever encoding Python took it for, if it is UTF-8 or is made so; name
    says in a refusal what it is."""
    try:
        return utf8(text).decode('utf-8', errors)
    except UnicodeDecodeError as error:
        raise UsageError(f'{name} is not UTF-8 at byte {error.start}; {CONVERT_OR_REPLACE}') from None


def typed_prompts(output: IO[str]) -> Iterator[str]:
    """Yield prompts, typed or piped, until the end of input. output: where it is asked for them."""
    first = True
    while (text := ask(output)) is not None:
        yield text.removeprefix(BYTE_ORDER_MARK) if first else text
        first = False


def ask(output: IO[str]) -> str | None:
    """The next prompt; None at the end of input."""
    lines, label = [], 'Model prompt >>> '
    while True:
        try:
            line = read_line(label, output).removesuffix('\r')
        except EOFError:
            print(file=output)
            return '\n'.join(lines) or None
        if not line.endswith('\\'):
            return '\n'.join([*lines, line])
        lines.append(line[:-1])
        label = '... '


def read_line(label: str, output: IO[str]) -> str:
    if output is sys.stdout:
        return input(label)
    print(label, end='', file=output, flush=True)
    return input()


@contextlib.contextmanager
def sample_interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print()
