"""A model with a draft and without.

    python benchmarks/drafting.py                    774M and 124M, random weights: no guess is right
    python benchmarks/drafting.py 1558M 124M         models of your own

Prints as JSON, by settings: tokens a second without and with the draft, in turn, and the ratio; how many tokens a step
gave; how many of the samples were the same; and the ratio that there would be if so many of the guesses were right.
"""

import argparse
import json
import os
import tempfile
import time

from library import different_prompts, make_model

import gpt2
from gpt2.litert.drafting import GUESSES, DraftedRow

SETTINGS = {'top_k 40': {'top_k': 40}, 'top_k 40, temperature 0.7': {'top_k': 40, 'temperature': 0.7},
            'temperature 0': {'temperature': 0}}  # fmt: skip
AGREEMENTS = 0.5, 0.6, 0.7, 0.8, 0.9


def drawn(model, prompt, seed, length, how):
    """(ids of a sample but the first, whose prompt is processed before it, seconds they took)."""
    [completion], steps = model.begin([prompt], [1], seed=seed, length=length, **how)
    next(steps)
    begin = time.perf_counter()
    for _ in steps:
        pass
    return completion.ids[1:], time.perf_counter() - begin


def tokens_a_step(agreement):
    """How many tokens a step gives where each guess is right with that probability, if those before it are."""
    return sum(agreement**count for count in range(GUESSES + 1))


def compare(plain, drafted, how, samples, length):
    steps, find = [], DraftedRow.find

    def counted(row):
        find(row)
        steps.append(len(row.found))

    DraftedRow.find = counted
    try:
        seconds, tokens, same = [0.0, 0.0], [0, 0], 0
        for seed, prompt in enumerate(different_prompts(samples)):
            found = [drawn(model, prompt, seed, length, how) for model in (plain, drafted)]
            seconds = [total + spent for total, (_, spent) in zip(seconds, found)]
            tokens = [total + len(ids) for total, (ids, _) in zip(tokens, found)]
            same += found[0][0] == found[1][0]
    finally:
        DraftedRow.find = find
    speeds = [count / spent for count, spent in zip(tokens, seconds)]
    later = len(steps) - samples  # the first of each sample is that of its prompt
    given, ratio = (sum(steps) - samples) / later, speeds[1] / speeds[0]
    return {
        'tokens_per_second': [round(speed, 1) for speed in speeds],
        'ratio': round(ratio, 2),
        'tokens_a_step': round(given, 2),
        'same': f'{same} of {samples}',
        'ratio_if_right': {share: round(ratio * tokens_a_step(share) / given, 2) for share in AGREEMENTS},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', nargs='?', default='774M')
    parser.add_argument('draft', nargs='?', default='124M')
    parser.add_argument('--models_dir', help='where models are; without it ones with random weights are made')
    parser.add_argument('--samples', type=int, default=4)
    parser.add_argument('--length', type=int, default=50)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in (flags.model, flags.draft) if flags.models_dir is None else ():
            os.makedirs(os.path.join(folder, size))
            make_model(os.path.join(folder, size), size)
        places = flags.models_dir or folder
        plain = gpt2.load(flags.model, places, engine='litert')
        drafted = gpt2.load(flags.model, places, draft=flags.draft)
        found = {name: compare(plain, drafted, how, flags.samples, flags.length) for name, how in SETTINGS.items()}
    print(json.dumps({'model': flags.model, 'draft': flags.draft, **found}, indent=2))


if __name__ == '__main__':
    main()
