"""Many prompts of one file, and their samples in another, which a run that was ended goes on with."""

import contextlib
import errno
import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from gpt2.api import Model, new_seed
from gpt2.commands.flags import print_utf8, show_notices
from gpt2.commands.sampling import Settings, described
from gpt2.completion import Completion
from gpt2.encoder import utf8
from gpt2.errors import UsageError
from gpt2.planning import Planner, Request, numbered
from gpt2.sampling import CHECKS
from gpt2.system import progress
from gpt2.system.files import WriteError, whole_file
from gpt2.system.locks import locked
from gpt2.system.signals import Ended
from gpt2.system.text import CONVERT_OR_REPLACE, json_line, lines, printable

# What an object of a prompts file may say beside its prompt.
LINE_SETTINGS = {*inspect.signature(Planner.settle).parameters, *CHECKS, 'nsamples'} - {'self', 'drawing'}
BEGUN = '.settings.json'  # beside an output, what it was begun with
NEW_OUTPUT = 'give another --output'


class Line(NamedTuple):
    """A prompt, the number of its line, how many samples are wanted, and all settings that Planner.settle() takes."""

    number: int
    prompt: str
    nsamples: int
    settings: Mapping[str, Any]


class Wanted(NamedTuple):
    """A sample that is asked for, and the number of its line."""

    line: int
    request: Request


def complete_file(
    model: Model, path: str, errors: str, output: str | None, shard: tuple[int, int], settings: Settings,
    **others: Any,
) -> None:  # fmt: skip
    """Continue the prompts of a file, in its order, and write the samples to another, or print them. Raises UsageError
    before anything is drawn, also for what only one line asks for. others: flags that change the samples, too."""
    found = texts_of(path, errors)
    begun = others | begun_with(model, found, shard, settings) if output is not None else {}
    if output is None:
        seed, written = chosen_seed(settings, {}), []
    else:
        check_output(output)
        seed = chosen_seed(settings, read_begun(output))
        begun['seed'] = seed
        check_begun(output, begun)
        written = read_written(output)
    wanted = wanted_of(path, parsed(path, found, settings, seed), model.planner, shard)
    check_written(output or '', path, written, wanted)
    show_notices(model.notices)
    if output is None:
        print_utf8()
        draw(model, wanted, 0, settings.batch_size, sys.stdout.buffer)
        return
    with opened(output, begun, written) as file:
        draw(model, wanted, len(written), settings.batch_size, file, output)


# The prompts


def texts_of(path: str, errors: str) -> list[str]:
    """The lines of a prompts file. Raises UsageError for one that cannot be read, or is empty."""
    try:
        found = list(lines(path, errors, CONVERT_OR_REPLACE))
    except UsageError as error:
        raise UsageError(f'--prompts_file {error}') from None
    if not found:
        raise UsageError(f'--prompts_file {path} is empty, expected a prompt a line')
    return found


def parsed(path: str, texts: Sequence[str], settings: Settings, seed: int) -> Iterator[Line]:
    """Yield the lines of a prompts file, whose name says what they are. Raises UsageError."""
    common = settings.drawing | {'seed': seed}
    for number, text in enumerate(texts, 1):
        with named(path, number):
            if path.lower().endswith('.jsonl'):
                own = read_object(text)
                prompt, nsamples = own.pop('prompt'), own.pop('nsamples', settings.nsamples)
                if isinstance(nsamples, bool) or not isinstance(nsamples, int) or nsamples < 0:
                    raise UsageError(f'nsamples is {nsamples!r}, expected an integer of at least 0')
                yield Line(number, prompt, nsamples, common | own if own else common)
            else:
                yield Line(number, text, settings.nsamples, common)


@contextlib.contextmanager
def named(path: str, number: int) -> Iterator[None]:
    """Context in which a UsageError names the line it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f'{path}: line {number}: {error}') from None


def read_object(text: str) -> dict[str, Any]:
    """The object of a line: a prompt, and settings of its own. Raises UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f'{shortened(text)} is no JSON, expected an object a line') from None
    if not isinstance(found, dict) or not isinstance(found.get('prompt'), str):
        raise UsageError(f'{shortened(text)} is no object with a prompt, as in {{"prompt": "Once", "top_k": 40}}')
    for name, value in found.items():
        if name not in LINE_SETTINGS | {'prompt'}:
            raise UsageError(f'unknown setting {shortened(name)}, expected one of {", ".join(sorted(LINE_SETTINGS))}')
        if (said := json.dumps(value, ensure_ascii=False)) != printable(said):
            raise UsageError(f'the {name} is not UTF-8: it has half of a surrogate pair')
    return found


def shortened(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else f'{text[:most]}...')


def wanted_of(path: str, found: Iterable[Line], planner: Planner, shard: tuple[int, int]) -> list[Wanted]:
    """What a shard of a prompts file asks for, all of it checked. Samples are numbered over the whole file, so that
    they do not depend on the shards. Raises UsageError."""
    index, count = shard
    kept, settings, plan = [], None, None
    for line in found:
        with named(path, line.number):
            if plan is None or line.settings is not settings:
                settings, plan = line.settings, planner.settle(**line.settings)
            if not line.prompt and not plan.start:
                raise UsageError('Prompt should not be empty!')
            planner.with_prompts(plan, [line.prompt])
            if plan.beams > 1 and line.nsamples > plan.beams:
                raise UsageError(f'nsamples is {line.nsamples}, expected at most {plan.beams}, as many as beams')
        kept.append(line)
    numbers = (line.number for line in kept for _ in range(line.nsamples))
    requests = numbered((line.prompt, line.nsamples, line.settings) for line in kept)
    return [Wanted(*each) for each in zip(numbers, requests) if each[0] % count == index % count]


# The output


def begun_with(model: Model, texts: Sequence[str], shard: tuple[int, int], settings: Settings) -> dict[str, Any]:
    """All that samples depend on but the seed, as JSON has it."""
    content = hashlib.sha256(utf8('\n'.join(texts))).hexdigest()
    known = settings.drawing | {'nsamples': settings.nsamples, 'shard': '/'.join(map(str, shard))}
    known |= {'prompts_file': content, 'model': model.source.digest(), 'precision': model.chosen[1]}
    return json.loads(json_line(known))


def chosen_seed(settings: Settings, begun: Mapping[str, Any]) -> int:
    """The seed that is asked for, else that of the run which is gone on with, else another one every time."""
    known = begun.get('seed')
    if settings.seed is not None:
        return settings.seed
    return known if isinstance(known, int) else new_seed()


def check_output(output: str) -> None:
    """Raise UsageError for an output that cannot be one, or has something else in it."""
    if output in ('', '-'):
        raise UsageError(f'--output is {output!r}, expected a path; leave it out, and samples are printed')
    if os.path.lexists(output) and not os.path.isfile(output):
        what = 'a folder' if os.path.isdir(output) else 'no regular file'
        raise UsageError(f'--output {output} is {what}; name a file')
    if not os.path.isdir(os.path.dirname(output) or '.'):
        raise UsageError(f'--output {output} is in a folder that is not there; make it, or name another file')
    if has_content(output) and not os.path.exists(output + BEGUN):
        raise UsageError(f'--output {output} is there, and has no {output + BEGUN} to say from what; {NEW_OUTPUT}')


def has_content(output: str) -> bool:
    return os.path.exists(output) and os.path.getsize(output) > 0


def read_begun(output: str) -> dict[str, Any]:
    """What an output was begun with; nothing of one that is empty or not there. Raises UsageError, also for what stands
    there and was not written here."""
    if not has_content(output) and not has_content(output + BEGUN):
        return {}
    try:
        with open(output + BEGUN, encoding='utf-8') as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        raise UsageError(f'{output + BEGUN} cannot be read; {NEW_OUTPUT}') from None
    if not isinstance(found, dict) or not {'prompts_file', 'seed'} <= {*found}:
        raise UsageError(f'{output + BEGUN} is there, and is none of a prompts file; {NEW_OUTPUT}')
    return found if has_content(output) else {}


def check_begun(output: str, asked: Mapping[str, Any]) -> None:
    """Raise UsageError where an output was begun with another prompts file, model or setting than is asked for."""
    begun = read_begun(output)
    for name in asked if begun else ():
        if begun.get(name) == asked[name]:
            continue
        if name == 'prompts_file':
            raise UsageError(f'--output {output} was begun with another --prompts_file than this one; {NEW_OUTPUT}')
        if name == 'model':
            raise UsageError(f'--output {output} was begun with another model than this one; {NEW_OUTPUT}')
        before, now = (json.dumps(each.get(name), ensure_ascii=False) for each in (begun, asked))
        raise UsageError(f'--output {output} was begun with --{name} {before}, not {now}; give that, or {NEW_OUTPUT}')


def read_written(output: str) -> list[Any]:
    """The objects of an output's whole lines; a last one without its end was cut, and does not count. Raises
    UsageError."""
    if not has_content(output):
        return []
    try:
        with open(output, 'rb') as file:
            whole = [line for line in file if line.endswith(b'\n')]
    except OSError as error:
        raise UsageError(f'--output {output} cannot be read ({error.strerror}); {NEW_OUTPUT}') from None
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            raise UsageError(f'--output {output}: line {number} is no JSON; {NEW_OUTPUT}') from None
    return found


def check_written(output: str, path: str, written: Sequence[Any], wanted: Sequence[Wanted]) -> None:
    """Raise UsageError unless what is written is the beginning of what is wanted."""
    for number, found in enumerate(written, 1):
        line, request = wanted[number - 1] if number <= len(wanted) else (None, None)
        expected = request and {'line': line, 'prompt': request.prompt, 'sample': request.number}
        if not expected or not isinstance(found, dict) or found | expected != found:
            raise UsageError(f'--output {output}: line {number} is not a sample of {path}; {NEW_OUTPUT}')


@contextlib.contextmanager
def opened(output: str, begun: Mapping[str, Any], written: Sequence[Any]) -> Iterator[IO[bytes]]:
    """An output to write behind what is written, which no other process writes meanwhile. Raises UsageError,
    WriteError."""

    def refuse() -> None:
        raise UsageError(f'--output {output} is being written by another process; wait for it, or {NEW_OUTPUT}')

    try:
        with locked(output, refuse):
            if not written:
                with whole_file(output + BEGUN) as settings:
                    settings.write(json_line(begun) + '\n')
            # Without a buffer, which would try again at its end what had no room.
            with open(output, 'r+b' if os.path.exists(output) else 'xb', buffering=0) as file:
                file.truncate(end_of_lines(file, len(written)))
                file.seek(0, os.SEEK_END)
                yield file
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = 'free space, and the same command goes on' if full else NEW_OUTPUT
        raise WriteError(f'{output} cannot be written ({error.strerror}); {remedy}') from None


def end_of_lines(file: Any, count: int) -> int:
    """Bytes of a file's first lines, so many; of a line that was cut nothing counts."""
    file.seek(0)
    with open(file.fileno(), 'rb', closefd=False) as buffered:
        return sum(len(buffered.readline()) for _ in range(count))


def draw(
    model: Model, wanted: Sequence[Wanted], done: int, size: int, file: IO[bytes], output: str = 'standard output'
) -> None:
    """Draw what is wanted but the first `done`, and write each sample as soon as it and those before are whole."""
    left, tokens, started = iter(wanted[done:]), 0, time.monotonic()
    steps = model.draw_each((each.request for each in wanted[done:]), size) if done < len(wanted) else ()
    with progress.bar(desc='sampling', total=len(wanted), initial=done, unit='sample') as bar:
        try:
            for completions in steps:
                if completions:
                    write_all(file, ''.join(line_of(next(left), each) for each in completions))
                    done += len(completions)
                    tokens += sum(len(each.ids) for each in completions)
                    bar.set_postfix_str(f'{rate(tokens, started)} tokens/s', refresh=False)
                    bar.update(len(completions))
        except (KeyboardInterrupt, Ended):
            progress.note(f'{output} has {done} of {len(wanted)} samples')
            raise
    progress.note(f'{output} has {done} samples; {tokens} tokens drawn, {rate(tokens, started)} a second')


def rate(tokens: int, started: float) -> int:
    return round(tokens / max(time.monotonic() - started, 1e-3))


def line_of(wanted: Wanted, completion: Completion) -> str:
    return json_line({'line': wanted.line} | described(completion)) + '\n'


def write_all(file: IO[bytes], text: str) -> None:
    """Write all of a text, which a file without a buffer may take in parts."""
    view = memoryview(text.encode())
    while view:
        view = view[file.write(view) :]
    file.flush()


def read_shard(value: str | None) -> tuple[int, int]:
    """(I, N) of --shard I/N. Raises UsageError."""
    parts = (value or '1/1').split('/')
    if len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        index, count = map(int, parts)
        if 1 <= index <= count:
            return index, count
    raise UsageError(f'--shard is {shortened(value or "")}, expected I/N, from 1/N to N/N, as in 1/4')
