"""Write tests/sampling_goldens.json: what transformers makes of logits, for the settings the release lacks, and what
its beam search finds with the model of tests/huggingface.

    pip install torch transformers && python tests/make_sampling_goldens.py

Each case of logits is these, what came before them, settings as sampling.Sampling has them, and the logits in the
end: null where a token is excluded.
"""

import json
import math
import pathlib

import numpy as np
import torch
from transformers import (
    GPT2LMHeadModel,
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

HERE = pathlib.Path(__file__).parent
N_VOCAB = 40
OWNED = 300  # tokens of that model; no one has the rows after them
SETTINGS = [
    *({'min_p': p} for p in (0.02, 0.1, 0.5, 1)),
    *({'typical_p': p} for p in (0.05, 0.3, 0.6, 0.9, 0.99)),
    *({'top_p': p, 'top_p_rule': 'inclusive'} for p in (0.05, 0.4, 0.8, 0.99)),
    {'repetition_penalty': 1.3}, {'repetition_penalty': 0.7}, {'repetition_penalty': 40},
    *({'no_repeat_ngram': n} for n in (1, 2, 3, 4)),
    {'logit_bias': [[3, 2.5], [20, -4.0]]},
    {'top_k': 12, 'min_p': 0.05}, {'top_k': 12, 'typical_p': 0.7}, {'min_p': 0.05, 'typical_p': 0.8},
    {'top_p': 0.9, 'top_p_rule': 'inclusive', 'typical_p': 0.6}, {'temperature': 2.5, 'min_p': 0.2},
    {
        'temperature': 0.8, 'top_k': 15, 'top_p': 0.9, 'top_p_rule': 'inclusive', 'min_p': 0.02, 'typical_p': 0.9,
        'repetition_penalty': 1.2, 'no_repeat_ngram': 2, 'logit_bias': [[3, 1.5]],
    },
]  # fmt: skip


def processors(how):
    """In the order in which they act here."""
    made = []
    if 'repetition_penalty' in how:
        made.append(RepetitionPenaltyLogitsProcessor(float(how['repetition_penalty'])))
    if 'logit_bias' in how:
        made.append(SequenceBiasLogitsProcessor([[[token], value] for token, value in how['logit_bias']]))
    if 'no_repeat_ngram' in how:
        made.append(NoRepeatNGramLogitsProcessor(how['no_repeat_ngram']))
    made.append(TemperatureLogitsWarper(float(how.get('temperature', 1))))
    cuts = {
        'top_k': TopKLogitsWarper, 'top_p': TopPLogitsWarper, 'min_p': MinPLogitsWarper,
        'typical_p': TypicalLogitsWarper,
    }  # fmt: skip
    return LogitsProcessorList([*made, *(make(how[name]) for name, make in cuts.items() if name in how)])


BEAMS = [  # (prompt, beams, tokens, length penalty, ids that end a text)
    ([5, 60, 7], 4, 12, 1, []), ([5, 60, 7], 2, 20, 1, []), ([9], 3, 8, 0, []),
    ([5, 60, 7], 4, 12, 1, [99]), ([5, 60, 7], 4, 12, 0, [99]), ([5, 60, 7], 4, 12, 2.5, [99]),
    ([5, 60, 7], 3, 12, -1, [274]), ([8, 8, 8, 8], 5, 15, 1, [289]), ([40, 41], 3, 10, 0.5, [39, 32]),
    ([5, 60, 7], 4, 12, 1.5, [274]), ([8, 8, 8, 8], 5, 15, 3, [30]),
]  # fmt: skip


def found_by_beams(model, prompt, beams, length, penalty, ends):
    """(ids, log-probability divided by the number of tokens to the power of penalty) of each, best first."""
    out = model.generate(
        torch.tensor([prompt]), num_beams=beams, num_return_sequences=beams, max_new_tokens=length, do_sample=False,
        length_penalty=float(penalty), early_stopping='never', eos_token_id=ends or None, pad_token_id=0,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    rows = [up_to_the_end(row[len(prompt) :], ends) for row in out.sequences.tolist()]
    return [[ids, round(score, 5)] for ids, score in zip(rows, out.sequences_scores.tolist())]


def up_to_the_end(ids, ends):
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0] + 1] if places else ids


def logits_cases():
    cases = []
    for number, how in enumerate(SETTINGS):
        random = np.random.default_rng(number)
        before = random.integers(8, size=14).tolist()
        logits = np.round(random.standard_normal(N_VOCAB) * 2, 3).astype(np.float32)
        found = processors(how)(torch.tensor([before]), torch.tensor(logits)[None])[0].tolist()
        expected = [None if value == -math.inf else round(value, 5) for value in found]
        cases.append({
            'how': how, 'before': before, 'logits': [round(float(value), 3) for value in logits], 'expected': expected,
        })  # fmt: skip
    return cases


def main():
    model = GPT2LMHeadModel.from_pretrained(HERE / 'huggingface' / 'tiny').eval()
    model.resize_token_embeddings(OWNED)
    with torch.no_grad():
        beams = [{'asked': asked, 'found': found_by_beams(model, *asked)} for asked in BEAMS]
    parts = {'logits': logits_cases(), 'beams': beams}
    lists = (f'"{name}": [\n' + ',\n'.join(map(json.dumps, cases)) + '\n]' for name, cases in parts.items())
    (HERE / 'sampling_goldens.json').write_text('{' + ',\n'.join(lists) + '}\n', encoding='utf-8')


if __name__ == '__main__':
    main()
