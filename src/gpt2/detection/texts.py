"""Texts of people and of machines, as the release published them: which files there are, and reading them."""

import dataclasses
import json
import os
import random
import re
from typing import NamedTuple

from gpt2.errors import UsageError
from gpt2.system import progress
from gpt2.system.download import download
from gpt2.system.text import lines

BASE_URL = 'https://openaipublic.blob.core.windows.net/gpt-2/output-dataset/v1'
HUMAN = 'webtext'
# The release's output samples, and per cent of them and of WebText that its baseline, logistic regression on TF-IDF,
# tells apart: https://github.com/openai/gpt-2-output-dataset/blob/master/detection.md
PUBLISHED = {
    'small-117M': 88.29, 'medium-345M': 88.94, 'large-762M': 77.16, 'xl-1542M': 74.31,
    'small-117M-k40': 96.79, 'medium-345M-k40': 95.22, 'large-762M-k40': 94.43, 'xl-1542M-k40': 92.69,
}  # fmt: skip
LARGEST = 1 << 32  # bytes that such a file may have; the longest, 250,000 texts of up to 1,024 tokens, have about 1 GB
SPLITS = 'train', 'valid', 'test'
FEWEST = 10  # different texts of each side, of which a tenth is held back for calibration and one for the test
# What the sampling commands write of a sample with --json, beside its text.
OF_A_SAMPLE = {'prompt', 'seed', 'sample', 'finish_reason'}


class Split(NamedTuple):
    """The texts of one side, a list for each use."""

    train: list[str]
    valid: list[str]
    test: list[str]


@dataclasses.dataclass
class Records:
    """The texts of a file in order, and whether all of its records are samples of our own commands."""

    texts: list[str]
    sampled: bool


def read_records(path: str, limit: int | None = None) -> Records:
    """The texts of a file of JSON lines, objects with `text`, or the first `limit`; texts of white space alone are
    left out. Raises UsageError, which names the line."""
    texts, sampled = [], True
    with progress.bar(desc=f'reading {os.path.basename(path)}', unit=' texts', delay=2) as bar:
        for number, line in enumerate(lines(path), start=1):
            if limit is not None and len(texts) == limit:
                break
            if line.strip():
                record = parsed(line, f'{path}, line {number}')
                sampled &= set(record) >= OF_A_SAMPLE
                texts += [record['text']] if record['text'].strip() else []
                bar.update()
    if not texts:
        raise UsageError(f'{path} holds no text; give a file of JSON lines, objects with text')
    return Records(texts, sampled)


def parsed(line: str, where: str) -> dict:
    """A line's record, which has a text. Raises UsageError."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'{where} is no JSON ({error}); mend or remove the line') from None
    if not isinstance(record, dict) or 'text' not in record:
        raise UsageError(f'{where} has no text; expected an object such as {{"text": "..."}}')
    if not isinstance(record['text'], str):
        raise UsageError(f'{where}: text is {type(record["text"]).__name__}, expected a string')
    return record


def named(path: str) -> tuple[str, str]:
    """What a file of texts is called, without the split and the end of its name: (small-117M, train)."""
    name, _, split = os.path.basename(path).removesuffix('.jsonl').rpartition('.')
    return (name, split) if name and split in SPLITS else (os.path.basename(path).removesuffix('.jsonl'), '')


def siblings(path: str) -> dict[str, str]:
    """{split: file} of the validation and the test that lie beside a NAME.train.jsonl."""
    name, split = named(path)
    files = {each: os.path.join(os.path.dirname(path), f'{name}.{each}.jsonl') for each in SPLITS[1:]}
    return {each: file for each, file in files.items() if split == 'train' and os.path.isfile(file)}


def read_side(path: str, limit: int | None = None) -> tuple[Split, bool]:
    """(the texts of people or of a machine, whether our own commands sampled those of path). The validation and the
    test are the files beside path, or else a tenth of it each, drawn by chance but always alike. A text that comes
    again, in whichever of them, is left out. limit: of path. Raises UsageError."""
    whole = read_records(path, limit)
    texts = list(dict.fromkeys(whole.texts))
    if len(texts) < FEWEST:
        raise UsageError(f'{path} holds {len(texts)} different texts, expected {FEWEST} or more; give more')
    found = {split: read_records(file).texts for split, file in siblings(path).items()}
    random.Random(0).shuffle(texts)
    tenth = -(-len(texts) // 10)
    for split in SPLITS[1:]:
        if split not in found:
            found[split], texts = texts[:tenth], texts[tenth:]
    seen = set(texts)
    for split in SPLITS[1:]:
        found[split] = [text for text in dict.fromkeys(found[split]) if text not in seen]
        seen.update(found[split])
        if not found[split]:
            file = siblings(path).get(split, path)
            raise UsageError(f'every text of {file} is in another file of {path} too; move it away, or give others')
    return Split(texts, found['valid'], found['test']), whole.sampled


def read_both(
    human: str, machine: str, model: str, limit: int | None = None, force: bool = False
) -> tuple[Split, Split]:  # fmt: skip
    """The texts of people and of a machine. model: the name of one that may have written. force: take files that look
    exchanged. Raises UsageError."""
    if os.path.exists(human) and os.path.exists(machine) and os.path.samefile(human, machine):
        raise UsageError(f'--human and --machine are both {human}; give two files')
    exchanged = by_name(human, machine, model)
    if exchanged and not force:
        raise UsageError(refusal(exchanged))
    (people, sampled), (machines, _) = read_side(human, limit), read_side(machine, limit)
    if sampled and not force:
        raise UsageError(refusal(f'--human {human} holds samples with their seeds'))
    common = set(people.train) & set(machines.train)
    if 2 * len(common) > min(len(people.train), len(machines.train)):
        raise UsageError(f'{len(common)} texts are in both --human {human} and --machine {machine}; give other files')
    return people, machines


def refusal(why: str) -> str:
    return f'{why}: were --human and --machine exchanged? exchange them, or give --force'


def by_name(human: str, machine: str, model: str) -> str:
    """By which name, in words, it looks as if the files of people and of a machine were exchanged; '' for none. model:
    of one that may have written."""
    name, _ = named(human)
    if name in PUBLISHED or model in re.split(r'[^0-9A-Za-z]', name):
        return f'--human {human} is called after a model'
    return f'--machine {machine} is called {HUMAN}, which people wrote' if named(machine)[0] == HUMAN else ''


def download_texts(name: str, folder: str, base_url: str) -> tuple[str, str]:
    """Fetch what is missing of people's texts and of a model's into a folder; returns the paths of what is for
    training. Raises DownloadError."""
    files = {(source, split): f'{source}.{split}.jsonl' for source in (HUMAN, name) for split in SPLITS}
    for file in files.values():
        download(f'{base_url}/{file}', os.path.join(folder, file), largest=LARGEST)
    human, machine = (os.path.join(folder, files[source, 'train']) for source in (HUMAN, name))
    return human, machine
