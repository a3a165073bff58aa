import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from example_models import HERE, REPOSITORY
from running import help_names_every_flag_and_no_other

from gpt2.checkpoints.source import open_source
from gpt2.commands import train
from gpt2.errors import Error, UsageError

HUGGING_FACE = HERE / 'huggingface' / 'tiny'
SCRIPT = REPOSITORY / 'src' / 'train.py'
TEXT = 'The cat sat on the mat. A dog ran after the cat, and the cat ran up a tall tree. ' * 60


def make_corpus(folder):
    for name in 'abc':
        (folder / f'{name}.txt').write_text(f'{name} ' + TEXT, encoding='utf-8')
    return folder


def command(tmp_path, name, *flags):
    where = [tmp_path / 'text', '--model_name', name, '--models_dir', tmp_path / 'models']
    shape = {'n_embd': 16, 'n_head': 2, 'n_layer': 1, 'n_ctx': 16, 'batch_size': 2, 'steps': 12, 'every': 1}
    shape_flags = [f'--{flag}={value}' for flag, value in shape.items()]
    return [*map(str, [sys.executable, SCRIPT, *where]), *shape_flags, *flags]


def run_training(tmp_path, name, *flags):
    return subprocess.run(command(tmp_path, name, *flags), capture_output=True, text=True)


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / 'text').mkdir()
    make_corpus(tmp_path / 'text')
    return tmp_path


def losses(folder):
    return [json.loads(line)['loss'] for line in (folder / 'training.jsonl').read_text().splitlines()]


def test_an_interrupted_run_goes_on_with_the_same_losses(corpus):
    """One run without a break; one stopped by SIGINT in the middle and started again."""
    whole, broken = corpus / 'models' / 'whole', corpus / 'models' / 'broken'
    process = run_training(corpus, 'whole')
    assert process.returncode == 0 and process.stdout == ''
    assert 'nats a token' in process.stderr

    with subprocess.Popen(command(corpus, 'broken')) as process:
        while not (broken / 'training.jsonl').exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    saved = json.loads((broken / 'training.jsonl').read_text().splitlines()[-1])['step']
    assert 0 < saved < 12 and (broken / f'model-{saved}.index').exists()
    assert run_training(corpus, 'broken').returncode == 0
    assert losses(broken) == losses(whole) and len(losses(whole)) == 12
    names = {path.name for path in broken.iterdir() if not path.name.startswith('t')}
    released = {'checkpoint', 'encoder.json', 'hparams.json', 'vocab.bpe', 'model.ckpt.index', 'model.ckpt.meta'}
    assert released | {'model.ckpt.data-00000-of-00001'} == {name for name in names if 'optimizer' not in name}

    process = run_training(corpus, 'broken', '--seed', '2')
    assert process.returncode == 2 and 'was trained with seed 0, now it is 2' in process.stderr
    assert process.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('flags', 'part'),
    [
        ({}, '--model_name'),
        ({'model_name': 'x', 'steps': '0'}, '--steps is 0'),
        ({'model_name': 'x', 'held_out': '1'}, '--held_out is 1'),
        ({'model_name': 'x', 'learning_rate': 'fast'}, "--learning_rate is 'fast'"),
        ({'model_name': 'x', 'learning_rate': '0'}, '--learning_rate is 0'),
        ({'model_name': 'x', 'learning_rate': 0}, '--learning_rate is 0'),
        ({'model_name': '../x'}, "--model_name is '../x'"),
        ({'model_name': 'x', 'window': '600'}, '--window is 600, the model allows at most n_ctx 512'),
        ({'model_name': 'x', 'init_from': 'nothing'}, 'no model nothing in'),
    ],
)
def test_wrong_flags_are_refused(corpus, flags, part):
    with pytest.raises(UsageError) as caught:
        train.train_model(str(corpus / 'text'), models_dir=str(corpus / 'models'), **flags)
    assert part in str(caught.value) and '\n' not in str(caught.value)


def test_a_model_that_was_not_trained_here_is_not_overwritten(corpus):
    folder = corpus / 'models' / '124M'
    folder.mkdir(parents=True)
    (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt"\n')
    with pytest.raises(Error, match='choose another --model_name'):
        train.train_model(str(corpus / 'text'), models_dir=str(corpus / 'models'), model_name='124M')
    assert [path.name for path in folder.iterdir()] == ['checkpoint']


def test_the_help_names_every_flag():
    help_names_every_flag_and_no_other(train.train_model)


SHAPE = {'n_embd': 16, 'n_head': 2, 'n_layer': 1, 'n_ctx': 16, 'batch_size': 2}


def test_training_works_from_a_thread(corpus):
    found = []

    def work():
        where = {'model_name': 'x', 'models_dir': str(corpus / 'models')}
        found.append(train.train_model(str(corpus / 'text'), **where, **SHAPE, steps=2))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None] and (corpus / 'models' / 'x' / 'model.ckpt.index').exists()


def test_training_starts_from_a_hugging_face_folder(corpus):
    where = {'model_name': 'x', 'models_dir': str(corpus / 'models'), 'init_from': str(HUGGING_FACE)}
    train.train_model(str(corpus / 'text'), **where, steps=1, batch_size=1, window=8, learning_rate=1e-9)
    first, trained = open_source(str(HUGGING_FACE)), open_source(str(corpus / 'models' / 'x'))
    assert trained.format == 'release' and trained.hparams == first.hparams
    assert trained.encoder.encode('The cat') == first.encoder.encode('The cat')
    assert trained.encoder.end_of_text == first.encoder.end_of_text
    for name, value in first.values():
        np.testing.assert_allclose(trained.value(name), value, atol=1e-7)
