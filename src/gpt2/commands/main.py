"""The console command: `gpt2 complete` is src/interactive_conditional_samples.py, and so on."""

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpt2 import __version__
from gpt2.commands.flags import HELP, VERSION, exit_status, run
from gpt2.errors import UsageError
from gpt2.system.garbage import collection_held_back
from gpt2.system.signals import interrupts_held_back


class Command(NamedTuple):
    """A command: the module and function that it is, its script in the repository, what it does."""

    module: str
    function: str
    script: str
    summary: str


COMMANDS = {
    'complete': Command('complete', 'interact_model', 'interactive_conditional_samples', 'continue prompts'),
    'generate': Command('generate', 'sample_model', 'generate_unconditional_samples', 'draw samples from nothing'),
    'download': Command('download', 'download_models', 'download_model', 'fetch released models'),
    'prepare': Command('prepare_data', 'prepare_data', 'prepare_data', 'prepare text for training as WebText was made'),
    'train': Command('train', 'train_model', 'train', 'train a model on text, from scratch or from any checkpoint'),
    'vocabulary': Command('train_vocabulary', 'train_vocabulary', 'train_vocabulary', 'learn a vocabulary from text'),
    'score': Command('score', 'score_files', 'score', 'print the probability that a model gives to texts'),
    'evaluate': Command('evaluate', 'evaluate_model', 'evaluate', "run the paper's zero-shot evaluation"),
    'overlap': Command('overlap', 'measure_overlap', 'overlap', 'print how much of test sets a corpus has too'),
    'detect': Command('detect', 'detect_machine', 'detect', 'show how likely a text is to a model; machine or human'),
    'inspect': Command(
        'inspect_model', 'inspect_model', 'inspect_model', 'see inside a model: activations, neurons, contributions'
    ),
    'convert': Command('convert', 'convert_model', 'convert', 'convert a model from one format to another'),
    'serve': Command('serve', 'serve_models', 'serve', "serve models over HTTP, to the clients of OpenAI's API"),
    'export': Command('export', 'export_model', 'export_litert', 'export a checkpoint for the LiteRT engine'),
}
USAGE = '\n'.join(
    [
        'GPT-2 as OpenAI released it.',
        '',
        '    gpt2 COMMAND [FLAGS]',
        '    gpt2 complete --prompt "Once upon a time" --top_k 40',
        '',
        *(f'{name:<12}{command.summary}' for name, command in COMMANDS.items()),
        '',
        'gpt2 COMMAND --help lists the flags of a command; gpt2 --version prints the version.',
    ]
)


def main() -> None:
    """Run the command that the first word of the command line names, and exit with its status."""
    name, *arguments = sys.argv[1:] or ['']
    if name in COMMANDS:
        run_command(COMMANDS[name], f'gpt2 {name}', arguments, as_console_commands)
        return
    with exit_status('gpt2'):
        if name in HELP:
            print(USAGE)
        elif name == VERSION:
            print(f'gpt2 {__version__}')
        elif name:
            raise UsageError(f'{unknown(name)} gpt2 --help lists all commands')
        else:
            print(USAGE, file=sys.stderr)
            sys.exit(UsageError.status)


def run_script(name: str) -> None:
    """Run the command of a script of the repository, given by its name without .py, and exit with its status."""
    [command] = [command for command in COMMANDS.values() if command.script == name]
    run_command(command, f'{name}.py', sys.argv[1:], str)


def run_command(command: Command, program: str, arguments: Sequence[str], wording: Callable[[str], str]) -> None:
    # Ctrl-C that comes while what the command needs is imported waits: NumPy does not survive it.
    with exit_status(program, wording), collection_held_back(), interrupts_held_back():
        function = getattr(importlib.import_module(f'gpt2.commands.{command.module}'), command.function)
    parts = getattr(function, 'parts', {})  # of a command that does several things, by the first word
    if arguments and arguments[0] in parts:
        function, program, arguments = parts[arguments[0]], f'{program} {arguments[0]}', arguments[1:]
    run(function, program, arguments, wording)


def unknown(name: str) -> str:
    """What is wrong with the first word of a command line, up to the end of the sentence."""
    if name.startswith('-'):
        return f'{name} comes after a command, as in gpt2 complete {name};'
    names = {command.script: name for name, command in COMMANDS.items()} | {name: name for name in COMMANDS}
    close = difflib.get_close_matches(name.removesuffix('.py'), names, n=1)
    return f'unknown command {name}' + (f', did you mean gpt2 {names[close[0]]}?' if close else ';')


def as_console_commands(text: str) -> str:
    """Help or a message that calls scripts of the repository, with the console's commands in their place."""
    for name, command in COMMANDS.items():
        text = re.sub(rf'\bpython (src/)?{command.script}\.py\b', f'gpt2 {name}', text)
    return text
