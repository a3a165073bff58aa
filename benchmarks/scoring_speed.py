#!/usr/bin/env python3
"""Speed and memory of scoring a text with a synthetic 124M, beside transformers on PyTorch in the same run.

    pip install torch transformers
    python benchmarks/scoring_speed.py wikitext2.test.txt

Both score the same windows, stride n_ctx / 2, four at a time, and give every log-probability; rounds
alternate. Theirs is transformers' forward and log_softmax over the scored positions.
"""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'src'))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench import VOCABULARY, make_checkpoint, seconds  # noqa: E402
from memory import peak_megabytes  # noqa: E402
from transformers_model import transformers_model  # noqa: E402

from gpt2 import model  # noqa: E402
from gpt2.encoder import END_OF_TEXT, get_encoder  # noqa: E402
from gpt2.scoring import log_probabilities as scoring  # noqa: E402
from gpt2.scoring.windows import batches, windows  # noqa: E402


@torch.no_grad()
def their_scores(theirs, batch):
    tokens, positions, targets = (torch.tensor(array).long() for array in scoring.flat_targets(batch))
    logits = theirs(tokens).logits.flatten(0, 1)[positions]
    return torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0].numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('text')
    parser.add_argument('--tokens', type=int, default=8193, help='how much of the text; default 8193')
    parser.add_argument('--batch_size', type=int, default=4)
    parser.add_argument('--repeats', type=int, default=3)
    arguments = parser.parse_args()
    encoder = get_encoder('124M', str(VOCABULARY))
    with tempfile.TemporaryDirectory() as folder:
        hparams, params = make_checkpoint(folder)
    text = pathlib.Path(arguments.text).read_text(encoding='utf-8')
    ids = [encoder.encoder[END_OF_TEXT], *encoder.encode(text[: 8 * arguments.tokens])][: arguments.tokens]
    rows = windows(ids, hparams.n_ctx, hparams.n_ctx // 2)
    work = list(batches(rows, arguments.batch_size * hparams.n_ctx))
    score = scoring.make_score(hparams, params)
    score(work[0])
    before, found = peak_megabytes(), [score(batch) for batch in work]
    peak = peak_megabytes()
    theirs = transformers_model(hparams, {name: value.numpy() for name, value in model.flatten(params).items()})
    expected = [their_scores(theirs, batch) for batch in work]
    ours = np.concatenate([part for batch in found for part, _, _ in batch])
    times = {'ours': [], 'theirs': []}
    for _ in range(arguments.repeats):
        times['ours'].append(seconds(lambda: [score(batch) for batch in work]))
        times['theirs'].append(seconds(lambda: [their_scores(theirs, batch) for batch in work]))
    speeds = {name: len(ours) / statistics.median(values) for name, values in times.items()}
    print(json.dumps({
        'scored_tokens': len(ours),
        'tokens_per_second': speeds,
        'ratio': speeds['ours'] / speeds['theirs'],
        'largest_difference_nats': float(np.abs(ours - np.concatenate(expected)).max()),
        'peak_megabytes_first_batch': round(before),
        'peak_megabytes_all': round(peak),
    }, indent=1))  # fmt: skip


if __name__ == '__main__':
    main()
