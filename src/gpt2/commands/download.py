"""Fetch released models, and GPT-2s from the Hugging Face hub."""

import json
import os
import shlex
from typing import Any

from gpt2.checkpoints import hub
from gpt2.checkpoints.downloads import BASE_URL, download_model
from gpt2.checkpoints.folders import BUNDLED_MODEL, REPOSITORY, canonical_name, downloads_folder, expand
from gpt2.commands.flags import address, reject_unknown
from gpt2.errors import Error, UsageError
from gpt2.hparams import RELEASED_HPARAMS
from gpt2.system.download import UnreachableError

HELP = f"""\
Fetch models of the 2019 release: {', '.join(RELEASED_HPARAMS)}; or GPT-2s from the Hugging Face hub.

    python download_model.py 124M
    python download_model.py 355M 774M --models_dir /data/models
    python download_model.py distilgpt2
    python download_model.py hf:OWNER/NAME hf:OWNER/NAME@REVISION

Old names such as 117M, 345M, 1.5B and gpt2-xl are understood. The weights are 0.5, 1.4, 3.1 and
6.2 GB. Each file is checked before it gets its name; an interrupted call goes on where it stopped
when it is given again, and files that are there and whole are not fetched again. Where no server can
be reached it ends at once; the bundled model, --model_name {BUNDLED_MODEL}, needs none.

A model of the hub lies in a folder called NAME, or OWNER-NAME where NAME is a released model's: its
config.json, weights (safetensors before pytorch_model.bin) and vocabulary, all of one commit, which
hub.json names. It stays at that commit; remove the folder to fetch a later one. $HF_ENDPOINT names
another hub than {hub.ENDPOINT}, and $HF_TOKEN is shown to the hub alone, for models that want one.

--models_dir DIR      folder of the model folders; ~ and $VARS are expanded. Default: this
                      repository's models/, or where there is no repository models/ in the current folder
--base_url URL        a mirror, http or https: files are at URL/<model>/<file>. It may have models of
                      other names. Default: $GPT2_BASE_URL, or else
                      {BASE_URL}
"""


def download_models(
    *models: str, models_dir: str | None = None, base_url: str | None = None, **unknown: Any
) -> None:
    reject_unknown((), unknown)
    models_dir = expand(models_dir or downloads_folder())
    if not models:
        raise UsageError(f'name at least one model: {", ".join(RELEASED_HPARAMS)}')
    base_url = address('base_url', base_url or os.environ.get('GPT2_BASE_URL') or BASE_URL)
    wanted = [on_hub(model, base_url) or released(model, base_url) for model in models]
    if any(isinstance(model, hub.Reference) for model in wanted):
        hub.from_environment()  # which may be amiss
    for model in dict.fromkeys(wanted):
        if isinstance(model, hub.Reference):
            fetch_from_hub(model, models_dir)
        else:
            fetch_released(model, models_dir, base_url)


def on_hub(model: str, base_url: str) -> hub.Reference | None:
    """The Reference of a model of the hub, or None; a mirror may have a model by a name that is known there."""
    return hub.parse(model) if base_url == BASE_URL or model.startswith(hub.PREFIX) else None


def released(model: str, base_url: str) -> str:
    """The name of a model that the release or a mirror has. Raises UsageError."""
    name = canonical_name(model, 'the model')
    if name not in RELEASED_HPARAMS and base_url == BASE_URL:
        raise UsageError(
            f'no model {name} was released, only {", ".join(RELEASED_HPARAMS)}; a mirror needs --base_url, '
            f'and a model of the Hugging Face hub is {hub.PREFIX}OWNER/NAME'
        )
    return name


def fetch_from_hub(reference: hub.Reference, models_dir: str) -> None:
    name = hub.folder_name(reference)
    folder = os.path.join(models_dir, name)
    try:
        fetched = hub.download_from_hub(reference, folder, hub.from_environment())
    except UnreachableError as error:
        raise Error(f'{error}, or name another hub by HF_ENDPOINT') from None
    report(name, folder, fetched)


def fetch_released(name: str, models_dir: str, base_url: str) -> None:
    folder = os.path.join(models_dir, name)
    try:
        fetched = download_model(name, folder, f'{base_url}/{name}')
    except UnreachableError as error:
        otherwise = f'the bundled model needs no download: --model_name {BUNDLED_MODEL}'
        raise Error(f'{error}, or name a mirror with --base_url; {otherwise}') from None
    report(name, folder, fetched)
    if name in models_with_known_answers():
        print(f'to check what it says against what others have published: {check_command(models_dir)}', flush=True)


def report(name: str, folder: str, fetched: bool) -> None:
    print(f'{name} is in {folder}' + ('' if fetched else ' and whole; nothing was downloaded'), flush=True)


def models_with_known_answers() -> set[str]:
    """Names of the models whose answers the tests know; they come with the repository alone."""
    path = os.path.join(REPOSITORY or '', 'tests', 'known_answers.json')
    if not REPOSITORY or not os.path.exists(path):
        return set()
    with open(path, encoding='utf-8') as file:
        return {name for name, answers in json.load(file).items() if isinstance(answers, list)}


def check_command(models_dir: str) -> str:
    """The command that checks a downloaded model, to be given in the repository."""
    elsewhere = os.path.realpath(models_dir) != os.path.join(REPOSITORY or '', 'models')
    place = f'GPT2_MODELS={shlex.quote(os.path.abspath(models_dir))} ' if elsewhere else ''
    return f'{place}python -m pytest -m released'


download_models.__doc__ = HELP
