"""Draw samples from nothing but the end-of-text token."""

import sys
from typing import Any

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import reject_unknown
from gpt2.commands.sampling import SHARED_FLAGS, check_settings, load, open_for_sampling, write_samples

HELP = f"""\
Draw samples from a GPT-2 that starts from nothing: from the end-of-text token.

    python src/generate_unconditional_samples.py --nsamples 4 --batch_size 2

--nsamples N          samples in all, at least 0; 0 goes on until it is stopped. Default: 0
{SHARED_FLAGS}
                      Default length: n_ctx
"""


def sample_model(
    *extra: str, model_name: str | None = None, seed: Any = None, nsamples: Any = 0, batch_size: Any = 1,
    length: Any = None, temperature: Any = 1, top_k: Any = 0, top_p: Any = 1, top_p_rule: Any = 'released',
    min_p: Any = 0, typical_p: Any = 1, repetition_penalty: Any = 1, presence_penalty: Any = 0,
    frequency_penalty: Any = 0, no_repeat_ngram: Any = 0, logit_bias: list | None = None, ban: list | None = None,
    choices: str | None = None, ablate: str | None = None, ablate_from: str | None = None,
    engine: Any = 'auto', precision: Any = 'float32', models_dir: str = DEFAULT_MODELS_DIR, stop: list | None = None,
    stop_at_end: bool = False, start: str | None = None, stream: bool | None = None, json: bool = False,
    logprobs: Any = None, beams: Any = 1, length_penalty: Any = 1, regex: str | None = None,
    **unknown: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, unknown)
    settings = check_settings(
        seed=seed, nsamples=nsamples, batch_size=batch_size, length=length, temperature=temperature, top_k=top_k,
        top_p=top_p, top_p_rule=top_p_rule, min_p=min_p, typical_p=typical_p, repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty, frequency_penalty=frequency_penalty, no_repeat_ngram=no_repeat_ngram,
        logit_bias=logit_bias, ban=ban, choices=choices, stop=stop, stop_at_end=stop_at_end, start=start,
        stream=stream, json=json, logprobs=logprobs, beams=beams, length_penalty=length_penalty, regex=regex,
    )  # fmt: skip
    model = open_for_sampling(model_name, models_dir, engine, precision, settings, ablate, ablate_from)
    model.plan([None], seed=0, **settings.drawing)
    load(model, settings)
    write_samples(model, None, range(1, (settings.nsamples or sys.maxsize - 1) + 1), settings)


sample_model.__doc__ = HELP
