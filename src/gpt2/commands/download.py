"""Fetch released models."""

import os

from gpt2.checkpoints.downloads import BASE_URL, download_model
from gpt2.checkpoints.folders import REPOSITORY_MODELS, canonical_name, expand
from gpt2.commands.flags import reject_unknown
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS

HELP = f"""\
Fetch models of the 2019 release: {', '.join(RELEASED_HPARAMS)}.

    python download_model.py 124M
    python download_model.py 355M 774M --models_dir /data/models

Old names such as 117M, 345M, 1.5B and gpt2-xl are understood. The weights are 0.5, 1.4, 3.1 and
6.2 GB. Each file is checked before it gets its name; an interrupted call goes on where it stopped
when it is given again, and files that are there and whole are not fetched again.

--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: this
                      repository's models/
--base_url URL        a mirror, http or https: files are at URL/<model>/<file>. It may have models of
                      other names. Default: $GPT2_BASE_URL, or else
                      {BASE_URL}
"""


def download_models(*models, models_dir=REPOSITORY_MODELS, base_url=None, **unknown):
    reject_unknown((), unknown)
    if not models:
        raise UsageError(f'name at least one model: {", ".join(RELEASED_HPARAMS)}')
    base_url = (base_url or os.environ.get('GPT2_BASE_URL') or BASE_URL).rstrip('/')
    if not base_url.startswith(('http://', 'https://')):
        raise UsageError(f'--base_url is {base_url!r}, expected one that starts with http:// or https://')
    names = [canonical_name(model) for model in models]
    for name in names:
        if name not in RELEASED_HPARAMS and base_url == BASE_URL:
            raise UsageError(
                f'no model {name} was released, only {", ".join(RELEASED_HPARAMS)}; a mirror needs --base_url'
            )
    for name in dict.fromkeys(names):
        folder = os.path.join(expand(models_dir), name)
        fetched = download_model(name, folder, f'{base_url}/{name}')
        print(f'{name} is in {folder}' + ('' if fetched else ' and whole; nothing was downloaded'), flush=True)


download_models.__doc__ = HELP
