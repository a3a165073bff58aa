"""GPT-2s on the Hugging Face hub: which files a model needs, how each is known, and fetching them.

What a folder is made of is written down first, in hub.json: the repository, one commit of it, and
length and hash of every file. So a branch that moves between two files, or between two calls, never
mixes two revisions; a later call knows without the network whether the folder is whole; and a folder
that came from elsewhere is not written over. config.json comes last, since a folder that has none is
not taken for a model.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from gpt2.checkpoints.folders import canonical_name
from gpt2.checkpoints.huggingface import WEIGHTS, check_config
from gpt2.errors import UsageError
from gpt2.hparams import RELEASED_HPARAMS
from gpt2.system.download import CHUNK, DownloadError, answer, download, persist, status_line
from gpt2.system.files import new_folder, open_small, whole_file
from gpt2.system.locks import locked

ENDPOINT = 'https://huggingface.co'
PREFIX = 'hf:'
KNOWN = {'distilgpt2': 'distilbert/distilgpt2'}
RECORD = 'hub.json'
CONFIG = 'config.json'
INDEX = '.index.json'
SHARD = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*\.(?:safetensors|bin)')  # lies in the folder, and is hidden to nobody
VOCABULARY = ('vocab.json', 'merges.txt')
WHOLE_VOCABULARY = 'tokenizer.json'
OPTIONAL = (
    *VOCABULARY, WHOLE_VOCABULARY,
    'added_tokens.json', 'special_tokens_map.json', 'tokenizer_config.json', 'generation_config.json',
)  # fmt: skip
LARGEST_JSON = 1 << 25  # bytes of an answer that is read as a whole; a list of many thousand files is shorter
REDIRECTS = 5
SCHEMES = ('http://', 'https://')


@dataclasses.dataclass(frozen=True)
class Reference:
    """A model on the hub: repository is OWNER/NAME; revision a branch, a tag or a commit."""

    repository: str
    revision: str = 'main'


@dataclasses.dataclass(frozen=True)
class Hub:
    """Where the hub is, and what `requests` calls to sign a request to it; None where there is no token."""

    endpoint: str
    auth: Callable[[Any], Any] | None


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a model: its length in bytes, and the hash by which the hub knows it; None where it does not say."""

    name: str
    size: int | None
    sha256: str | None
    git_sha1: str | None


@dataclasses.dataclass(frozen=True)
class Record:
    """What hub.json holds: the files of one commit of a repository, in the order in which they are fetched."""

    repository: str
    revision: str
    commit: str
    files: list[File]


def parse(model: str) -> Reference | None:
    """The model that `hf:OWNER/NAME[@REVISION]` or a known name means; None for any other text.

    Raises UsageError for a text that begins with hf: and does not go on so.
    """
    if not model.startswith(PREFIX):
        return Reference(KNOWN[model.lower()]) if model.lower() in KNOWN else None
    part, revision = r'[A-Za-z0-9_][A-Za-z0-9._-]*', r'[A-Za-z0-9._/-]+'
    found = re.fullmatch(f'hf:({part}/{part})(?:@({revision}))?', model)
    if not found:
        raise UsageError(f'{model!r} is no model of the hub, expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION')
    return Reference(found[1], found[2] or 'main')


def folder_name(reference: Reference) -> str:
    """NAME; or OWNER-NAME where NAME is what a released model is called."""
    owner, name = reference.repository.split('/')
    released = canonical_name(name) in RELEASED_HPARAMS
    return f'{owner}-{name}' if released else name


def from_environment() -> Hub:
    """The hub that HF_ENDPOINT and HF_TOKEN name. Raises UsageError, which never shows the token."""
    endpoint = (os.environ.get('HF_ENDPOINT') or ENDPOINT).rstrip('/')
    if not endpoint.startswith(SCHEMES):
        raise UsageError(f'HF_ENDPOINT is {endpoint!r}, expected one that starts with http:// or https://')
    token = os.environ.get('HF_TOKEN', '').strip()
    if not re.fullmatch('[!-~]*', token):
        raise UsageError('HF_TOKEN holds characters that no token has; copy it again')
    return Hub(endpoint, signature(token) if token else None)


def signature(token: str) -> Callable[[Any], Any]:
    def sign(request: Any) -> Any:
        request.headers['Authorization'] = f'Bearer {token}'
        return request

    return sign


def download_from_hub(reference: Reference, folder: str, hub: Hub) -> bool:
    """Fetch what is missing of a model into its folder; returns whether anything was.

    A repository that is no GPT-2 that can be read is refused by its config.json, before any other file is
    asked for. Raises Error; a folder that nothing has come into is then not made.
    """
    path = os.path.join(folder, RECORD)
    with new_folder(folder, 'choose another --models_dir'):
        with locked(path):
            if not os.path.exists(path):
                refuse_other_folder(folder)
                write_record(path, describe(reference, hub))
        record = read_record(path)
        if record.repository != reference.repository or reference.revision not in (record.revision, record.commit):
            raise DownloadError(
                f'{folder} is of {record.repository}@{record.revision}, not of {reference.repository}@'
                f'{reference.revision}; remove it, or choose another --models_dir'
            )
        fetched = [download_file(file, folder, record, hub) for file in record.files]
    return any(fetched)


def download_file(file: File, folder: str, record: Record, hub: Hub) -> bool:
    url = f'{address(hub, record.repository, record.commit)}/{file.name}'
    check = functools.partial(git_problem, file.git_sha1) if file.git_sha1 else None
    return download(url, os.path.join(folder, file.name), file.size, file.sha256, check, hub.auth)


def refuse_other_folder(folder: str) -> None:
    if found := sorted(name for name in os.listdir(folder) if not name.startswith(RECORD)):
        raise DownloadError(f'{folder} holds {found[0]} and did not come from the hub; choose another --models_dir')


def write_record(path: str, record: Record) -> None:
    with whole_file(path) as file:
        json.dump(dataclasses.asdict(record), file, indent=2)
        file.write('\n')


def read_record(path: str) -> Record:
    """The Record of hub.json. Raises DownloadError if that is none, or names a file that is not of a model."""
    try:
        with open_small(path) as file:
            values = json.load(file)
        record = Record(**{**values, 'files': [File(**file) for file in values['files']]})
        if all(wanted(file.name) for file in record.files):
            return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DownloadError(f'{path} is damaged; remove its folder and run again')


def wanted(name: str) -> bool:
    return name in (CONFIG, *WEIGHTS, *OPTIONAL) or SHARD.fullmatch(name) is not None


def address(hub: Hub, repository: str, commit: str) -> str:
    return f'{hub.endpoint}/{repository}/resolve/{commit}'


def describe(reference: Reference, hub: Hub) -> Record:
    """The Record of a model as the hub has it now."""
    commit, names = list_files(reference, hub)
    base = address(hub, reference.repository, commit)
    if CONFIG not in names:
        raise DownloadError(f'{reference.repository} has no {CONFIG}: it is no model in the layout of the hub')
    check_config(f'{reference.repository}/{CONFIG}', read_json(f'{base}/{CONFIG}', reference, hub))
    files = [*vocabulary_files(reference, names), *weights_files(reference, hub, base, names), CONFIG]
    described = [describe_file(name, f'{base}/{name}', reference, hub, commit) for name in files]
    return Record(reference.repository, reference.revision, commit, described)


def list_files(reference: Reference, hub: Hub) -> tuple[str, set[str]]:
    """(commit, the names of the files at a revision)."""
    revision = urllib.parse.quote(reference.revision, safe='')
    url = f'{hub.endpoint}/api/models/{reference.repository}/revision/{revision}'
    found = read_json(url, reference, hub)
    try:
        commit, names = found['sha'], {file['rfilename'] for file in found['siblings']}
        if re.fullmatch('[0-9a-f]{40}', commit):
            return commit, names
    except (TypeError, KeyError):
        pass
    raise DownloadError(f'{url} does not answer as the hub does; check HF_ENDPOINT')


def vocabulary_files(reference: Reference, names: set[str]) -> list[str]:
    if WHOLE_VOCABULARY not in names and not names.issuperset(VOCABULARY):
        raise DownloadError(f'{reference.repository} has neither {" and ".join(VOCABULARY)} nor {WHOLE_VOCABULARY}')
    return [name for name in OPTIONAL if name in names]


def weights_files(reference: Reference, hub: Hub, base: str, names: set[str]) -> list[str]:
    """The files of the weights, an index after its shards."""
    weights = next((name for name in WEIGHTS if name in names), None)
    if weights is None:
        raise DownloadError(f'{reference.repository} has none of {", ".join(WEIGHTS)}')
    if not weights.endswith(INDEX):
        return [weights]
    try:
        shards = sorted(set(read_json(f'{base}/{weights}', reference, hub)['weight_map'].values()))
    except (TypeError, KeyError, AttributeError):
        raise DownloadError(f'{reference.repository}: {weights} is no index of shards') from None
    suffix = os.path.splitext(weights.removesuffix(INDEX))[1]
    for shard in shards:
        if not isinstance(shard, str) or shard not in names:
            raise DownloadError(f'{reference.repository}: {weights} names {shard!r}, which is not there')
        if not SHARD.fullmatch(shard) or not shard.endswith(suffix):
            raise DownloadError(f'{reference.repository}: {weights} names {shard!r}, no plain name of {suffix}')
    return [*shards, weights]


def describe_file(name: str, url: str, reference: Reference, hub: Hub, commit: str) -> File:
    headers = file_headers(url, reference, hub)
    sent = headers.get('x-repo-commit', commit)
    if sent != commit:
        raise DownloadError(f'{url} is of commit {sent}, asked for was {commit}; run again')
    size = headers.get('x-linked-size') or headers.get('content-length', '')
    tag = (headers.get('x-linked-etag') or headers.get('etag', '')).removeprefix('W/').strip('"')
    return File(
        name,
        size=length_of(size),
        sha256=tag if re.fullmatch('[0-9a-f]{64}', tag) else None,
        git_sha1=tag if re.fullmatch('[0-9a-f]{40}', tag) else None,
    )


def length_of(text: str) -> int | None:
    """A length that a header says, or None for what no file has."""
    return int(text) if re.fullmatch('[0-9]{1,18}', text) else None


def file_headers(url: str, reference: Reference, hub: Hub) -> dict[str, str]:
    """Headers of a file, keys in lower case, with those of redirects within the hub.

    Another host is not asked: of a large file the hub itself says size and hash as it redirects.
    """
    found = {}
    for _ in range(REDIRECTS):
        headers, target = persist(url, functools.partial(head, url, reference, hub))
        found |= headers
        if target is None:
            return found
        found.pop('content-length', None)  # the redirect's own
        target = urllib.parse.urljoin(url, target)
        if origin(target) != origin(url):
            return found
        url = target
    raise DownloadError(f'{url} is redirected to without end; check HF_ENDPOINT')


def origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def head(url: str, reference: Reference, hub: Hub) -> tuple[dict[str, str], str | None]:
    """One request for (a file's headers, where it redirects to or None)."""
    plain = {'Accept-Encoding': 'identity'}  # lengths are those of the file itself
    with answer('HEAD', url, headers=plain, auth=hub.auth, allow_redirects=False) as response:
        refuse(response, reference, hub)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return headers, headers.get('location') if response.is_redirect else None


def read_json(url: str, reference: Reference, hub: Hub) -> Any:
    """A JSON document of the hub, parsed."""

    def get() -> bytearray:
        with answer('GET', url, auth=hub.auth) as response:
            refuse(response, reference, hub)
            body = bytearray()
            for chunk in response.iter_content(CHUNK):
                body += chunk
                if len(body) > LARGEST_JSON:
                    raise DownloadError(f'{url} is longer than {LARGEST_JSON} bytes; check HF_ENDPOINT')
            return body

    try:
        return json.loads(persist(url, get))
    except (ValueError, RecursionError):
        raise DownloadError(f'{url} is no JSON; check HF_ENDPOINT') from None


def refuse(response: Any, reference: Reference, hub: Hub) -> None:
    """Raise DownloadError for an answer that is neither a file nor a redirect, with what to do about it."""
    status, model = response.status_code, f'{reference.repository}@{reference.revision}'
    if status < HTTPStatus.BAD_REQUEST:
        return
    remedies = {
        HTTPStatus.UNAUTHORIZED: 'check HF_TOKEN, which is not accepted or may not read it'
        if hub.auth
        else 'check the name; if the model is private, set HF_TOKEN to a token that may read it',
        HTTPStatus.FORBIDDEN: f'accept the terms at {hub.endpoint}/{reference.repository}, and set HF_TOKEN',
        HTTPStatus.NOT_FOUND: 'check name and revision' + ('' if hub.auth else '; a private model needs HF_TOKEN'),
    }
    raise DownloadError(f'{model}: {status_line(response)}; {remedies.get(status, "check HF_ENDPOINT")}')


def git_problem(expected: str, path: str) -> str | None:
    """What is wrong with a file that git knows by a hash, or None."""
    result = hashlib.sha1(b'blob %d\0' % os.path.getsize(path), usedforsecurity=False)
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            result.update(chunk)
    found = result.hexdigest()
    return None if found == expected else f'has git hash {found}, expected {expected}'
