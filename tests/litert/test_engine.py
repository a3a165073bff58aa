"""The LiteRT engine against the TensorFlow engine, the NumPy reference and the exact probabilities."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import quality
import reference_numpy
from example_models import HERE, REPOSITORY, TINY, as_params, full_logits, random_tokens, random_values, save
from running import INTERACTIVE, environment
from samples import CASES, assert_follow, draw_samples, settings

from gpt2 import drawing, sample
from gpt2.checkpoints import release as checkpoint
from gpt2.checkpoints.source import open_source
from gpt2.encoder import get_encoder
from gpt2.hparams import HParams, load_hparams
from gpt2.litert import engine as sample_litert
from gpt2.litert.export import PRECISIONS, exported_file
from gpt2.noise import noise_stream
from gpt2.system.tensorflow import tf

DRAWS = 20_000
SETTINGS = [
    {}, {'temperature': 0}, {'temperature': 1e-38}, {'top_k': 7}, {'top_k': 3_000_000_000}, {'top_p': 0.7},
    {'top_p': 0.8, 'temperature': 1.3, 'top_k': 20},
]  # fmt: skip


def both_engines(folder, hparams, params):
    path = exported_file(open_source(save(folder, hparams, params)), 'float32')
    return sample.Generator(hparams, params), sample_litert.Generator(path, hparams)


@pytest.fixture(scope='module')
def tiny(tmp_path_factory, tiny_params):
    """(TensorFlow's generator, LiteRT's) of one model."""
    return both_engines(tmp_path_factory.mktemp('tiny'), TINY, tiny_params)


@pytest.fixture(scope='module')
def bundled(tmp_path_factory):
    """A models folder with a copy of the bundled model, exported in each precision."""
    models = tmp_path_factory.mktemp('models')
    (models / '7M').mkdir()
    for path in (REPOSITORY / 'models' / '7M').iterdir():
        if path.suffix != '.tflite':
            (models / '7M' / path.name).symlink_to(path)
    for precision in PRECISIONS:
        exported_file(open_source(str(models / '7M')), precision)
    return models


@pytest.fixture(scope='module')
def small(bundled):
    """(TensorFlow's generator, LiteRT's) of the bundled model."""
    folder = str(bundled / '7M')
    hparams = load_hparams(f'{folder}/hparams.json')
    params = checkpoint.load_params(folder, hparams)
    path = exported_file(open_source(folder), 'float32')
    return sample.Generator(hparams, params), sample_litert.Generator(path, hparams)


def streams(size=DRAWS):
    """As many streams of noise, each of its own sample."""
    return (noise_stream(11, [1, 2, 3], number) for number in range(size))


@pytest.mark.parametrize(('logits', 'how'), CASES)
def test_draws_follow_the_exact_probabilities_and_are_those_of_tensorflow(logits, how):
    row = np.float32(logits)
    drawn = [drawing.draw(row, drawing.exponential_noise(stream, len(row)), **how) for stream in streams()]
    noise = np.stack([stream.standard_exponential(len(row)) for stream in streams()])
    assert_follow(drawn, reference_numpy.probabilities(logits, **how))
    temperature = tf.constant(how['temperature'])
    expected = sample.draw(row[None], noise.astype(np.float32), temperature, how['top_k'], how['top_p'])
    assert drawn == expected.numpy().tolist()


@pytest.mark.parametrize('scale', [0.01, 1, 3, 9])
@pytest.mark.parametrize('how', [{}, {'top_k': 40}, {'top_p': 0.9}, {'top_p': 0.999}, {'top_k': 3000, 'top_p': 0.6}])
def test_tokens_of_a_large_vocabulary_are_those_of_tensorflow(scale, how):
    random = np.random.default_rng(0)
    how = settings(temperature=0.9) | how
    for one, other in zip(streams(5), streams(5)):
        row = random.standard_normal(50257).astype(np.float32) * np.float32(scale)
        noise = one.standard_exponential([1, 50257]).astype(np.float32)
        expected = sample.draw(row[None], noise, tf.constant(0.9), how['top_k'], how['top_p'])
        assert drawing.draw(row, drawing.exponential_noise(other, 50257), **how) == expected.numpy()[0]


@pytest.mark.parametrize('p', [0.05, 0.3, 0.5, 0.77, 0.95, 0.999])
@pytest.mark.parametrize('scale', [1, 2, 3, 5, 9])
def test_top_p_keeps_what_the_reference_keeps_of_large_rows(scale, p):
    row = np.random.default_rng(0).standard_normal(50257).astype(np.float32) * scale
    expected = np.count_nonzero(reference_numpy.probabilities(row, top_p=p))
    # float32 sums move the edge of a large nucleus by a few tokens
    kept = np.count_nonzero(row >= drawing.top_p_edge(np.sort(row), p))
    assert kept == pytest.approx(expected, rel=2e-3, abs=1)


@pytest.mark.parametrize('k', [1, 2, 40, 50256])
def test_top_k_keeps_the_k_largest(k):
    row = np.random.default_rng(0).permutation(50257).astype(np.float32)
    assert drawing.top_k_edge(row, k) == 50257 - k


@pytest.mark.parametrize('how', SETTINGS)
@pytest.mark.parametrize('batch_size', [1, 4, 9])
def test_samples_are_those_of_tensorflow_whatever_the_batch(tiny, how, batch_size):
    numbers = list(range(1, 10))
    expected = draw_samples(tiny[0], [3, 1, 4], 37, numbers, 9, **how)
    assert draw_samples(tiny[1], [3, 1, 4], 37, numbers, batch_size, **how) == expected


@pytest.mark.parametrize('how', [{'top_k': 40}, {'top_p': 0.9}, {}])
def test_samples_of_the_bundled_model_are_those_of_tensorflow(small, how):
    context = list(range(100, 130))
    expected = draw_samples(small[0], context, 80, [1, 2, 3], 3, **how)
    assert draw_samples(small[1], context, 80, [1, 2, 3], 3, **how) == expected


def test_prompts_longer_than_a_block_and_a_cache_that_grows(tmp_path, monkeypatch):
    block = 64
    monkeypatch.setattr(sample_litert, 'BLOCK', block)
    hparams = HParams(n_vocab=61, n_ctx=400, n_embd=20, n_head=4, n_layer=2)
    generators = both_engines(tmp_path, hparams, as_params(random_values(hparams)))
    for n in (1, block - 1, block, block + 1, 2 * block, 3 * block + 7):
        context = np.random.default_rng(n).integers(61, size=n).tolist()
        expected, found = (draw_samples(generator, context, 401 - n, [1, 2], 2, top_k=5) for generator in generators)
        assert found == expected


def test_rows_with_long_prompts_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_litert, 'BLOCK', 64)
    hparams = HParams(n_vocab=61, n_ctx=200, n_embd=20, n_head=4, n_layer=2)
    generator = both_engines(tmp_path, hparams, as_params(random_values(hparams)))[1]
    contexts = random_tokens(hparams, 3, 100).tolist()
    together = np.stack(list(generator.generate(contexts, 90, numbers=[1, 1, 1], seed=5)), axis=1).tolist()
    assert together == [draw_samples(generator, context, 90, [1], 1)[0] for context in contexts]


def test_logits_equal_those_of_tensorflow(small):
    params = checkpoint.load_params(str(REPOSITORY / 'models' / '7M'), small[0].hparams)
    tokens = np.random.default_rng(0).integers(small[0].hparams.n_vocab, size=512).astype(np.int32)
    expected = full_logits(small[0].hparams, params, tokens[None])[0]
    np.testing.assert_allclose(quality.window_logits(small[1], tokens), expected, atol=1e-3)


def test_logits_equal_the_numpy_reference(tiny):
    tokens = random_tokens(TINY, 1, 40)[0]
    expected = reference_numpy.logits(random_values(TINY), TINY.n_head, TINY.n_layer, tokens.tolist())
    np.testing.assert_allclose(quality.window_logits(tiny[1], tokens), expected, atol=1e-3)


@pytest.mark.parametrize(
    ('precision', 'ratio', 'agreement', 'divergence'), [('int8', 0.01, 0.95, 0.003), ('int4', 0.02, 0.9, 0.012)]
)
def test_integers_keep_the_quality_of_the_bundled_model(bundled, precision, ratio, agreement, divergence):
    text = (HERE / 'held_out.txt').read_text(encoding='utf-8')
    folder = str(bundled / '7M')
    found = quality.compare(folder, quality.text_windows(folder, text), precision)
    assert found['tokens'] > 2000
    assert 1 - ratio < found['perplexity_ratio'] < 1 + ratio
    assert found['top_1_agreement'] > agreement
    assert found['mean_kl_nats'] < divergence


def test_the_window_holds_prompt_and_length_up_to_one_more_than_n_ctx(tiny):
    assert len(draw_samples(tiny[1], [1, 2], TINY.n_ctx - 1, [1], 1)[0]) == TINY.n_ctx - 1
    with pytest.raises(ValueError, match='2 prompt tokens and length 40 exceed the limit of 41'):
        draw_samples(tiny[1], [1, 2], TINY.n_ctx, [1], 1)


def test_a_temperature_that_makes_quotients_overflow_finds_the_largest_logit():
    logits, temperature = np.array([100, 300, 200], np.float32), 1.2e-38
    noise = np.array([1, 5, 0.1], np.float32)
    assert drawing.draw(logits, noise, temperature, 0, 1) == 1
    drawn = sample.draw(logits[None], noise[None], tf.constant(temperature), 0, 1)
    assert drawn.numpy().tolist() == [1]


@pytest.mark.parametrize('says', ['', 'XNNPack delegate failed to reshape runtime'])
def test_where_there_was_no_memory_for_one_the_others_go_on(tiny, monkeypatch, says):
    generator, how = tiny[1], {'numbers': [0], 'seed': 3}
    expected = np.concatenate(list(generator.generate([[1, 2, 3]], 8, **how)))
    begun = generator.generate([[1, 2, 3]], 8, **how)
    found = [next(begun) for _ in range(4)]

    def refuse():
        raise RuntimeError(says)

    for drawn in (0, 1):  # for the prompt, for a token
        other = generator.generate([[4, 5], [6]], 3, numbers=[0, 0], seed=1)
        for _ in range(drawn):
            next(other)
        monkeypatch.setattr(generator.interpreter, 'allocate_tensors', refuse)
        with pytest.raises(MemoryError, match='LiteRT finds no memory'):
            next(other)
    assert np.concatenate([*found, *begun]).tolist() == expected.tolist()


def test_abandoned_samples_leave_no_trace(tiny):
    expected = draw_samples(tiny[1], [3, 1, 4], 12, [1, 2], 2)
    steps = tiny[1].generate([[9, 9]], 30, numbers=[1], seed=0)
    next(steps), next(steps)
    assert draw_samples(tiny[1], [3, 1, 4], 12, [1, 2], 2) == expected


def run_interactive(models, folder, *flags):
    """Standard output, standard error and status of the script, with modules of `folder` before all others."""
    command = [sys.executable, INTERACTIVE, '--model_name', '7M', '--models_dir', models, '--engine', 'litert', *flags]
    environment = os.environ | {'PYTHONPATH': str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize('precision', ['float32', 'int8'])
def test_an_exported_model_runs_without_tensorflow_and_quietly(bundled, tmp_path, precision):
    (tmp_path / 'tensorflow.py').write_text('raise ImportError("TensorFlow was imported")')
    flags = ['--prompt', 'Once upon a time', '--length', '12', '--seed', '3', '--precision', precision, '--json']
    out, err, status = run_interactive(bundled, tmp_path, *flags)
    assert (err, status) == ('', 0)
    folder = str(bundled / '7M')
    hparams = load_hparams(f'{folder}/hparams.json')
    generator = sample_litert.Generator(exported_file(open_source(folder), precision), hparams)
    context = get_encoder('7M', str(bundled)).encode('Once upon a time')
    assert f'"tokens": {draw_samples(generator, context, 12, [1], 1, seed=3)[0]}' in out


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such names')
def test_a_folder_whose_name_is_no_utf8_can_be_sampled_from(tmp_path, tiny, tiny_params):
    folder = tmp_path / os.fsdecode(b'caf\xe9')
    folder.mkdir()
    path = exported_file(open_source(save(folder, TINY, tiny_params)), 'float32')
    assert path.startswith(str(folder))
    generator = sample_litert.Generator(path, TINY)
    assert draw_samples(generator, [3, 1, 4], 12, [1], 1) == draw_samples(tiny[1], [3, 1, 4], 12, [1], 1)


def test_logits_stay_what_they_were(tiny):
    rows = tiny[1].start([[3, 1, 4]], numbers=[1], seed=0, sampling=sample.Sampling())
    found = []
    for token in (1, 5, 9):
        logits = rows.next_logits()
        found.append((logits, logits.copy()))
        rows.take([token])
    rows.close()
    for logits, copy in found:
        np.testing.assert_array_equal(logits, copy)
    assert not np.array_equal(found[1][1], found[2][1])


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is given back on Linux alone')
def test_once_packed_the_weights_are_in_memory_once(bundled):
    hparams = load_hparams(bundled / '7M' / 'hparams.json')
    path = os.path.realpath(exported_file(open_source(str(bundled / '7M')), 'float32'))
    generator = sample_litert.Generator(path, hparams)
    draw_samples(generator, [1, 2, 3], 5, [1], 1)
    smaps = Path('/proc/self/smaps').read_text(errors='surrogateescape')  # names of other tests' files are not UTF-8
    mappings = re.split(r'^(?=[0-9a-f]+-[0-9a-f]+ )', smaps, flags=re.MULTILINE)
    resident = [int(re.search(r'Rss: +(\d+) kB', mapping).group(1)) for mapping in mappings if f' {path}\n' in mapping]
    assert len(resident) >= 2  # LiteRT's, and what tokens are embedded with
    assert sum(resident) * 1024 < os.path.getsize(path) / 4  # the rows of used tokens, with what is read around them


def test_without_the_package_one_line_says_how_to_install_it(bundled, tmp_path):
    (tmp_path / 'ai_edge_litert.py').write_text('raise ImportError("No module named ai_edge_litert")')
    out, err, status = run_interactive(bundled, tmp_path, '--prompt', 'a', '--length', '1')
    assert (out, len(err.splitlines()), status) == ('', 1, 1)
    assert 'pip install ai-edge-litert' in err


def test_a_first_token_needs_no_more_than_it_must(bundled):
    """What is said to a terminal, written or locked comes later, and so does what it needs."""
    later = ('tensorflow', 'requests', 'matplotlib', 'tqdm', 'filelock', 'numpy.ma')
    flags = ['--models_dir', str(bundled), '--prompt', 'a b', '--length', '2', '--engine', 'litert']
    code = f"""if True:
        import sys
        from gpt2.commands.main import COMMANDS, run_command
        try:
            run_command(COMMANDS['complete'], 'gpt2', {flags!r}, str)
        finally:
            print('loaded:', sorted({set(later)} & set(sys.modules)))
    """
    command, places = [sys.executable, '-c', code], environment(PYTHONPATH=str(REPOSITORY / 'src'))
    subprocess.run(command, env=places, capture_output=True, check=True)  # exports the model
    done = subprocess.run(command, env=places, capture_output=True, text=True, check=True)
    assert done.stdout.endswith('loaded: []\n')
