import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from example_models import HERE, RELEASE, REPOSITORY, TINY, as_params, random_values, save

from gpt2 import model
from gpt2.checkpoints import release as checkpoint
from gpt2.checkpoints.source import open_source
from gpt2.commands import train
from gpt2.encoder import get_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import load_hparams
from gpt2.system.tensorflow import tf
from gpt2.training import loop
from gpt2.training import optimizer as optimizers
from gpt2.training.folder import prepare_folder, starting_point

SCRIPT = REPOSITORY / 'src' / 'train.py'
TEXT = 'The cat sat on the mat. A dog ran after the cat, and the cat ran up a tall tree. ' * 60


def settings(**changed):
    values = {
        'steps': 20, 'batch_size': 2, 'window': 8, 'learning_rate': 0.01, 'warmup': 5, 'weight_decay': 0.1,
        'held_out': 0.0, 'seed': 1,
    }  # fmt: skip
    return loop.Settings(**values | changed)


def fresh(seed=0):
    params = as_params(random_values(TINY, seed))
    shapes = optimizers.optimizer_shapes({name: value.shape for name, value in model.flatten(params).items()})
    return params, {name: tf.Variable(tf.zeros(shape)) for name, shape in shapes.items()}


def test_learning_rate_warms_up_and_falls_to_a_tenth():
    plan = settings(steps=105, warmup=5, learning_rate=1.0)
    rates = [optimizers.learning_rate(plan, step) for step in range(106)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[55] == pytest.approx(0.55)
    assert rates[105] == pytest.approx(0.1)
    assert rates[5:] == sorted(rates[5:], reverse=True)


def test_adamw_equals_arithmetic_by_hand():
    """Three steps on a matrix and a vector against the paper's algorithm in NumPy."""
    random = np.random.default_rng(0)
    for shape, decay in (([3, 2], 0.1), ([4], 0.0)):
        start, gradients = random.standard_normal(shape), random.standard_normal([3, *shape])
        variable, m, v = (tf.Variable(tf.cast(value, tf.float32)) for value in (start, start * 0, start * 0))
        expected, mean, square = start.copy(), 0, 0
        for step, gradient in enumerate(gradients, start=1):
            optimizers.adamw(variable, tf.cast(gradient, tf.float32), m, v, 0.01, float(step), 0.1)
            mean, square = 0.9 * mean + 0.1 * gradient, 0.95 * square + 0.05 * gradient**2
            adam = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
            expected = expected - 0.01 * (adam + decay * expected)
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)


def test_gradients_are_clipped_to_norm_1():
    """With a huge loss gradient, the first moments are those of a gradient of norm 1."""
    params, optimizer = fresh()
    params['model']['ln_f']['g'].assign(tf.fill([TINY.n_embd], 1000.0))
    loop.make_train_step(TINY, params, optimizer, settings())(np.arange(18).reshape(2, 9), np.float32(0.01))
    moments = [value.numpy().ravel() for name, value in optimizer.items() if name.endswith('adam_m')]
    assert np.linalg.norm(np.concatenate(moments)) == pytest.approx(0.1, rel=1e-4)


def test_gradients_reach_every_variable():
    params, optimizer = fresh()
    loop.make_train_step(TINY, params, optimizer, settings())(np.arange(18).reshape(2, 9), np.float32(0.01))
    assert all(np.abs(value.numpy()).max() > 0 for name, value in optimizer.items())


def test_unigram_loss_by_hand():
    rows = np.array([[0, 1, 1], [0, 0, 2]])
    expected = -np.mean(np.log(np.array([3, 3, 4, 1]) / 9))
    assert loop.unigram_loss(np.array([0, 0, 0, 1, 1]), rows, 4) == pytest.approx(expected, rel=1e-6)


def test_text_bytes_count_targets_and_not_the_end_of_text():
    encoder = get_encoder('124M', str(RELEASE))
    ids = encoder.encode('Grüße')
    assert loop.text_bytes(encoder, np.array([[50256, *ids, 50256]])) == len('Grüße'.encode())


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


def test_training_lowers_the_loss_and_starts_from_a_checkpoint():
    params, optimizer = fresh()
    step = loop.make_train_step(TINY, params, optimizer, settings())
    batch = np.random.default_rng(0).integers(61, size=(2, 9)).astype(np.int32)
    found = [float(step(batch, np.float32(0.01))) for _ in range(30)]
    assert found[0] == pytest.approx(float(model.loss(TINY, fresh()[0], batch)), rel=1e-5)
    assert found[-1] < found[0] / 3


def test_starting_point_takes_the_weights_of_another_model(tmp_path):
    source = open_source(save(tmp_path, TINY, as_params(random_values(TINY, seed=9))))
    params, optimizer = starting_point(str(tmp_path / 'new'), source, TINY, seed=0)
    found = {name: variable.numpy() for name, variable in model.flatten(params).items()}
    assert all((found[name] == value).all() for name, value in random_values(TINY, seed=9).items())
    assert not any(value.numpy().any() for value in optimizer.values())


def test_training_starts_from_a_hugging_face_folder_as_it_is(tmp_path):
    folder = tmp_path / 'mine'
    source = prepare_folder(str(folder), str(HERE / 'huggingface' / 'tiny'), None, {}, str(tmp_path))
    assert source.format == 'huggingface'
    encoder = get_encoder('mine', str(tmp_path))
    assert encoder.added == source.encoder.added
    assert load_hparams(str(folder / 'hparams.json')) == source.hparams
    params, _ = starting_point(str(folder), source, source.hparams, seed=0)
    checkpoint.save(str(folder), 'model-1', source.hparams, params)
    assert open_source(str(folder)).digest() == source.digest()


@pytest.mark.parametrize(
    ('flags', 'part'),
    [
        ({}, '--model_name'),
        ({'model_name': 'x', 'steps': '0'}, '--steps is 0'),
        ({'model_name': 'x', 'held_out': '1'}, '--held_out is 1'),
        ({'model_name': 'x', 'learning_rate': 'fast'}, "--learning_rate is 'fast'"),
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
