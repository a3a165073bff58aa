"""Write tests/huggingface: a tiny model as transformers saves it, and what transformers makes of it.

    pip install torch transformers && python tests/make_huggingface_goldens.py

Three tokens are added, and wte has four rows that no token owns.
"""

import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / 'src'), str(HERE)]

from transformers_models import ADDED, PLAIN, logits, make_model, make_tokenizer, random_texts  # noqa: E402

FOLDER = HERE / 'huggingface'


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    tokenizer = make_tokenizer(FOLDER / 'tiny', ADDED)
    tokenizer.save_pretrained(str(FOLDER / 'tiny'))
    model = make_model(PLAIN + len(ADDED) + 4)
    model.save_pretrained(str(FOLDER / 'tiny'))
    tokens = [PLAIN, *range(60, 80), PLAIN + 2]
    texts = random_texts(100, ADDED)
    goldens = {
        'tokens': tokens,
        'logits': [[round(float(value), 6) for value in row] for row in logits(model, tokens)[::7]],
        'texts': [[text, tokenizer.encode(text)] for text in texts],
    }
    (FOLDER / 'goldens.json').write_text(json.dumps(goldens), encoding='utf-8')


if __name__ == '__main__':
    main()
