"""The interactive command as a conversation, which remembers what was said."""

import dataclasses
import os
import sys
from typing import Any

from gpt2.api import Model, new_seed
from gpt2.commands.flags import show_notices
from gpt2.commands.sampling import Settings, load, write_sample
from gpt2.commands.typed import edit_lines, sample_interruptible, typed_prompts, valid
from gpt2.completion import Completion
from gpt2.errors import Error, UsageError
from gpt2.system.files import whole_file

HINT = '/undo, /again, /edit TEXT or /save FILE; a line that begins with // is said with one /'


@dataclasses.dataclass
class Turn:
    """A line that was typed, and its answer. number: which sample of what was said the answer is."""

    line: str
    seed: int
    number: int = 1
    answer: str = ''


class Dialogue:
    """What was said, after a memory. you, they: what stands before lines and before answers, or nothing."""

    def __init__(self, memory: str, you: str = '', they: str = '') -> None:
        self.memory, self.you, self.they = memory, you, they
        self.turns: list[Turn] = []
        self.saved: set[str] = set()  # files that are its own

    @property
    def stops(self) -> tuple[str, ...]:
        """Where an answer ends: before the next label."""
        return (f'\n{self.you}', f'\n{self.they}') if self.you else ()

    def text(self, first: int = 0) -> str:
        """The memory and the turns from number `first` on."""
        said = [
            f'{self.you} {turn.line}\n{self.they}{turn.answer}' if self.you else f'{turn.line}{turn.answer}'
            for turn in self.turns[first:]
        ]
        return '\n'.join([*filter(None, [self.memory]), *said])

    def prompt(self, model: Model, settings: dict[str, Any]) -> str:
        """The memory and as many of the last turns as leave room for an answer. Raises UsageError where there is none
        for the last."""
        found, fault = None, None
        for first in reversed(range(len(self.turns))):
            try:
                model.plan([self.text(first)], seed=0, **settings)
            except UsageError as error:
                fault = error
                break
            found = self.text(first)
        if found is None:
            raise fault or UsageError('nothing was said yet')
        return found


def check_labels(you: str | None, they: str | None) -> tuple[str, str]:
    """The labels of both, or nothing for either. Raises UsageError."""
    if (you is None) != (they is None):
        raise UsageError('--you and --they go together; give both')
    if '' in (you, they):
        raise UsageError(f'--{"you" if you == "" else "they"} is empty, expected a label, such as "You:"')
    return you or '', they or ''


def answering(model: Model, dialogue: Dialogue, settings: Settings) -> dict[str, Any]:
    """What answers are drawn with. Raises UsageError for settings that mean nothing in a conversation, and for a memory
    that leaves no room."""
    if settings.nsamples != 1 or settings.batch_size != 1:
        name = 'nsamples' if settings.nsamples != 1 else 'batch_size'
        raise UsageError(f'--{name} is {getattr(settings, name)}, expected 1 with --dialogue: there is one answer')
    if settings.drawing['beyond_window']:
        raise UsageError('--dialogue and --beyond_window exclude each other; leave one of them out')
    drawing = settings.drawing | {'stop': (*settings.drawing['stop'], *dialogue.stops)}
    if not drawing['choices']:  # an answer has the room that it is promised, whatever was said before
        drawing['length'] = drawing['length'] or model.hparams.n_ctx // 2
    if dialogue.memory:
        model.plan([dialogue.memory], seed=0, **drawing)
    return drawing


def converse(model: Model, dialogue: Dialogue, errors: str, settings: Settings) -> None:
    """Ask for lines, and answer each, until the end of input."""
    drawing = answering(model, dialogue, settings)
    load(model, settings)
    edit_lines()
    label = f'{dialogue.you} ' if dialogue.you else 'Model prompt >>> '
    for line in typed_prompts(sys.stderr if settings.json else sys.stdout, label):
        try:
            if line.startswith('/') and not line.startswith('//'):
                command(dialogue, valid(line, errors, 'the line') if line.startswith('/edit') else line, settings)
                wanted = line == '/again'
            else:
                say(dialogue, valid(line.removeprefix('/'), errors, 'the line'), settings)
                wanted = True
            if wanted:
                answer(model, dialogue, drawing, settings)
        except Error as error:
            show_notices([str(error)])


def say(dialogue: Dialogue, line: str, settings: Settings) -> None:
    if not line:
        raise UsageError('Prompt should not be empty!')
    dialogue.turns.append(Turn(line, new_seed() if settings.seed is None else settings.seed))


def answer(model: Model, dialogue: Dialogue, drawing: dict[str, Any], settings: Settings) -> None:
    """Draw the answer to the last line, print it and remember what was seen of it."""
    turn = dialogue.turns[-1]
    before, turn.answer = turn.answer, ''
    try:
        prompt = dialogue.prompt(model, drawing)
    except UsageError:  # then the line was not said
        dialogue.turns.pop()
        raise
    try:
        [completion], steps = model.begin([prompt], [turn.number], seed=turn.seed, **drawing)
    except Error:
        turn.answer = before
        raise
    with sample_interruptible():
        write(dialogue, completion, steps, settings)
    seen = completion.text if completion.finish_reason else completion.text[: completion.released]
    turn.answer = seen.rstrip('\n')


def write(dialogue: Dialogue, completion: Completion, steps: Any, settings: Settings) -> None:
    if settings.stream:
        print(dialogue.they, end='', flush=True)
    for _ in steps:
        if settings.stream:
            print(completion.new_text(), end='', flush=True)
    if settings.json:
        write_sample(completion, settings)
    else:
        print('' if settings.stream else dialogue.they + completion.text, flush=True)


def command(dialogue: Dialogue, line: str, settings: Settings) -> None:
    """Do what a line that begins with / says, but for drawing another answer. Raises UsageError."""
    name, _, rest = line.partition(' ')
    if name == '/save':
        save(dialogue, rest.strip())
        return
    if name not in ('/undo', '/again', '/edit') or (rest and name != '/edit'):
        raise UsageError(f'{line} is no command; there are {HINT}')
    if not dialogue.turns:
        raise UsageError(f'{name} needs something that was said')
    if name == '/undo':
        dialogue.turns.pop()
    elif name == '/again':
        dialogue.turns[-1].number += 1
    elif not rest:
        raise UsageError('/edit needs the text that is to be the answer')
    else:
        dialogue.turns[-1].answer = f' {rest}' if dialogue.they else rest


def save(dialogue: Dialogue, path: str) -> None:
    """Write a conversation to a file. Raises UsageError for one that holds something else, WriteError."""
    if not path:
        raise UsageError('/save needs the name of a file')
    if os.path.lexists(path) and os.path.realpath(path) not in dialogue.saved:
        raise UsageError(f'{path} is there already; name another file')
    with whole_file(path, remedy='name another file') as file:
        file.write(dialogue.text() + '\n')
    dialogue.saved.add(os.path.realpath(path))
    show_notices([f'saved to {path}'])
