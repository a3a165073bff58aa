"""Draw samples from nothing but the end-of-text token."""

import sys

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import reject_unknown
from gpt2.commands.sampling import SHARED_FLAGS, check_length, check_settings, load_generator, open_model, write_samples
from gpt2.encoder import END_OF_TEXT

HELP = f"""\
Draw samples from a GPT-2 that starts from nothing: from the end-of-text token.

    python src/generate_unconditional_samples.py --nsamples 4 --batch_size 2

--nsamples N          samples in all, at least 0; 0 goes on until it is stopped. Default: 0
{SHARED_FLAGS}
                      Default length: n_ctx
"""


def sample_model(
    *extra, model_name=None, seed=None, nsamples=0, batch_size=1, length=None, temperature=1, top_k=0, top_p=1,
    engine='tf', precision='float32', models_dir=DEFAULT_MODELS_DIR, stop: list = None, stop_at_end: bool = False,
    stream: bool = None, json: bool = False, **unknown,
):  # fmt: skip
    reject_unknown(extra, unknown)
    settings = check_settings(
        seed=seed, nsamples=nsamples, batch_size=batch_size, length=length, temperature=temperature, top_k=top_k,
        top_p=top_p, engine=engine, precision=precision, stop=stop, stop_at_end=stop_at_end, stream=stream, json=json,
    )  # fmt: skip
    path, hparams, encoder, notice = open_model(model_name, models_dir)
    length = check_length(hparams, 1, settings.length, hparams.n_ctx)
    generator = load_generator(path, hparams, notice, settings)
    numbers = range(1, (settings.nsamples or sys.maxsize - 1) + 1)
    write_samples(generator, encoder, [encoder.encoder[END_OF_TEXT]], length, settings, None, numbers)


sample_model.__doc__ = HELP
