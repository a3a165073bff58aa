import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from example_models import BUNDLED, HERE, REPOSITORY
from running import help_names_every_flag_and_no_other

from gpt2.checkpoints import bundle
from gpt2.checkpoints.source import open_source
from gpt2.commands import train
from gpt2.errors import Error, UsageError
from gpt2.training import folder as folders
from gpt2.training import loop, run

HUGGING_FACE = HERE / 'huggingface' / 'tiny'
SCRIPT = REPOSITORY / 'src' / 'train.py'
TEXT = 'The cat sat on the mat. A dog ran after the cat, and the cat ran up a tall tree. ' * 60


def make_corpus(folder):
    for name in 'abc':
        (folder / f'{name}.txt').write_text(f'{name} ' + TEXT, encoding='utf-8')
    return folder


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / 'text').mkdir()
    make_corpus(tmp_path / 'text')
    return tmp_path


def losses(folder):
    return [json.loads(line)['loss'] for line in (folder / 'training.jsonl').read_text().splitlines()]


def test_a_run_that_is_interrupted_at_a_terminal_goes_on_with_the_same_losses(corpus):
    """Every save takes a while, in which the signal comes."""
    broken = corpus / 'models' / 'broken'
    where = ['--model_name', 'broken', '--models_dir', str(corpus / 'models')]
    shape = [f'--{flag}={value}' for flag, value in (SHAPE | {'steps': 12}).items()]
    command = [sys.executable, str(SCRIPT), str(corpus / 'text'), *where, *shape, '--log_every=1']
    log = broken / 'training.jsonl'
    with subprocess.Popen([*command, '--every=1']) as process:
        while not (log.exists() and log.read_text()):  # the first update
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    saved = json.loads(log.read_text().splitlines()[-1])['step']
    assert 0 < saved < 12 and (broken / f'model-{saved}.index').exists()
    done = subprocess.run([*command, '--every=12'], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '') and 'nats a token' in done.stderr
    whole = trained(corpus, 'whole', steps=12, every=12, log_every=1)
    assert losses(broken) == pytest.approx(losses(whole), rel=1e-5) and len(losses(whole)) == 12
    names = {path.name for path in broken.iterdir() if not path.name.startswith('t')}
    released = {'checkpoint', 'encoder.json', 'hparams.json', 'vocab.bpe', 'model.ckpt.index', 'model.ckpt.meta'}
    assert released | {'model.ckpt.data-00000-of-00001'} == {name for name in names if 'optimizer' not in name}


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


SHAPE = {'n_embd': 4, 'n_head': 1, 'n_layer': 1, 'n_ctx': 16, 'batch_size': 2}
WEIGHTS = ('hparams.json', 'encoder.json', 'vocab.bpe', 'model.ckpt.index', 'model-40.index', 'ckpt.pt', 'weights.gguf')


def trained(corpus, name='x', data=None, **flags):
    """Train in this process; the model's folder."""
    where = {'model_name': name, 'models_dir': str(corpus / 'models')}
    shape = {} if 'init_from' in flags else SHAPE
    train.train_model(*(data or [str(corpus / 'text')]), **where, **shape | flags)
    return corpus / 'models' / name


def fails(corpus, message, **flags):
    with pytest.raises(Error, match=message) as caught:
        trained(corpus, **flags)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 400
    return caught.value.status


def snapshot(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize('name', WEIGHTS)
def test_a_folder_that_holds_anything_of_a_model_is_never_written_over(corpus, name):
    folder = corpus / 'models' / 'x'
    folder.mkdir(parents=True)
    (folder / name).write_text('precious')
    assert fails(corpus, f'holds {name}.* choose another --model_name', steps=1) == 1
    assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == 'precious'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'seed': '99999999999999999999'}, '--seed is 99999999999999999999, expected at most 2147483647'),
        ({'n_head': 3}, 'n_embd 4 is not a multiple of n_head 3'),
        ({'init_from': '7M', 'n_embd': 64, 'vocabulary': 'nonsense'}, '--init_from 7M .* --vocabulary, --n_embd'),
        ({'steps': 3, 'epochs': 2}, '--steps and --epochs'),
        ({'warmup': 5, 'steps': 3}, '--warmup is 5'),
        ({'batch_size': 10_000}, 'training tokens do not fill a batch of 10000'),
        ({'vocabulary': 'nonsense'}, 'no vocabulary nonsense'),
        ({'sample_prompt': 'x'}, '--sample_prompt needs --sample_every'),
        ({'sample_prompt': 'x ' * 100, 'sample_every': 1}, '--sample_prompt has 20. tokens'),
        ({'freeze': '2'}, '--freeze is 2, the model has 1 blocks'),
        ({'freeze': 'heads'}, '--freeze is heads, expected embeddings, a number of blocks'),
        ({'optimizer': 'adam'}, "--optimizer is 'adam', expected adamw or adafactor"),
        ({'precision': 'int8'}, "--precision is 'int8', expected float32 or bfloat16 or float16"),
        ({'dropout': 1}, '--dropout is 1, expected a number of at least 0 and below 1'),
        ({'keep': 'all'}, "--keep is 'all', expected best, last or an integer"),
        ({'held_out_data': ['nothing.txt']}, 'no text file at nothing.txt'),
        ({'text_field': 'body', 'data': ['a.jsonl']}, 'line 1: the field body is not there'),
    ],
)
def test_a_refused_run_leaves_nothing(corpus, monkeypatch, flags, message):
    monkeypatch.chdir(corpus)
    (corpus / 'a.jsonl').write_text('{"text": "x"}')
    (corpus / 'models').mkdir()
    shape = {} if 'init_from' in flags else SHAPE
    with pytest.raises(Error, match=message) as caught:
        train.train_model(str(corpus / 'text'), model_name='x', models_dir='models', **shape | flags)
    assert '\n' not in str(caught.value)
    assert list((corpus / 'models').iterdir()) == []


def test_a_model_with_another_number_of_tokens_than_its_shape_says_is_refused_first(corpus):
    folder = shutil.copytree(BUNDLED, corpus / 'models' / 'wrong')
    hparams = json.loads((folder / 'hparams.json').read_text())
    (folder / 'hparams.json').write_text(json.dumps(hparams | {'n_vocab': hparams['n_vocab'] - 1}))
    fails(corpus, 'n_vocab|does not fit', init_from='wrong', steps=1)
    assert not (corpus / 'models' / 'x').exists()


def test_a_finished_run_goes_on_with_more_steps_as_one_that_was_never_finished(corpus):
    folder = trained(corpus, steps=4, every=2)
    assert (folder / 'model.ckpt.index').exists()
    assert json.loads((folder / 'training.json').read_text())['done'] == 4
    files = snapshot(folder)
    trained(corpus, steps=4)  # nothing is left to do
    assert snapshot(folder) | {'training.png': 0} == files | {'training.png': 0}
    trained(corpus, steps=6, every=2)
    entries = [json.loads(line) for line in (folder / 'training.jsonl').read_text().splitlines()]
    assert [entry['step'] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert (folder / 'model.ckpt.index').exists() and not list(folder.glob('model-*'))
    assert float(optimizer_state(folder)['optimizer/iteration']) == 6


def optimizer_state(folder):
    prefix = str(folder / 'model.ckpt.optimizer')
    return dict(bundle.read_values(prefix, {'optimizer/iteration': []}))


def stopped(corpus, monkeypatch, number, at=3, **flags):
    """A run in which a signal comes during an update; its folder."""
    update = loop.learning_rate

    def and_a_signal(settings, step):
        if step == at - 1 and not came:
            came.append(step)
            signal.raise_signal(number)
        return update(settings, step)

    came = []
    monkeypatch.setattr(loop, 'learning_rate', and_a_signal)
    folder = trained(corpus, **flags)
    monkeypatch.undo()
    return folder


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'])
def test_a_signal_saves_first_and_then_has_its_usual_effect(corpus, monkeypatch, name):
    taken, number = [], getattr(signal, name)
    previous = signal.signal(number, lambda *_: taken.append(name))
    try:
        folder = stopped(corpus, monkeypatch, number, steps=8, every=100)
    finally:
        signal.signal(number, previous)
    assert taken == [name] and (folder / 'model-3.index').exists()


def test_a_signal_that_is_ignored_stays_so(corpus, monkeypatch):
    """As Ctrl-C is by what a script starts in the background."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        folder = stopped(corpus, monkeypatch, signal.SIGINT, steps=4, every=100, log_every=1)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)
    assert len(losses(folder)) == 4


def interrupted(corpus, monkeypatch, **flags):
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        return stopped(corpus, monkeypatch, signal.SIGTERM, **{'steps': 8, 'every': 100} | flags)
    finally:
        signal.signal(signal.SIGTERM, previous)


def weights_of(folder):
    return open_source(str(folder)).digest()


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(corpus, monkeypatch):
    data = [f'{corpus}/text/a.txt:1->0', f'{corpus}/text/b.txt:2']
    folder = interrupted(corpus, monkeypatch, data=data, name='broken')
    trained(corpus, 'broken', data, every=100)  # the steps are as they were
    whole = trained(corpus, 'whole', data, steps=8, every=3)
    assert weights_of(folder) == weights_of(whole)


@pytest.mark.parametrize('flags', [
    {'optimizer': 'adafactor', 'accumulate': 2, 'dropout': 0.2}, {'optimizer': 'lion', 'freeze': 'embeddings'},
    {'precision': 'float16', 'recompute': True},
])  # fmt: skip
def test_so_does_one_of_any_optimizer_and_with_dropout(corpus, monkeypatch, flags):
    folder = interrupted(corpus, monkeypatch, name='broken', **flags)
    trained(corpus, 'broken', every=100, log_every=1)
    whole = trained(corpus, 'whole', steps=8, **flags)
    assert weights_of(folder) == weights_of(whole) and losses(folder)[-1] == losses(whole)[-1]


def test_a_run_that_was_found_faster_compiled_stays_so(corpus, monkeypatch, capsys):
    monkeypatch.setattr(run, 'WORTH_A_TRIAL', 0)
    monkeypatch.setattr(run, 'faster_compiled', lambda *_: True)
    folder = trained(corpus, steps=1)
    assert 'warm-up 0, compiled by XLA' in capsys.readouterr().err
    monkeypatch.setattr(run, 'faster_compiled', None)
    trained(corpus, steps=2)
    assert json.loads((folder / 'training.json').read_text())['jit_compile'] is True
    assert fails(corpus, 'was trained with jit_compile True, now it is False', jit_compile=False) == 2


def test_layers_that_are_computed_again_are_not_compiled_unasked(corpus, monkeypatch):
    monkeypatch.setattr(run, 'WORTH_A_TRIAL', 0)
    monkeypatch.setattr(run, 'faster_compiled', None)
    folder = trained(corpus, steps=1, recompute=True)
    assert json.loads((folder / 'training.json').read_text())['jit_compile'] is False


def test_a_short_run_tries_no_compiler(corpus, monkeypatch):
    monkeypatch.setattr(run, 'faster_compiled', None)
    folder = trained(corpus, steps=1)
    assert json.loads((folder / 'training.json').read_text())['jit_compile'] is False


def test_a_lost_state_file_is_no_loss(corpus, monkeypatch):
    folder = interrupted(corpus, monkeypatch)
    (folder / 'checkpoint').unlink()
    trained(corpus, steps=8)
    assert json.loads((folder / 'training.jsonl').read_text().splitlines()[-1])['step'] == 8
    assert weights_of(folder) == weights_of(trained(corpus, 'whole', steps=8))


def test_a_damaged_run_is_one_line_that_helps(corpus, monkeypatch):
    folder = interrupted(corpus, monkeypatch)
    for name, message in (
        ('training.json', r'training\.json cannot be read .* --init_from .*models/x and another --model_name'),
        ('model-3.optimizer.index', r'optimizer\.index is lost.* --init_from .*models/x and another --model_name'),
        ('model-3.index', 'names a checkpoint that is not there'),
    ):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-5]) if name == 'training.json' else (folder / name).unlink()
        before = snapshot(folder)
        fails(corpus, message, steps=8)
        assert snapshot(folder) == before
        (folder / name).write_bytes(content)
    [ids] = folder.glob('tokens-*/ids')
    ids.write_bytes(ids.read_bytes()[:-1])
    trained(corpus, steps=8)  # encoded again


def test_flags_that_contradict_the_run_are_refused(corpus, monkeypatch):
    folder = interrupted(corpus, monkeypatch)
    before = snapshot(folder)
    for flags in ({'learning_rate': 0.1}, {'seed': 2}, {'pack': True}, {'held_out': 0.5}):
        [(name, value)] = flags.items()
        assert fails(corpus, f'was trained with {name} .*, now it is {value}', **flags) == 2
    with pytest.raises(UsageError, match='was trained with init_from None, now it is 7M'):
        trained(corpus, init_from='7M')
    (corpus / 'text' / 'a.txt').write_text('Other text. ' * 300)
    fails(corpus, 'was trained with tokens')
    assert {name: time for name, time in snapshot(folder).items() if not name.startswith('tokens-')} == {
        name: time for name, time in before.items() if not name.startswith('tokens-')
    }


def test_a_second_run_in_a_folder_is_refused_while_the_first_lives(corpus):
    with folders.held(str(corpus / 'models' / 'x')):
        assert fails(corpus, 'another run is training in .*models/x', steps=1) == 1
    trained(corpus, steps=1)


def test_more_than_one_checkpoint_stays_when_asked_for(corpus):
    folder = trained(corpus, steps=10, every=2, keep='3')
    assert sorted(path.stem for path in folder.glob('model*.meta')) == ['model-6', 'model-8', 'model.ckpt']


def falling_then_rising(monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5, 2.0, 4.0])
    monkeypatch.setattr(loop, 'make_evaluate', lambda *_: lambda batch: next(losses))


def test_the_best_checkpoint_is_kept_and_is_the_model_at_the_end(corpus, monkeypatch):
    falling_then_rising(monkeypatch)
    folder = trained(corpus, steps=10, every=2, keep='best')
    assert [path.stem for path in folder.glob('model*.meta')] == ['model-4']
    assert 'model-4' in (folder / 'checkpoint').read_text()
    assert open_source(str(folder)).digest()


def test_the_best_checkpoint_is_one_that_is_there(corpus, monkeypatch):
    falling_then_rising(monkeypatch)
    trained(corpus, steps=4, every=2, keep='last')
    folder = trained(corpus, steps=10, every=2, keep='best')  # 1.0 after four updates, then 2.0, 2.5, 2.0
    assert [path.stem for path in folder.glob('model*.meta')] == ['model-6']
    assert open_source(str(folder)).digest()


def test_a_run_ends_when_patience_does(corpus, monkeypatch, capsys):
    falling_then_rising(monkeypatch)
    folder = trained(corpus, steps=100, every=2, patience=2)
    entries = [json.loads(line) for line in (folder / 'training.jsonl').read_text().splitlines()]
    assert entries[-1]['step'] == 8 and (folder / 'model.ckpt.index').exists()
    assert '\nended after 8 updates: no lower held-out loss in 2 evaluations\n' in capsys.readouterr().err


def test_a_redirected_run_says_what_it_will_do_what_it_does_and_what_it_did(corpus, capsys, monkeypatch):
    monkeypatch.setattr(train.progress, 'shown', False)
    folder = trained(corpus, data=[str(corpus / 'text' / 'a.txt')], steps=4, every=4, log_every=2, sample_every=4,
                     sample_prompt='The cat')  # fmt: skip
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ''
    assert lines[0] == f'{folder}: 0.0M parameters, from fresh weights'
    assert re.fullmatch(r'text: 1 document, [\d,]+ tokens; [\d,]+ tokens held out', lines[1])
    assert lines[2].startswith('4 updates, each of 2 windows of 16 tokens: ')
    assert re.fullmatch(r'about .* and [\d.]+ GB of memory; .*', lines[3])
    number = r'[\d.,e-]+'
    assert re.fullmatch(rf'step 2 of 4: loss {number}, rate {number}, {number} tokens/s, .* left', lines[4])
    assert re.fullmatch(rf'step 4 of 4: loss {number}, held-out {number}, rate {number}, {number} tokens/s', lines[5])
    assert 'The cat' in err and 'nats a token' in err
    assert f'saved {folder}/model.ckpt' in err and f'--model_name {folder}' in lines[-1]


def test_the_line_after_a_stop_says_that_it_saved_and_how_to_go_on(corpus, monkeypatch, capsys):
    folder = interrupted(corpus, monkeypatch)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'stopped after 3 updates; saved {folder}/model-3. The same command goes on from there'
    )


def test_held_out_data_of_ones_own(corpus, capsys):
    (corpus / 'held.txt').write_text('The cat sat. ' * 20)
    folder = trained(corpus, held_out_data=[str(corpus / 'held.txt')], steps=1)
    assert 'text: 3 documents' in capsys.readouterr().err
    assert 'held_out_loss' in (folder / 'training.jsonl').read_text()


def test_prompts_and_completions_train_packed(corpus):
    rows = [{'prompt': f'What is {n}?', 'completion': f' A number {n}.'} for n in range(40)]
    (corpus / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    folder = trained(corpus, data=[str(corpus / 'a.jsonl')], steps=2, pack=True, window=16)
    assert json.loads((folder / 'training.json').read_text())['pack'] is True


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
    assert trained.encoder.added == first.encoder.added
    assert trained.encoder.end_of_text == first.encoder.end_of_text
    for name, value in first.values():
        np.testing.assert_allclose(trained.value(name), value, atol=1e-7)
