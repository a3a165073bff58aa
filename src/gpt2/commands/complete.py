"""Ask for prompts and continue each."""

import sys
from collections.abc import Mapping
from typing import Any

from gpt2.api import Model
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands import many
from gpt2.commands.dialogue import Dialogue, check_labels, converse
from gpt2.commands.flags import boolean, choice, reject_unknown, show_notices
from gpt2.commands.sampling import (
    SHARED_FLAGS,
    Settings,
    check_settings,
    load,
    open_for_sampling,
    sampling_command,
    write_samples,
)
from gpt2.commands.typed import edit_lines, sample_interruptible, typed_prompts, valid
from gpt2.errors import UsageError
from gpt2.system.text import CONVERT_OR_REPLACE, read_text

FILE_BATCH_SIZE = 8  # samples drawn at once of a prompts file, unless another number is given
HELP = f"""\
Continue prompts with a GPT-2: asks for one after another, or takes one from a flag and ends.

    python src/interactive_conditional_samples.py --top_k 40
    python src/interactive_conditional_samples.py --prompt "Once upon a time" --nsamples 3

A typed line that ends with a backslash goes on in the next one. End of input ends the program;
Ctrl-C ends the sample, and at the prompt the program.

--prompt TEXT         continue TEXT and end
--prompt_file PATH    continue the text of a file and end; - reads standard input. The end of its
                      last line is not part of the prompt
--prompts_file PATH   continue many prompts and end: each line of a file, or of a .jsonl file the "prompt" of
                      each object, which may have settings of its own, by the names of the flags. Samples are
                      JSON, as of --json, in the order of the file
--output PATH         write the samples of --prompts_file to a file instead of printing them. The same command
                      again goes on where it was ended: what is written is not drawn again
--shard I/N           draw only every Nth line of --prompts_file from the Ith on, from 1/N to N/N; the samples
                      are the same as without
--dialogue            a conversation: each line continues it, and the oldest leave when the window is full. A
                      line /undo takes back the last line and its answer, /again draws another answer, /edit
                      TEXT puts TEXT in its place, /save FILE writes the conversation to a file
--memory FILE         with --dialogue, the text of FILE stays at its start
--you LABEL           with --dialogue, what stands before your lines, such as "You:", and ends the answers
--they LABEL          with --dialogue, what stands before the answers, such as "Alice:"
--errors HOW          what to do with bytes that are not UTF-8: strict refuses the prompt, replace
                      puts U+FFFD in their place. Default: strict
--nsamples N          samples a prompt, at least 0. Default: 1
{SHARED_FLAGS}
                      Default length: half of n_ctx, or less where the prompt needs the room
"""


@sampling_command
def interact_model(
    *extra: str, model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, engine: Any = 'auto',
    precision: Any = 'float32', draft: str | None = None, nsamples: Any = 1, prompt: str | None = None,
    prompt_file: str | None = None, prompts_file: str | None = None, output: str | None = None,
    shard: str | None = None, dialogue: bool = False, memory: str | None = None, you: str | None = None,
    they: str | None = None, errors: Any = 'strict', ablate: str | None = None, ablate_from: str | None = None,
    **flags: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, ())
    talking = boolean('dialogue', dialogue) or None
    check_one({'prompt': prompt, 'prompt_file': prompt_file, 'prompts_file': prompts_file, 'dialogue': talking})
    check_one({'prompts_file': prompts_file, 'draft': draft})
    check_needed('prompts_file', prompts_file, {'output': output, 'shard': shard})
    check_needed('dialogue', talking, {'memory': memory, 'you': you, 'they': they})
    typed = '-' if prompt is None and prompt_file is None and prompts_file is None else None
    check_standard_input({
        '--prompt_file': prompt_file, '--prompts_file': prompts_file, '--memory': memory,
        '--choices': flags.get('choices'), 'what is typed': typed,
    })  # fmt: skip
    if prompts_file is not None:
        flags = flags | {'json': True, 'batch_size': flags.get('batch_size') or FILE_BATCH_SIZE}
    settings = check_settings(nsamples=nsamples, **flags)
    errors = choice('errors', errors, ('strict', 'replace'))
    model = open_for_sampling(model_name, models_dir, engine, precision, settings, ablate, ablate_from, draft)
    if prompts_file is not None:
        others = {'ablate': ablate, 'ablate_from': ablate_from}
        many.complete_file(model, prompts_file, errors, output, many.read_shard(shard), settings, **others)
    elif prompt is not None or prompt_file is not None:
        text = read_prompt_file(prompt_file, errors) if prompt_file is not None else prompt or ''
        text = checked(model, text, errors, settings, '--prompt')
        load(model, settings)
        write_continuations(model, text, settings)
    elif talking:
        pinned = '' if memory is None else read_prompt_file(memory, errors, '--memory')
        converse(model, Dialogue(pinned, *check_labels(you, they)), errors, settings)
    else:
        interact(model, errors, settings)


interact_model.__doc__ = HELP


def check_one(given: Mapping[str, Any]) -> None:
    """Raise UsageError for two flags of which one alone can be followed."""
    first, *others = [f'--{name}' for name, value in given.items() if value is not None] or ['']
    if others:
        raise UsageError(f'{first} and {others[0]} exclude each other; give one')


def check_needed(name: str, value: Any, others: Mapping[str, Any]) -> None:
    """Raise UsageError for a flag among others that means nothing without the one of that name."""
    for other, given in others.items() if value is None else ():
        if given is not None:
            raise UsageError(f'--{other} needs --{name}')


def check_standard_input(paths: Mapping[str, str | None]) -> None:
    """Raise UsageError where two would read standard input, of which the second would find nothing left."""
    first, *others = [name for name, path in paths.items() if path == '-'] or ['']
    if others:
        raise UsageError(f'{first} and {others[0]} would both be read from standard input; name a file for one')


def checked(model: Model, text: str, errors: str, settings: Settings, name: str) -> str:
    """A prompt that can be continued. Raises UsageError, in which name says what it is."""
    text = valid(text, errors, name)
    if not text and settings.drawing['start'] is None:
        raise UsageError('Prompt should not be empty!')
    model.plan([text], seed=0, **settings.drawing)
    return text


def write_continuations(model: Model, text: str, settings: Settings) -> None:
    write_samples(model, text, range(1, settings.nsamples + 1), settings)
    if not settings.json:
        print('=' * 80, flush=True)


def interact(model: Model, errors: str, settings: Settings) -> None:
    """Ask for prompts, and continue each, until the end of input."""
    model.plan([None], seed=0, **settings.drawing)  # a length that no prompt has room for is refused now
    load(model, settings)
    edit_lines()
    for text in typed_prompts(sys.stderr if settings.json else sys.stdout):
        try:
            text = checked(model, text, errors, settings, 'the prompt')
        except UsageError as error:
            show_notices([str(error)])
            continue
        with sample_interruptible():
            write_continuations(model, text, settings)


def read_prompt_file(path: str, errors: str = 'strict', flag: str = '--prompt_file') -> str:
    """Text of a file that a flag names, without the end of its last line. Raises UsageError."""
    try:
        text = read_text(path, errors, CONVERT_OR_REPLACE)
    except UsageError as error:
        raise UsageError(f'{flag} {error}') from None
    return text.removesuffix('\n')
