"""Ask for prompts and continue each."""

import contextlib
import re
import sys

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import reject_unknown
from gpt2.commands.sampling import SHARED_FLAGS, check_length, check_settings, load_generator, open_model, write_samples
from gpt2.errors import UsageError

HELP = f"""\
Continue prompts with a GPT-2: asks for one after another, or takes one from a flag and ends.

    python src/interactive_conditional_samples.py --top_k 40
    python src/interactive_conditional_samples.py --prompt "Once upon a time" --nsamples 3

A typed line that ends with a backslash goes on in the next one. End of input ends the program;
Ctrl-C ends the sample, and at the prompt the program.

--prompt TEXT         continue TEXT and end
--prompt_file PATH    continue the text of a file and end; - reads standard input. One newline at
                      the end of the file is not part of the prompt
--nsamples N          samples a prompt, at least 0. Default: 1
{SHARED_FLAGS}
                      Default length: half of n_ctx, or less where the prompt needs the room
"""


def interact_model(
    *extra, model_name=None, seed=None, nsamples=1, batch_size=1, length=None, temperature=1, top_k=0, top_p=1,
    engine='tf', precision='float32', models_dir=DEFAULT_MODELS_DIR, prompt=None, prompt_file=None,
    stop: list = None, stop_at_end: bool = False, stream: bool = None, json: bool = False, **unknown,
):  # fmt: skip
    reject_unknown(extra, unknown)
    settings = check_settings(
        seed=seed, nsamples=nsamples, batch_size=batch_size, length=length, temperature=temperature, top_k=top_k,
        top_p=top_p, engine=engine, precision=precision, stop=stop, stop_at_end=stop_at_end, stream=stream, json=json,
    )  # fmt: skip
    if prompt is not None and prompt_file is not None:
        raise UsageError('--prompt and --prompt_file exclude each other; give one')
    text = read_prompt_file(prompt_file) if prompt_file is not None else prompt
    path, hparams, encoder, notice = open_model(model_name, models_dir)

    def check_prompt(text):
        """Token ids of a prompt and how many to draw after it."""
        context = encoder.encode(text)
        if not context:
            raise UsageError('Prompt should not be empty!')
        return context, check_length(hparams, len(context), settings.length, hparams.n_ctx // 2)

    def write_continuations(text, context, length):
        write_samples(generator, encoder, context, length, settings, text, range(1, settings.nsamples + 1))
        if not settings.json:
            print('=' * 80, flush=True)

    if text is not None:
        context, length = check_prompt(text)
        generator = load_generator(path, hparams, notice, settings)
        write_continuations(text, context, length)
        return
    check_length(hparams, 1, settings.length, 1)  # a length no prompt has room for is refused now
    generator = load_generator(path, hparams, notice, settings)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing, history and lines of any length
    while (text := ask(sys.stderr if settings.json else sys.stdout)) is not None:
        try:
            context, length = check_prompt(text)
        except UsageError as error:
            print(error, file=sys.stderr)
            continue
        with sample_interruptible():
            write_continuations(text, context, length)


interact_model.__doc__ = HELP


def read_prompt_file(path):
    """Text of a prompt file, any bytes at all. Raises UsageError."""
    try:
        with open(0 if path == '-' else path, 'rb') as file:
            text = file.read().decode('utf-8', 'surrogateescape')
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UsageError(f'--prompt_file {path} cannot be read: {reason}') from None
    return re.sub(r'\r?\n\Z', '', text)


def ask(output):
    """The next prompt, typed or piped; None at the end of input."""
    lines, label = [], 'Model prompt >>> '
    while True:
        try:
            line = read_line(label, output)
        except EOFError:
            print(file=output)
            return '\n'.join(lines) or None
        if not line.endswith('\\'):
            return '\n'.join([*lines, line])
        lines.append(line[:-1])
        label = '... '


def read_line(label, output):
    if output is sys.stdout:
        return input(label)
    print(label, end='', file=output, flush=True)
    return input()


@contextlib.contextmanager
def sample_interruptible():
    try:
        yield
    except KeyboardInterrupt:
        print()
