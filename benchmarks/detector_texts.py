#!/usr/bin/env python3
"""Texts to try a detector on: passages of books that the bundled model has not read, and what it writes instead.

    python benchmarks/detector_texts.py stories texts
    python src/detect.py train --human texts/books.train.jsonl --machine texts/7M.train.jsonl --save t1.npz

A book is cut into passages of PROMPT tokens and 50 to 350 more. The model continues the first part, once at
temperature 1 and once with top_k 40, by as many tokens as the book does: so the two differ in who goes on, and neither
in subject nor in length. Files have the release's names and fields. Passages of TEST's books are the test, and the
last fifth of each book of TRAIN is the validation.
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'src'))

import numpy as np
from tqdm import tqdm

import gpt2
from gpt2.system.files import whole_file
from gpt2.system.text import json_line, read_text

TRAIN = ('heidi', 'the-scarecrow-of-oz')
TEST = ('anne-of-avonlea', 'the-tin-woodman-of-oz')
LENGTHS = 50, 350  # tokens of a passage after its prompt, from and below
PROMPT = 32
BATCH = 16
SAMPLING = {'7M': {}, '7M-k40': {'top_k': 40}}


def passages(ids, random):
    """Token ids of a book as pairs (prompt, what follows), one after another."""
    while len(ids) >= PROMPT + LENGTHS[1]:
        end = PROMPT + int(random.integers(*LENGTHS))
        yield ids[:PROMPT], ids[PROMPT:end]
        ids = ids[end:]


def splits(folder, encode, random):
    """{split: its passages} of the books in a folder."""
    found = {'train': [], 'valid': [], 'test': []}
    for book in TRAIN + TEST:
        of_book = list(passages(encode(read_text(f'{folder}/{book}.txt')), random))
        cut = 0 if book in TEST else -(-len(of_book) * 4 // 5)
        found['train'] += of_book[:cut]
        found['test' if book in TEST else 'valid'] += of_book[cut:]
    return found


def continued(model, found, **sampling):
    """Records of what the model says after the prompts of passages, as long as they are, in their order."""
    records = [None] * len(found)
    order = sorted(range(len(found)), key=lambda place: len(found[place][1]))
    bar = tqdm(total=len(found), desc='sampling', unit='text', disable=None)
    for places in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
        length = max(len(found[place][1]) for place in places)
        prompts = [model.decode(found[place][0]) for place in places]
        completions = model.complete(prompts, length=length, batch_size=BATCH, stop_at_end=True, seed=0, **sampling)
        for place, completion in zip(places, completions):
            wanted = len(found[place][1])
            ended = completion.finish_reason == 'end_of_text' and len(completion.ids) <= wanted
            ids = completion.ids[:-1] if ended else completion.ids[:wanted]
            records[place] = record(place, ids, model, ended)
        bar.update(len(places))
    return records


def record(number, ids, model, ended):
    return {'id': number, 'ended': ended, 'length': len(ids), 'text': model.decode(ids)}


def write(path, records):
    with whole_file(str(path)) as file:
        file.writelines(f'{json_line(each)}\n' for each in records)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('stories', help='folder of the books, as models/7M/README.md names them')
    parser.add_argument('folder', type=pathlib.Path, help='where the files go')
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    model = gpt2.load('7M')
    for split, found in splits(arguments.stories, model.encode, np.random.default_rng(0)).items():
        human = [record(number, ids, model, False) for number, (_, ids) in enumerate(found)]
        write(arguments.folder / f'books.{split}.jsonl', human)
        for name, sampling in SAMPLING.items():
            path = arguments.folder / f'{name}.{split}.jsonl'
            if not path.exists():  # from a run that was broken off
                write(path, continued(model, found, **sampling))


if __name__ == '__main__':
    main()
