#!/usr/bin/env python3
"""Write inspection_goldens.json: what hooks see inside transformers' GPT-2 with the tiny random weights of the tests.

    pip install torch transformers
    python tests/make_inspection_goldens.py
"""

import json
import pathlib
import sys

REPOSITORY = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(REPOSITORY / 'src'), str(REPOSITORY / 'benchmarks'), str(REPOSITORY / 'tests')]

from example_models import TINY, random_tokens, random_values  # noqa: E402
from transformers_hooks import hooked  # noqa: E402
from transformers_model import transformers_model  # noqa: E402

TOKENS = 7


def main():
    ids = random_tokens(TINY, 1, TOKENS)[0].tolist()
    found = hooked(transformers_model(TINY, random_values(TINY)), TINY, ids)
    values = {name: {'shape': list(value.shape), 'values': [float(f'{x:.6g}') for x in value.ravel().tolist()]}
              for name, value in found.items()}  # fmt: skip
    (REPOSITORY / 'tests' / 'inspection_goldens.json').write_text(json.dumps({'ids': ids, 'seen': values}) + '\n')


if __name__ == '__main__':
    main()
