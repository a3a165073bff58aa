"""Make known_answers_7M.json: greedy continuations of the bundled model, computed by transformers.

    pip install torch transformers
    python tests/make_known_answers.py

The weights are read by this repository's reader; what follows from them is transformers' alone.
"""

import json
import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / 'src'), str(HERE.parent / 'benchmarks')]

from transformers_model import transformers_model  # noqa: E402

from gpt2.checkpoints.source import open_source  # noqa: E402

PROMPTS = ('The king', 'Once upon a time', 'It was a dark and stormy night;', 'Élise said: "你好"\n')
LENGTH = 40


def main():
    source = open_source(str(HERE.parent / 'models' / '7M'))
    model = transformers_model(source.hparams, dict(source.values()))
    answers = [answer(model, source.vocabulary, prompt) for prompt in PROMPTS]
    answers.append({key: answers[0][key] for key in ('prompt', 'text')} | {'tokens': LENGTH})
    answers.append({'prompt': PROMPTS[1], 'text': answers[1]['text'][:30]})
    for each in answers[: len(PROMPTS)]:
        del each['text']
    what = f'Greedy continuations of the bundled model in float32, by transformers {transformers.__version__}.'
    lines = ',\n'.join(f'  {json.dumps(each, ensure_ascii=False)}' for each in answers)
    path = HERE / 'known_answers_7M.json'
    path.write_text(f'{{\n "what": {json.dumps(what)},\n "7M": [\n{lines}\n ]\n}}\n', encoding='utf-8')


@torch.no_grad()
def answer(model, encoder, prompt):
    prompt_ids = encoder.encode(prompt)
    ids = list(prompt_ids)
    for _ in range(LENGTH):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    drawn = ids[len(prompt_ids) :]
    return {'prompt': prompt, 'prompt_ids': prompt_ids, 'ids': drawn, 'text': encoder.decode(drawn)}


if __name__ == '__main__':
    main()
