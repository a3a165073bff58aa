#!/usr/bin/env python3
"""Write score_goldens.json: log-probabilities that transformers' GPT-2 gives with the bundled weights.

    pip install torch transformers
    python tests/make_score_goldens.py book.txt

The text begins in the middle of the book. Each token is predicted in the window that README.md's definition
puts it in.
"""

import json
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(REPOSITORY / 'src'), str(REPOSITORY / 'benchmarks'), str(REPOSITORY / 'tests')]

import reference_numpy  # noqa: E402
import torch  # noqa: E402
from transformers_model import transformers_model  # noqa: E402

from gpt2 import model  # noqa: E402
from gpt2.checkpoints import release as checkpoint  # noqa: E402
from gpt2.encoder import END_OF_TEXT, get_encoder  # noqa: E402
from gpt2.hparams import load_hparams  # noqa: E402

TOKENS = 1300  # of a window of 512


def main():
    folder = REPOSITORY / 'models' / '7M'
    hparams, encoder = load_hparams(folder / 'hparams.json'), get_encoder('7M', folder.parent)
    params = checkpoint.load_params(str(folder), hparams)
    theirs = transformers_model(hparams, {name: value.numpy() for name, value in model.flatten(params).items()})
    book = pathlib.Path(sys.argv[1]).read_text(encoding='utf-8')
    text = encoder.decode(encoder.encode(book[len(book) // 2 :])[:TOKENS])
    ids = [encoder.encoder[END_OF_TEXT], *encoder.encode(text)]
    stride = hparams.n_ctx // 2

    @torch.no_grad()
    def log_probability(start, end):
        """Of ids[end] after ids[start:end]."""
        logits = windows.setdefault(start, None)
        if logits is None:
            logits = windows[start] = theirs(torch.tensor([ids[start : start + hparams.n_ctx]])).logits[0]
        return torch.log_softmax(logits[end - 1 - start].double(), -1)[ids[end]].item()

    windows = {}
    starts = reference_numpy.window_starts(len(ids), hparams.n_ctx, stride)
    found = [round(log_probability(start, end), 6) for end, start in enumerate(starts, start=1)]
    goldens = {'text': text, 'stride': stride, 'log_probabilities': found}
    (REPOSITORY / 'tests' / 'score_goldens.json').write_text(json.dumps(goldens) + '\n')


if __name__ == '__main__':
    main()
