"""Models of the hub, from the command line to a sample."""

import json
from pathlib import Path

import pytest
from example_models import BUNDLED, REPOSITORY
from hub_server import COMMIT, HubServer
from running import INTERACTIVE, objects, run

from gpt2.checkpoints import bundle
from gpt2.checkpoints.convert import convert

SCRIPT = REPOSITORY / 'download_model.py'
NAME = 'someone/seven'
SECRET = 'hf_SecretOfTheUser'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """The bundled model as the hub would have it; a dict from name to bytes."""
    folder = tmp_path_factory.mktemp('source') / 'seven'
    convert(bundle.read(str(BUNDLED)), str(folder), 'huggingface')
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(files):
    with HubServer({NAME: {COMMIT: files}, 'distilbert/distilgpt2': {COMMIT: files}}) as server:
        yield server


@pytest.fixture
def download(server, tmp_path, without_tensorflow):
    """Run the script where importing TensorFlow fails: (standard output, standard error, status)."""

    def start(*arguments, **changes):
        settings = {'HF_ENDPOINT': server.url, 'HF_TOKEN': ''} | without_tensorflow | changes
        return run(SCRIPT, *arguments, '--models_dir', tmp_path, cwd=tmp_path, **settings)

    return start


def test_from_the_hub_to_a_sample(download, server, tmp_path):
    server.token = SECRET
    out, err, status = download(f'hf:{NAME}', HF_TOKEN=SECRET)
    assert (out, err, status) == (f'seven is in {tmp_path}/seven\n', '', 0)
    assert SECRET not in ''.join(path.read_text(errors='replace') for path in (tmp_path / 'seven').glob('*.json'))
    out, err, status = download(f'hf:{NAME}')
    assert (out, err, status) == (f'seven is in {tmp_path}/seven and whole; nothing was downloaded\n', '', 0)
    flags = ('--length', '8', '--json', '--seed', '3', '--prompt', 'Hello, world')
    samples = [
        objects(run(INTERACTIVE, '--model_name', model, '--models_dir', folder, *flags, cwd=tmp_path)[0])
        for model, folder in (('seven', tmp_path), ('7M', REPOSITORY / 'models'))
    ]
    assert samples[0][0]['tokens'] == samples[1][0]['tokens']
    assert len(samples[0][0]['tokens']) == 8


def test_known_names_are_of_the_hub_unless_a_mirror_is_named(download, server, tmp_path):
    out, err, status = download('distilgpt2')
    assert (out, err, status) == (f'distilgpt2 is in {tmp_path}/distilgpt2\n', '', 0)
    assert json.loads(Path(tmp_path, 'distilgpt2', 'hub.json').read_bytes())['commit'] == COMMIT
    server.asked.clear()
    out, err, status = download('DistilGPT2', '--base_url', f'{server.url}/someone/mirror/resolve')
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert [path for _, path, _ in server.asked] == ['/someone/mirror/resolve/DistilGPT2/hparams.json']


@pytest.mark.parametrize(
    ('arguments', 'changes', 'message'),
    [
        (('hf:seven',), {}, "'hf:seven' is no model of the hub, expected hf:OWNER/NAME"),
        (('seven',), {}, 'no model seven was released'),
        (('seven',), {}, 'a model of the Hugging Face hub is hf:OWNER/NAME'),
        ((f'hf:{NAME}',), {'HF_ENDPOINT': 'ftp://here'}, "HF_ENDPOINT is 'ftp://here'"),
        ((f'hf:{NAME}',), {'HF_TOKEN': SECRET + ' x'}, 'HF_TOKEN holds characters'),
        ((f'hf:{NAME}', 'hf:nonsense'), {}, "'hf:nonsense' is no model of the hub"),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_line_before_anything_is_asked(
    download, server, arguments, changes, message
):
    out, err, status = download(*arguments, **changes)
    assert (out, len(err.splitlines()), status) == ('', 1, 2)
    assert message in err
    assert SECRET not in err
    assert server.asked == []


def test_what_is_no_gpt2_and_a_hub_that_is_not_there_end_in_one_line(download, server, files, tmp_path):
    server.repositories[NAME][COMMIT] = files | {'config.json': b'{"model_type": "llama"}'}
    out, err, status = download(f'hf:{NAME}')
    assert (out, status) == ('', 1)
    assert err == f"download_model.py: {NAME}/config.json: model_type is 'llama': not a GPT-2\n"
    out, err, status = download(f'hf:{NAME}', HF_ENDPOINT='http://127.0.0.1:9', HF_TOKEN=SECRET)
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert 'or name another hub by HF_ENDPOINT' in err
    assert SECRET not in err
    assert not (tmp_path / 'seven').exists()
