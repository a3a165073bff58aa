"""Draw samples from nothing but the end-of-text token."""

import sys
from typing import Any

from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR
from gpt2.commands.flags import reject_unknown
from gpt2.commands.sampling import (
    SHARED_FLAGS,
    check_settings,
    load,
    open_for_sampling,
    sampling_command,
    write_samples,
)

HELP = f"""\
Draw samples from a GPT-2 that starts from nothing: from the end-of-text token.

    python src/generate_unconditional_samples.py --nsamples 4 --batch_size 2

--nsamples N          samples in all, at least 0; 0 goes on until it is stopped. Default: 0
{SHARED_FLAGS}
                      Default length: n_ctx
"""


@sampling_command
def sample_model(
    *extra: str, model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, engine: Any = 'auto',
    precision: Any = 'float32', draft: str | None = None, nsamples: Any = 0,
    ablate: str | None = None, ablate_from: str | None = None, **flags: Any,
) -> None:  # fmt: skip
    reject_unknown(extra, ())
    settings = check_settings(nsamples=nsamples, **flags)
    model = open_for_sampling(model_name, models_dir, engine, precision, settings, ablate, ablate_from, draft)
    model.plan([None], seed=0, **settings.drawing)
    load(model, settings)
    write_samples(model, None, range(1, (settings.nsamples or sys.maxsize - 1) + 1), settings)


sample_model.__doc__ = HELP
