"""The released models at their source: which files each has, how each is known, and fetching them."""

import functools
import os

from gpt2.hparams import RELEASED_HPARAMS, HParamsError, load_hparams, weights_bytes
from gpt2.system.download import download
from gpt2.system.files import new_folder

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


def download_model(name: str, folder: str, url: str) -> bool:
    """Fetch the missing files of a model into its folder; returns whether any was missing. Raises Error; a folder
    that nothing has come into is then not made."""
    fetched = False
    with new_folder(folder, 'choose another --models_dir'):
        for file in FILES:
            size = weights_bytes(load_hparams(os.path.join(folder, 'hparams.json'))) if file == WEIGHTS else None
            check = functools.partial(hparams_problem, name) if file == 'hparams.json' else None
            sha256 = SHA256.get(name, {}).get(file)
            fetched |= download(f'{url}/{file}', os.path.join(folder, file), size, sha256, check)
    return fetched


def hparams_problem(name: str, path: str) -> str | None:
    """What is wrong with an hparams.json of the model so named, or None."""
    try:
        found = load_hparams(path)
    except HParamsError as error:
        return f'is no hparams.json: {error}'
    expected = RELEASED_HPARAMS.get(name, found)
    return None if found == expected else f'holds {found}, expected {expected}'
