"""Fetching models from a server that behaves like the hub, and from one that does not."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer

from gpt2.checkpoints import hub
from gpt2.checkpoints.files import CheckpointError
from gpt2.checkpoints.hub import Reference, download_from_hub, folder_name, from_environment, parse
from gpt2.errors import UsageError
from gpt2.system import download as module
from gpt2.system.download import ATTEMPTS, DownloadError

NAME = 'someone/some-model'
LATER = '2' * 40
SECRET = 'hf_SecretOfTheUser'
FILES = {
    'config.json': b'{"model_type": "gpt2", "n_layer": 2}',
    'vocab.json': b'{}',
    'merges.txt': b'#version: 0.2\n',
    'generation_config.json': b'{}',
    'model.safetensors': bytes(range(256)) * 400,
    'pytorch_model.bin': b'not wanted',
    'README.md': b'not wanted',
    'tf_model.h5': b'not wanted',
}
NEEDED = ['config.json', 'generation_config.json', 'merges.txt', 'model.safetensors', 'vocab.json']
SHARDS = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """No waiting; what would have been waited for."""
    waited = []
    monkeypatch.setattr(module.time, 'sleep', waited.append)
    return waited


@pytest.fixture
def server():
    with HubServer({NAME: {COMMIT: dict(FILES)}}) as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'some-model'


@pytest.fixture
def fetch(server, folder, monkeypatch):
    def call(model=f'hf:{NAME}', token=''):
        monkeypatch.setenv('HF_ENDPOINT', server.url + '/')
        monkeypatch.setenv('HF_TOKEN', token)
        return download_from_hub(parse(model), str(folder), from_environment())

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != 'hub.json'}


def refused(fetch, match, *arguments, error=DownloadError):
    with pytest.raises(error, match=match) as raised:
        fetch(*arguments)
    assert '\n' not in str(raised.value)
    assert SECRET not in str(raised.value)


def files_of(server):
    return server.repositories[NAME][COMMIT]


def file_path(name, commit=COMMIT):
    return f'/{NAME}/resolve/{commit}/{name}'


LISTING = f'/api/models/{NAME}/revision/main'


# Names


@pytest.mark.parametrize(
    ('model', 'reference', 'name'),
    [
        ('distilgpt2', Reference('distilbert/distilgpt2'), 'distilgpt2'),
        ('hf:someone/some.model_2', Reference('someone/some.model_2'), 'some.model_2'),
        ('hf:someone/model@v1.0', Reference('someone/model', 'v1.0'), 'model'),
        ('hf:someone/model@refs/pr/1', Reference('someone/model', 'refs/pr/1'), 'model'),
        ('hf:openai-community/gpt2-xl', Reference('openai-community/gpt2-xl'), 'openai-community-gpt2-xl'),
        ('hf:someone/124M', Reference('someone/124M'), 'someone-124M'),
    ],
)
def test_names_of_models_on_the_hub(model, reference, name):
    assert parse(model) == reference
    assert folder_name(reference) == name


@pytest.mark.parametrize('model', ['124M', 'gpt2', 'mine', 'openai-community/gpt2'])
def test_other_names_are_not_of_the_hub(model):
    assert parse(model) is None


@pytest.mark.parametrize('model', ['hf:', 'hf:gpt2', 'hf:a/b/c', 'hf:../x', 'hf:a/..', 'hf:a/b@', 'hf:a/b c'])
def test_what_looks_like_a_name_of_the_hub_and_is_none_is_refused(model):
    with pytest.raises(UsageError, match='expected hf:OWNER/NAME'):
        parse(model)


def test_the_address_of_the_hub(monkeypatch):
    monkeypatch.delenv('HF_ENDPOINT', raising=False)
    monkeypatch.delenv('HF_TOKEN', raising=False)
    assert from_environment() == hub.Hub('https://huggingface.co', None)
    monkeypatch.setenv('HF_ENDPOINT', 'ftp://here')
    with pytest.raises(UsageError, match="HF_ENDPOINT is 'ftp://here', expected one that starts with http"):
        from_environment()


@pytest.mark.parametrize('token', ['hf_Secret\nhf_More', 'hf_Secret hf_More', 'hf_Secrét'])
def test_a_token_that_cannot_be_one_is_refused_unseen(monkeypatch, token):
    monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(UsageError, match='HF_TOKEN holds characters') as raised:
        from_environment()
    assert 'Secr' not in str(raised.value)


# A hub that behaves


def test_the_files_that_are_needed_are_fetched_and_config_json_last(server, fetch, folder):
    assert fetch()
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    gets = [path for method, path, _ in server.asked if method == 'GET']
    assert gets[:2] == [LISTING, file_path('config.json')]
    assert gets[-1] == file_path('config.json')
    assert not any(name in path for _, path, _ in server.asked for name in ('README', 'tf_model', 'pytorch'))


def test_a_folder_that_is_whole_is_not_asked_for_again(server, fetch, folder):
    fetch()
    server.asked.clear()
    server.branches[NAME]['main'] = 'moved'
    assert not fetch()
    assert not fetch(f'hf:{NAME}@{COMMIT}')
    assert server.asked == []


def test_a_file_that_was_damaged_is_fetched_again(server, fetch, folder, capfd):
    fetch()
    for name in ('model.safetensors', 'vocab.json'):
        (folder / name).write_bytes(FILES[name][::-1])
    assert fetch()
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    err = capfd.readouterr().err
    assert 'model.safetensors has SHA-256' in err
    assert 'vocab.json has git hash' in err


def test_shards_come_before_their_index_and_instead_of_pickles(server, fetch, folder):
    files = files_of(server)
    del files['model.safetensors']
    index = {'weight_map': {'wte.weight': SHARDS[0], 'wpe.weight': SHARDS[1], 'ln_f.bias': SHARDS[1]}}
    files |= {SHARDS[0]: b'one', SHARDS[1]: b'two', 'model.safetensors.index.json': json.dumps(index).encode()}
    assert fetch()
    names = [*(name for name in NEEDED if name != 'model.safetensors'), 'model.safetensors.index.json', *SHARDS]
    assert contents(folder) == {name: files[name] for name in names}
    order = [file['name'] for file in json.loads((folder / 'hub.json').read_bytes())['files']]
    assert order[-4:] == [*SHARDS, 'model.safetensors.index.json', 'config.json']


def test_a_pickle_is_fetched_where_there_is_nothing_else(server, fetch, folder):
    del files_of(server)['model.safetensors']
    fetch()
    assert 'pytorch_model.bin' in contents(folder)


@pytest.mark.parametrize(
    ('index', 'shards'),
    [
        ('pytorch_model.bin.index.json', ['pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin']),
        ('model.safetensors.index.json', ['first_part.safetensors', 'second-part.v2.safetensors']),
    ],
)
def test_shards_of_any_plain_name_are_fetched_and_known_again(server, fetch, folder, index, shards):
    files = files_of(server)
    del files['model.safetensors'], files['pytorch_model.bin']
    content = json.dumps({'weight_map': {'wte.weight': shards[0], 'wpe.weight': shards[1]}})
    files |= {shards[0]: b'one', shards[1]: b'two', index: content.encode()}
    assert fetch()
    assert {index, *shards} <= set(contents(folder))
    assert not fetch()


def test_a_length_that_no_file_has_is_passed_over():
    assert hub.length_of('5') == 5
    for text in ('9' * 5000, '', '-1', '1e3', '٣'):
        assert hub.length_of(text) is None


def test_a_vocabulary_in_one_file_is_enough(server, fetch, folder):
    files = files_of(server)
    del files['merges.txt']
    files['tokenizer.json'] = b'{"model": {}}'
    fetch()
    assert contents(folder)['tokenizer.json'] == b'{"model": {}}'


def test_a_repository_that_was_renamed_is_found(server, fetch, folder):
    server.moved['someone/old-name'] = NAME
    assert fetch('hf:someone/old-name')
    assert contents(folder) == {name: FILES[name] for name in NEEDED}


def test_a_tag_or_branch_by_name(server, fetch, folder):
    server.branches[NAME]['refs%2Fpr%2F1'] = LATER
    server.repositories[NAME][LATER] = FILES | {'vocab.json': b'{"a": 0}'}
    fetch(f'hf:{NAME}@refs/pr/1')
    assert contents(folder)['vocab.json'] == b'{"a": 0}'


# Revisions


def test_a_branch_that_moves_between_two_files_is_not_mixed(server, fetch, folder):
    server.repositories[NAME][LATER] = {name: body + b' ' for name, body in FILES.items()}

    def move(handler):
        server.branches[NAME]['main'] = LATER
        handler.behave()

    server.faults[file_path('merges.txt')] = [move]
    fetch()
    assert server.branches[NAME]['main'] == LATER
    assert contents(folder) == {name: FILES[name] for name in NEEDED}


def test_a_branch_that_moves_between_two_calls_is_not_mixed(server, fetch, folder):
    server.repositories[NAME][LATER] = {name: body + b' ' for name, body in FILES.items()}
    vocabulary = file_path('vocab.json')
    server.faults[vocabulary] = [lambda handler: handler.behave(), 404]
    refused(fetch, 'vocab.json: the server answers 404')
    server.branches[NAME]['main'] = LATER
    assert fetch()
    assert contents(folder) == {name: FILES[name] for name in NEEDED}


def test_a_file_of_another_commit_is_refused(server, fetch, folder):
    server.faults[file_path('vocab.json')] = [
        lambda handler: handler.send_whole(b'{}', {'X-Repo-Commit': LATER, 'ETag': '"x"'})
    ]
    refused(fetch, f'is of commit {LATER}, asked for was {COMMIT}')
    assert not folder.exists()


def test_another_model_or_revision_is_not_fetched_into_the_folder(server, fetch, folder):
    fetch()
    before = contents(folder)
    server.repositories['another/some-model'] = {COMMIT: dict(FILES)}
    server.branches['another/some-model'] = {'main': COMMIT}
    refused(fetch, f'is of {NAME}@main, not of another/some-model@main; remove it', 'hf:another/some-model')
    refused(fetch, f'is of {NAME}@main, not of {NAME}@v2', f'hf:{NAME}@v2')
    assert contents(folder) == before


def test_of_two_processes_one_asks_and_both_have_the_same_revision(server, fetch, folder):
    server.repositories[NAME][LATER] = {name: body + b' ' for name, body in FILES.items()}
    arrived, go_on = threading.Event(), threading.Event()

    def slow(handler):
        arrived.set()
        go_on.wait(60)
        handler.behave()
        server.branches[NAME]['main'] = LATER

    server.faults[LISTING] = [slow]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch)
        assert arrived.wait(60)
        second = pool.submit(fetch)
        go_on.set()
        assert first.result() or second.result()
    assert [path for _, path, _ in server.asked].count(LISTING) == 1
    assert contents(folder) == {name: FILES[name] for name in NEEDED}


def test_a_folder_from_elsewhere_is_left_alone(server, fetch, folder):
    folder.mkdir()
    (folder / 'config.json').write_text('mine')
    refused(fetch, r'holds config\.json and did not come from the hub; choose another --models_dir')
    assert server.asked == []
    assert (folder / 'config.json').read_text() == 'mine'


@pytest.mark.parametrize(
    'record',
    [
        'nonsense', '[]', '{"files": 3}',
        *(json.dumps({'repository': NAME, 'revision': 'main', 'commit': COMMIT, 'files': [
            {'name': name, 'size': 1, 'sha256': None, 'git_sha1': None}
        ]}) for name in ('../../outside', 'a/b.bin', r'a\b.bin', '.x.bin', '/x.bin', 'a.py', 'x.bin\n')),
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(server, fetch, folder, record):
    folder.mkdir()
    (folder / 'hub.json').write_text(record)
    refused(fetch, 'hub.json is damaged; remove its folder')
    assert server.asked == []


# What is no GPT-2


@pytest.mark.parametrize(
    ('config', 'error', 'match'),
    [
        (b'{"model_type": "llama"}', CheckpointError, "some-model/config.json: model_type is 'llama': not a GPT-2"),
        (b'{"model_type": "gpt2", "activation_function": "gelu"}', CheckpointError, "activation_function is 'gelu'"),
        (b'{"model_type": "gpt2", "n_head": 7}', CheckpointError, 'n_embd 768 is not a multiple of n_head 7'),
        (b'["gpt2"]', CheckpointError, 'config.json is no JSON object'),
        (b'{"model_type"', DownloadError, 'config.json is no JSON'),
        (b'[' * 100_000, DownloadError, 'config.json is no JSON'),
        (None, DownloadError, 'has no config.json'),
    ],
)
def test_what_is_no_gpt2_is_refused_before_anything_else_is_asked_for(server, fetch, folder, config, error, match):
    files = files_of(server)
    if config is None:
        del files['config.json']
    else:
        files['config.json'] = config
    refused(fetch, match, error=error)
    assert len(server.asked) == (1 if config is None else 2)
    assert not folder.exists()


@pytest.mark.parametrize(
    ('missing', 'match'),
    [
        (['model.safetensors', 'pytorch_model.bin'], 'has none of model.safetensors, '),
        (['merges.txt'], 'has neither vocab.json and merges.txt nor tokenizer.json'),
    ],
)
def test_a_repository_that_lacks_a_part_is_refused(server, fetch, folder, missing, match):
    for name in missing:
        del files_of(server)[name]
    refused(fetch, match)
    assert not folder.exists()


@pytest.mark.parametrize(
    ('index', 'match'),
    [
        ({'weight_map': {'wte.weight': '../../outside'}}, "names '../../outside', which is not there"),
        ({'weight_map': {'wte.weight': SHARDS[0]}}, f"names '{SHARDS[0]}', which is not there"),
        ({'weight_map': {'wte.weight': '.hidden.safetensors'}}, r"'\.hidden\.safetensors', no plain name"),
        ({'weight_map': {'wte.weight': 'a/b.safetensors'}}, "'a/b.safetensors', no plain name"),
        ({'weight_map': {'wte.weight': 'pytorch_model.bin'}}, 'no plain name of .safetensors'),
        ({'weight_map': {'wte.weight': 3}}, 'is no index of shards|names 3'),
        ({'weight_map': [1]}, 'is no index of shards'),
        ([], 'is no index of shards'),
    ],
)
def test_an_index_of_shards_that_are_not_there_is_refused(server, fetch, folder, index, match):
    del files_of(server)['model.safetensors']
    files_of(server)['model.safetensors.index.json'] = json.dumps(index).encode()
    files_of(server).update({'.hidden.safetensors': b'', 'a/b.safetensors': b''})
    refused(fetch, match)
    assert not folder.exists()


@pytest.mark.parametrize('body', [b'[]', b'{"sha": 5, "siblings": []}', b'{"sha": "main", "siblings": []}', b'{}'])
def test_a_listing_that_is_none_is_refused(server, fetch, body):
    server.faults[LISTING] = [lambda handler: handler.send_whole(body, {})]
    refused(fetch, 'does not answer as the hub does; check HF_ENDPOINT')


def test_an_endless_answer_is_broken_off(server, fetch, monkeypatch):
    monkeypatch.setattr(hub, 'LARGEST_JSON', 100_000)
    server.faults[LISTING] = [lambda handler: handler.send_whole(b' ' * 200_000, {})]
    refused(fetch, 'is longer than 100000 bytes')


# The token


def test_the_token_stays_home(server, fetch, folder, capfd):
    server.token = SECRET
    fetch(token=SECRET)
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    assert {authorization for _, _, authorization in server.asked} == {f'Bearer {SECRET}'}
    assert [authorization for _, _, authorization in server.storage.asked] == [None]
    assert SECRET not in ''.join(capfd.readouterr())
    assert not any(SECRET.encode() in path.read_bytes() for path in folder.iterdir())


def test_the_token_stays_home_when_the_listing_is_elsewhere(server, fetch):
    def send_away(handler):
        handler.answer(307, b'', {'Location': f'{server.storage.url}/listing'}, 0)

    server.faults[LISTING] = [send_away]
    server.storage.files['/listing'] = b'{}'
    refused(fetch, 'does not answer as the hub does', f'hf:{NAME}', SECRET)
    assert server.storage.asked == [('GET', '/listing', None)]


@pytest.mark.parametrize(
    ('status', 'token', 'match'),
    [
        (401, '', 'if the model is private, set HF_TOKEN to a token that may read it'),
        (401, SECRET, 'check HF_TOKEN, which is not accepted or may not read it'),
        (403, SECRET, f'accept the terms at http://.*/{NAME}, and set HF_TOKEN'),
        (404, '', 'check name and revision; a private model needs HF_TOKEN'),
        (404, SECRET, 'check name and revision$'),
        (410, '', 'check HF_ENDPOINT'),
    ],
)
@pytest.mark.parametrize('path', [LISTING, file_path('config.json'), file_path('vocab.json')])
def test_refusals_of_the_hub_end_at_once_and_say_what_to_do(server, fetch, folder, status, token, match, path):
    server.faults[path] = [status]
    refused(fetch, f'^{NAME}@main: the server answers {status} .*; {match}', f'hf:{NAME}', token)
    assert not folder.exists()


# A hub that is busy or broken


@pytest.mark.parametrize('path', [LISTING, file_path('config.json'), file_path('vocab.json')])
def test_a_busy_hub_is_given_the_time_it_asks_for(server, fetch, folder, pauses, path):
    def busy(handler):
        handler.answer(429, b'', {'Retry-After': '17'}, 0)

    server.faults[path] = [busy, 503]
    assert fetch()
    assert pauses == [17, 2]
    assert contents(folder) == {name: FILES[name] for name in NEEDED}


def test_the_time_may_be_given_as_a_date(server, fetch, pauses):
    def busy(handler):
        handler.answer(429, b'', {'Retry-After': formatdate(time.time() + 100, usegmt=True)}, 0)

    server.faults[LISTING] = [busy]
    fetch()
    assert 90 < pauses[0] <= 101


@pytest.mark.parametrize('wait', ['3600', '9' * 400])
def test_a_pause_that_is_too_long_is_not_waited_for(server, fetch, pauses, wait):
    server.faults[LISTING] = [lambda handler: handler.answer(429, b'', {'Retry-After': wait}, 0)]
    refused(fetch, 'answers 429 Too Many Requests and asks to wait (3600|1000000000) s; try again then')
    assert pauses == []


def test_a_hub_that_stays_busy_is_given_up(server, fetch, pauses):
    server.faults[LISTING] = [429] * ATTEMPTS
    refused(fetch, f'429 Too Many Requests, {ATTEMPTS} times in a row')
    assert pauses == [1, 2, 4, 8]


def test_weights_whose_connection_breaks_go_on_where_they_stopped(server, fetch, folder, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK', 1000)
    stored = f'/{sha256(FILES["model.safetensors"]).hexdigest()}'
    server.storage.faults[stored] = ['break', 'break']
    fetch()
    assert contents(folder) == {name: FILES[name] for name in NEEDED}
    assert [asked[1] is not None for asked in server.storage.requests] == [False, True, True]


def test_weights_with_another_hash_or_length_are_refused(server, fetch, folder):
    body = FILES['model.safetensors']
    path = f'/{sha256(body).hexdigest()}'
    for changed, match in ((body[::-1], 'has SHA-256 .*, expected'), (body + b'x', f'expected {len(body)}')):
        server.storage.files[path] = changed
        refused(fetch, match)
        assert not any(Path(folder, name).exists() for name in ('model.safetensors', 'config.json'))


def test_a_small_file_with_another_hash_is_refused(server, fetch, folder):
    server.faults[file_path('vocab.json')] = [
        lambda handler: handler.behave(),
        lambda handler: handler.send_whole(b'[]', {}),
    ]
    refused(fetch, r'vocab\.json has git hash .*, expected')
    assert not (folder / 'config.json').exists()


def test_endless_redirects_are_broken_off(server, fetch):
    path = file_path('vocab.json')
    server.faults[path] = [lambda handler: handler.answer(307, b'', {'Location': path}, 0)] * 10
    refused(fetch, 'is redirected to without end')
