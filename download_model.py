#!/usr/bin/env python3
"""Fetch released models."""

import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'src'))

from command_line import reject_unknown, run
from download import download
from errors import UsageError
from hparams import RELEASED_HPARAMS, HParamsError, load_hparams, weights_bytes
from model_folder import REPOSITORY_MODELS, canonical_name, expand
from writing import make_folder

BASE_URL = 'https://openaipublic.blob.core.windows.net/gpt-2/models'
WEIGHTS = 'model.ckpt.data-00000-of-00001'
# hparams.json comes first, since it says how long the weights are; the index last, since a folder
# that has none is not taken for a model.
FILES = ('hparams.json', 'encoder.json', 'vocab.bpe', 'checkpoint', 'model.ckpt.meta', WEIGHTS, 'model.ckpt.index')
SHA256_OF_ALL_SIZES = {
    'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783',
    'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
}
SHA256 = dict.fromkeys(RELEASED_HPARAMS, SHA256_OF_ALL_SIZES) | {
    '124M': SHA256_OF_ALL_SIZES | {
        'model.ckpt.meta': '4668c448fa11531fd6700460487f73e82d3272960cea942252f8744bf225c77b',
        'model.ckpt.index': '71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687',
        'checkpoint': 'dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb',
    },
}  # fmt: skip

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


def download_model(name, folder, url):
    """Fetch the missing files of a model into its folder; returns whether any was missing."""
    make_folder(folder, 'choose another --models_dir')
    fetched = False
    for file in FILES:
        size = weights_bytes(load_hparams(os.path.join(folder, 'hparams.json'))) if file == WEIGHTS else None
        check = functools.partial(hparams_problem, name) if file == 'hparams.json' else None
        sha256 = SHA256.get(name, {}).get(file)
        fetched |= download(f'{url}/{file}', os.path.join(folder, file), size, sha256, check)
    return fetched


def hparams_problem(name, path):
    """What is wrong with an hparams.json of the model so named, or None."""
    try:
        found = load_hparams(path)
    except HParamsError as error:
        return f'is no hparams.json: {error}'
    expected = RELEASED_HPARAMS.get(name, found)
    return None if found == expected else f'holds {found}, expected {expected}'


if __name__ == '__main__':
    run(download_models)
