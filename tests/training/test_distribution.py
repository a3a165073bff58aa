"""Training that several devices and workers share."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from example_models import MODELS, REPOSITORY
from kill_workers import killed, run_workers, started, worker_ids
from running import PATIENCE, environment
from training_runs import SMALL, write_small

from gpt2.checkpoints import release
from gpt2.checkpoints.source import open_source
from gpt2.commands import train
from gpt2.encoder import get_encoder
from gpt2.errors import Error, UsageError
from gpt2.training import distribution
from gpt2.training.arrival import arrive
from gpt2.training.batches import Batch
from gpt2.training.distribution import ALONE, Cluster, Team, check_shareable, cluster, divisible
from gpt2.training.launcher import free_ports

FLAGS = {'n_embd': 8, 'n_head': 2, 'n_layer': 1, 'n_ctx': 32, 'batch_size': 6, 'every': 8, 'log_every': 1, 'pack': True}


def config(kind='worker', index=0, **cluster):
    return json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}})


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (None, None),
        ('', None),
        (config(worker=['a:1']), None),
        (config(worker=['a:1', 'b:1'], index=1), Cluster({'worker': ['a:1', 'b:1']}, 1)),
        (
            config(worker=['a:1', 'b:1'], chief=['c:1'], index=1),
            Cluster({'chief': ['c:1'], 'worker': ['a:1', 'b:1']}, 2),
        ),
        (config('chief', worker=['a:1'], chief=['c:1']), Cluster({'chief': ['c:1'], 'worker': ['a:1']}, 0)),
    ],
)
def test_the_cluster_that_tf_config_names(text, expected):
    assert cluster(text) == expected


@pytest.mark.parametrize(
    'text',
    [
        '{', '[]', '{}', config(worker=['a:1', 'b:1'], index=2), config('chief', worker=['a:1', 'b:1']),
        config(worker=['a:1', 'b']), config(worker=['a:1', 'b:c']),
    ],
)  # fmt: skip
def test_a_tf_config_that_names_no_cluster_is_refused(text):
    with pytest.raises(UsageError, match=r'TF_CONFIG is .*, expected JSON as') as caught:
        cluster(text)
    assert '\n' not in str(caught.value)


def test_other_kinds_of_tasks_are_refused():
    with pytest.raises(UsageError, match='of the kind ps, expected chief and worker alone'):
        cluster(config(worker=['a:1'], ps=['b:1']))


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    check_shareable({'batch_size': 6}, 3)
    with pytest.raises(UsageError, match='--batch_size is 4, which 3 devices cannot share evenly; give a mul'):
        check_shareable({'batch_size': 4}, 3)


@pytest.mark.parametrize('flag', [{'precision': 'float16'}, {'jit_compile': True}])
def test_what_devices_cannot_share_is_refused_by_name(flag):
    check_shareable({'batch_size': 6} | flag, 1)
    [(name, value)] = flag.items()
    with pytest.raises(UsageError, match=f'--{name} is {value}, which needs a single device, and there are 3'):
        check_shareable({'batch_size': 6} | flag, 3)


def test_a_batch_is_filled_with_what_has_no_weight():
    batch = Batch(np.arange(15).reshape(5, 3), np.ones([5, 2], np.float32), np.zeros([5, 2], np.int32))
    assert divisible(batch, 5) is batch
    filled = divisible(batch, 3)
    assert [part.shape[0] for part in filled] == [6, 6, 6]
    assert filled.weights.sum() == 10 and (filled.rows(slice(0, 5)).tokens == batch.tokens).all()


def test_one_replica_alone_changes_nothing():
    parts = [np.ones(3)]
    assert ALONE.share(parts)[0] is parts[0] and ALONE.sum(parts) is parts and ALONE.first(parts) is parts
    assert ALONE.each(len) is len and ALONE.agreed([15], [2, 15]) == [15] and ALONE.chief


class UnavailableError(Exception):
    """As TensorFlow's is called."""


def test_the_loss_of_a_worker_is_one_line():
    with pytest.raises(Error, match=r'another worker has ended .* goes on'), distribution.losses_named(Team(workers=2)):
        raise UnavailableError
    with pytest.raises(UnavailableError), distribution.losses_named(ALONE):
        raise UnavailableError
    with pytest.raises(MemoryError), distribution.losses_named(Team(workers=2)):
        raise MemoryError


def test_a_wait_without_end_is_broken_off(monkeypatch):
    broken_off = threading.Event()
    monkeypatch.setattr(distribution, 'break_off', broken_off.set)
    watchdog = distribution.Watchdog(0.01)
    watchdog.sleep()
    watchdog.wake()
    assert broken_off.wait(PATIENCE)
    other = distribution.Watchdog(3600)
    other.wake()
    other.sleep()
    assert other.timer.finished.is_set()


def test_more_workers_than_the_batch_has_windows_are_refused_before_they_start(corpus, monkeypatch):
    monkeypatch.setattr(train, 'launch', None)
    with pytest.raises(UsageError, match='--batch_size is 6, which 4 devices cannot share'):
        train.train_model(str(corpus / 'text.jsonl'), model_name='x', models_dir=str(corpus), workers=4, **FLAGS)
    with pytest.raises(Error, match='no text file at nothing'):
        train.train_model('nothing', model_name='x', models_dir=str(corpus), workers=3, **FLAGS)
    assert not (corpus / 'x').exists()


def test_a_worker_that_does_not_see_the_chief_s_files_says_so(corpus):
    from gpt2.training.data import Reading
    from gpt2.training.tokens import existing_token_file

    encoder = get_encoder('7M', str(MODELS))
    with pytest.raises(Error, match=r'is not there, which the first worker has made; .* on a disk that they share'):
        existing_token_file([str(corpus / 'text.jsonl')], Reading(None, False), encoder, str(corpus))


# Of one set of texts: uneven completions, so that replicas have different numbers of targets.


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('corpus')
    rng = random.Random(0)
    words = ['a', 'cat', 'sat', 'on', 'the', 'mat']
    rows = [{'prompt': f'Say {n} ', 'completion': ' '.join(rng.choices(words, k=n % 17 + 1))} for n in range(300)]
    (folder / 'text.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    return folder


def command(corpus, name, **flags):
    """train.py with --workers and others, as words."""
    given = FLAGS | {'model_name': name, 'models_dir': corpus, 'steps': 24} | flags
    return [str(REPOSITORY / 'src' / 'train.py'), str(corpus / 'text.jsonl'), *(f'--{k}={v}' for k, v in given.items())]


def entries(folder):
    """Of training.jsonl, but for what depends on the machine."""
    lines = [json.loads(line) for line in (folder / 'training.jsonl').read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != 'tokens_per_second'} for line in lines]


def weights(folder):
    return dict(open_source(str(folder)).values())


def same_run(folder, other, steps=24):
    """Whether a run has the other's losses, norms and weights, within float error."""
    found, expected = entries(folder), entries(other)
    assert len(found) == len(expected) == steps
    assert all(line == pytest.approx(other, rel=1e-4) for line, other in zip(found, expected))
    for name, value in weights(other).items():
        np.testing.assert_allclose(weights(folder)[name], value, atol=2e-5, err_msg=name)


@pytest.fixture(scope='module', autouse=True)
def no_graphs():
    """No .meta files of runs in this process: each takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(release, 'write_meta_graph', lambda path, _: open(path, 'w').close())
        yield


@pytest.fixture(scope='module')
def one(corpus):
    train.train_model(str(corpus / 'text.jsonl'), model_name='one', models_dir=str(corpus), steps=24, **FLAGS)
    return corpus / 'one'


@pytest.fixture(scope='module')
def two(corpus):
    said = run_workers(command(corpus, 'two', workers=2))
    assert said.returncode == 0, said.stderr
    lines = said.stderr.splitlines()
    assert said.stdout == '' and lines[0] == 'waiting for all 2 workers' and len(lines) == 6 + 24 + 3
    return corpus / 'two'


@pytest.mark.slow
def test_two_workers_are_as_one(one, two):
    same_run(two, one)


@pytest.mark.slow
@pytest.mark.workers
def test_workers_that_are_killed_go_on_to_the_same_weights(corpus, two):
    """Bit for bit. The full run of ten kills is kill_workers.py."""
    assert killed(command(corpus, 'killed', workers=2), corpus / 'killed', kills=2, seed=1)
    assert entries(corpus / 'killed') == entries(two)
    assert all((weights(corpus / 'killed')[name] == value).all() for name, value in weights(two).items())


@pytest.mark.slow
@pytest.mark.workers
def test_three_workers_stop_together_and_one_goes_on(corpus, one):
    """SIGTERM comes to the last of them alone."""
    folder = corpus / 'three'
    with started(command(corpus, 'three', workers=3, every=100)) as process:
        while not (folder / 'training.jsonl').exists() or len(entries(folder)) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        os.kill(worker_ids(process)[-1], signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 143 and 'The same command goes on from there' in said.splitlines()[-1], said
    [saved] = folder.glob('model-*.meta')
    assert saved.stem == f'model-{entries(folder)[-1]["step"]}'
    train.train_model(str(corpus / 'text.jsonl'), model_name='three', models_dir=str(corpus), **FLAGS)
    found, expected = entries(folder), entries(one)
    assert [line['loss'] for line in found] == pytest.approx([line['loss'] for line in expected], rel=1e-4)


# Workers that do not go on. The first words: seconds of heartbeats, of connecting and of a stall; whether it hangs.
IMPATIENT = """
import sys, time
from gpt2.commands.flags import run
from gpt2.commands.train import train_model
from gpt2.training import distribution
from gpt2.training.arrival import arrive
from gpt2.training.batches import Batches
distribution.HEARTBEAT, distribution.CONNECTING, distribution.STALL = map(int, sys.argv.pop(1).split(','))
hangs, batch = sys.argv.pop(1) == 'hangs', Batches.batch
Batches.batch = lambda self, step: time.sleep(1000) if hangs and step == 3 else batch(self, step)
run(train_model)
"""


def impatient(corpus, name, index, addresses, seconds, hangs=False):
    words = [seconds, 'hangs' if hangs else 'goes on', *command(corpus, name, steps=10**6, every=10**6)[1:]]
    where = environment(PYTHONPATH=str(REPOSITORY / 'src'), TF_CONFIG=config(index=index, worker=addresses))
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    return subprocess.Popen([sys.executable, '-c', IMPATIENT, *words], env=where, **pipes)


def local_addresses():
    return [f'127.0.0.1:{port}' for port in free_ports(2)]


@pytest.mark.slow
def test_a_worker_that_comes_and_does_not_connect_is_not_waited_for_without_end(corpus):
    """What has it end is no thread of Python's, all of which TensorFlow keeps waiting."""
    addresses = local_addresses()
    other = threading.Thread(target=arrive, args=[addresses, 1])
    other.start()
    with impatient(corpus, 'alone', 0, addresses, '30,2,3600') as process:
        said = process.communicate(timeout=PATIENCE)[1]
    other.join()
    assert process.returncode == 1 and said.splitlines() == [
        'waiting for all 2 workers',
        'all 2 are there; should they not be connected in 2 s, this ends with status 1',
    ]
    assert not (corpus / 'alone').exists()


@pytest.mark.slow
@pytest.mark.workers
@pytest.mark.parametrize('how', ['stopped', 'hanging'])
def test_a_worker_that_does_not_go_on_is_not_waited_for_without_end(corpus, how):
    """A process that is stopped sends no heartbeats; one that hangs in its own code does."""
    addresses, seconds = local_addresses(), '3600,300,2' if how == 'hanging' else '3,300,3600'
    with (
        impatient(corpus, how, 0, addresses, seconds) as chief,
        impatient(corpus, how, 1, addresses, seconds, hangs=how == 'hanging') as other,
    ):
        try:
            while how == 'stopped' and (not (corpus / how / 'training.jsonl').exists() or not entries(corpus / how)):
                assert chief.poll() is None, chief.stderr.read()
                time.sleep(0.02)
            if how == 'stopped':
                other.send_signal(signal.SIGSTOP)
            said = chief.communicate(timeout=PATIENCE)[1]
        finally:
            other.kill()
            chief.kill()
    assert chief.returncode == 1 and 'Traceback' not in said, said
    assert 'another worker has ended or cannot be reached; the same command' in said.splitlines()[-1]


CARDS = """
import functools, json, sys
from gpt2.system.tensorflow import tf
from gpt2.training import distribution, run
from gpt2.commands.train import train_model
[processor] = tf.config.list_physical_devices('CPU')
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from gpt2.checkpoints import release
distribution.card_files = lambda: 2
distribution.cards = lambda: ['CPU:0', 'CPU:1']
release.write_meta_graph = lambda path, _: open(path, 'w').close()  # it takes long
run.assembled = functools.cache(run.assembled)  # two strategies of one process would wait for each other
for text, flags in json.loads(sys.argv[1]):
    train_model(text, **flags)
"""
# What devices share, by the name of the run.
SHARED = {
    'plain': {'steps': 24},
    'adapters': {'steps': 3, 'init_from': 'base', 'lora_rank': 2, 'accumulate': 2, 'held_out': 0},
    'student': {'steps': 3, 'teacher': 'base', 'freeze': 'embeddings', 'held_out': 0},
}


def shared_run(corpus, kind, name):
    """The text and flags of a run of SHARED."""
    shape = ('n_embd', 'n_head', 'n_layer', 'n_ctx')
    given = {flag: value for flag, value in FLAGS.items() if kind == 'plain' or flag not in shape}
    return str(corpus / 'text.jsonl'), given | SHARED[kind] | {'model_name': name, 'models_dir': str(corpus)}


@pytest.fixture(scope='module')
def cards(corpus):
    """What is said as each of SHARED is trained by two devices, which are both the processor."""
    write_small(corpus / 'base', get_encoder('7M', str(MODELS)), hparams=dataclasses.replace(SMALL, n_layer=2))
    runs = json.dumps([shared_run(corpus, kind, f'{kind}-of-two') for kind in SHARED])
    path = os.pathsep.join(str(REPOSITORY / name) for name in ('src', 'tests', 'tests/training'))
    done = subprocess.run(
        [sys.executable, '-c', CARDS, runs], env=environment(PYTHONPATH=path),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_two_cards_are_as_one(cards, corpus, one):
    assert cards.count('on each of 2 devices') == len(SHARED)
    same_run(corpus / 'plain-of-two', one)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['adapters', 'student'])
def test_two_cards_share_what_one_can_do(cards, corpus, kind):
    text, flags = shared_run(corpus, kind, kind)
    train.train_model(text, **flags)
    same_run(corpus / f'{kind}-of-two', corpus / kind, 3)
    before, after = (weights(corpus / name) for name in ('base', kind))
    same = [name for name in after if name in before and before[name].shape == after[name].shape
            and (before[name] == after[name]).all()]  # fmt: skip
    assert ('model/wte' in same) and 'model/h0/mlp/c_fc/w' not in same
