#!/usr/bin/env python3
"""Speed of a survey of neurons with a synthetic 124M: tokens a second, and so the time for 10 MB of text.

    python benchmarks/neurons.py novel.txt
    python benchmarks/neurons.py novel.txt --layers 0 5 11

The sample that is read again at the end is left out of the rate, and counted in the time.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'src'))

from bench import VOCABULARY, make_checkpoint  # noqa: E402
from memory import peak_megabytes  # noqa: E402

from gpt2 import sample  # noqa: E402
from gpt2.encoder import get_encoder  # noqa: E402
from gpt2.inspection import survey  # noqa: E402
from gpt2.inspection.passages import TOKENS, batches, passages  # noqa: E402
from gpt2.inspection.reading import make_read  # noqa: E402
from gpt2.text_stream import Measure  # noqa: E402

TEXT = 10_000_000  # bytes
BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('text')
    parser.add_argument('--passages', type=int, default=640)
    parser.add_argument('--layers', type=int, nargs='+', default=list(range(12)))
    arguments = parser.parse_args()
    encoder = get_encoder('124M', str(VOCABULARY))
    with tempfile.TemporaryDirectory() as folder:
        hparams, params = make_checkpoint(folder)
    generator, neurons = sample.Generator(hparams, params), range(4 * hparams.n_embd)
    read = make_read(generator, arguments.layers, neurons)
    found = list(itertools.islice(passages(encoder, [arguments.text], 'strict', Measure()), arguments.passages))
    read(next(batches(iter(found), BATCH)))  # traces
    survey.Survey.read_sample = lambda *_: None
    start = time.perf_counter()
    survey.survey(read, batches(iter(found), BATCH), arguments.layers, neurons, BATCH)
    rate = len(found) * TOKENS / (time.perf_counter() - start)
    text = pathlib.Path(arguments.text).read_text()[:100_000]
    tokens = TEXT * len(encoder.encode(text)) / len(text.encode())
    print(json.dumps({
        'layers': len(arguments.layers), 'neurons': len(neurons) * len(arguments.layers),
        'tokens_per_second': rate, 'minutes_for_10_MB': (tokens + survey.SAMPLE * TOKENS) / rate / 60,
        'peak_megabytes': round(peak_megabytes()), 'cores': os.cpu_count(),
    }, indent=1))  # fmt: skip


if __name__ == '__main__':
    main()
